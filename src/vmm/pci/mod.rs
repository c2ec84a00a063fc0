//! The PCI root: one bus, functions found by configuration space, accesses routed by address.
//!
//! Lock order: a function, then the decode table. A BAR access looks the address up first and lets go of the table before it takes
//! the function, so a BAR may move in between, as on a real bus.

pub mod agent;
pub mod config_port;
mod decode;

use decode::{Decode, Hit};
use dmavet_coherence::ids::Bdf;
use dmavet_devices::bus::{BarSpace, ConfigChange, PciFunction};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Keeps functions off the bus until it is raised. Raising is visible to the next access of any CPU.
#[derive(Debug, Default)]
pub struct Curtain(AtomicBool);

impl Curtain {
    /// Shows what is behind it.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Is told what the CPU does to a function. Called with the function locked.
pub trait Watcher: Send + Sync {
    /// Bus mastering was switched.
    fn bus_master(&self, on: bool);
    /// The function was reset.
    fn reset(&self);
    /// A CPU is about to write to a BAR; `rip` is the guest address behind the instruction, 0 when not known.
    fn doorbell(&self, rip: u64);
    /// A CPU read from a BAR.
    fn observed(&self);
}

struct Slot {
    bdf: Bdf,
    curtain: Option<Arc<Curtain>>,
    watcher: Option<Arc<dyn Watcher>>,
    function: Mutex<Box<dyn PciFunction>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Box<dyn PciFunction>> {
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn visible(&self) -> bool {
        self.curtain.as_ref().is_none_or(|curtain| curtain.is_up())
    }
}

/// The bus.
#[derive(Default)]
pub struct PciRoot {
    slots: Vec<Slot>,
    decode: RwLock<Decode>,
}

impl std::fmt::Debug for PciRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| slot.bdf)).finish()
    }
}

impl PciRoot {
    /// Size of a function's configuration space.
    pub const CONFIG_SIZE: usize = 4096;

    /// Puts `function` at `bdf`. The first one at an address wins.
    pub fn add(&mut self, bdf: Bdf, function: Box<dyn PciFunction>, curtain: Option<Arc<Curtain>>, watcher: Option<Arc<dyn Watcher>>) {
        let index = self.slots.len();
        let ranges = function.ranges();
        self.decode.get_mut().unwrap_or_else(PoisonError::into_inner).replace(index, &ranges);
        self.slots.push(Slot { bdf, curtain, watcher, function: Mutex::new(function) });
    }

    fn slot(&self, bdf: Bdf) -> Option<(usize, &Slot)> {
        self.slots.iter().enumerate().find(|(_, slot)| slot.bdf == bdf && slot.visible())
    }

    /// Reads configuration space; all-ones for what is not there.
    pub fn read_config(&self, bdf: Bdf, offset: usize, data: &mut [u8]) {
        data.fill(0xff);
        if offset.checked_add(data.len()).is_none_or(|end| end > Self::CONFIG_SIZE) {
            return;
        }
        if let Some((_, slot)) = self.slot(bdf) {
            slot.lock().read_config(offset, data);
        }
    }

    /// Writes configuration space and acts on what that changed.
    pub fn write_config(&self, bdf: Bdf, offset: usize, data: &[u8]) {
        if offset.checked_add(data.len()).is_none_or(|end| end > Self::CONFIG_SIZE) {
            return;
        }
        let Some((index, slot)) = self.slot(bdf) else { return };
        let mut function = slot.lock();
        let change = function.write_config(offset, data);
        if change.is_empty() {
            return;
        }
        if let Some(watcher) = &slot.watcher {
            if change.contains(ConfigChange::RESET) {
                watcher.reset();
            }
            if change.intersects(ConfigChange::RESET | ConfigChange::BUS_MASTER) {
                watcher.bus_master(function.bus_master());
            }
        }
        if change.intersects(ConfigChange::RESET | ConfigChange::DECODE) {
            let ranges = function.ranges();
            self.decode.write().unwrap_or_else(PoisonError::into_inner).replace(index, &ranges);
        }
    }

    fn hit(&self, space: BarSpace, address: u64, len: usize) -> Option<(Hit, &Slot)> {
        let hit = self.decode.read().unwrap_or_else(PoisonError::into_inner).find(space, address, len)?;
        let slot = self.slots.get(hit.function)?;
        Some((hit, slot))
    }

    /// Reads from whatever BAR decodes `address`. False when none does.
    pub fn read_bar(&self, space: BarSpace, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        let Some((hit, slot)) = self.hit(space, address, data.len()) else { return false };
        slot.lock().read_bar(hit.bar, hit.offset, data);
        if let Some(watcher) = &slot.watcher {
            watcher.observed();
        }
        true
    }

    /// Writes to whatever BAR decodes `address`; `rip` as in [`Watcher::doorbell`]. False when none does.
    pub fn write_bar(&self, space: BarSpace, address: u64, data: &[u8], rip: u64) -> bool {
        let Some((hit, slot)) = self.hit(space, address, data.len()) else { return false };
        let mut function = slot.lock();
        if let Some(watcher) = &slot.watcher {
            watcher.doorbell(rip);
        }
        function.write_bar(hit.bar, hit.offset, data);
        true
    }

    /// Splits an ECAM offset (PCI Express 7.2.2) into function and register.
    fn ecam(offset: u64) -> Option<(Bdf, usize)> {
        let bdf = u16::try_from(offset >> 12).ok()?;
        let register = usize::try_from(offset & 0xfff).ok()?;
        Some((Bdf(bdf), register))
    }

    /// Reads through ECAM, `offset` from its base.
    pub fn read_ecam(&self, offset: u64, data: &mut [u8]) {
        match Self::ecam(offset) {
            Some((bdf, register)) => self.read_config(bdf, register, data),
            None => data.fill(0xff),
        }
    }

    /// Writes through ECAM.
    pub fn write_ecam(&self, offset: u64, data: &[u8]) {
        if let Some((bdf, register)) = Self::ecam(offset) {
            self.write_config(bdf, register, data);
        }
    }
}

#[cfg(test)]
mod tests;
