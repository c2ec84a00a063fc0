//! virtio-net, the network device: Virtual I/O Device (VIRTIO) Version 1.2, section 5.1.
//!
//! One receive and one transmit queue, mergeable receive buffers, no offloads. The wire ends inside the VMM, at a [peer](crate::peer) that
//! answers ARP and pings and has a TCP echo service: nothing of the host's network is used.

mod device;
mod spec;
#[cfg(test)]
mod tests;

pub use device::VirtioNet;

use crate::bus::DeviceContext;
use crate::pci::Function;
use crate::spec::{KeyInfo, ModelInfo, Pair, SpecError, bad_value};
use crate::virtio_pci::{self, Transport};
use std::fmt;
use vm_memory::GuestMemory;

/// What a user can choose about a virtio-net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VirtioNetSpec {
    mergeable: bool,
}

impl VirtioNetSpec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo = ModelInfo {
        name: "virtio-net",
        summary: "virtio network device; 192.0.2.1 at its other end answers pings and echoes TCP port 7 (docs/devices.md)",
        keys: &[KeyInfo { name: "mergeable", help: "whether a frame may span receive buffers", values: "on or off", default: "on" }],
        drivers: &["virtio_ring", "virtio_pci", "virtio_net"],
    };

    /// Whether a frame may span receive buffers (VIRTIO_NET_F_MRG_RXBUF).
    #[must_use]
    pub const fn is_mergeable(&self) -> bool {
        self.mergeable
    }

    pub(crate) fn from_pairs(pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        pairs.iter().try_fold(Self::default(), |_, (key, value)| match *value {
            // "mergeable" is the only key of the table.
            "on" => Ok(Self { mergeable: true }),
            "off" => Ok(Self { mergeable: false }),
            _ => Err(bad_value(&Self::INFO, key, value)),
        })
    }
}

impl Default for VirtioNetSpec {
    fn default() -> Self {
        Self { mergeable: true }
    }
}

impl fmt::Display for VirtioNetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::INFO.name)?;
        if self.mergeable { Ok(()) } else { f.write_str(",mergeable=off") }
    }
}

/// Builds a virtio-net on what `context` gives it.
pub fn new<M: GuestMemory + Send>(context: DeviceContext<M>, spec: &VirtioNetSpec) -> Function<Transport<VirtioNet, M>> {
    virtio_pci::function(VirtioNet::new(spec), context)
}
