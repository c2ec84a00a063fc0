//! Device models, generic over the memory they do DMA to.
//!
//! The way from the bus to a device: [`bus::PciFunction`] is what the VMM's bus calls; [`pci::Function`] implements it from a
//! [`pci::ConfigSpace`], a [`pci::Msix`] and a [`pci::Model`]; a model is one folder ([`ncdma`]) with the same file names as every other:
//! `mod.rs` (what it is), `spec.rs` (layouts, no logic), `device.rs` (state machine), `tests.rs`. A device on no bus is a
//! [`bus::PlatformDevice`], a [`platform::Node`] of a [`platform::Model`].
//!
//! A model reaches memory only through the [`bus::DeviceMemory`] it is built with and answers a register write with the vectors to raise;
//! it holds no pointer back to the machine.
//!
//! ```
//! use dmavet_devices::bus::{DeviceContext, DeviceMemory};
//! use dmavet_devices::pci::NoInterrupts;
//! use std::sync::Arc;
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10_0000)])?;
//! let memory = DeviceMemory { used: ram.clone(), poll: ram };
//! let context = DeviceContext { memory, msi: Arc::new(NoInterrupts), number: 0 };
//! let mut device = dmavet_devices::build(&"ncdma,mask=32".parse()?, context)?;
//!
//! let mut id = [0; 4];
//! device.read_config(0, &mut id);
//! assert_eq!(id, [0x5e, 0xda, 0x10, 0x00]);
//! device.read_bar(0, 0x008, &mut id);
//! assert_eq!(u32::from_le_bytes(id) & 0xff, 32);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod bus;
pub mod disk;
pub mod e1000;
pub mod ncdma;
pub mod nvme;
pub mod pci;
pub mod peer;
pub mod platform;
pub mod registers;
mod spec;
#[cfg(test)]
mod testing;
pub mod virtio_blk;
pub mod virtio_console;
pub mod virtio_net;
pub mod virtio_pci;
pub mod virtio_rng;

pub use spec::{BuildError, DeviceSpec, KeyInfo, ModelInfo, SpecError, build, build_platform, models};
