//! Offences that wait: what comes next decides what they are called, or whether they are any.

use super::judge::Found;
use super::state::*;
use crate::*;

/// Offences of a mapping that wait, at most.
const HELD: usize = 8;
/// Times in a row that the device wrote again before the second look.
const STRIKES: u32 = 3;

/// What an offence waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// DV201, which a for_device of bytes that are the same still makes DV211. The bytes shown: page, first, values.
    ForDevice(usize, usize, Vec<u8>),
    /// DV222, which a for_device before the CPU looks excuses.
    GiveBack,
    /// DV212, which a look after the next for_cpu excuses.
    SecondLook { page: usize, from: usize, to: usize, retaken: bool },
}

/// An offence that waits for what comes next.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) waits: Waits,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) found: Found,
}

impl Held {
    fn overlaps(&self, from: usize, to: usize) -> bool {
        self.from < to && from < self.to
    }
    pub(crate) fn looks_at(&self, at: usize) -> bool {
        matches!(self.waits, Waits::SecondLook { page, .. } if page == at)
    }
}

impl Model {
    /// Makes an offence wait.
    pub(crate) fn hold(&mut self, m: usize, held: Held) {
        if self.maps[m].held.len() < HELD {
            self.maps[m].held.push(held);
        } else if matches!(held.waits, Waits::ForDevice(..)) {
            self.judge.keep(held.found);
        }
    }

    pub(crate) fn take_held(&mut self, m: usize, which: impl Fn(&Held) -> bool) -> Vec<Held> {
        let (gone, stay) = std::mem::take(&mut self.maps[m].held).into_iter().partition(which);
        self.maps[m].held = stay;
        gone
    }

    /// What a sync says of offences that wait.
    pub(crate) fn settle_held(&mut self, m: usize, for_cpu: bool, from: usize, to: usize) {
        for held in self.take_held(m, |h| matches!(h.waits, Waits::ForDevice(..)) && h.overlaps(from, to)) {
            let Waits::ForDevice(page, at, bytes) = &held.waits else { continue };
            let same = bytes.iter().enumerate().all(|(i, byte)| self.pages[*page][at + i].cpu == *byte);
            let mut found = held.found;
            if !for_cpu && same {
                (found.code, found.kind, found.severity) = (Code::DV211, Some(Code::DV201), Severity::Error);
            }
            self.judge.keep(found);
        }
        for held in self.take_held(m, |h| h.waits == Waits::GiveBack && h.overlaps(from, to)) {
            if for_cpu {
                self.judge.keep(held.found);
            }
        }
        for held in self.maps[m].held.iter_mut().filter(|h| for_cpu && h.overlaps(from, to)) {
            if let Waits::SecondLook { retaken, .. } = &mut held.waits {
                *retaken = true;
            }
        }
    }

    /// The device writes again: whoever was to look at the bytes a second time cannot.
    pub(crate) fn overwrite_held(&mut self, m: usize, from: usize, to: usize) {
        for held in self.take_held(m, |h| matches!(h.waits, Waits::SecondLook { .. }) && h.overlaps(from, to)) {
            let strikes = self.judge.strikes.entry((held.found.map_site, held.found.site)).or_default();
            *strikes += 1;
            if *strikes >= STRIKES {
                self.judge.keep(held.found);
            }
        }
    }

    /// The mapping ends: what waits stands, except what was taken again.
    pub(crate) fn release(&mut self, m: usize) {
        for held in self.take_held(m, |_| true) {
            if !matches!(held.waits, Waits::SecondLook { retaken: true, .. }) {
                self.judge.keep(held.found);
            }
        }
    }
}
