//! virtio-console, the console device: Virtual I/O Device (VIRTIO) Version 1.2, section 5.3.
//!
//! One port. Its other end is a plug that sends everything back.

mod device;
#[cfg(test)]
mod tests;

pub use device::VirtioConsole;

use crate::bus::DeviceContext;
use crate::pci::Function;
use crate::spec::{ModelInfo, Pair, SpecError};
use crate::virtio_pci::{self, Transport};
use std::fmt;
use vm_memory::GuestMemory;

/// What a user can choose about a virtio-console: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VirtioConsoleSpec;

impl VirtioConsoleSpec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo = ModelInfo {
        name: "virtio-console",
        summary: "virtio console device that sends back what it gets (docs/devices.md)",
        keys: &[],
        drivers: &["virtio_ring", "virtio_pci", "virtio_console"],
    };

    pub(crate) fn from_pairs(_pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        // Without keys in the table there are no pairs.
        Ok(Self)
    }
}

impl fmt::Display for VirtioConsoleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::INFO.name)
    }
}

/// Builds a virtio-console on what `context` gives it.
pub fn new<M: GuestMemory + Send>(context: DeviceContext<M>, _spec: &VirtioConsoleSpec) -> Function<Transport<VirtioConsole, M>> {
    virtio_pci::function(VirtioConsole::default(), context)
}
