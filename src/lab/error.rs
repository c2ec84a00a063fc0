//! What can go wrong with the lab, each with the outer machine's last words where it has any.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dmavet_images::cache::CacheError;
use dmavet_images::kernel::KernelError;
use thiserror::Error;

/// Why the lab did not run the jobs to their end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// QEMU is not installed.
    #[error("qemu-system-x86_64 not found: the lab needs it, install the package qemu-system-x86")]
    NoQemu,
    /// QEMU could not be started for another reason.
    #[error("qemu-system-x86_64 cannot be started: {0}")]
    Spawn(#[source] io::Error),
    /// The outer machine's kernel could not be had.
    #[error("the lab's own kernel: {0}")]
    Kernel(#[from] KernelError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file cannot be packed.
    #[error("{path} cannot be packed for the lab: {detail}")]
    Pack {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A pipe, socket or thread could not be made.
    #[error("the lab's channels: {0}")]
    Channel(#[source] io::Error),
    /// The caller's cancel flag was raised.
    #[error("cancelled")]
    Cancelled,
    /// The outer machine did not come up, however often it was tried.
    #[error("the lab's outer machine did not come up within {} s, also not when tried again{console}", .limit.as_secs())]
    NoBoot {
        /// Time it was given.
        limit: Duration,
        /// Tail of its console.
        console: Console,
    },
    /// The outer machine came up but could not set itself up.
    #[error("the lab's outer machine: {message}{console}")]
    Guest {
        /// What its init said.
        message: String,
        /// Tail of its console.
        console: Console,
    },
    /// The outer kernel panicked.
    #[error("the lab's outer kernel panicked{}{console}", job_text(*.job))]
    Panic {
        /// Job that ran.
        job: Option<usize>,
        /// Tail of its console.
        console: Console,
    },
    /// QEMU ended by itself.
    #[error("qemu-system-x86_64 ended ({status}){}{console}", job_text(*.job))]
    Died {
        /// Exit status.
        status: String,
        /// Job that ran.
        job: Option<usize>,
        /// Tail of the console and of QEMU's own complaints.
        console: Console,
    },
    /// No sign of life from the outer machine.
    #[error("the lab's outer machine gave no sign of life for {} s{}{console}", .silence.as_secs(), job_text(*.job))]
    Stuck {
        /// How long.
        silence: Duration,
        /// Job that ran.
        job: Option<usize>,
        /// Tail of its console.
        console: Console,
    },
    /// A job took longer than allowed.
    #[error("job {job} took longer than {} s{console}", .limit.as_secs())]
    JobTimeout {
        /// Index of the job.
        job: usize,
        /// Time it was given.
        limit: Duration,
        /// Tail of the console.
        console: Console,
    },
    /// A run directory could not be written on the host.
    #[error("the run directory {path} cannot be brought back: {detail}")]
    BringBack {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

fn job_text(job: Option<usize>) -> String {
    job.map(|j| format!(" during job {j}")).unwrap_or_default()
}

/// Last lines of the outer machine's console, shown indented below a message; nothing if there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console(pub Vec<String>);

impl std::fmt::Display for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; its console ended with:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
