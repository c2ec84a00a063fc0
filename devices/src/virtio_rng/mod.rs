//! virtio-rng, the entropy device: Virtual I/O Device (VIRTIO) Version 1.2, section 5.4.
//!
//! Its bytes come from a generator with a fixed seed, so that runs can be repeated. They are no entropy.

mod device;
#[cfg(test)]
mod tests;

pub use device::VirtioRng;

use crate::bus::DeviceContext;
use crate::pci::Function;
use crate::spec::{KeyInfo, ModelInfo, Pair, SpecError, bad_value};
use crate::virtio_pci::{self, Transport};
use std::fmt;
use vm_memory::GuestMemory;

/// What a user can choose about a virtio-rng.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VirtioRngSpec {
    seed: u64,
}

impl VirtioRngSpec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo = ModelInfo {
        name: "virtio-rng",
        summary: "virtio entropy device (docs/devices.md)",
        keys: &[KeyInfo { name: "seed", help: "seed of the bytes it delivers", values: "0 to 2^64 - 1", default: "0" }],
        drivers: &["virtio_ring", "virtio_pci", "virtio_rng"],
    };

    /// Seed of the bytes it delivers.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn from_pairs(pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        pairs.iter().try_fold(Self::default(), |_, (key, value)| {
            // "seed" is the only key of the table.
            let seed = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
            seed.map(|seed| Self { seed }).ok_or_else(|| bad_value(&Self::INFO, key, value))
        })
    }
}

impl fmt::Display for VirtioRngSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::INFO.name)?;
        if *self == Self::default() { Ok(()) } else { write!(f, ",seed={}", self.seed) }
    }
}

/// Builds a virtio-rng on what `context` gives it.
pub fn new<M: GuestMemory + Send>(context: DeviceContext<M>, spec: &VirtioRngSpec) -> Function<Transport<VirtioRng, M>> {
    virtio_pci::function(VirtioRng::new(spec), context)
}
