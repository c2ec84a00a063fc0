//! The bytes: every byte of every page with both its copies, every line of every mapping with its story.
//!
//! Written from the table of operations (design, section 4), one byte after the other.

use super::cache::Adversary;
use super::judge::Judge;
use super::machine::Machine;
use crate::*;

pub(crate) const PAGE: usize = 4096;
/// What the device finds where nothing was ever handed over.
pub(crate) const POISON: u8 = 0xdb;

/// The number of a place in the driver's code; 0 where there is none.
pub(crate) type Site = u32;

/// One byte of a page with two copies.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Byte {
    pub(crate) cpu: u8,
    pub(crate) device: u8,
    /// The CPU's byte at the last hand-over.
    pub(crate) base: u8,
    /// The device's byte is that of the last hand-over, or was taken.
    pub(crate) fresh: bool,
    /// The device wrote it and nobody took it.
    pub(crate) written: bool,
    /// Given to the CPU although the device had not written it in the transfer.
    pub(crate) awaited: bool,
    /// The CPU was seen to write it while a device owned it; no hand-over, no end of a mapping of it and no write of a device came since.
    pub(crate) own: bool,
    /// The CPU was given it and nothing invalidated it since (`mips`, `worst`).
    pub(crate) held: bool,
    /// It comes back as poison unless a side writes it (`worst`).
    pub(crate) doomed: bool,
}

impl Byte {
    /// The CPU has something else than what was handed over last.
    pub(crate) fn dirty(self) -> bool {
        self.cpu != self.base
    }
}

/// What became of one line of a mapping.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Line {
    /// The device owns it.
    pub(crate) owned: bool,
    /// It was handed over through this mapping.
    pub(crate) handed: bool,
    /// A for_cpu left changes of the CPU where they were: a for_device belonged there.
    pub(crate) wrong_sync: bool,
    /// The device used it when it was right.
    pub(crate) used: bool,
    /// An offence was found on it.
    pub(crate) offended: bool,
    /// The first offence on it came after it had been used when it was right.
    pub(crate) reused: bool,
    /// The device used it when it was stale, and it was not given since.
    pub(crate) stale: bool,
    /// The CPU took it in a transfer.
    pub(crate) taken: bool,
    /// A for_device came when the device had written it and nobody had taken that.
    pub(crate) given_back: bool,
    /// The device wrote it while it was the CPU's.
    pub(crate) late: bool,
    /// A for_cpu did not bring what the device wrote in it, and that was said there.
    pub(crate) stuck: bool,
}

/// The bytes of one page that one entry of a mapping covers.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) page: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Offset of the first byte within the mapping.
    pub(crate) offset: usize,
    /// By number of the line in the page.
    pub(crate) lines: Vec<Line>,
}

/// Bytes `from..to` of part `part` of a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) part: usize,
    pub(crate) page: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Offset of `from` within the mapping.
    pub(crate) offset: usize,
}

/// What happened to bytes of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Map,
    MapSkip,
    Alloc,
    ForCpu,
    ForDevice,
    DeviceRead,
    DevicePoll,
    DevicePrefetch,
    DeviceWrite,
    CpuRead,
    CpuWrite,
}

impl What {
    pub(crate) fn hands_over(self) -> bool {
        matches!(self, Self::Map | Self::MapSkip | Self::Alloc | Self::ForCpu | Self::ForDevice)
    }
}

/// One event of a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) what: What,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) site: Site,
    pub(crate) seq: u64,
}

impl Entry {
    pub(crate) fn overlaps(&self, from: usize, to: usize) -> bool {
        self.from < to && from < self.to
    }
}

/// A map or alloc call as the driver makes it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) device: usize,
    pub(crate) family: Family,
    pub(crate) direction: Direction,
    pub(crate) skip: bool,
    pub(crate) kind: PageKind,
    /// Page, first byte, length.
    pub(crate) pieces: Vec<(usize, usize, usize)>,
    pub(crate) site: Site,
}

/// One mapping, alive or not.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) call: Call,
    pub(crate) size: usize,
    /// CPU and device have the same bytes.
    pub(crate) one_copy: bool,
    pub(crate) parts: Vec<Part>,
    /// Handle, offset within the mapping, length.
    pub(crate) handles: Vec<(u64, usize, usize)>,
    pub(crate) live: bool,
    /// Where it was unmapped.
    pub(crate) unmapped: Site,
    /// A write of the CPU beside it was seen.
    pub(crate) beside_seen: bool,
    pub(crate) log: Vec<Entry>,
    pub(crate) held: Vec<super::held::Held>,
    /// The CPU read too early since the last for_cpu that took something.
    pub(crate) peeked: bool,
}

impl Mapping {
    pub(crate) fn two_copies(&self) -> bool {
        !self.one_copy
    }
    pub(crate) fn writable(&self) -> bool {
        self.call.direction != Direction::ToDevice
    }
    /// The parts of bytes `from..to`.
    pub(crate) fn cuts(&self, from: usize, to: usize) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for (part, p) in self.parts.iter().enumerate() {
            let first = from.max(p.offset);
            let last = to.min(p.offset + (p.to - p.from));
            if first < last {
                let at = p.from + (first - p.offset);
                cuts.push(Cut { part, page: p.page, from: at, to: at + (last - first), offset: first });
            }
        }
        cuts
    }
    /// Adds an event. Accesses of one place that go on where the last one ended are one transfer; reads of the CPU in a row are one.
    pub(crate) fn note(&mut self, what: What, from: usize, to: usize, site: Site, seq: u64, apart: bool) {
        // The first event of all stands for itself.
        if self.log.len() > 1
            && let Some(last) = self.log.last_mut()
            && !what.hands_over()
            && last.what == what
            && !apart
            && (what == What::CpuRead || (last.site == site && from <= last.to && last.from <= to))
        {
            last.from = last.from.min(from);
            last.to = last.to.max(to);
            last.seq = seq;
            return;
        }
        self.log.push(Entry { what, from, to, site, seq });
    }
    /// The last hand-over of any of the bytes.
    pub(crate) fn last_handover(&self, from: usize, to: usize) -> Option<Entry> {
        self.log.iter().rev().find(|e| e.what.hands_over() && e.overlaps(from, to)).copied()
    }
}

/// A write of the CPU to bytes a device owned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) mapping: usize,
    pub(crate) page: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) site: Site,
    /// The device wrote a line of it afterwards.
    pub(crate) overtaken: bool,
    /// A hand-over to the CPU discarded some of it.
    pub(crate) discarded: bool,
}

/// What a hand-over to the CPU did.
#[derive(Default, Debug)]
pub(crate) struct Taken {
    /// Offsets of bytes whose change by the CPU was discarded; those that are the same offence as a stale read apart.
    pub(crate) lost: Vec<usize>,
    pub(crate) lost_known: Vec<usize>,
    /// Offsets of bytes the CPU changed that were never handed over.
    pub(crate) never: Vec<usize>,
    /// Of the first lost byte: its line was the CPU's; it was never handed over.
    pub(crate) cpu_owned: bool,
    pub(crate) unhanded: bool,
    /// The device had written some of the bytes.
    pub(crate) took: bool,
    /// What the device wrote and the CPU does not get.
    pub(crate) hidden: Vec<Hidden>,
    /// The CPU's writes beside the mapping were discarded.
    pub(crate) beside: bool,
}

/// Why the CPU does not get what the device wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// The CPU wrote the line; beside the mapping only.
    Overwritten { beside: bool },
    /// The line was never handed over and went to memory of its own accord.
    NeverHanded,
    /// The line was in the cache still; it was handed over through the mapping.
    Stale { handed: bool },
}

/// A byte the device wrote and the CPU does not get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hidden {
    pub(crate) page: usize,
    pub(crate) line: usize,
    /// Offset in the mapping.
    pub(crate) offset: usize,
    pub(crate) why: Why,
}

/// The machine: pages, mappings, devices and what was found.
pub(crate) struct Model {
    pub(crate) line: usize,
    pub(crate) machine: Machine,
    pub(crate) adversary: Adversary,
    pub(crate) pages: Vec<Vec<Byte>>,
    pub(crate) maps: Vec<Mapping>,
    pub(crate) judge: Judge,
    pub(crate) seq: u64,
}

impl Hidden {
    /// Whether that write of the CPU was in the line that went over it.
    pub(crate) fn is_by(&self, w: &Write, line: usize) -> bool {
        let lines = w.from / line..=(w.to - 1) / line;
        w.page == self.page && !matches!(self.why, Why::Stale { .. }) && lines.contains(&self.line)
    }
}

impl Model {
    pub(crate) fn live(&self) -> Vec<usize> {
        (0..self.maps.len()).filter(|m| self.maps[*m].live).collect()
    }

    /// Live mappings with two copies that have bytes of a page.
    pub(crate) fn on_page(&self, page: usize) -> Vec<usize> {
        let has = |m: &usize| self.maps[*m].two_copies() && self.maps[*m].parts.iter().any(|p| p.page == page);
        self.live().into_iter().filter(has).collect()
    }

    /// The lines of a cut.
    pub(crate) fn lines_of(&self, cut: Cut) -> std::ops::RangeInclusive<usize> {
        cut.from / self.line..=(cut.to - 1) / self.line
    }

    /// Whether a byte's line lies wholly inside the cut.
    fn whole(&self, cut: Cut, at: usize) -> bool {
        let line = at / self.line * self.line;
        cut.from <= line && line + self.line <= cut.to
    }

    /// The bytes of the cut in one of its lines.
    pub(crate) fn in_line(&self, cut: Cut, line: usize) -> std::ops::Range<usize> {
        cut.from.max(line * self.line)..cut.to.min((line + 1) * self.line)
    }

    /// Whether the cut has a byte in that line for which `which` holds.
    fn some(&self, cut: Cut, line: usize, which: impl Fn(Byte) -> bool) -> bool {
        self.pages[cut.page][self.in_line(cut, line)].iter().any(|b| which(*b))
    }

    /// A page comes under two copies: nothing on it was handed over.
    pub(crate) fn enter(&mut self, page: usize) {
        for b in &mut self.pages[page] {
            (b.fresh, b.written, b.awaited) = (false, false, false);
            (b.held, b.doomed) = (true, false);
        }
    }

    /// for_device, and map: dirty bytes go to the device.
    pub(crate) fn hand_over(&mut self, m: usize, from: usize, to: usize) {
        for cut in self.maps[m].cuts(from, to) {
            for line in self.lines_of(cut) {
                let untaken = self.some(cut, line, |b| b.written);
                let l = &mut self.maps[m].parts[cut.part].lines[line];
                (l.owned, l.handed) = (true, true);
                (l.wrong_sync, l.stale, l.late) = (false, false, false);
                l.given_back |= untaken;
            }
            for at in cut.from..cut.to {
                let b = &mut self.pages[cut.page][at];
                if !(b.fresh || b.written) || b.dirty() {
                    (b.device, b.base, b.written) = (b.cpu, b.cpu, false);
                }
                b.fresh = true;
            }
        }
    }

    /// A map without a sync, and alloc: what nobody handed over is poison.
    pub(crate) fn poison(&mut self, m: usize, owned: bool) {
        for cut in self.maps[m].cuts(0, usize::MAX) {
            for line in self.lines_of(cut) {
                self.maps[m].parts[cut.part].lines[line].owned |= owned;
            }
            for at in cut.from..cut.to {
                let b = &mut self.pages[cut.page][at];
                if !(b.fresh || b.written) {
                    (b.device, b.base) = (POISON, b.cpu);
                }
            }
        }
    }

    /// for_cpu with DMA_TO_DEVICE: only ownership moves.
    pub(crate) fn take_nothing(&mut self, m: usize, from: usize, to: usize) {
        for cut in self.maps[m].cuts(from, to) {
            for line in self.lines_of(cut) {
                let changed = self.some(cut, line, |b| b.fresh && b.dirty());
                let l = &mut self.maps[m].parts[cut.part].lines[line];
                l.owned = false;
                l.wrong_sync |= changed && !l.stale;
            }
        }
    }

    /// for_cpu and unmap otherwise: whole lines become the device's, of others what it wrote.
    pub(crate) fn take_back(&mut self, m: usize, from: usize, to: usize) -> Taken {
        let mut taken = Taken::default();
        let cuts = self.maps[m].cuts(from, to);
        for cut in &cuts {
            taken.took |= (cut.from..cut.to).any(|at| self.pages[cut.page][at].written);
        }
        for cut in cuts {
            for line in self.lines_of(cut) {
                let before = self.maps[m].parts[cut.part].lines[line];
                let (mut lost_here, mut left) = (false, false);
                for at in self.in_line(cut, line) {
                    let whole = self.whole(cut, at);
                    let offset = cut.offset + (at - cut.from);
                    let b = &mut self.pages[cut.page][at];
                    let moves = b.written || (whole && b.fresh);
                    if b.dirty() && !b.fresh && !before.stale {
                        taken.never.push(offset);
                    }
                    if moves && b.dirty() && b.device != b.cpu {
                        if before.stale {
                            taken.lost_known.push(offset);
                        } else {
                            if taken.lost.is_empty() {
                                (taken.cpu_owned, taken.unhanded) = (!before.owned, !b.fresh);
                            }
                            taken.lost.push(offset);
                            lost_here = true;
                        }
                    }
                    left |= b.dirty() && b.fresh && !moves;
                    if moves {
                        (b.cpu, b.base, b.fresh) = (b.device, b.device, true);
                    }
                    b.written = false;
                }
                let whole = self.whole(cut, line * self.line);
                let l = &mut self.maps[m].parts[cut.part].lines[line];
                (l.owned, l.late, l.given_back) = (false, false, false);
                l.taken |= taken.took;
                l.offended |= lost_here;
                if whole {
                    (l.stale, l.wrong_sync) = (false, false);
                }
                l.wrong_sync |= left && !before.stale;
            }
        }
        taken
    }

    /// A mapping is gone: bytes under no other are not fresh any more.
    pub(crate) fn leave(&mut self, m: usize) {
        self.maps[m].live = false;
        if !self.maps[m].two_copies() {
            return;
        }
        for cut in self.maps[m].cuts(0, usize::MAX) {
            let others = self.on_page(cut.page);
            let parts: Vec<_> = others.iter().flat_map(|o| &self.maps[*o].parts).filter(|p| p.page == cut.page).collect();
            let line = if self.machine.whole_lines { self.line } else { 1 };
            let reach = |from: usize, to: usize| from / line * line..to.next_multiple_of(line);
            let theirs = |at: &usize| parts.iter().any(|p| reach(p.from, p.to).contains(at));
            let alone: Vec<usize> = reach(cut.from, cut.to).filter(|at| !theirs(at)).collect();
            for at in alone {
                let b = &mut self.pages[cut.page][at];
                (b.fresh, b.written) = (false, false);
            }
            if others.is_empty() {
                self.enter(cut.page);
            }
        }
    }

    /// What the CPU may do with a page unseen, when all pages are watched.
    pub(crate) fn guard(&self, page: usize) -> Guard {
        let theirs = self.on_page(page);
        let owned = |writable: bool| {
            let of = theirs.iter().map(|m| &self.maps[*m]).filter(|m| m.writable() == writable);
            of.flat_map(|m| &m.parts).filter(|p| p.page == page).any(|p| p.lines.iter().any(|l| l.owned))
        };
        let waits = |m: &usize| self.maps[*m].held.iter().any(|h| h.looks_at(page));
        let expected = || self.pages[page].iter().fold(false, |any, b| any | b.written | b.awaited);
        if owned(true) || expected() || theirs.iter().any(waits) {
            Guard::Closed
        } else if owned(false) {
            Guard::ReadOnly
        } else {
            Guard::Open
        }
    }
}
