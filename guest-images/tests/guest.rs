//! From package to running guest: a stock kernel, modules built here, the archive and its init script, booted in plain QEMU.
//!
//! Needs the kernel in the cache or the network, a compiler, and QEMU; a missing one fails the test with the name of the package.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dmavet_images::cache::Cache;
use dmavet_images::initramfs::{Image, ImageError};
use dmavet_images::kernel::{KernelFiles, kernel};
use dmavet_images::modinfo;
use dmavet_images::module::{BuildError, ModuleSource, build};

const MODULE: &str = "#include <linux/module.h>\n\
    static int fail, answer;\nmodule_param(fail, int, 0);\nmodule_param(answer, int, 0444);\n\
    static int __init t_init(void) { return fail ? -EIO : 0; }\nstatic void __exit t_exit(void) { }\n\
    module_init(t_init);\nmodule_exit(t_exit);\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"t\");\n";

struct Bench {
    dir: tempfile::TempDir,
    cache: Cache,
    kernel: KernelFiles,
    agent: PathBuf,
    module: PathBuf,
}

fn source(dir: &Path, name: &str, text: &str) -> ModuleSource {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("Kbuild"), format!("obj-m := {name}.o\n")).unwrap();
    std::fs::write(dir.join(format!("{name}.c")), text).unwrap();
    ModuleSource::from_dir(name, &dir).unwrap()
}

impl Bench {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(None).unwrap_or_else(|e| panic!("{e}"));
        let observer = |step| println!("{step}");
        let kernel = kernel(&cache, &name.parse().unwrap(), false, &observer).unwrap_or_else(|e| panic!("{e}"));
        let compile = |name, text| {
            let mut source = source(dir.path(), name, text);
            source.origin = format!("tests/{name}");
            build(&cache, &kernel, &source, &observer).unwrap_or_else(|e| panic!("{e}")).guest_ko
        };
        let agent = compile("dmavet_agent", include_str!("fake_agent.c"));
        let module = compile("t", MODULE);
        Self { dir, cache, kernel, agent, module }
    }

    fn image(&self) -> Image<'_> {
        Image::new(&self.cache, &self.kernel, &self.agent, &|_| ()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Boots the archive and gives what the stand-in agent and init's last words say, in order.
    fn boot(&self, image: &Image<'_>) -> Vec<String> {
        let archive = self.dir.path().join("initrd");
        image.write(std::fs::File::create(&archive).unwrap()).unwrap();
        let output = Command::new("timeout")
            .args(["120", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,-cx16", "-smp", "1", "-m", "512", "-nodefaults"])
            .args(["-display", "none", "-no-reboot", "-serial", "stdio", "-append", "console=ttyS0 panic=-1 quiet"])
            .arg("-kernel")
            .arg(&self.kernel.vmlinux)
            .arg("-initrd")
            .arg(&archive)
            .stdin(Stdio::null())
            .output()
            .expect("this test needs qemu-system-x86_64 (package qemu-system-x86)");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        ["AGENT: ", "OUT: ", "dmavet-init: "]
            .iter()
            .fold(Vec::new(), |mut found, mark| {
                found.extend(text.match_indices(mark).map(|(at, _)| at));
                found.sort_unstable();
                found
            })
            .into_iter()
            .map(|at| text[at..].lines().next().unwrap_or_default().trim_end().to_owned())
            .collect()
    }
}

#[test]
fn a_guest_runs_its_workload_and_tells_every_step() {
    let bench = Bench::new("debian:6.1");
    let mut image = bench.image();
    image.in_tree(&["virtio_blk".into()], &[]).unwrap();
    image.module(&bench.module, &["answer=42".into()]).unwrap();
    image.host_path(bench.dir.path().join("t").as_path(), "/data/t").unwrap();
    image.workload(b"cat /sys/module/t/parameters/answer; ls /data/t; echo err >&2; sleep 100 & exit 7\n");
    let names = image.module_names();
    assert_eq!(names.last(), Some(&"t"));
    assert!(names.iter().position(|n| *n == "virtio_ring") < names.iter().position(|n| *n == "virtio_blk"));
    let expected = [
        "AGENT: phase agent",
        "AGENT: phase modules",
        "AGENT: phase workload",
        "OUT: 42",
        "OUT: Kbuild",
        "OUT: err",
        "AGENT: exit 7",
        "AGENT: phase teardown",
        "AGENT: end",
    ];
    assert_eq!(bench.boot(&image), expected);
}

#[test]
fn a_module_that_does_not_load_is_told_with_the_reason() {
    let bench = Bench::new("debian:6.1");
    let mut image = bench.image();
    image.module(&bench.module, &["fail=1".into()]).unwrap();
    let said = bench.boot(&image);
    assert!(said[2].starts_with("AGENT: fail t: ") && said[2].contains("insmod"), "{said:?}");
    assert_eq!(said.last().unwrap(), "AGENT: end");
    assert!(!said.iter().any(|l| l.contains("workload")), "{said:?}");
}

#[test]
fn an_agent_that_does_not_load_ends_the_guest_with_a_word_on_the_console() {
    let mut bench = Bench::new("debian:6.1");
    bench.agent = bench.module.clone();
    let said = bench.boot(&bench.image());
    assert_eq!(said, ["dmavet-init: the agent module made no /dev/dmavet"]);
}

#[test]
fn results_are_reproducible_and_carry_lines_of_the_users_names() {
    let bench = Bench::new("debian:6.1");
    let (mut a, mut b) = (Vec::new(), Vec::new());
    bench.image().write(&mut a).unwrap();
    bench.image().write(&mut b).unwrap();
    assert!(a == b, "two archives of the same contents differ");
    let fresh = tempfile::tempdir().unwrap();
    let source = source(fresh.path(), "t", MODULE);
    let built = build(&bench.cache, &bench.kernel, &source, &|_| ()).unwrap();
    let contents = std::fs::read(&built.ko).unwrap();
    let shown = format!("{}/t/t.c", std::fs::canonicalize(fresh.path()).unwrap().display());
    let has = |text: &str| contents.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(has(&shown), "no {shown} in the line tables");
    assert!(!has("tmp/build-"), "the place of the build shows in the module");
    assert!(std::fs::metadata(&built.guest_ko).unwrap().len() < contents.len() as u64 / 2);
    assert!(modinfo::vermagic(&contents).unwrap().starts_with(&bench.kernel.release));
}

#[test]
fn a_compile_error_shows_the_compilers_own_lines() {
    let bench = Bench::new("debian:6.1");
    let broken = source(bench.dir.path(), "broken", "#include <linux/module.h>\nint x = nonsense;\n");
    let error = build(&bench.cache, &bench.kernel, &broken, &|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BuildError::Compile { .. }), "{text}");
    assert!(text.contains("broken/broken.c:2:9: error: ") && text.contains("nonsense") && !text.contains("tmp/build-"), "{text}");
    let misnamed = source(bench.dir.path(), "u", MODULE).with_file("Kbuild", "obj-m := v.o\n").with_file("v.c", MODULE);
    let error = build(&bench.cache, &bench.kernel, &misnamed, &|_| ()).unwrap_err();
    assert!(error.to_string().contains("made no u.ko; it made: v.ko"), "{error}");
}

#[test]
fn a_module_of_another_kernel_is_refused_before_any_boot() {
    let bench = Bench::new("debian:6.1");
    let mut other = bench.kernel.clone();
    other.release = "6.12.0-other".into();
    let error = Image::new(&bench.cache, &other, &bench.agent, &|_| ()).unwrap_err();
    assert!(matches!(error, ImageError::Module(_)) && error.to_string().contains("6.12.0-other"), "{error}");
}

/// The newer kernels: everything fetched, a module built with the suite's own tools, loaded and run.
#[test]
fn newer_kernels_work_the_same() {
    for name in ["debian:6.12", "debian:7.2"] {
        let bench = Bench::new(name);
        let mut image = bench.image();
        image.in_tree(&["virtio_blk".into()], &[]).unwrap();
        image.module(&bench.module, &[]).unwrap();
        image.workload(b"uname -r\n");
        let said = bench.boot(&image);
        assert_eq!(said.last().unwrap(), "AGENT: end", "{name}: {said:?}");
        assert!(said.contains(&format!("OUT: {}", bench.kernel.release)), "{name}: {said:?}");
    }
}
