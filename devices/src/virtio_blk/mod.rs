//! virtio-blk, the block device: Virtual I/O Device (VIRTIO) Version 1.2, section 5.2.
//!
//! One request queue; read, write, flush, get id, discard, write zeroes. What the guest writes stays in memory and is gone after the
//! run: a file given as the disk's contents is never changed.

mod device;
mod disk;
mod spec;
#[cfg(test)]
mod tests;

pub use device::VirtioBlk;
pub use disk::{Disk, DiskError};

use crate::bus::DeviceContext;
use crate::pci::Function;
use crate::spec::{KeyInfo, ModelInfo, Pair, SpecError, bad_value};
use crate::virtio_pci::{self, Transport};
use std::fmt;
use std::path::{Path, PathBuf};
use vm_memory::GuestMemory;

/// What a user can choose about a virtio-blk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VirtioBlkSpec {
    size: Option<u64>,
    file: Option<PathBuf>,
    read_only: bool,
}

impl VirtioBlkSpec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo = ModelInfo {
        name: "virtio-blk",
        summary: "virtio block device; what is written is gone after the run (docs/devices.md)",
        keys: &[
            KeyInfo {
                name: "size",
                help: "size of the disk in MiB (default with file: that of the file)",
                values: "1 to 16384",
                default: "64",
            },
            KeyInfo { name: "file", help: "its contents at the start", values: "a path without commas", default: "" },
            KeyInfo { name: "readonly", help: "whether the guest can only read it", values: "on or off", default: "off" },
        ],
        drivers: &["virtio_ring", "virtio_pci", "virtio_blk"],
    };
    const DEFAULT_MIB: u64 = 64;
    const MOST_MIB: u64 = 16384;

    /// Size of the disk in bytes, if it was given.
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
    #[must_use]
    pub fn with_file(self, file: PathBuf) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Whether the guest can only read it.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn from_pairs(pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        let mut spec = Self::default();
        for (key, value) in pairs {
            let bad = || bad_value(&Self::INFO, key, value);
            match key.name {
                "size" => {
                    let mib: Option<u64> = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
                    let mib = mib.filter(|mib| (1..=Self::MOST_MIB).contains(mib)).ok_or_else(bad)?;
                    spec.size = Some(mib << 20);
                }
                // An empty path is what the table gives as the default: none.
                "file" => spec.file = Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty()),
                "readonly" => {
                    spec.read_only = match *value {
                        "on" => true,
                        "off" => false,
                        _ => return Err(bad()),
                    }
                }
                _ => return Err(bad()),
            }
        }
        // Written down only where it is not what it would be anyway.
        spec.size = spec.size.filter(|size| spec.file.is_some() || *size != Self::DEFAULT_MIB << 20);
        Ok(spec)
    }
}

impl fmt::Display for VirtioBlkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::INFO.name)?;
        if let Some(size) = self.size {
            write!(f, ",size={}", size >> 20)?;
        }
        if let Some(file) = &self.file {
            write!(f, ",file={}", file.display())?;
        }
        if self.read_only { f.write_str(",readonly=on") } else { Ok(()) }
    }
}

/// Builds a virtio-blk on what `context` gives it.
///
/// # Errors
/// The disk's file cannot be read.
pub fn new<M: GuestMemory + Send>(context: DeviceContext<M>, spec: &VirtioBlkSpec) -> Result<Function<Transport<VirtioBlk, M>>, DiskError> {
    let disk = match spec.file() {
        Some(file) => Disk::open(file, spec.size())?,
        None => Disk::empty(spec.size().unwrap_or(VirtioBlkSpec::DEFAULT_MIB << 20)),
    };
    Ok(virtio_pci::function(VirtioBlk::new(disk, spec.is_read_only()), context))
}
