//! nvme, an NVMe controller with one namespace: NVM Express Base Specification, revision 1.4.
//!
//! Admin and I/O queues, PRP lists, a host memory buffer it really uses, an MSI-X vector for each queue. What the guest writes stays in
//! memory and is gone after the run. `docs/devices.md` says what is there and what is not.
//!
//! Memory is reached as a real controller does: commands, PRP lists and data as they are used, completions in an order in which the
//! phase tag comes last. All work is done inside the register write that asks for it and is bounded by the sizes of the queues and of
//! what one command may move.

mod device;
mod spec;
#[cfg(test)]
mod tests;

pub use device::Nvme;

use crate::bus::DeviceContext;
use crate::disk::{DiskError, DiskSpec, number};
use crate::pci::Function;
use crate::spec::{KeyInfo, ModelInfo, Pair, SpecError, bad_value};
use std::fmt;
use vm_memory::GuestMemory;

/// What a user can choose about an NVMe controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NvmeSpec {
    /// The disk that is its namespace.
    pub disk: DiskSpec,
    queues: u16,
    hmb: u32,
}

impl NvmeSpec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo = ModelInfo {
        name: "nvme",
        summary: "NVMe 1.4 controller with one namespace; what is written is gone after the run (docs/devices.md)",
        keys: &[
            DiskSpec::SIZE,
            DiskSpec::FILE,
            DiskSpec::READ_ONLY,
            KeyInfo { name: "queues", help: "I/O queue pairs the controller has", values: "1 to 63", default: "8" },
            KeyInfo { name: "hmb", help: "host memory the controller asks for in MiB, 0 for none", values: "0 to 64", default: "2" },
        ],
        drivers: &["nvme_core", "nvme"],
    };

    /// I/O queue pairs, 1 to 63.
    #[must_use]
    pub const fn queues(&self) -> u16 {
        self.queues
    }

    /// Host memory it asks for in MiB, 0 to 64.
    #[must_use]
    pub const fn hmb(&self) -> u32 {
        self.hmb
    }

    pub(crate) fn from_pairs(pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        let bad = |(key, value)| bad_value(&Self::INFO, key, value);
        let (disk, others) = DiskSpec::from_pairs(pairs).map_err(bad)?;
        let mut spec = Self { disk, ..Self::default() };
        for (key, value) in others {
            let number = number(value);
            match key.name {
                "queues" => {
                    spec.queues =
                        number.and_then(|n| n.try_into().ok()).filter(|n| (1..=63).contains(n)).ok_or_else(|| bad((key, value)))?
                }
                // "hmb" is the only other key of the table.
                _ => spec.hmb = number.and_then(|n| n.try_into().ok()).filter(|n| *n <= 64).ok_or_else(|| bad((key, value)))?,
            }
        }
        Ok(spec)
    }
}

impl Default for NvmeSpec {
    fn default() -> Self {
        Self { disk: DiskSpec::default(), queues: 8, hmb: 2 }
    }
}

impl fmt::Display for NvmeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let normal = Self::default();
        write!(f, "{}{}", Self::INFO.name, self.disk)?;
        if self.queues != normal.queues {
            write!(f, ",queues={}", self.queues)?;
        }
        if self.hmb != normal.hmb { write!(f, ",hmb={}", self.hmb) } else { Ok(()) }
    }
}

/// Builds an NVMe controller on what `context` gives it.
///
/// # Errors
/// The disk's file cannot be read.
pub fn new<M: GuestMemory + Send>(context: DeviceContext<M>, spec: &NvmeSpec) -> Result<Function<Nvme<M>>, DiskError> {
    let DeviceContext { memory, msi, number } = context;
    Ok(Function::new(Nvme::new(memory, spec.disk.open()?, spec, number), msi))
}
