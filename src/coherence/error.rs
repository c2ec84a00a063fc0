//! Errors of the core.

use crate::ids::Iova;
use vm_memory::GuestMemoryError;

/// Why the core cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The line size is not 32, 64 or 128.
    #[error("cache line size {0} is not supported: 32, 64 or 128")]
    LineSize(u32),
    /// The machine has no cache lines for the setting to be about.
    #[error("{option} {word} means nothing with --profile {profile}: that machine has bounce buffers instead of cache lines")]
    NoLines {
        /// The option of the command line.
        option: &'static str,
        /// Its value.
        word: &'static str,
        /// The machine.
        profile: &'static str,
    },
    /// A window of handles is not page aligned, is turned around, or lies on the wrong side of 4 GiB.
    #[error("handle window {start:#x}..{end:#x} is not valid: page aligned, the low one below 4 GiB, the high one above")]
    Window {
        /// First address.
        start: u64,
        /// One past the last address.
        end: u64,
    },
    /// A region of guest RAM is not made of whole pages.
    #[error("guest RAM at {base:#x} with {len:#x} bytes is not made of whole 4 KiB pages")]
    RamRegion {
        /// Guest physical address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Guest RAM is larger than the index of frames can name.
    #[error("guest RAM of {0:#x} pages is too large")]
    RamSize(usize),
    /// The memory for the devices' copies could not be reserved.
    #[error("cannot reserve {bytes:#x} bytes for the devices' copy of memory: {source}")]
    Arena {
        /// Bytes asked for.
        bytes: usize,
        /// What mmap said.
        source: vm_memory::mmap::MmapRegionError,
    },
    /// Guest RAM could not be mapped a second time for coherent memory.
    #[error("cannot map guest RAM at {base:#x} for coherent memory: {source}")]
    SharedRam {
        /// Guest physical address of the region.
        base: u64,
        /// What mmap said.
        source: vm_memory::mmap::MmapRegionError,
    },
}

/// Why a device's access was refused. The device sees an aborted transfer: nothing was read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No live mapping of this device has the address.
    #[error("handle {:#x}: nothing is mapped there for this device", .0.0)]
    NotMapped(Iova),
    /// The mapping ended.
    #[error("handle {:#x}: the mapping was unmapped", .0.0)]
    Unmapped(Iova),
    /// The access leaves the mapping.
    #[error("handle {:#x} with {len} bytes: leaves the mapping {:#x}..{:#x}", .iova.0, .start.0, .end.0)]
    OutOfBounds {
        /// First byte of the access.
        iova: Iova,
        /// Bytes of the access.
        len: usize,
        /// First handle of the mapping.
        start: Iova,
        /// One past its last handle.
        end: Iova,
    },
    /// Command register bit 2 is clear: reads return all-ones and writes are dropped.
    #[error("handle {:#x}: the function may not master the bus", .0.0)]
    NoBusMaster(Iova),
    /// The handle is of `dma_map_resource`: there is no peer-to-peer traffic between the devices of this machine.
    #[error("handle {:#x}: peer-to-peer access is not supported", .0.0)]
    PeerToPeer(Iova),
    /// Coherent memory in a region of guest RAM that is not backed by a file: it cannot be shared with the devices.
    #[error("handle {:#x}: guest RAM there is not backed by a file, coherent memory cannot be reached", .0.0)]
    NotShared(Iova),
}

impl From<AccessError> for GuestMemoryError {
    fn from(error: AccessError) -> Self {
        Self::IOError(std::io::Error::new(std::io::ErrorKind::PermissionDenied, error))
    }
}
