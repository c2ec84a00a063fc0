//! virtio-blk, the block device: Virtual I/O Device (VIRTIO) Version 1.2, section 5.2.
//!
//! One request queue; read, write, flush, get id, discard, write zeroes. What the guest writes stays in memory and is gone after the
//! run: a file given as the disk's contents is never changed.

mod device;
mod spec;
#[cfg(test)]
mod tests;

pub use device::VirtioBlk;

use crate::bus::DeviceContext;
use crate::disk::{DiskError, DiskSpec};
use crate::pci::Function;
use crate::spec::{ModelInfo, Pair, SpecError, bad_value};
use crate::virtio_pci::{self, Transport};
use std::fmt;
use vm_memory::GuestMemory;

/// What a user can choose about a virtio-blk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VirtioBlkSpec {
    /// Its disk.
    pub disk: DiskSpec,
}

impl VirtioBlkSpec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo = ModelInfo {
        name: "virtio-blk",
        summary: "virtio block device; what is written is gone after the run (docs/devices.md)",
        keys: &[DiskSpec::SIZE, DiskSpec::FILE, DiskSpec::READ_ONLY],
        drivers: &["virtio_ring", "virtio_pci", "virtio_blk"],
    };

    pub(crate) fn from_pairs(pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        let bad = |(key, value)| bad_value(&Self::INFO, key, value);
        let (disk, others) = DiskSpec::from_pairs(pairs).map_err(bad)?;
        // Every key of the table is about the disk.
        others.into_iter().next().map_or(Ok(Self { disk }), |pair| Err(bad(pair)))
    }
}

impl fmt::Display for VirtioBlkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::INFO.name, self.disk)
    }
}

/// Builds a virtio-blk on what `context` gives it.
///
/// # Errors
/// The disk's file cannot be read.
pub fn new<M: GuestMemory + Send>(context: DeviceContext<M>, spec: &VirtioBlkSpec) -> Result<Function<Transport<VirtioBlk, M>>, DiskError> {
    Ok(virtio_pci::function(VirtioBlk::new(spec.disk.open()?, spec.disk.is_read_only()), context))
}
