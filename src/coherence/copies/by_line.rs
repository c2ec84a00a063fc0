//! From the device to the CPU, line by line: what other machines than arm64 do, and lines covered in part with `--edges line`.

use super::to_cpu::{Lost, ToCpu, store};
use super::{Copies, CpuWrite, Evidence, POISON, evidence, find_ref};
use crate::bits::{Bits, PAGE, PageBytes};
use crate::chunk::Chunk;
use crate::profile::{Edge, Edges, Op};

/// Why the CPU does not get what the device wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The CPU wrote the line while it was the device's.
    Overwritten {
        /// It wrote beside the mapping only.
        beside: bool,
        /// The line went back to memory of its own accord.
        evicted: bool,
    },
    /// The line was never handed over, and went back to memory of its own accord.
    NeverHanded,
    /// The line was in the cache still.
    Stale {
        /// It was handed over through this mapping.
        handed: bool,
    },
}

/// Bytes the device wrote that the CPU does not get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hidden {
    /// First such byte in the page.
    pub(crate) start: usize,
    /// One past the last.
    pub(crate) end: usize,
    /// Both sides before.
    pub(crate) evidence: Evidence,
    pub(crate) why: Why,
    /// Of the writes of the CPU that are the cause and were seen, the first in the first line that has one.
    pub(crate) write: Option<CpuWrite>,
}

impl Hidden {
    /// The same with bytes further on in the mapping, which that write hid.
    pub(crate) fn and(self, write: Option<CpuWrite>) -> Self {
        Self { write: self.write.or(write), ..self }
    }
}

/// Writes of the CPU beside a mapping that went with a line of it: the first such byte in the page, and one past the last.
pub(crate) type Beside = (usize, usize);

/// What becomes of the bytes of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The device's copy, as far as it means something.
    Fetched,
    /// The bytes the device wrote.
    Written,
    /// The same; what else is dirty goes to the device.
    Exchanged,
    /// The device's copy becomes the CPU's.
    WrittenBack,
    /// Both stay as they are.
    Kept,
}

/// Collects what a call did.
struct Tally {
    lost: Bits,
    never: Bits,
    beside: Bits,
    hidden: Bits,
    /// Goes to the device.
    back: Bits,
    edge_dirty: u128,
    stuck: u128,
    /// Lines in which a write of the CPU hid what the device wrote.
    by: u128,
    why: Option<Why>,
}

impl Copies {
    /// The bytes a call on a chunk is about: with `--edges line` whole lines.
    pub(super) fn reach(&self, start: usize, end: usize) -> (usize, usize) {
        match self.edges {
            Edges::Isolate => (start, end),
            Edges::Line => (start / self.line * self.line, end.next_multiple_of(self.line)),
        }
    }

    fn fate(&self, how: Op, whole: bool, dirty: bool) -> Fate {
        let as_line = whole || self.edges == Edges::Line;
        let saved = !whole && matches!(self.machine.edge, Some((Edge::WrittenBack, _)));
        match (how, as_line) {
            (Op::CopyOut, _) => Fate::Fetched,
            (Op::CleanInvalidate, false) => Fate::Exchanged,
            (_, false) => Fate::Written,
            (Op::CleanInvalidate, true) if dirty => Fate::WrittenBack,
            (Op::Nothing, true) if dirty => Fate::Kept,
            (_, true) if saved && dirty => Fate::WrittenBack,
            (_, true) => Fate::Fetched,
        }
    }

    /// Takes the device's bytes of a chunk as `how` says. With `--edges isolate` never writes guest RAM outside the chunk.
    pub(super) fn take_by_line(&mut self, chunk: &Chunk, mapping: u32, how: Op) -> ToCpu {
        let touched = self.lines(chunk.start, chunk.end);
        let (line, keeps, poisons) = (self.line, self.machine.keeps_lines, self.machine.poisons);
        let (first, last) = self.reach(chunk.start, chunk.end);
        let mut result = ToCpu::default();
        let Some(slot) = self.slot(chunk.page) else { return result };
        self.read_both(slot, chunk.page, first, last);
        result.written = self.arena.any_written(slot, chunk.start, chunk.end);
        let fates: Vec<(usize, usize, bool, Fate)> = (first / line * line..last)
            .step_by(line)
            .map(|at| {
                let (from, to) = (at.max(first), (at + line).min(last));
                let whole = chunk.start <= at && at + line <= chunk.end;
                let dirty = self.is_dirty(slot, from, to);
                (from, to, whole, self.fate(how, whole, dirty))
            })
            .collect();
        let Some(page) = self.pages.get_mut(slot as usize) else { return result };
        let scratch = &mut *self.scratch;
        (scratch.changed, scratch.moved) = (Bits::EMPTY, Bits::EMPTY);
        let (owned, stale, handed) = find_ref(&mut page.refs, mapping, chunk).map_or((0, 0, 0), |r| (r.owned, r.stale, r.handed));
        let mut tally = Tally {
            lost: Bits::EMPTY,
            never: Bits::EMPTY,
            beside: Bits::EMPTY,
            hidden: Bits::EMPTY,
            back: Bits::EMPTY,
            edge_dirty: 0,
            stuck: 0,
            by: 0,
            why: None,
        };
        let mut poisoned = Bits::EMPTY;
        for (from, to, whole, fate) in fates {
            let inside = |at: usize| (chunk.start..chunk.end).contains(&at);
            let bit = super::lines(line, from, from + 1);
            let changed = |at: usize, page: &super::Page| byte(&scratch.cpu, at) != byte(&page.baseline, at);
            let wrote_beside_only = (from..to).all(|at| !(changed(at, page) && page.fresh.get(at) && inside(at)));
            for at in from..to {
                let (fresh, wrote, changed) = (page.fresh.get(at), scratch.written.get(at), changed(at, page));
                let dirty = changed && fresh;
                let differ = byte(&scratch.cpu, at) != byte(&scratch.device, at);
                let held = keeps && page.extra.as_ref().is_some_and(|extra| extra.held.get(at));
                let stays = keeps && if how == Op::Nothing { held || dirty } else { held && !dirty };
                let comes = match fate {
                    Fate::Fetched => fresh || wrote,
                    Fate::Written | Fate::Exchanged => wrote,
                    Fate::WrittenBack | Fate::Kept => false,
                };
                let moved = comes && !stays;
                if inside(at) && changed && !fresh {
                    tally.never.set(at, at + 1);
                }
                if fate == Fate::WrittenBack || (fate == Fate::Exchanged && dirty && !wrote) {
                    tally.back.set(at, at + 1);
                }
                if wrote && !moved && differ && inside(at) {
                    tally.hidden.set(at, at + 1);
                    tally.stuck |= bit;
                    let overwritten = matches!(fate, Fate::WrittenBack | Fate::Kept) || dirty;
                    if overwritten {
                        tally.by |= bit;
                    }
                    tally.why.get_or_insert(if overwritten {
                        Why::Overwritten { beside: wrote_beside_only, evicted: false }
                    } else {
                        Why::Stale { handed: handed & bit != 0 }
                    });
                }
                if !moved {
                    if dirty && inside(at) && !tally.back.get(at) {
                        tally.edge_dirty |= bit;
                    }
                    continue;
                }
                scratch.moved.set(at, at + 1);
                let awaited = poisons && whole && page.extra.as_ref().is_some_and(|extra| extra.awaited.get(at));
                if awaited && !wrote && !dirty {
                    poisoned.set(at, at + 1);
                    if let Some(byte) = scratch.device.bytes_mut().get_mut(at) {
                        *byte = POISON;
                    }
                }
                if byte(&scratch.cpu, at) != byte(&scratch.device, at) {
                    scratch.changed.set(at, at + 1);
                    match (dirty, inside(at)) {
                        (true, true) => tally.lost.set(at, at + 1),
                        (true, false) => tally.beside.set(at, at + 1),
                        (false, true) if changed => tally.lost.set(at, at + 1),
                        (false, _) => {}
                    }
                }
            }
        }
        for (from, to) in tally.lost.runs() {
            page.watch.discard(from, to);
        }
        // A write that hid what the device wrote in its line had a consequence, too.
        let mut write = None;
        for at in (0..PAGE / line).filter(|at| tally.by >> at & 1 != 0) {
            page.watch.discard(at * line, (at + 1) * line);
            write = write.or_else(|| page.watch.first_write_in(at * line, (at + 1) * line));
        }
        for at in (0..PAGE / line).filter(|at| stale >> at & 1 != 0) {
            // What the device was already found to have used stale is not found a second time.
            tally.lost.clear(at * line, (at + 1) * line);
            tally.never.clear(at * line, (at + 1) * line);
        }
        let lost_lines = tally.lost.runs().fold(0, |all, (from, to)| all | super::lines(line, from, to));
        result.never = tally.never.hull();
        if let Some((start, end)) = tally.lost.hull() {
            let evidence = evidence(chunk, start, &scratch.cpu, &scratch.device);
            let cpu_owned = owned & super::lines(line, start, start + 1) == 0;
            let write = page.watch.first_write(&tally.lost);
            result.lost = Some(Lost { start, end, evidence, cpu_owned, never_handed: !page.fresh.get(start), write });
        }
        result.beside = tally.beside.hull();
        if let (Some((start, end)), Some(why)) = (tally.hidden.hull(), tally.why) {
            result.hidden = Some(Hidden { start, end, evidence: evidence(chunk, start, &scratch.cpu, &scratch.device), why, write });
        }
        result.moved = scratch.changed.count(first, last);
        if result.moved != 0 {
            store(&self.ram, chunk.page, scratch);
        }
        for (from, to) in scratch.moved.runs() {
            if let (Some(device), Some(baseline)) = (scratch.device.bytes().get(from..to), page.baseline.bytes_mut().get_mut(from..to)) {
                baseline.copy_from_slice(device);
            }
            page.fresh.set(from, to);
            self.arena.forget(slot, from, to);
        }
        for (from, to) in poisoned.runs() {
            self.arena.store(slot, from, scratch.device.bytes().get(from..to).unwrap_or_default());
        }
        for (from, to) in tally.back.runs() {
            page.write_back(&self.arena, slot, &scratch.cpu, from, to);
        }
        if let Some(extra) = &mut page.extra {
            for (from, to) in scratch.moved.runs() {
                extra.awaited.clear(from, to);
            }
            extra.held.set(first, last);
        }
        if let Some(r) = find_ref(&mut page.refs, mapping, chunk) {
            let whole = super::whole_lines(line, chunk.start, chunk.end);
            r.given_to_cpu(touched, whole, tally.edge_dirty, tally.stuck, lost_lines);
        }
        result
    }

    /// Reads both copies of `first..last` of a page, and which bytes the device wrote.
    pub(super) fn read_both(&mut self, slot: u32, page: u64, first: usize, last: usize) {
        let scratch = &mut *self.scratch;
        if let Some(cpu) = scratch.cpu.bytes_mut().get_mut(first..last) {
            self.ram.read(page, first, cpu);
        }
        if let Some(device) = scratch.device.bytes_mut().get_mut(first..last) {
            self.arena.read(slot, first, device);
        }
        scratch.written = Bits::EMPTY;
        self.arena.written(slot, first, last, &mut scratch.written);
    }

    /// Whether the CPU changed any of `from..to` since the last hand-over; after [`read_both`](Self::read_both).
    pub(super) fn is_dirty(&self, slot: u32, from: usize, to: usize) -> bool {
        let Some(page) = self.pages.get(slot as usize) else { return false };
        let cpu = &self.scratch.cpu;
        cpu.bytes().get(from..to) != page.baseline.bytes().get(from..to)
            && (from..to).any(|at| page.fresh.get(at) && byte(cpu, at) != byte(&page.baseline, at))
    }
}

/// A byte of a page.
pub(super) fn byte(page: &PageBytes, at: usize) -> Option<u8> {
    page.bytes().get(at).copied()
}
