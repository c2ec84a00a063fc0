//! The lab: command lines of this program run where KVM works, inside a software-emulated machine.
//!
//! QEMU emulates a CPU with AMD's virtualization; a stock kernel in it offers `/dev/kvm`; this very program runs there. One boot of that
//! outer machine serves any number of jobs, one after another. Their stdout and stderr arrive live, their run directories come back when
//! they end.
//!
//! ```text
//!   host: lab::run --+-- QEMU (TCG) -------------------------------------------+
//!        ^           |  outer kernel, init.sh --> dmavet <argv of job 0, 1...> |
//!        |           |     | port 1 control    | 2 stdout  | 3 stderr          |
//!        |           |     | port 4 run directories (tar)  | 5 traces          |
//!        +-----------+-----+-------------------+-----------+-------------------+
//! ```

mod channel;
mod clock;
mod error;
mod marker;
mod outer;
mod pack;
mod program;
mod qemu;
mod session;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dmavet_images::cache::Cache;
use dmavet_images::kernel::{KernelSpec, busybox, kernel};
use dmavet_images::progress::Step;

pub use channel::Stream;
pub use error::{Console, LabError};
pub use outer::{Choice, Outer};

use session::Session;

/// One command line for the outer machine.
#[derive(Clone, Debug, Default)]
pub struct LabJob {
    /// Arguments for this program, without its name.
    pub argv: Vec<OsString>,
    /// Files and directories of the host the command needs; they lie at the same absolute paths in the outer machine.
    pub files: Vec<PathBuf>,
    /// Directory the command writes its results to: absolute, the same path inside and outside, made if missing. What is in it when
    /// the command ends is brought back.
    pub run_dir: PathBuf,
    /// Where on the host that goes which the command writes to [`TRACE_PORT`]: it may be larger than the outer machine's memory.
    pub trace: Option<PathBuf>,
}

/// The file in the outer machine through which a trace leaves it as it grows.
pub const TRACE_PORT: &str = "/dev/vport0p5";

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabResult {
    /// Exit code; `None` if a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Time from its start to its end by the outer machine's clock, which runs with the host's; hundredths of a second.
    pub wall: Duration,
}

/// What happens while the lab runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabEvent {
    /// The outer machine's kernel is being fetched or unpacked (first use only).
    Preparing(Step),
    /// The outer machine starts.
    Booting,
    /// It did not come up and is started once more.
    Rebooting,
    /// It is up; time since the start of QEMU.
    Booted(Duration),
    /// A job starts.
    JobStarted(usize),
    /// A job wrote something.
    Output {
        /// Index of the job.
        job: usize,
        /// Where it wrote.
        stream: Stream,
        /// What it wrote.
        bytes: Vec<u8>,
    },
    /// A job ended, all its output was reported and its run directory is on the host.
    JobEnded(usize, LabResult),
}

/// How often the outer machine is started before it counts as not coming up.
const TRIES: usize = 2;

/// Settings of a lab run.
#[derive(Debug)]
pub struct LabOptions<'a> {
    /// Where the outer machine's kernel is kept.
    pub cache: &'a Cache,
    /// Raised by the caller (a signal handler) to end the lab.
    pub cancel: &'a AtomicBool,
    /// Environment variables set for every job.
    pub environment: Vec<(String, String)>,
    /// What the outer machine is made of.
    pub outer: Outer,
    /// Memory of the outer machine, MiB. It holds the packed files and the guests' memory.
    pub memory_mb: u32,
    /// Longest time to come up, per try.
    pub boot_limit: Duration,
    /// Longest time for one job; the job's own timeouts should end it before.
    pub job_limit: Option<Duration>,
    /// File that gets the outer machine's whole console.
    pub console_log: Option<PathBuf>,
}

impl<'a> LabOptions<'a> {
    /// The usual settings.
    #[must_use]
    pub fn new(cache: &'a Cache, cancel: &'a AtomicBool) -> Self {
        Self {
            cache,
            cancel,
            environment: Vec::new(),
            outer: Outer::from_environment(),
            memory_mb: 3000,
            // Measured 3 s on an idle machine; slow CI machines with other work take several times that.
            boot_limit: Duration::from_secs(90),
            job_limit: None,
            console_log: None,
        }
    }
}

/// Runs jobs one after another in one outer machine.
///
/// The results are in the order of the jobs. Every thread and process it started is gone or going when it returns, whatever it returns.
///
/// # Errors
/// See [`LabError`]. A job that ends with a code other than 0 is not an error of the lab.
pub fn run(jobs: &[LabJob], options: &LabOptions<'_>, observer: &mut dyn FnMut(LabEvent)) -> Result<Vec<LabResult>, LabError> {
    let steps = std::cell::RefCell::new(&mut *observer);
    let prepare = |step| (steps.borrow_mut())(LabEvent::Preparing(step));
    let kernel = kernel(options.cache, &KernelSpec::default(), false, &prepare)?;
    let busybox = busybox(options.cache, &prepare)?;
    let marker = marker();
    let contents = pack::Contents { kernel: &kernel, busybox: &busybox, jobs, environment: &options.environment, marker: &marker };
    let archive = pack::pack(&contents)?;
    let program = outer::program(&options.outer.qemu, options.cache, &prepare)?;
    let mut tries = 1..=TRIES;
    loop {
        if options.cancel.load(Ordering::Relaxed) {
            return Err(LabError::Cancelled);
        }
        let attempt = tries.next();
        observer(if attempt == Some(1) { LabEvent::Booting } else { LabEvent::Rebooting });
        let machine = qemu::Qemu::start(&program, options.outer.cpus, &kernel.vmlinux, &archive, options.memory_mb)?;
        let mut session = Session::new(machine, jobs, options, &marker)?;
        match session.run(observer) {
            // Software emulation hangs in early boot now and then.
            Err(LabError::NoBoot { .. }) if !tries.is_empty() => {}
            other => return other,
        }
    }
}

/// Ends a job's output in its streams: starts with a control character and carries 128 random bits.
fn marker() -> String {
    use std::hash::{BuildHasher, RandomState};
    // RandomState is seeded by the system; this separates streams, it does not protect anything.
    let random = || RandomState::new().hash_one(Instant::now());
    format!("\u{1}dmavet-lab:{:016x}{:016x}:", random(), random())
}

#[cfg(test)]
mod tests;
