//! The whole road on a crate of a few lines.

use super::*;

const MANIFEST: &str = "[workspace]\nmembers = [\"toy\"]\n[workspace.package]\nedition = \"2024\"\n[profile.dev]\nopt-level = 0\n";
const TOY: &str = r#"
#![forbid(unsafe_code)]
mod limit;
pub use limit::Limit;

/// Whether a number is in a range; nothing tests its lower end.
pub fn inside(n: u8) -> bool {
    n < 10 && n > 2
}

pub fn never_called() -> u8 {
    7
}

pub fn count_down(mut n: u8) -> u8 {
    while n > 0 {
        n -= 1;
    }
    n
}

pub fn words() -> Vec<std::thread::Thread> {
    vec![std::thread::current()]
}

pub fn rare(n: u32) -> bool {
    n == 1000
}

const LIMIT: Limit = Limit::new(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert!(inside(9));
        assert!(!inside(10));
        assert!(!inside(200));
    }

    #[test]
    fn counts() {
        assert_eq!(count_down(3), 0);
        assert_eq!(words().len(), 1);
    }

    #[test]
    fn property() {
        let cases = std::env::var("PROPTEST_CASES").map_or(2000, |cases| cases.parse().unwrap());
        assert!((0..cases).all(|n| rare(n) == (n == 1000)));
    }

    #[test]
    fn limits() {
        assert_eq!(LIMIT.next(), 4);
    }
}
"#;
const LIMIT: &str = r#"
pub struct Limit(u8);
impl Limit {
    pub const fn new(n: u8) -> Self {
        Self(n + 0)
    }
    pub const fn next(&self) -> u8 {
        self.0 + 1
    }
}
"#;

fn toy() -> (tempfile::TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("toy-space");
    fs::create_dir_all(root.join("toy/src")).unwrap();
    fs::write(root.join("Cargo.toml"), MANIFEST).unwrap();
    fs::write(root.join("toy/Cargo.toml"), "[package]\nname = \"toy\"\nedition.workspace = true\n").unwrap();
    fs::write(root.join("toy/src/lib.rs"), TOY).unwrap();
    fs::write(root.join("toy/src/limit.rs"), LIMIT).unwrap();
    let work = folder.path().join("work");
    fs::create_dir_all(&work).unwrap();
    let project = Project { root, folder: "toy".to_owned(), unchanged: Vec::new(), work };
    (folder, project)
}

#[test]
fn a_small_crate_from_its_source_to_the_fates_of_its_changes() {
    let (_folder, project) = toy();
    let built = project.build().unwrap();
    let all: Vec<&Mutant> = built.mutants.iter().collect();
    let fates = attempt(&project, &built, &all, &Options::default(), &|_, _, _| Ok(())).unwrap();
    assert_eq!(fates.len(), built.mutants.len());
    let fate = |key: &str| *fates.get(key).unwrap_or_else(|| panic!("{key:?} is none of {:#?}", fates.keys()));
    assert_eq!(fate("src/lib.rs: inside: replace < with <="), Fate::Caught);
    assert_eq!(fate("src/lib.rs: inside: replace > with >="), Fate::Missed, "no test is near the lower end");
    assert_eq!(fate("src/lib.rs: inside: replace && with ||"), Fate::Caught);
    assert_eq!(fate("src/lib.rs: never_called: replace the body with 0"), Fate::Missed);
    assert_eq!(fate("src/lib.rs: rare: replace the body with false"), Fate::Caught, "by a property test with all its cases");
    assert_eq!(fate("src/lib.rs: count_down: replace -= with /="), Fate::Hung, "three divided by one is three");
    assert_eq!(fate("src/lib.rs: words: replace the body with vec![]"), Fate::Caught);
    assert_eq!(fate("src/limit.rs: Limit::next: replace + with -"), Fate::Caught, "the word const can be left out");
    assert!(!fates.keys().any(|key| key.contains("Limit::new")), "a constant needs it");
    assert!(!fates.keys().any(|key| key.contains("vec![Default")), "a thread has no default");
    assert!(built.unviable > 0);

    let again = project.build().unwrap();
    assert_eq!((again.mutants, again.unviable), (built.mutants, built.unviable), "what was learnt is remembered");
}

#[test]
fn a_test_that_fails_by_itself_ends_the_search() {
    let (_folder, project) = toy();
    fs::write(project.root.join("toy/src/limit.rs"), LIMIT.replace("self.0 + 1", "self.0 + 2")).unwrap();
    let built = project.build().unwrap();
    let error = attempt(&project, &built, &[], &Options::default(), &|_, _, _| Ok(())).unwrap_err();
    assert!(error.starts_with("tests::limits fails without any change"), "{error}");
}

#[test]
fn options_are_read_and_checked() {
    let parse = |text: &str| Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let all = parse("--list --file map --shard 2/3 --jobs 4 --missed").unwrap();
    assert_eq!((all.file.as_deref(), all.shard, all.jobs, all.list, all.missed), (Some("map"), Some((2, 3)), Some(4), true, true));
    for wrong in ["--shard 0/3", "--shard 4/3", "--shard x", "--jobs 0", "--jobs", "--cases -1", "--what", "--check --file x"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    let mutant = |file: &str| Mutant { number: 1, file: file.to_owned(), line: 1, key: format!("{file}: f: x") };
    let last = Outcome { fates: BTreeMap::from([("map.rs: f: x".to_owned(), Fate::Caught)]), unviable: 0 };
    assert!(parse("--shard 2/3 --file map").unwrap().wants(4, &mutant("map.rs"), &last));
    assert!(!parse("--shard 2/3").unwrap().wants(5, &mutant("map.rs"), &last));
    assert!(!parse("--missed").unwrap().wants(0, &mutant("map.rs"), &last));
    assert!(parse("--missed").unwrap().wants(0, &mutant("new.rs"), &last));
}
