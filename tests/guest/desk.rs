//! What lies on a developer's desk: a kernel's build tree, a file of targets, a baseline.

use crate::tool::{Ran, build, command, dmavet, findings, lab};
use dmavet_images::cache::Cache;
use dmavet_images::kernel::{KernelFiles, KernelSpec, kernel};
use dmavet_images::module::ModuleSource;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn stock() -> KernelFiles {
    kernel(&Cache::open(None).expect("cache"), &KernelSpec::default(), false, &|_| ()).expect("debian:6.1")
}

/// A tree as `make O=DIR` leaves it: the distribution's image and headers, and the reference driver as a module of the kernel's own. Always
/// at the same place: modules built against it are found in the cache again.
fn build_tree(name: &str, config: impl Fn(String) -> String) -> PathBuf {
    let kernel = stock();
    let headers = kernel.headers.as_deref().expect("headers");
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("arch/x86/boot")).expect("tree");
    fs::create_dir_all(root.join("drivers/misc")).expect("tree");
    let link = |from: &Path, to: &Path| symlink(fs::canonicalize(from).expect("a file of the headers"), to).expect("a link");
    for part in ["Module.symvers", "include", "scripts", "tools", ".kernelvariables"] {
        link(&headers.join(part), &root.join(part));
    }
    for entry in fs::read_dir(headers.join("arch/x86")).expect("arch/x86") {
        let entry = entry.expect("entry");
        link(&entry.path(), &root.join("arch/x86").join(entry.file_name()));
    }
    link(&kernel.bzimage, &root.join("arch/x86/boot/bzImage"));
    // The makefile of such a tree includes that of the sources.
    let makefile = fs::read_to_string(headers.join("Makefile")).expect("Makefile");
    let sources = headers.parent().expect("a folder").display().to_string();
    fs::write(root.join("Makefile"), makefile.replace("$(DMAVET_SRC)", &sources)).expect("Makefile");
    fs::write(root.join(".config"), config(fs::read_to_string(headers.join(".config")).expect(".config"))).expect(".config");
    fs::copy(build(&ModuleSource::ncdma()).ko, root.join("drivers/misc/ncdma.ko")).expect("ncdma.ko");
    fs::write(root.join("modules.order"), "drivers/misc/ncdma.o\n").expect("modules.order");
    root
}

fn run_in(dir: &Path, args: &[&str]) -> Ran {
    command([&["run"], args].concat()).current_dir(dir).output().expect("dmavet starts").into()
}

#[test]
fn targets_share_a_lab_and_a_baseline_accepts_what_is_known() {
    let _lab = lab();
    let tree = build_tree("linux", |config| config);
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = format!(
        "[defaults]\ncommand = [\"sh\", \"-c\", \"echo copy > $(echo /sys/kernel/debug/ncdma/*/selftest)\"]\n\n\
         [target.tree]\nkernel = {tree:?}\nmodule = \"ncdma\"\ndevice = \"ncdma\"\n\n\
         [target.known]\nmodule = [\"ref:ncdma/unmap-size\"]\nbaseline = \"known.toml\"\n\n\
         [target.new]\nmodule = [\"ref:ncdma/unmap-size\"]\nbaseline = \"expired.toml\"\n"
    );
    fs::write(dir.path().join("dmavet.toml"), file).expect("dmavet.toml");
    let suppress =
        |expires: &str| format!("[[suppress]]\ncode = \"DV102\"\ndriver = \"ncdma\"\nreason = \"a test\"\nexpires = {expires}\n");
    let gone = "[[known]]\ncode = \"DV105\"\ndriver = \"ncdma\"\nfunction = \"gone\"\nfile = \"ncdma.c\"\n";
    fs::write(dir.path().join("known.toml"), format!("version = 1\n{gone}{}", suppress("2999-12-31"))).expect("known.toml");
    fs::write(dir.path().join("expired.toml"), format!("version = 1\n{}", suppress("2020-01-31"))).expect("expired.toml");

    let dry = run_in(dir.path(), &["--dry-run", "--target", "tree"]);
    assert_eq!((dry.code, dry.stderr.as_str()), (0, ""), "{}", dry.all());
    for part in [
        "target tree:",
        "Linux 6.1.",
        "arch/x86/boot/bzImage",
        "drivers/misc/ncdma.ko",
        "device     ncdma",
        "echo copy >",
        "dmavet run --device ncdma --kernel ",
    ] {
        assert!(dry.stdout.contains(part), "no {part:?}: {}", dry.all());
    }
    assert!(!dir.path().join("dmavet-runs").exists(), "nothing was made");

    let ran = run_in(dir.path(), &["--run-dir", "out", "-q"]);
    assert_eq!(ran.code, 1, "the worst of 0, 0 and 1: {}", ran.all());
    assert_eq!(ran.stderr, "", "-q");
    let result = |name: &str| findings(&dir.path().join("out").join(name));
    assert_eq!(result("tree")["verdict"]["exit_code"], 0, "{}", ran.all());
    assert!(result("tree")["coverage"][0]["module"] == "ncdma", "{}", ran.all());
    let known = result("known");
    assert_eq!((&known["verdict"]["exit_code"], &known["verdict"]["accepted"]), (&0.into(), &1.into()), "{}", ran.all());
    assert_eq!(known["verdict"]["reason"], "clean: no new findings, 1 accepted");
    let accepted = known["findings"].as_array().expect("findings").iter().find(|f| f["code"] == "DV102").expect("it is still told");
    assert_eq!(accepted["accepted"]["reason"], "a test");
    assert_eq!(known["baseline"]["unmatched"][0], "DV105 driver ncdma function gone file ncdma.c");
    let new = result("new");
    assert_eq!((&new["verdict"]["exit_code"], &new["verdict"]["errors"]), (&1.into(), &1.into()), "{}", ran.all());
    assert!(new["baseline"]["expired"][0].as_str().is_some_and(|entry| entry.contains("a test (until 2020-01-31)")), "{}", ran.all());
    for line in ["--- tree ---", "  0  tree ", "  0  known ", "  1  new ", "No longer found in ", "Expired in "] {
        assert!(ran.stdout.contains(line), "no {line:?}: {}", ran.all());
    }

    // What a run found, as a baseline, accepts just that.
    let report = dmavet(["report".as_ref(), dir.path().join("out/new").as_os_str(), "--format".as_ref(), "baseline".as_ref()]);
    assert_eq!(report.code, 0, "{}", report.all());
    assert!(report.stdout.contains("[[known]]\ncode = \"DV102\"\ndriver = \"ncdma\"\n"), "{}", report.all());
}

#[test]
fn modules_and_drivers_are_looked_for_in_the_tree() {
    let tree = build_tree("linux-searched", |config| config);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("linux-root");
    let installed = root.join("lib/modules").join(stock().release);
    fs::create_dir_all(&installed).expect("a root");
    let (built, other) = (tree.join("drivers/misc/ncdma.ko"), "drivers/misc/other.ko");
    fs::copy(&built, installed.join("ncdma.ko")).expect("make modules_install");
    fs::rename(&built, tree.join(other)).expect("another name");
    let dry = |more: &[&str]| {
        let tree = tree.to_str().expect("UTF-8");
        dmavet([&["run", "--dry-run", "--kernel", tree], more, &["--", "true"]].concat())
    };
    let gone = dry(&["--module", "ncdma"]);
    assert!(gone.code == 2 && gone.stderr.contains("--module ncdma"), "{}", gone.all());
    let found = dry(&["--module", "ncdma", "--modules-dir", root.to_str().expect("UTF-8")]);
    assert!(found.code == 0 && found.stdout.contains(installed.join("ncdma.ko").to_str().expect("UTF-8")), "{}", found.all());
    let relative = dry(&["--module", other]);
    assert!(relative.code == 0 && relative.stdout.contains(tree.join(other).to_str().expect("UTF-8")), "{}", relative.all());
    let driver = dry(&["--device", "e1000"]);
    assert!(driver.code == 2 && driver.stderr.contains("no driver e1000: CONFIG_E1000 is not set"), "{}", driver.all());
}

#[test]
fn a_tree_that_cannot_be_a_guest_is_told_apart() {
    let tree = build_tree("linux-poor", |config| config.replace("CONFIG_PCI_MSI=y", "# CONFIG_PCI_MSI is not set"));
    let told = |tree: &Path| {
        let ran = dmavet(["run".as_ref(), "--dry-run".as_ref(), "--kernel".as_ref(), tree.as_os_str(), "--".as_ref(), "true".as_ref()]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{}", ran.all());
        ran.stderr
    };
    assert!(told(&tree).contains("CONFIG_PCI_MSI is not set: devices interrupt by MSI"), "{}", told(&tree));
    fs::remove_file(tree.join("arch/x86/boot/bzImage")).expect("bzImage");
    assert!(told(&tree).contains("build it (make)"), "{}", told(&tree));
    assert!(told(&tree.join("drivers")).contains("no kernel build tree"), "{}", told(&tree.join("drivers")));
}

#[test]
fn targets_that_are_wrong_are_told_before_anything_runs() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("dmavet.toml"), "[target.a]\nmodule = \"ref:ncdma\"\nmemoy = 64\n").expect("dmavet.toml");
    let ran = run_in(dir.path(), &[]);
    assert!(ran.code == 2 && ran.stderr.contains("dmavet.toml:3:1: unknown key \"memoy\""), "{}", ran.all());
    fs::write(dir.path().join("dmavet.toml"), "[target.a]\nmodule = \"ref:ncdma\"\n[target.b]\nmodule = \"ref:ncdma\"\n")
        .expect("dmavet.toml");
    let ran = run_in(dir.path(), &["--target", "c"]);
    assert!(ran.code == 2 && ran.stderr.contains("no target \"c\"; it has a, b"), "{}", ran.all());
    let ran = run_in(dir.path(), &["--format", "json"]);
    assert!(ran.code == 2 && ran.stderr.contains("--target"), "{}", ran.all());
    let ran = run_in(dir.path(), &["--dry-run", "--baseline", "nowhere.toml"]);
    assert!(ran.code == 2 && ran.stderr.contains("nowhere.toml") && ran.stderr.contains("--baseline-write"), "{}", ran.all());
    fs::write(dir.path().join("dmavet.toml"), "[target.a]\nmodule = \"ref:ncdma\"\n[target.b]\nmodule = \"ref:ncdma/nothing\"\n")
        .expect("dmavet.toml");
    let ran = run_in(dir.path(), &[]);
    assert!(ran.code == 2 && ran.stderr.contains("no variant nothing") && !dir.path().join("dmavet-runs").exists(), "{}", ran.all());
    fs::write(dir.path().join("dmavet.toml"), "[target.a]\nmodule = \"ref:ncdma\"\n[target.b]\nmodule = \"ref:ncdma\"\n")
        .expect("dmavet.toml");
    let ran = run_in(dir.path(), &["--baseline-write", "--target", "a"]);
    assert!(ran.code == 2 && ran.stderr.contains("--baseline FILE"), "{}", ran.all());
    let ran = dmavet(["compare", "/nowhere/old", "/nowhere/new"]);
    assert!(ran.code == 2 && ran.stderr.contains("/nowhere/old: there is no such file"), "{}", ran.all());
    let ran = run_in(dir.path(), &["--dry-run", "--cpus", "2"]);
    assert!(ran.code == 0 && ran.stdout.contains("target a:") && ran.stdout.contains("target b:"), "{}", ran.all());
    assert_eq!(ran.stdout.matches("--cpus 2").count(), 2, "{}", ran.all());
}
