//! What a user can choose about a disk: the keys that every model of a block device has.

use super::{Disk, DiskError};
use crate::spec::{KeyInfo, Pair};
use std::fmt;
use std::path::{Path, PathBuf};

/// The disk of a block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DiskSpec {
    size: Option<u64>,
    file: Option<PathBuf>,
    read_only: bool,
}

impl DiskSpec {
    /// `size`: its size.
    pub const SIZE: KeyInfo = KeyInfo {
        name: "size",
        help: "size of the disk in MiB (default with file: that of the file)",
        values: "1 to 16384",
        default: "64",
    };
    /// `file`: what it holds.
    pub const FILE: KeyInfo = KeyInfo { name: "file", help: "its contents at the start", values: "a path without commas", default: "" };
    /// `readonly`: whether it can be written.
    pub const READ_ONLY: KeyInfo =
        KeyInfo { name: "readonly", help: "whether the guest can only read it", values: "on or off", default: "off" };
    const DEFAULT_MIB: u64 = 64;
    const MOST_MIB: u64 = 16384;

    /// Size in bytes, if it was given.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// File with its contents at the start.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The same with the file elsewhere.
    pub fn set_file(&mut self, file: PathBuf) {
        self.file = Some(file);
    }

    /// Whether the guest can only read it.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Makes the disk.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn open(&self) -> Result<Disk, DiskError> {
        match &self.file {
            Some(file) => Disk::open(file, self.size),
            None => Ok(Disk::empty(self.size.unwrap_or(Self::DEFAULT_MIB << 20))),
        }
    }

    /// Takes those of `pairs` that are about the disk; the others come back.
    ///
    /// # Errors
    /// The key and the value that is not allowed.
    pub(crate) fn from_pairs<'p>(pairs: &[Pair<'p>]) -> Result<(Self, Vec<Pair<'p>>), Pair<'p>> {
        let (mut spec, mut others) = (Self::default(), Vec::new());
        for pair in pairs {
            let (key, value) = pair;
            match key.name {
                "size" => {
                    let mib = number(value).filter(|mib| (1..=Self::MOST_MIB).contains(mib)).ok_or(*pair)?;
                    spec.size = Some(mib << 20);
                }
                // An empty path is what the table gives as the default: none.
                "file" => spec.file = Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty()),
                "readonly" => {
                    spec.read_only = match *value {
                        "on" => true,
                        "off" => false,
                        _ => return Err(*pair),
                    }
                }
                _ => others.push(*pair),
            }
        }
        // Written down only where it is not what it would be anyway.
        spec.size = spec.size.filter(|size| spec.file.is_some() || *size != Self::DEFAULT_MIB << 20);
        Ok((spec, others))
    }
}

/// The keys behind a model's name.
impl fmt::Display for DiskSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, ",size={}", size >> 20)?;
        }
        if let Some(file) = &self.file {
            write!(f, ",file={}", file.display())?;
        }
        if self.read_only { f.write_str(",readonly=on") } else { Ok(()) }
    }
}

/// A number in digits and nothing else.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
