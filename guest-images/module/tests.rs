//! Parts that need no headers; the real builds are in `tests/guest.rs`.

use super::*;

fn kernel(headers: Option<PathBuf>) -> KernelFiles {
    KernelFiles::for_tests("6.1.0-56-cloud-amd64", headers)
}

#[test]
fn a_directory_becomes_a_source_without_its_objects() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("Makefile", "obj-m := t.o\n"), ("t.c", ""), ("t.o", ""), ("t.mod.c", ""), (".t.o.cmd", ""), ("sub/x.h", "")] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let source = ModuleSource::from_dir("t", dir.path()).unwrap();
    let names: Vec<_> = source.files().keys().map(|p| p.display().to_string()).collect();
    assert_eq!(names, ["Makefile", "sub/x.h", "t.c"]);
    fs::remove_file(dir.path().join("Makefile")).unwrap();
    assert!(ModuleSource::from_dir("t", dir.path()).unwrap_err().to_string().contains("obj-m"));
}

#[test]
fn an_unknown_variant_lists_those_there_are() {
    let error = ModuleSource::ncdma_variant("no-such").unwrap_err().to_string();
    assert!(error.contains("no-such") && error.contains("correct"), "{error}");
}

#[test]
fn every_variant_applies() {
    for variant in crate::sources::variants() {
        ModuleSource::ncdma().with_variant(&variant).unwrap_or_else(|e| panic!("{}: {e}", variant.name));
    }
}

#[test]
fn no_headers_and_bad_places_are_told_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(dir.path())).unwrap();
    let source = ModuleSource::ncdma();
    assert!(matches!(build(&cache, &kernel(None), &source, &|_| ()), Err(BuildError::NoHeaders(_))));
    let cache = Cache::open(Some(&dir.path().join("a b"))).unwrap();
    let error = build(&cache, &kernel(Some(dir.path().into())), &source, &|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::BadPath(_)), "{error}");
}

#[test]
fn compiler_lines_carry_the_users_file_names() {
    let mut source = ModuleSource::ncdma();
    source.origin = "my/driver".into();
    let said = "/c/tmp/b/src/t.c:3:1: error: x\nmake[1]: *** boo\n/c/tmp/b/src/t.c:4: note: y\n";
    let text = readable(said, Path::new("/c/tmp/b/src"), &source, |l| !l.starts_with("make"));
    assert_eq!(text, "  my/driver/t.c:3:1: error: x\n  my/driver/t.c:4: note: y");
    let long = "e\n".repeat(100);
    assert!(readable(&long, Path::new("/x"), &source, |_| true).ends_with("... 60 more lines"));
}
