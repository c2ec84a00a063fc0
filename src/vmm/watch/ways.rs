//! What was done about traps, countable while the guest runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// Traps by what was done about them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Instructions emulated (tier 1).
    pub emulated: u64,
    /// Instructions stepped (tier 2).
    pub stepped: u64,
    /// Times pages were opened without a step: code, page tables, event delivery, instructions that cannot be stepped.
    pub opened: u64,
    /// Accesses that KVM's own instruction emulator brought as if they were a device's.
    pub served: u64,
    /// Exceptions injected.
    pub injected: u64,
    /// Steps that did not end after their instruction: what the CPU did until it was stopped is not known.
    pub overrun: u64,
    /// Steps that ended before their instruction began: it is stopped at, and the core hears of its accesses, once more.
    pub repeated: u64,
}

impl Ways {
    /// All traps.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.emulated + self.stepped + self.opened + self.served + self.injected
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            emulated: self.emulated.saturating_sub(earlier.emulated),
            stepped: self.stepped.saturating_sub(earlier.stepped),
            opened: self.opened.saturating_sub(earlier.opened),
            served: self.served.saturating_sub(earlier.served),
            injected: self.injected.saturating_sub(earlier.injected),
            overrun: self.overrun.saturating_sub(earlier.overrun),
            repeated: self.repeated.saturating_sub(earlier.repeated),
        }
    }
}

/// The same, being counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// See [`Ways`].
    pub emulated: AtomicU64,
    /// See [`Ways`].
    pub stepped: AtomicU64,
    /// See [`Ways`].
    pub opened: AtomicU64,
    /// See [`Ways`].
    pub served: AtomicU64,
    /// See [`Ways`].
    pub injected: AtomicU64,
    /// See [`Ways`].
    pub overrun: AtomicU64,
    /// See [`Ways`].
    pub repeated: AtomicU64,
}

impl Tally {
    /// One more.
    pub fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts.
    pub fn get(&self) -> Ways {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ways {
            emulated: get(&self.emulated),
            stepped: get(&self.stepped),
            opened: get(&self.opened),
            served: get(&self.served),
            injected: get(&self.injected),
            overrun: get(&self.overrun),
            repeated: get(&self.repeated),
        }
    }
}
