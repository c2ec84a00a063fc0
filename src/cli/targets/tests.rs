//! Files of targets, and the options that win over them.

use super::*;

/// The runs of a file with these words typed.
fn read_at(path: &Path, text: &str, typed: &str) -> Result<Vec<Target>, String> {
    let matches = Line::command().try_get_matches_from(typed.split_whitespace()).unwrap_or_else(|e| panic!("{typed}: {e}"));
    File { path, text }.read(&given(&matches)).map_err(|e| e.to_string())
}

fn read(text: &str, typed: &str) -> Result<Vec<Target>, String> {
    read_at(Path::new("dmavet.toml"), text, typed)
}

const FILE: &str = r#"
[defaults]
kernel = "debian:6.12"
cpus = 2

[target.second]
module = ["a.ko", "ref:ncdma"]
device = "ncdma,mask=32"
command = ["sh", "-c", "true && -x"]
record = true
pedantic = false

[target.first]
cpus = 0x4
script = "t.sh"
append = ["-dash"]
"#;

#[test]
fn keys_are_the_options() {
    let targets = read(FILE, "").unwrap();
    let names: Vec<&str> = targets.iter().filter_map(|t| t.name.as_deref()).collect();
    assert_eq!(names, ["second", "first"], "in the order of the file");
    let (second, first) = (&targets[0].args, &targets[1].args);
    assert_eq!((second.kernel.as_str(), second.cpus, second.record, second.pedantic), ("debian:6.12", 2, true, false));
    assert_eq!((second.modules.join(" "), second.devices.join(" ")), ("a.ko ref:ncdma".into(), "ncdma,mask=32".into()));
    assert_eq!(second.command, ["sh", "-c", "true && -x"]);
    assert_eq!((first.cpus, first.script.as_deref(), first.append.join(" ")), (4, Some(Path::new("t.sh")), "-dash".into()));
    assert_eq!(targets[1].command.join(" "), "dmavet run --append=-dash --cpus 4 --kernel debian:6.12 --script t.sh");
}

#[test]
fn what_is_typed_wins() {
    let targets = read(FILE, "--cpus 3 --module b.ko --script other.sh -q").unwrap();
    for target in &targets {
        assert_eq!((target.args.cpus, target.args.modules.join(" ")), (3, "b.ko".into()), "a list is replaced, not made longer");
        assert_eq!(target.args.script.as_deref(), Some(Path::new("other.sh")));
        assert!(target.args.command.is_empty(), "a script stands in for a command");
    }
    assert_eq!(read(FILE, "-- true").unwrap()[1].args.command, ["true"]);
    assert_eq!(read(FILE, "--cpus 1").unwrap()[0].args.cpus, 1, "also with the value the option has by itself");
}

#[test]
fn a_mistake_is_told_where_it_stands() {
    for (text, place, word) in [
        ("[target.a]\nmodul = \"x\"\n", "dmavet.toml:2:1: ", "unknown key \"modul\""),
        ("[target.a]\n  cpus = 99\n", "dmavet.toml:2:10: ", "99 is not in 1..=16"),
        ("[target.a]\ncpus = true\n", "dmavet.toml:2:8: ", "cpus is a string or a number"),
        ("[target.a]\nrecord = 1\n", "dmavet.toml:2:10: ", "record is true or false"),
        ("[target.a]\nmodule = [\"x\", 1]\n", "dmavet.toml:2:16: ", "module is a list of strings"),
        ("[target.a]\ncommand = \"true\"\n", "dmavet.toml:2:11: ", "a list of words"),
        ("[target.a]\nquiet = true\n", "dmavet.toml:2:1: ", "quiet belongs on the command line"),
        ("[target.a]\nprofile = \"vax\"\n", "dmavet.toml:2:11: ", "possible values: arm64"),
        ("[target.a]\nhelp = true\n", "dmavet.toml:2:1: ", "unknown key"),
        ("\n[targets.a]\n", "dmavet.toml:2:2: ", "[target.NAME]"),
        ("[target.\"a/b\"]\n", "dmavet.toml:1:9: ", "a name has"),
        ("[target]\na = 1\n", "dmavet.toml:2:5: ", "a table"),
        ("[target.a\n", "dmavet.toml:1:10: ", ""),
        ("[target.a]\nscript = \"s\"\ncommand = [\"c\"]\n", "dmavet.toml:1:9: ", "cannot be used with"),
        ("[target.a]\nkernel = \"a\"\nkernel = \"b\"\n", "dmavet.toml:3:1: ", "duplicate"),
        ("", "dmavet.toml ", "no target"),
    ] {
        let told = read(text, "").err().unwrap_or_else(|| panic!("{text}: accepted"));
        assert!(told.starts_with(place) && told.contains(word) && !told.contains("Usage"), "{text}: {told}");
    }
}

#[test]
fn paths_are_meant_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.ko"), "").unwrap();
    let text = "[target.a]\nkernel = \"debian:6.1\"\nmodule = [\"x.ko\", \"e1000\"]\nscript = \"t.sh\"\ndevice = \"virtio-blk,file=disk,size=1\"\n";
    let args = &read_at(&dir.path().join("dmavet.toml"), text, "").unwrap()[0].args;
    let at = |name: &str| dir.path().join(name).display().to_string();
    assert_eq!(args.modules, [at("x.ko"), "e1000".to_owned()]);
    assert_eq!(args.script, Some(dir.path().join("t.sh")));
    assert_eq!((args.kernel.as_str(), args.devices.join(" ")), ("debian:6.1", format!("virtio-blk,file={},size=1", at("disk"))));
}

#[test]
fn every_option_is_a_key_or_named_as_none() {
    let command = Line::command();
    let keys: Vec<String> = command.get_arguments().map(key).collect();
    for name in NOT_KEYS.iter().chain(&WHAT) {
        assert!(keys.iter().any(|key| key == name), "{name} is no option any more");
    }
}

#[test]
fn the_examples_of_the_guide_are_read() {
    let guide = include_str!("../../../docs/guide.md");
    let examples: Vec<&str> = guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let with = |mark: &str| *examples.iter().find(|example| example.contains(mark)).unwrap_or_else(|| panic!("no example with {mark}"));
    let (targets, baseline) = (with("[target."), with("[[suppress]]"));
    let names: Vec<Option<String>> = read(targets, "").unwrap().into_iter().map(|target| target.name).collect();
    assert_eq!(names, [Some("plain".into()), Some("mips".into())]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known.toml");
    std::fs::write(&file, baseline).unwrap();
    let entries = crate::report::baseline::Baseline::load(&file, "2026-11-22").unwrap().entries;
    assert_eq!(entries.iter().map(|entry| entry.reason.is_some()).collect::<Vec<_>>(), [false, true]);
}
