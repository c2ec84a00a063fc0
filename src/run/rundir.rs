//! Run directories: where the results of a run are kept.

use crate::exit::Failure;
use crate::run::Plan;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// `dmavet-runs/DATE-TIME-PID` below the current directory (UTC).
#[must_use]
pub fn default_run_dir() -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    PathBuf::from("dmavet-runs").join(format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{}", std::process::id()))
}

/// Today as YYYY-MM-DD (UTC).
#[must_use]
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Gregorian date of a day counted from 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let mut month = 1;
    for length in [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// Makes the run directory, absolute. One that holds an earlier run's results is refused.
pub fn create(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = wanted.map_or_else(default_run_dir, Path::to_path_buf);
    let dir = std::path::absolute(&dir).map_err(|e| Failure::usage(format!("--run-dir {}: {e}", dir.display())))?;
    if dir.join(Plan::FILE).exists() {
        return Err(Failure::usage(format!("the run directory {} holds an earlier run; name another or remove it", dir.display())));
    }
    std::fs::create_dir_all(&dir).map_err(|e| explain(&dir, &e))?;
    Ok(dir)
}

/// Writes a file of the run directory.
pub fn write(dir: &Path, name: &str, contents: &[u8]) -> Result<(), Failure> {
    let path = dir.join(name);
    std::fs::write(&path, contents).map_err(|e| explain(&path, &e))
}

/// Why something at `path` could not be written, and what to do.
pub fn explain(path: &Path, error: &std::io::Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::StorageFull => "; free some space or name another place with --run-dir",
        ErrorKind::PermissionDenied => "; name a place you may write to with --run-dir",
        _ => "",
    };
    Failure::cannot_run(format!("cannot write {}: {error}{advice}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_779), (2026, 11, 22));
    }

    #[test]
    fn a_used_run_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let made = create(Some(&dir.path().join("a"))).unwrap();
        write(&made, Plan::FILE, b"{}").unwrap();
        let failure = create(Some(&made)).unwrap_err();
        assert!(failure.to_string().contains("holds an earlier run"), "{failure}");
    }
}
