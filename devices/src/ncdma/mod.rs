//! ncdma, the reference device: a small descriptor-ring DMA engine. Its datasheet is `docs/ncdma.md`.

mod device;
mod pci;
mod platform;
mod ring;
mod spec;
#[cfg(test)]
mod tests;

pub use device::Ncdma;

use crate::bus::{DeviceContext, PlatformContext};
use crate::pci::Function;
use crate::platform::Node;
use crate::spec::{KeyInfo, ModelInfo, Pair, SpecError, bad_value};
use std::fmt;
use vm_memory::GuestMemory;

/// What a user can choose about an ncdma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NcdmaSpec {
    mask: u8,
}

const KEYS: &[KeyInfo] = &[KeyInfo { name: "mask", help: "DMA address bits the device drives", values: "24 to 64", default: "64" }];

impl NcdmaSpec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo = ModelInfo {
        name: "ncdma",
        summary: "reference DMA engine with command, transmit and receive rings (docs/ncdma.md)",
        keys: KEYS,
        drivers: &[],
    };

    /// DMA address bits, 24 to 64.
    #[must_use]
    pub const fn mask(&self) -> u8 {
        self.mask
    }

    /// The same with another number of DMA address bits; `None` if it is not 24 to 64.
    #[must_use]
    pub const fn with_mask(self, mask: u8) -> Option<Self> {
        if mask >= 24 && mask <= 64 { Some(Self { mask }) } else { None }
    }

    pub(crate) fn from_pairs(pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        Self::of(&Self::INFO, pairs)
    }

    fn of(info: &ModelInfo, pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        pairs.iter().try_fold(Self::default(), |spec, (key, value)| {
            // "mask" is the only key of the table.
            let mask = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
            mask.and_then(|mask| spec.with_mask(mask)).ok_or_else(|| bad_value(info, key, value))
        })
    }

    fn show(&self, info: &ModelInfo, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(info.name)?;
        if *self == Self::default() { Ok(()) } else { write!(f, ",mask={}", self.mask) }
    }
}

impl Default for NcdmaSpec {
    fn default() -> Self {
        Self { mask: 64 }
    }
}

impl fmt::Display for NcdmaSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show(&Self::INFO, f)
    }
}

/// What a user can choose about an ncdma that is a platform device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NcdmaPlatformSpec(NcdmaSpec);

impl NcdmaPlatformSpec {
    /// Name, summary and keys.
    pub const INFO: ModelInfo =
        ModelInfo { name: "ncdma-platform", summary: "the same engine as a platform device", keys: KEYS, drivers: &[] };

    pub(crate) fn from_pairs(pairs: &[Pair<'_>]) -> Result<Self, SpecError> {
        NcdmaSpec::of(&Self::INFO, pairs).map(Self)
    }
}

impl fmt::Display for NcdmaPlatformSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(&Self::INFO, f)
    }
}

/// Builds an ncdma on what `context` gives it.
pub fn new<M: GuestMemory + Send + 'static>(context: DeviceContext<M>, spec: &NcdmaSpec) -> Function<Ncdma<M>> {
    let DeviceContext { memory, msi, .. } = context;
    Function::new(Ncdma::new(memory, spec), msi)
}

/// Builds one that is a platform device.
pub fn new_platform<M: GuestMemory + Send + 'static>(context: PlatformContext<M>, spec: &NcdmaPlatformSpec) -> Node<Ncdma<M>> {
    let PlatformContext { memory, line } = context;
    Node::new(Ncdma::new(memory, &spec.0), line)
}
