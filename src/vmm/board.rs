//! What a vCPU's exits reach: ports, PCI, platform devices, and the occasional access to RAM that KVM's emulator could not make itself.

use crate::end::{End, EndCell};
use crate::layout::ECAM;
use crate::pci::PciRoot;
use crate::platform::PlatformBus;
use crate::ports::{PortBus, Power};
use dmavet_devices::bus::BarSpace;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Counts signs of life, for the silence limit: writes to devices, writes to watched pages and calls of the agent. Reads do not count,
/// because a driver that polls a register or a descriptor for ever is as silent as one that sleeps.
#[derive(Debug, Default)]
pub struct Activity(AtomicU64);

impl Activity {
    /// Something happened.
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something happened.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything outside the CPUs.
#[derive(Debug)]
pub struct Board {
    /// I/O ports.
    pub ports: PortBus,
    /// The PCI bus.
    pub pci: Arc<PciRoot>,
    /// Devices on no bus.
    pub platform: PlatformBus,
    /// Guest RAM.
    pub ram: Arc<GuestMemoryMmap>,
    /// Signs of life.
    pub activity: Arc<Activity>,
    /// Where power-off and reset go.
    pub end: Arc<EndCell>,
}

impl Board {
    /// Reads one item from `port`.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        if !self.ports.read(port, data) {
            self.pci.read_bar(BarSpace::Io, u64::from(port), data);
        }
    }

    /// Writes one item to `port`.
    pub fn write_port(&self, port: u16, data: &[u8]) {
        self.activity.note();
        match self.ports.write(port, data) {
            Some(Some(Power::Off)) => self.end.set(End::PowerOff),
            Some(Some(Power::Reset(by))) => self.end.set(End::Reset(by)),
            Some(None) => {}
            None => {
                self.pci.write_bar(BarSpace::Io, u64::from(port), data, 0);
            }
        }
    }

    /// Reads at a guest physical address that no memory slot covers.
    pub fn read_mmio(&self, gpa: u64, data: &mut [u8]) {
        if ECAM.contains(&gpa) {
            self.pci.read_ecam(gpa - ECAM.start, data);
            return;
        }
        let answered = self.platform.read(gpa, data) || self.pci.read_bar(BarSpace::Memory, gpa, data);
        if !answered && self.is_ram(gpa, data.len()) {
            // KVM's instruction emulator could not reach a page through the guest mapping; the host mapping is the same memory.
            let _ = self.ram.read_slice(data, GuestAddress(gpa));
        }
    }

    /// Writes; `rip` is the guest address behind the instruction.
    pub fn write_mmio(&self, gpa: u64, data: &[u8], rip: u64) {
        self.activity.note();
        if ECAM.contains(&gpa) {
            self.pci.write_ecam(gpa - ECAM.start, data);
            return;
        }
        let answered = self.platform.write(gpa, data, rip) || self.pci.write_bar(BarSpace::Memory, gpa, data, rip);
        if !answered && self.is_ram(gpa, data.len()) {
            let _ = self.ram.write_slice(data, GuestAddress(gpa));
        }
    }

    /// Whether all of a range is RAM.
    pub fn is_ram(&self, gpa: u64, len: usize) -> bool {
        self.ram.check_range(GuestAddress(gpa), len)
    }
}

#[cfg(test)]
mod tests;
