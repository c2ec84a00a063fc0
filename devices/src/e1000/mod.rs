//! e1000, the Intel 82540EM Gigabit Ethernet Controller as the `e1000` driver of Linux knows it: PCI/PCI-X Family of Gigabit Ethernet
//! Controllers Software Developer's Manual (Intel 317453), cited below as SDM.
//!
//! An M88 PHY whose link is up, a Microwire EEPROM, one transmit and one receive ring, checksum insertion and TCP segmentation, VLAN
//! tags, and an interrupt pin: the part has no MSI. The wire ends inside the VMM, at the same [peer](crate::peer) as virtio-net's.

mod device;
mod eeprom;
mod offload;
mod phy;
mod ring;
mod spec;
mod statistics;
#[cfg(test)]
mod tests;

pub use device::E1000;

use crate::bus::DeviceContext;
use crate::pci::Function;
use crate::spec::{ModelInfo, Pair, SpecError};
use std::fmt;
use vm_memory::GuestMemory;

/// What a user can choose about an e1000: nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct E1000Spec;

impl E1000Spec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo = ModelInfo {
        name: "e1000",
        summary: "Intel 82540EM; the same peer as virtio-net's; the driver is in general-purpose kernels (docs/devices.md)",
        keys: &[],
        drivers: &["e1000"],
    };

    // Every model has this function; the table above has no key, so no pair comes here.
    pub(crate) const fn from_pairs(_pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        Ok(Self)
    }
}

impl fmt::Display for E1000Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::INFO.name)
    }
}

/// Builds an e1000 on what `context` gives it.
pub fn new<M: GuestMemory + Send>(context: DeviceContext<M>) -> Function<E1000<M>> {
    let DeviceContext { memory, msi, .. } = context;
    Function::new(E1000::new(memory), msi)
}
