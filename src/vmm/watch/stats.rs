//! Figures of the CPU watch.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a guarded page stopped a CPU, in traps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traps {
    /// An instruction's memory operand.
    pub data: u64,
    /// The instruction itself lies on the page.
    pub fetch: u64,
    /// The CPU was delivering an interrupt or exception: stack, descriptor table or task state on the page.
    pub event_delivery: u64,
    /// The page holds a page table of the guest.
    pub page_walk: u64,
    /// The page had been given back between the stop and the look at it.
    pub raced: u64,
    /// KVM's own instruction emulator could not get at the page.
    pub emulator: u64,
}

impl Traps {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.data + self.fetch + self.event_delivery + self.page_walk + self.raced + self.emulator
    }
}

/// Figures of the CPU watch in one run, all CPUs. Counts and times, so different in every run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStats {
    /// Traps by class.
    pub traps: Traps,
    /// Instructions emulated (tier 1), by form such as `mov r64,m64`. A run of a repeated string instruction counts once.
    pub tier1: BTreeMap<String, u64>,
    /// Instructions stepped (tier 2), by form.
    pub tier2: BTreeMap<String, u64>,
    /// Times a page was open while the guest ran unseen, because the instruction can be neither emulated nor stepped or the CPU was
    /// delivering an event.
    pub opened: u64,
    /// The same by what it was that the guest did: the form of the instruction, or `event delivery`.
    pub opened_for: BTreeMap<String, u64>,
    /// Pages whose protection was changed.
    pub flips: u64,
    /// System calls that took: adjacent pages go together.
    pub flip_calls: u64,
    /// Times all other CPUs were stopped.
    pub stops: u64,
    /// Time spent in traps in ns, all CPUs.
    pub trap_ns: u64,
    /// Pages guarded at the end.
    pub guarded: u64,
    /// Most pages guarded at one time.
    pub guarded_peak: u64,
    /// Pages the system would not protect (ENOMEM: vm.max_map_count).
    pub refused: u64,
    /// Steps that did not come back in time and were given up.
    pub watchdog: u64,
    /// Pages the stress mode closed, each time counted.
    pub stress_pages: u64,
}

impl WatchStats {
    /// Instructions emulated.
    #[must_use]
    pub fn emulated(&self) -> u64 {
        self.tier1.values().sum()
    }

    /// Instructions stepped.
    #[must_use]
    pub fn stepped(&self) -> u64 {
        self.tier2.values().sum()
    }

    /// Adds the figures of another CPU, or those of the gate.
    pub fn add(&mut self, other: Self) {
        self.traps.data += other.traps.data;
        self.traps.fetch += other.traps.fetch;
        self.traps.event_delivery += other.traps.event_delivery;
        self.traps.page_walk += other.traps.page_walk;
        self.traps.raced += other.traps.raced;
        self.traps.emulator += other.traps.emulator;
        for (mine, theirs) in [(&mut self.tier1, other.tier1), (&mut self.tier2, other.tier2), (&mut self.opened_for, other.opened_for)] {
            for (form, count) in theirs {
                *mine.entry(form).or_default() += count;
            }
        }
        self.opened += other.opened;
        self.flips += other.flips;
        self.flip_calls += other.flip_calls;
        self.stops += other.stops;
        self.trap_ns += other.trap_ns;
        self.guarded += other.guarded;
        self.guarded_peak += other.guarded_peak;
        self.refused += other.refused;
        self.watchdog += other.watchdog;
        self.stress_pages += other.stress_pages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_cpus_add_up() {
        let one = |form: &str, n| WatchStats {
            traps: Traps { data: n, raced: 1, ..Traps::default() },
            tier1: BTreeMap::from([(form.to_owned(), n)]),
            stops: 1,
            ..WatchStats::default()
        };
        let mut sum = one("a", 2);
        sum.add(one("a", 3));
        sum.add(one("b", 4));
        assert_eq!((sum.traps.total(), sum.emulated(), sum.stepped(), sum.stops), (12, 9, 0, 3));
        assert_eq!(sum.tier1, BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 4)]));
    }
}
