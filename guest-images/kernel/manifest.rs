//! What was unpacked, with hashes: a file that changed afterwards is noticed before a guest boots from it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cache::LAYOUT;
use crate::hash;

/// Name of the manifest within an entry.
const FILE: &str = "manifest.json";

/// Why an entry of the cache cannot be trusted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// No manifest, or one of another dmavet version.
    #[error("{0} is not a cache entry of this dmavet version")]
    Unusable(PathBuf),
    /// A file changed since it was unpacked.
    #[error("{path} is damaged: SHA-256 {found}, recorded {expected}. Remove {entry} and run again")]
    Changed {
        /// The file.
        path: PathBuf,
        /// The entry it belongs to.
        entry: PathBuf,
        /// Hash of its contents now.
        found: String,
        /// Hash when it was unpacked.
        expected: String,
    },
    /// A file is gone or was never there.
    #[error("{path}: {source}. Remove {entry} and run again")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The entry it belongs to.
        entry: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Contents of one entry.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Manifest {
    layout: u32,
    /// `uname -r` of the kernel, or a package version.
    pub(crate) release: String,
    /// Packages the entry was made from: name, version, SHA-256.
    pub(super) packages: Vec<(String, String, String)>,
    /// Files below the entry with their SHA-256.
    files: BTreeMap<PathBuf, String>,
    #[serde(skip)]
    entry: PathBuf,
}

impl fmt::Debug for Manifest {
    /// Without the thousand hashes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({}, {} files)", self.entry.display(), self.files.len())
    }
}

impl Manifest {
    /// Hashes every regular file in `dirs` (relative to `root`) and writes the manifest into `root`.
    pub(crate) fn record(root: &Path, dirs: &[PathBuf], release: &str, packages: Vec<(String, String, String)>) -> io::Result<()> {
        let mut files = BTreeMap::new();
        let mut todo: Vec<PathBuf> = dirs.to_vec();
        while let Some(path) = todo.pop() {
            let full = root.join(&path);
            let kind = fs::symlink_metadata(&full)?.file_type();
            if kind.is_dir() {
                for entry in fs::read_dir(&full)? {
                    todo.push(path.join(entry?.file_name()));
                }
            } else if kind.is_file() {
                let sum = hash::of_file(&full)?;
                files.insert(path, sum);
            }
        }
        let manifest = Self { layout: LAYOUT, release: release.into(), packages, files, entry: PathBuf::new() };
        fs::write(root.join(FILE), serde_json::to_vec_pretty(&manifest).map_err(io::Error::from)?)
    }

    /// Reads the manifest of an entry.
    ///
    /// # Errors
    /// There is none, or it is of another layout.
    pub fn open(entry: &Path) -> Result<Self, ManifestError> {
        let unusable = || ManifestError::Unusable(entry.to_path_buf());
        let text = fs::read(entry.join(FILE)).map_err(|_| unusable())?;
        let mut manifest: Self = serde_json::from_slice(&text).map_err(|_| unusable())?;
        if manifest.layout != LAYOUT {
            return Err(unusable());
        }
        manifest.entry = entry.to_path_buf();
        Ok(manifest)
    }

    /// Checks one file (absolute path) against its recorded hash; files outside the entry pass.
    ///
    /// # Errors
    /// The file is missing or changed.
    pub fn check(&self, path: &Path) -> Result<(), ManifestError> {
        let Some(expected) = path.strip_prefix(&self.entry).ok().and_then(|p| self.files.get(p)) else {
            return Ok(());
        };
        let entry = || self.entry.clone();
        let found = hash::of_file(path).map_err(|source| ManifestError::Missing { path: path.into(), entry: entry(), source })?;
        if found == *expected {
            return Ok(());
        }
        Err(ManifestError::Changed { path: path.into(), entry: entry(), found, expected: expected.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_truncated_and_missing_files_are_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("boot")).unwrap();
        let file = dir.path().join("boot/vmlinuz");
        fs::write(&file, "kernel").unwrap();
        Manifest::record(dir.path(), &["boot".into()], "6.1", Vec::new()).unwrap();
        let manifest = Manifest::open(dir.path()).unwrap();
        manifest.check(&file).unwrap();
        for damage in ["kernal", "kern"] {
            fs::write(&file, damage).unwrap();
            assert!(matches!(manifest.check(&file), Err(ManifestError::Changed { .. })));
        }
        fs::remove_file(&file).unwrap();
        assert!(matches!(manifest.check(&file), Err(ManifestError::Missing { .. })));
    }

    #[test]
    fn an_entry_of_another_layout_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Manifest::open(dir.path()).is_err());
        fs::write(dir.path().join(FILE), r#"{"layout":1,"release":"","packages":[],"files":{}}"#).unwrap();
        assert!(matches!(Manifest::open(dir.path()), Err(ManifestError::Unusable(_))));
    }
}
