//! The PCI transport of virtio devices, without the legacy interface: Virtual I/O Device (VIRTIO) Version 1.2, sections 2 and 4.1.
//!
//! Split virtqueues with indirect descriptors and event indices; one MSI-X vector for each queue and one for configuration changes.
//! VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM are always offered, and a driver that does not accept both gets no FEATURES_OK:
//! without the second one Linux passes physical addresses and never calls the DMA API.
//!
//! Memory is reached as a real device would: rings and buffers byte by byte as they are used, indices the driver may be changing
//! (`avail.idx`, `used_event`) by the polling view. All work is done inside the register write that asks for it and is bounded
//! by [`queue::ROUNDS`] times the size of the queue.

mod chain;
mod device;
#[cfg(test)]
pub(crate) mod driver;
mod queue;
mod spec;
#[cfg(test)]
mod tests;

pub use chain::{Chain, DmaFault};
pub use device::Transport;
pub use queue::Queues;

use crate::bus::DeviceContext;
use crate::pci::Function;
use vm_memory::GuestMemory;

/// What a virtio device is on the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Virtio device id (section 5).
    pub id: u16,
    /// PCI class code.
    pub class: u32,
    /// The most entries of each queue: powers of two, at most 1024.
    pub queues: &'static [u16],
}

/// A virtio device apart from its transport.
///
/// It holds no memory: it gets [`Queues`] when there is something to do. Everything in them comes from the guest.
pub trait VirtioDevice<M>: Send {
    /// Id, class and queues.
    fn kind(&self) -> Kind;
    /// The features of this type of device (bits 0 to 23 and 50 to 127 of section 2.2; those above 63 do not exist here).
    fn features(&self) -> u64;
    /// The device-specific configuration as it is now.
    fn config(&self) -> &[u8];
    /// The driver is ready (DRIVER_OK), and accepted `features`.
    fn activate(&mut self, features: u64);
    /// The driver made buffers of `queue` available. Also called for every queue when the driver is ready.
    fn notified(&mut self, queue: usize, queues: &mut Queues<'_, M>);
    /// Back to the state after power-on.
    fn reset(&mut self);
}

/// Puts `device` behind the transport.
pub fn function<M, D>(device: D, context: DeviceContext<M>) -> Function<Transport<D, M>>
where
    M: GuestMemory + Send,
    D: VirtioDevice<M>,
{
    let DeviceContext { memory, msi, .. } = context;
    Function::new(Transport::new(device, memory), msi)
}
