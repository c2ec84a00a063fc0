//! Gathers machines to be measured and has [`inside`](crate::inside) run them: here where KVM works, else in one boot of the lab.

use crate::inside::{self, Job, Step, Taken};
use crate::lab::{self, LabEvent, LabJob, LabOptions, Stream};
use dmavet_images::cache::Cache;
use dmavet_images::cpio::Archive;
use dmavet_images::kernel::KernelFiles;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// What QEMU starts its guests with.
const FIRMWARE: [&str; 6] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/seabios/bios-microvm.bin",
    "/usr/share/qemu/bios-microvm.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/pvh.bin",
];
/// Guest RAM of every machine: what `dmavet run` gives.
const GUEST_MIB: u64 = 256;

/// Machines to be measured.
#[derive(Debug)]
pub struct Bed<'a> {
    binary: &'a Path,
    cache: &'a Cache,
    kernel: &'a KernelFiles,
    /// What is brought back.
    dir: PathBuf,
    job: Job,
    files: Vec<PathBuf>,
}

impl<'a> Bed<'a> {
    /// An empty one that works in `dir`, of which `binary` is the dmavet.
    pub fn new(binary: &'a Path, cache: &'a Cache, kernel: &'a KernelFiles, dir: &Path) -> Self {
        let job = Job { results: dir.join("results.json"), ..Job::default() };
        Self { binary, cache, kernel, dir: dir.to_path_buf(), job, files: vec![binary.to_path_buf()] }
    }

    /// The command line every kernel gets.
    fn command_line(words: &[&str]) -> String {
        ["console=ttyS0", "panic=-1", "quiet"].iter().chain(words).copied().collect::<Vec<_>>().join(" ")
    }

    /// A disk for the guests to read.
    pub fn disk(&mut self, path: &Path, bytes: u64) {
        self.job.disk = Some((path.to_path_buf(), bytes));
    }

    /// The plan of a run with these arguments. Its initramfs gets more files: guest path and contents.
    pub fn plan(&self, name: &str, arguments: &[&str], more: &[(&str, &[u8])]) -> Value {
        let dir = self.dir.join(name);
        let status = Command::new(self.binary)
            .args(["prepare", "--quiet", "--run-dir"])
            .arg(&dir)
            .args(arguments)
            .stdin(Stdio::null())
            .status()
            .expect("dmavet starts");
        assert!(status.success(), "dmavet prepare {}: {status}", arguments.join(" "));
        let text = fs::read_to_string(dir.join("plan.json")).expect("plan.json");
        // The kernel unpacks one archive behind the other.
        let mut archive = Archive::new(File::options().append(true).open(dir.join("initramfs.cpio")).expect("initramfs.cpio"));
        for (path, contents) in more {
            archive.file(path, 0o755, contents).expect("initramfs.cpio");
        }
        archive.finish().and_then(|mut file| file.flush()).expect("initramfs.cpio");
        serde_json::from_str(&text).expect("plan.json")
    }

    /// The initramfs of a plan.
    pub fn initrd(plan: &Value) -> &str {
        plan["initrd"].as_str().expect("initrd")
    }

    /// Adds dmavet with a plan, with words added to the kernel command line. Its results go to a directory of this name.
    pub fn dmavet(&mut self, name: &str, plan: &Value, words: &[&str], until: Option<&str>) {
        let mut plan = plan.clone();
        let directory = self.dir.join(name.replace([' ', ','], "-"));
        plan["run_dir"] = directory.to_str().expect("UTF-8").into();
        plan["append"] = words.into();
        let path = directory.with_extension("json");
        fs::write(&path, serde_json::to_vec(&plan).expect("JSON")).expect("plan");
        self.files.extend([path.clone(), plan["kernel"].as_str().expect("kernel").into(), Self::initrd(&plan).into()]);
        let modules = plan["modules"].as_array().expect("modules").iter();
        self.files.extend(modules.map(|module| PathBuf::from(module["debug"].as_str().expect("module"))));
        let argv = [self.binary, Path::new("execute"), &path, Path::new("--console"), Path::new("--quiet")];
        self.step(name, &argv.map(Path::as_os_str), directory, until);
    }

    /// Adds QEMU with a machine, more arguments and a guest that gets this initramfs. `elf`: boots the unpacked kernel, as dmavet does.
    pub fn qemu(&mut self, name: &str, machine: &[&str], elf: bool, initrd: &str, words: &[&str], until: Option<&str>) {
        let kernel = if elf { &self.kernel.vmlinux } else { &self.kernel.bzimage };
        self.files.extend([kernel.clone(), initrd.into()]);
        let (memory, command_line) = (GUEST_MIB.to_string(), Self::command_line(words));
        let mut argv: Vec<OsString> =
            [QEMU, "-accel", "kvm", "-cpu", "host", "-nodefaults", "-no-user-config", "-no-reboot"].map(Into::into).into();
        argv.extend(["-display", "none", "-serial", "stdio", "-m", &memory, "-initrd", initrd, "-append", &command_line].map(Into::into));
        argv.extend(["-kernel".into(), kernel.into()]);
        argv.extend(machine.iter().map(Into::into));
        let directory = self.dir.join(name.replace([' ', ','], "-"));
        self.step(name, &argv, directory, until);
    }

    fn step(&mut self, name: &str, argv: &[impl AsRef<std::ffi::OsStr>], directory: PathBuf, until: Option<&str>) {
        let argv = argv.iter().map(|word| word.as_ref().to_str().expect("UTF-8").to_owned()).collect();
        let until = until.map(str::to_owned);
        self.job.steps.push(Step { name: name.to_owned(), argv, directory, until, guest_kib: GUEST_MIB << 10 });
    }

    /// Measures.
    pub fn run(self) -> Vec<Taken> {
        let path = self.dir.join("job.json");
        fs::write(&path, serde_json::to_vec(&self.job).expect("JSON")).expect("job");
        if dmavet_vmm::probe().require().is_ok() {
            inside::main(&path);
        } else {
            let mut files = self.files;
            files.push(path.clone());
            if self.job.steps.iter().any(|step| step.argv.first().is_some_and(|program| program == QEMU)) {
                files.extend(qemu_files());
            }
            let job = LabJob { argv: vec!["inside".into(), path.into()], files, run_dir: self.dir.clone(), trace: None };
            let cancel = AtomicBool::new(false);
            let options = LabOptions::new(self.cache, &cancel);
            lab::run(&[job], &options, &mut tell).unwrap_or_else(|e| panic!("the lab: {e}"));
        }
        let text = fs::read_to_string(&self.job.results).expect("results; what kept them from being written is above");
        serde_json::from_str(&text).expect("results")
    }
}

fn tell(event: LabEvent) {
    match event {
        LabEvent::Output { stream: Stream::Stderr, bytes, .. } => {
            // Lost when nobody listens.
            let _ = std::io::stderr().write_all(&bytes);
        }
        LabEvent::Booted(after) => eprintln!("lab: up after {:.1} s", after.as_secs_f64()),
        _ => {}
    }
}

/// QEMU as the lab needs it: the program, its libraries and its firmware, all where they lie here.
fn qemu_files() -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(QEMU).output().expect("ldd starts");
    assert!(output.status.success(), "{QEMU}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x...)", and the loader by its path alone.
    let libraries = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).map(PathBuf::from);
    let mut files = vec![PathBuf::from(QEMU)];
    files.extend(libraries);
    let firmware: Vec<PathBuf> = FIRMWARE.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    assert!(firmware.len() >= FIRMWARE.len() - 1, "QEMU's firmware is missing: {FIRMWARE:?} (packages qemu-system-data and seabios)");
    files.extend(firmware);
    files
}

/// Builds the program that reads the disk in the guest, which has no libraries.
pub fn reader(dir: &Path) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/machine/guest/reader.c");
    let program = dir.join("reader");
    let status = Command::new("gcc").args(["-O2", "-static", "-o"]).arg(&program).arg(&source).status().expect("gcc starts");
    assert!(status.success(), "gcc {}: {status}", source.display());
    fs::read(&program).expect("the reader")
}
