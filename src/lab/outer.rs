//! Which QEMU makes the outer machine and with how many CPUs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use dmavet_images::cache::Cache;
use dmavet_images::progress::Step;
use dmavet_images::qemu;

use super::LabError;

/// Environment variables behind the defaults, for trying things out: a [`Choice`], and a number of CPUs.
const QEMU_VARIABLE: &str = "DMAVET_LAB_QEMU";
const CPUS_VARIABLE: &str = "DMAVET_LAB_CPUS";

/// Name of the program; Debian's package is `qemu-system-x86`.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// The first version whose emulated CPU has been measured to show a hypervisor its guest's XSETBV (so that guests have AVX) and to
/// keep the flags in cmpxchg16b: 7.2 does neither, 10.0 both.
const RIPE: u32 = 10;

/// Which QEMU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one on the PATH.
    #[default]
    System,
    /// The one on the PATH if it is new enough to give guests AVX, else one from Debian's backports, fetched into the cache.
    Ripe,
    /// This program.
    Program(PathBuf),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "system" => Ok(Self::System),
            "new" => Ok(Self::Ripe),
            path if path.contains('/') => Ok(Self::Program(path.into())),
            _ => Err(format!("{text:?} is neither \"system\", \"new\" nor the path of a qemu-system-x86_64")),
        }
    }
}

/// The outer machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Its QEMU.
    pub qemu: Choice,
    /// Its CPUs, which take turns on one of the host's.
    pub cpus: u8,
}

impl Default for Outer {
    fn default() -> Self {
        Self { qemu: Choice::System, cpus: 1 }
    }
}

impl Outer {
    /// The usual one, unless the environment says otherwise. What it says wrong is ignored.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self {
            qemu: variable(QEMU_VARIABLE).and_then(|v| v.parse().ok()).unwrap_or_default(),
            cpus: variable(CPUS_VARIABLE).and_then(|v| v.parse().ok()).filter(|n| (1..=4).contains(n)).unwrap_or(1),
        }
    }
}

/// A program ready to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// `-cpu`: everything it can emulate, but no cmpxchg16b where emulating it damages flags.
    pub(super) cpu: &'static str,
}

/// Finds or fetches the program of a choice.
pub(super) fn program(choice: &Choice, cache: &Cache, prepare: &dyn Fn(Step)) -> Result<Program, LabError> {
    let path = match choice {
        Choice::System => PathBuf::from(PROGRAM),
        Choice::Program(path) => path.clone(),
        Choice::Ripe if major(Path::new(PROGRAM)).is_some_and(|v| v >= RIPE) => PathBuf::from(PROGRAM),
        Choice::Ripe => qemu::backports(cache, prepare)?,
    };
    let cpu = if major(&path).is_some_and(|v| v >= RIPE) { "max" } else { "max,-cx16" };
    Ok(Program { path, cpu })
}

/// Major version of a QEMU, if it starts at all.
fn major(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    version(&output.stdout)
}

/// Reads `QEMU emulator version 10.0.2 (...)`.
fn version(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let number = text.split_once("version ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version(b"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"), Some(7));
        assert_eq!(version(b"QEMU emulator version 10.0.2\n"), Some(10));
        assert_eq!(version(b"something else"), None);
        assert_eq!(major(Path::new("/nonexistent/qemu")), None);
    }

    #[test]
    fn choices_are_read() {
        assert_eq!("system".parse(), Ok(Choice::System));
        assert_eq!("new".parse(), Ok(Choice::Ripe));
        assert_eq!("/opt/qemu".parse(), Ok(Choice::Program("/opt/qemu".into())));
        assert!("old".parse::<Choice>().is_err());
    }
}
