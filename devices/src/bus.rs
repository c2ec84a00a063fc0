//! What the machine asks of a device, and what a device asks of the machine around it.

use bitflags::bitflags;
use std::sync::Arc;

bitflags! {
    /// What changed by a write to configuration space, for the bus to act on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ConfigChange: u8 {
        /// A BAR moved, or memory or I/O decoding was switched: ask [`PciFunction::ranges`] again.
        const DECODE = 1;
        /// Command register bit 2 (bus master) changed.
        const BUS_MASTER = 2;
        /// The function was reset (FLR or a return to D0 with a soft reset).
        const RESET = 4;
    }
}

/// Address space of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BarSpace {
    /// Memory, by guest physical address.
    Memory,
    /// I/O ports.
    Io,
}

/// A range the function decodes at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedRange {
    /// BAR index, 0 to 5.
    pub bar: usize,
    /// Address space.
    pub space: BarSpace,
    /// First guest physical address or port.
    pub base: u64,
    /// Size in bytes, a power of two.
    pub size: u64,
}

/// A PCI function as its bus sees it. Offsets and lengths come from the guest: any value must be answered without a panic;
/// what is not there reads as all-ones and swallows writes.
pub trait PciFunction: Send {
    /// Reads `data.len()` bytes of configuration space at `offset` (0 to 4095).
    fn read_config(&mut self, offset: usize, data: &mut [u8]);
    /// Writes configuration space.
    fn write_config(&mut self, offset: usize, data: &[u8]) -> ConfigChange;
    /// The ranges decoded now: BARs that are assigned and whose decoding is switched on in the Command register.
    fn ranges(&self) -> Vec<DecodedRange>;
    /// Whether the Command register lets the function master the bus.
    fn bus_master(&self) -> bool;
    /// Reads from a BAR at `offset` in it.
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]);
    /// Writes to a BAR.
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]);
    /// Back to the state after power-on.
    fn reset(&mut self);
}

/// A device on no bus: firmware tells where its registers are, and nothing about it can be configured or moved. Offsets and lengths come
/// from the guest, as those of a [`PciFunction`].
pub trait PlatformDevice: Send {
    /// What firmware says about it.
    fn description(&self) -> Description;
    /// Reads registers, `offset` from the first one.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Writes registers.
    fn write(&mut self, offset: u64, data: &[u8]);
    /// Back to the state after power-on.
    fn reset(&mut self);
}

/// What firmware tells of a platform device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The string its driver matches (Devicetree Specification 0.4 section 2.3.1).
    pub compatible: &'static str,
    /// Bytes of its register window, a power of two, at most 64 KiB.
    pub size: u64,
}

/// Where the interrupt line of a platform device goes: level-triggered, high while the device wants to be served.
pub trait LineSink: Send + Sync {
    /// The level from now on. Only called when it changes.
    fn set(&self, high: bool);
}

/// The message of one MSI-X vector (PCI 3.0 section 6.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// Where a function's interrupts go: messages and its pin. Implemented by the VMM with irqfds, GSI routes and I/O APIC pins.
pub trait MsiSink: Send + Sync {
    /// The message for `vector` from now on; `None` while the vector is masked or MSI-X is off.
    fn set_route(&self, vector: u16, message: Option<MsiMessage>);
    /// Sends the message of `vector`. Only called while a route is set.
    fn trigger(&self, vector: u16);
    /// Asserts the function's interrupt pin, INTA# (PCI 3.0 section 2.2.6), or lets go of it: a level that holds until the next call.
    fn set_pin(&self, asserted: bool);
}

/// The views of memory a device has; `M` is an address space of handles (IOVA), never guest RAM itself.
#[derive(Clone, Debug)]
pub struct DeviceMemory<M> {
    /// For bytes that are used now: every read is judged.
    pub used: M,
    /// For looking at ownership words and indices that another side may be changing: never judged.
    pub poll: M,
}

/// What a platform device is built with.
#[derive(Clone)]
pub struct PlatformContext<M> {
    /// Its memory.
    pub memory: DeviceMemory<M>,
    /// Its interrupt.
    pub line: Arc<dyn LineSink>,
}

impl<M> std::fmt::Debug for PlatformContext<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlatformContext").finish_non_exhaustive()
    }
}

/// What a PCI device model is built with.
#[derive(Clone)]
pub struct DeviceContext<M> {
    /// Its memory.
    pub memory: DeviceMemory<M>,
    /// Its interrupts.
    pub msi: Arc<dyn MsiSink>,
    /// Which of the machine's devices it is, from 0: for serial numbers and all else no two devices may share.
    pub number: u8,
}

impl<M> std::fmt::Debug for DeviceContext<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceContext").finish_non_exhaustive()
    }
}
