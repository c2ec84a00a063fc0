//! Runs beside the machines that are measured, in the lab or here: starts them one after the other and notes the time, the exits KVM
//! counted and the memory in use when their guests print a mark (`@bench WORD...`) on the console.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// What a guest's mark begins with.
const MARK: &str = "@bench ";
/// Where KVM counts, machine by machine (Documentation/virt/kvm/api.rst; the names are those of `struct kvm_vcpu_stat`).
const KVM: &str = "/sys/kernel/debug/kvm";
/// Out of the guest at all, and out of KVM to the program for a port or device memory.
const COUNTERS: [&str; 3] = ["exits", "io_exits", "mmio_exits"];
/// Lines of a machine's output kept for messages.
const TAIL: usize = 40;
/// Size of a block of the disk.
pub const BLOCK: u64 = 4096;

/// All that is to be done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// The disk to make first, and its size in bytes.
    pub disk: Option<(PathBuf, u64)>,
    /// Machines, one after the other.
    pub steps: Vec<Step>,
    /// Where the results go.
    pub results: PathBuf,
}

/// One machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What is measured, for people.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// A directory it expects.
    pub directory: PathBuf,
    /// First word of the mark at which it is ended; it ends itself if there is none.
    pub until: Option<String>,
    /// Guest RAM, KiB.
    pub guest_kib: u64,
}

/// What was measured on one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// The step's name.
    pub name: String,
    /// The step's directory.
    pub directory: PathBuf,
    /// Its marks.
    pub marks: Vec<Mark>,
    /// Its exit code; none if it was ended.
    pub code: Option<i32>,
    /// Its last words.
    pub said: Vec<String>,
}

/// A mark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// What it says.
    pub words: String,
    /// Time since the process was started, ns.
    pub after_ns: u64,
    /// KVM's counters by name; empty where they cannot be read.
    pub kvm: BTreeMap<String, u64>,
    /// Resident memory of the process without guest RAM, bytes.
    pub resident: u64,
}

impl Taken {
    /// The mark whose first word is `name`.
    pub fn mark(&self, name: &str) -> &Mark {
        let found = self.marks.iter().find(|mark| mark.words.split_whitespace().next() == Some(name));
        found.unwrap_or_else(|| {
            panic!("{}: its guest never said {name:?}; it ended with {:?} and said\n{}", self.name, self.code, self.said())
        })
    }

    /// Its last words as text.
    pub fn said(&self) -> String {
        self.said.join("\n")
    }
}

/// The whole job of the file `job`.
pub fn main(job: &Path) {
    let text = fs::read_to_string(job).unwrap_or_else(|e| panic!("{}: {e}", job.display()));
    let job: Job = serde_json::from_str(&text).expect("a job");
    if !Path::new(KVM).is_dir() {
        // The lab has no other commands than busybox. Where neither works there are no counts, and NaN stands in their place.
        for program in [&["mount"][..], &["/bin/busybox", "mount"]] {
            let arguments = program.iter().skip(1).chain(&["-t", "debugfs", "debugfs", "/sys/kernel/debug"]);
            let _ = Command::new(program[0]).args(arguments).stderr(Stdio::null()).status();
        }
    }
    if let Some((path, size)) = &job.disk {
        make_disk(path, *size).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let taken: Vec<Taken> = job.steps.iter().map(take).collect();
    fs::write(&job.results, serde_json::to_vec(&taken).expect("JSON")).unwrap_or_else(|e| panic!("{}: {e}", job.results.display()));
}

/// Every block begins with its number; the rest differs from block to block, so that nothing is cheap because it was there before.
fn make_disk(path: &Path, size: u64) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    let mut random = 1u64;
    for number in 0..size / BLOCK {
        file.write_all(&number.to_le_bytes())?;
        for _ in 1..BLOCK / 8 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            file.write_all(&random.to_le_bytes())?;
        }
    }
    file.flush()
}

fn take(step: &Step) -> Taken {
    fs::create_dir_all(&step.directory).unwrap_or_else(|e| panic!("{}: {e}", step.directory.display()));
    let (program, arguments) = step.argv.split_first().expect("a program");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
    let (to, lines) = mpsc::channel();
    listen(child.stdout.take(), to.clone());
    listen(child.stderr.take(), to);
    let mut taken = Taken { name: step.name.clone(), directory: step.directory.clone(), marks: Vec::new(), code: None, said: Vec::new() };
    loop {
        match lines.recv_timeout(Duration::from_secs(120)) {
            Ok((at, line)) => {
                if taken.said.len() == TAIL {
                    taken.said.remove(0);
                }
                if let Some((_, words)) = line.split_once(MARK) {
                    taken.marks.push(mark(&child, step, words, at.saturating_duration_since(start)));
                    if step.until.as_deref() == words.split_whitespace().next() {
                        break;
                    }
                }
                taken.said.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => {
                taken.code = child.wait().ok().and_then(|status| status.code());
                break;
            }
            Err(RecvTimeoutError::Timeout) => {
                taken.said.push("silent for 120 s".into());
                break;
            }
        }
    }
    // Fails when it has ended, and then there is nothing to end.
    let _ = child.kill();
    let _ = child.wait();
    eprintln!("{}: {:.1} s", step.name, start.elapsed().as_secs_f64());
    taken
}

fn mark(child: &Child, step: &Step, words: &str, after: Duration) -> Mark {
    Mark {
        words: words.trim().to_owned(),
        after_ns: u64::try_from(after.as_nanos()).unwrap_or(u64::MAX),
        kvm: counters(child.id()),
        resident: fs::read_to_string(format!("/proc/{}/smaps", child.id())).map_or(0, |smaps| resident(&smaps, step.guest_kib)),
    }
}

/// Lines as they come, each with the time its end was read.
fn listen(stream: Option<impl Read + Send + 'static>, to: Sender<(Instant, String)>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n != 0) {
            let now = Instant::now();
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if to.send((now, text)).is_err() {
                return;
            }
        }
    });
}

/// What KVM has counted for the machines of a process.
fn counters(process: u32) -> BTreeMap<String, u64> {
    let prefix = format!("{process}-");
    let mut sums = BTreeMap::new();
    for machine in fs::read_dir(KVM).into_iter().flatten().flatten() {
        if !machine.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        for name in COUNTERS {
            let value = fs::read_to_string(machine.path().join(name)).ok().and_then(|text| text.trim().parse::<u64>().ok());
            if let Some(value) = value {
                *sums.entry(name.to_owned()).or_default() += value;
            }
        }
    }
    sums
}

/// Bytes resident by `/proc/PID/smaps` in all mappings but those of guest RAM: dmavet's memory file by its name, QEMU's by its size.
fn resident(smaps: &str, guest_kib: u64) -> u64 {
    let (mut kib, mut counts) = (0, true);
    for line in smaps.lines() {
        let number = |rest: &str| rest.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        if let Some(rest) = line.strip_prefix("Size:") {
            counts &= number(rest) < guest_kib;
        } else if let Some(rest) = line.strip_prefix("Rss:") {
            kib += if counts { number(rest) } else { 0 };
        } else if line.split_whitespace().next().is_some_and(|first| first.contains('-')) {
            counts = !line.contains("dmavet-guest-ram");
        }
    }
    kib * 1024
}
