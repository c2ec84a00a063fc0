//! PCI functions: configuration space, BARs, capabilities, MSI-X, and the composition of all that with a device model.

mod bar;
mod config;
mod function;
mod host_bridge;
mod msix;
mod window;

pub use bar::{BarKind, BarSpec};
pub use config::{ConfigSpace, Identity, MsixControl};
pub use function::{Capability, Function, Model, Vectors};
pub use host_bridge::{HostBridge, host_bridge};
pub use msix::{Msix, MsixSpec, NoInterrupts};

/// The vendor id of dmavet's own functions; private, not registered with the PCI-SIG.
pub const VENDOR_DMAVET: u16 = 0xda5e;

/// The vendor id of virtio devices (virtio 1.2 section 4.1.2).
pub const VENDOR_VIRTIO: u16 = 0x1af4;
