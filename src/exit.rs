//! The exit codes of the tool: one table, printed by `dmavet --help` and tested.

use std::process::ExitCode;

/// How a command ended, as its exit status tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// The driver was checked and no finding fails the run.
    Clean = 0,
    /// At least one finding that fails the run.
    Findings = 1,
    /// The command line, a specification or an input file is wrong.
    Usage = 2,
    /// The workload failed, or nothing was checked.
    Workload = 3,
    /// The guest panicked, reset, or stopped making progress.
    Guest = 4,
    /// A time limit ended the run.
    Timeout = 5,
    /// This machine lacks something the run needs.
    CannotRun = 6,
    /// A defect of dmavet itself.
    Internal = 7,
    /// `git bisect run` is to skip this revision: with `--bisect`, in place of the codes from 2 to 7.
    Skip = 125,
    /// Interrupted from the keyboard or by SIGTERM (128 + SIGINT, as shells report it).
    Interrupted = 130,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 10] = [
        Self::Clean,
        Self::Findings,
        Self::Usage,
        Self::Workload,
        Self::Guest,
        Self::Timeout,
        Self::CannotRun,
        Self::Internal,
        Self::Skip,
        Self::Interrupted,
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The code with that number.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|e| i32::from(e.code()) == code)
    }

    /// The code for `git bisect run` (git-bisect(1)): 0 is good, 1 is bad, 125 cannot be tested, 128 and more stop it.
    #[must_use]
    pub const fn for_bisect(self) -> Self {
        match self {
            Self::Clean | Self::Findings | Self::Interrupted => self,
            _ => Self::Skip,
        }
    }

    /// What the code means, in a few words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Clean => "clean: the driver was checked, no finding fails the run",
            Self::Findings => "findings: the driver broke a rule",
            Self::Usage => "usage: wrong argument, specification or input file",
            Self::Workload => "workload failed, or nothing was checked",
            Self::Guest => "guest panic, unexpected reset, or wedged guest",
            Self::Timeout => "timeout: boot, command or silence limit reached",
            Self::CannotRun => "cannot run here: KVM, QEMU, a package or space is missing",
            Self::Internal => "internal error of dmavet",
            Self::Skip => "with --bisect: neither clean nor findings, git bisect is to skip this revision",
            Self::Interrupted => "interrupted (Ctrl-C)",
        }
    }

    /// The table for `--help`.
    #[must_use]
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            text.push_str(&format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that ends a command: its exit code and the one message its user gets (what, where, what to do).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The message.
    pub message: String,
}

impl Failure {
    /// A failure with that code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
    /// A mistake of the user's.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
    /// Something this machine lacks.
    pub fn cannot_run(message: impl Into<String>) -> Self {
        Self::new(Exit::CannotRun, message)
    }
    /// A defect of dmavet.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Internal, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_documented_one() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 125, 130]);
        let bisect: Vec<u8> = Exit::ALL.iter().map(|e| e.for_bisect().code()).collect();
        assert_eq!(bisect, [0, 1, 125, 125, 125, 125, 125, 125, 125, 130]);
        assert_eq!(Exit::from_code(3), Some(Exit::Workload));
        assert_eq!(Exit::from_code(99), None);
        assert!(Exit::table().contains("  4  guest panic"));
    }
}
