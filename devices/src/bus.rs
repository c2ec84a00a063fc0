//! What a bus asks of a PCI function, and what a function asks of the machine around it.

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

/// The message of one MSI-X vector (PCI 3.0 section 6.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// Where a function's interrupts go. Implemented by the VMM with irqfds and GSI routes.
pub trait MsiSink: Send + Sync {
    /// The message for `vector` from now on; `None` while the vector is masked or MSI-X is off.
    fn set_route(&self, vector: u16, message: Option<MsiMessage>);
    /// Sends the message of `vector`. Only called while a route is set.
    fn trigger(&self, vector: u16);
}

/// The views of memory a device has; `M` is an address space of handles (IOVA), never guest RAM itself.
#[derive(Clone, Debug)]
pub struct DeviceMemory<M> {
    /// For bytes that are used now: every read is judged.
    pub used: M,
    /// For looking at ownership words and indices that another side may be changing: never judged.
    pub poll: M,
}

/// What a device model is built with.
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
