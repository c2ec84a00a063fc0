//! The cache directory: where it is, who may write it, how entries appear in it.
//!
//! Readers take no lock: an entry appears by one rename, whole or not at all. Builders hold a lock per subject (a suite, a module), so
//! there is one at a time for each, and whatever lies in the subject's part of `tmp/` when a builder gets the lock is left over from one
//! that died. Entries of different layouts lie side by side: two versions of dmavet may share a cache.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::progress::{Observer, Step};

/// Environment variable that names the cache directory.
pub const CACHE_VARIABLE: &str = "DMAVET_CACHE";

/// Raised when the layout of entries changes.
pub(crate) const LAYOUT: u32 = 3;

/// Why the cache cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Neither `--cache-dir`, `DMAVET_CACHE`, `XDG_CACHE_HOME` nor `HOME` says where the cache is.
    #[error("no place for the cache: set DMAVET_CACHE (or --cache-dir) to a directory with 1 GB free")]
    NoPlace,
    /// The file system the cache lives on is full.
    #[error(
        "no space left for {path} ({free_mb} MB free there): free about {needed_mb} MB, or put the cache elsewhere with DMAVET_CACHE or --cache-dir"
    )]
    Full {
        /// File or directory that could not be written.
        path: PathBuf,
        /// Megabytes free on that file system.
        free_mb: u64,
        /// Megabytes a complete kernel with headers takes.
        needed_mb: u64,
    },
    /// The cache directory is not writable for this user.
    #[error("{path} cannot be written by this user: choose another cache directory with DMAVET_CACHE or --cache-dir")]
    NotWritable {
        /// What could not be written.
        path: PathBuf,
    },
    /// Any other file error.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Disk space a kernel with headers, modules and unpacked image takes, megabytes (measured: 6.1 260, 6.12 300, 7.2 320).
pub(crate) const KERNEL_MB: u64 = 350;

impl CacheError {
    /// Wraps a file error; out of space, out of quota and missing permission become their own variants.
    #[must_use]
    pub fn from_io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::full(path),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NotWritable { path },
            _ => Self::Io { path, source },
        }
    }

    /// The variant for a full disk, with the free space of the nearest existing directory above `path`.
    #[must_use]
    pub fn full(path: PathBuf) -> Self {
        let free = free_bytes(&path);
        Self::Full { path, free_mb: free / 1_000_000, needed_mb: KERNEL_MB }
    }
}

/// Bytes free for this user on the file system of `path` or of the nearest directory above it that exists.
pub(crate) fn free_bytes(path: &Path) -> u64 {
    path.ancestors().find_map(|p| rustix::fs::statvfs(p).ok()).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
}

/// A cache directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens (and creates) the cache: `explicit` (from `--cache-dir`), else `DMAVET_CACHE`, else `XDG_CACHE_HOME/dmavet`, else `~/.cache/dmavet`.
    ///
    /// # Errors
    /// No place is known, or the directory cannot be created.
    pub fn open(explicit: Option<&Path>) -> Result<Self, CacheError> {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = explicit
            .map(Path::to_path_buf)
            .or_else(|| variable(CACHE_VARIABLE))
            .or_else(|| variable("XDG_CACHE_HOME").map(|p| p.join("dmavet")))
            .or_else(|| variable("HOME").map(|p| p.join(".cache/dmavet")))
            .ok_or(CacheError::NoPlace)?;
        fs::create_dir_all(&root).map_err(|e| CacheError::from_io(&root, e))?;
        // Paths from here end up in makefiles and in other processes' arguments: no `..`, no links that move.
        let root = fs::canonicalize(&root).map_err(|e| CacheError::from_io(&root, e))?;
        Ok(Self { root })
    }

    /// The directory itself, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of a kind of entries, e.g. `kernels`, for this version's layout.
    #[must_use]
    pub fn entries(&self, kind: &str) -> PathBuf {
        self.root.join(format!("{kind}.v{LAYOUT}"))
    }

    /// Becomes the one builder for a subject, waiting for another one if need be, and clears what a dead builder left behind.
    ///
    /// # Errors
    /// The lock file cannot be created or locked.
    pub fn lock(&self, subject: &str, observer: Observer<'_>) -> Result<Builder, CacheError> {
        let tmp = self.entries("tmp").join(component(subject));
        fs::create_dir_all(self.entries("tmp")).map_err(|e| CacheError::from_io(&self.root, e))?;
        let path = tmp.with_added_extension("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|e| CacheError::from_io(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                observer(Step::WaitingForLock);
                file.lock().map_err(|e| CacheError::from_io(&path, e))?;
            }
            Err(fs::TryLockError::Error(e)) => return Err(CacheError::from_io(&path, e)),
        }
        if tmp.exists() {
            fs::remove_dir_all(&tmp).map_err(|e| CacheError::from_io(&tmp, e))?;
        }
        fs::create_dir_all(&tmp).map_err(|e| CacheError::from_io(&tmp, e))?;
        Ok(Builder { tmp, _lock: file })
    }
}

/// The right to write a subject's entries; given back when dropped.
#[derive(Debug)]
pub struct Builder {
    tmp: PathBuf,
    _lock: File,
}

impl Builder {
    /// A fresh directory on the cache's own file system, removed when dropped.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn staging(&self) -> Result<tempfile::TempDir, CacheError> {
        tempfile::Builder::new().prefix("build-").tempdir_in(&self.tmp).map_err(|e| CacheError::from_io(&self.tmp, e))
    }

    /// Moves a finished directory to its place; an entry already there is replaced.
    ///
    /// # Errors
    /// The move failed; the old entry is then still in place or gone whole.
    pub fn publish_dir(&self, staged: tempfile::TempDir, target: &Path) -> Result<(), CacheError> {
        let wrap = |e| CacheError::from_io(target, e);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(wrap)?;
        }
        if target.exists() {
            // Renamed away first: a reader sees the old entry or none, never half of one.
            let grave = self.staging()?;
            fs::rename(target, grave.path().join("old")).map_err(wrap)?;
        }
        fs::rename(staged.path(), target).map_err(wrap)?;
        // The directory has moved; nothing is left to delete at the old name.
        let _ = staged.keep();
        Ok(())
    }

    /// Writes a small file by way of a temporary one and a rename.
    ///
    /// # Errors
    /// The file cannot be written or moved.
    pub fn publish_file(&self, contents: &[u8], target: &Path) -> Result<(), CacheError> {
        let wrap = |e| CacheError::from_io(target, e);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(wrap)?;
        }
        let staged = tempfile::NamedTempFile::new_in(&self.tmp).map_err(wrap)?;
        fs::write(staged.path(), contents).map_err(wrap)?;
        staged.persist(target).map_err(|e| wrap(e.error))?;
        Ok(())
    }
}

/// Turns a name from outside (a version with `:` or `/`) into one path component.
pub(crate) fn component(name: impl AsRef<OsStr>) -> String {
    name.as_ref()
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+') { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests;
