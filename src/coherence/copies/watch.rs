//! What the CPU watch needs to know about a page: its guard, and the CPU's writes to bytes a device owns.
//!
//! A page is *closed* while a device that may write owns any of its lines or wrote bytes nobody took, *read-only* while a device
//! that only reads owns lines. Changes are collected here and passed on by the engine: before the CPU's copy is read
//! ([`Copies::close`]), and after it was written ([`Copies::relax`]).

use super::{Copies, Evidence, evidence, find_ref};
use crate::bits::{Bits, PAGE};
use crate::chunk::Chunk;
use crate::finding::AccessInfo;
use crate::ids::{Gpa, SiteId};
use crate::watch::Guard;

/// Writes remembered for a page; further ones are told by content only.
const MAX_WRITES: usize = 32;

/// A write of the CPU to bytes a device owned, judged by what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuWrite {
    pub(crate) mapping: u32,
    /// First byte in the page.
    pub(crate) start: usize,
    /// One past the last.
    pub(crate) end: usize,
    pub(crate) site: SiteId,
    pub(crate) access: AccessInfo,
    /// The device wrote a line of it afterwards.
    pub(crate) overtaken: bool,
    /// A hand-over to the CPU discarded some of it, or the device's bytes in its line were lost for it.
    pub(crate) discarded: bool,
}

/// The watch's side of a page.
#[derive(Debug, Default)]
pub(crate) struct PageWatch {
    /// The policy covers the page.
    pub(super) on: bool,
    /// It holds nothing but memory for DMA.
    pub(super) exclusive: bool,
    /// Given up until the last mapping ends.
    pub(super) abandoned: bool,
    /// As last passed on, or waiting in the list of changes.
    pub(super) guard: Guard,
    innocent: u32,
    /// Reads that wait for a verdict: the page stays closed to see what follows.
    pub(super) waiting: u32,
    pub(super) writes: Vec<CpuWrite>,
    /// Bytes a device owns that hold what the CPU wrote there since: no hand-over and no write of a device came later.
    own: Option<Box<Bits>>,
    /// Bytes given to the CPU that the device had not written in the transfer (only where that is asked for).
    unwritten: Option<Box<Bits>>,
}

impl PageWatch {
    /// The first write that has the first of those bytes which any of them has.
    pub(super) fn first_write(&self, bytes: &Bits) -> Option<CpuWrite> {
        let byte = |w: &CpuWrite| bytes.runs().find(|(from, to)| *from < w.end && w.start < *to).map(|(from, _)| from.max(w.start));
        let writes = self.writes.iter().filter_map(|w| Some((byte(w)?, w)));
        writes.min_by_key(|(byte, _)| *byte).map(|(_, write)| *write)
    }

    /// The first write through any mapping to one of `from..to`.
    pub(super) fn first_write_in(&self, from: usize, to: usize) -> Option<CpuWrite> {
        self.writes.iter().find(|w| w.start < to && from < w.end).copied()
    }

    /// Something came of the writes of the CPU to any of `from..to`.
    pub(super) fn discard(&mut self, from: usize, to: usize) {
        for write in &mut self.writes {
            write.discarded |= write.start < to && from < write.end;
        }
    }
}

/// A mapping's bytes that an access touches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touched {
    pub(crate) mapping: u32,
    pub(crate) segment: u32,
    /// All bytes of the mapping's segment in the page.
    pub(crate) bytes: (usize, usize),
    /// Those that are touched; empty for an access beside them in a line they share.
    pub(crate) hit: (usize, usize),
    pub(crate) writable: bool,
    /// Lines of `hit` (of the access, when it is beside) the device owns.
    pub(crate) owned: u128,
    pub(crate) taken: u128,
    pub(crate) given_back: u128,
    pub(crate) late: u128,
    pub(crate) stuck: u128,
}

impl Copies {
    /// A mapping's chunk was entered: whether the policy covers its page, and whether the page holds nothing else.
    pub(crate) fn watch(&mut self, page: u64, covered: bool, exclusive: bool) {
        let Some(watch) = self.page_watch(page) else { return };
        let starts = covered && !watch.on && !watch.abandoned;
        watch.on |= covered;
        watch.exclusive |= exclusive;
        self.watched += u64::from(starts);
    }

    fn page_watch(&mut self, page: u64) -> Option<&mut PageWatch> {
        let slot = self.slot(page)?;
        Some(&mut self.pages.get_mut(slot as usize)?.watch)
    }

    /// Whether accesses to the page are stopped when they matter.
    pub(crate) fn is_watched(&self, page: u64) -> bool {
        self.slot(page).and_then(|slot| self.pages.get(slot as usize)).is_some_and(|p| p.watch.on && !p.watch.abandoned)
    }

    /// Pages watched now.
    pub(crate) fn watched(&self) -> u64 {
        self.watched
    }

    /// Changes of guards that wait to be passed on, the last one for each page, in order of address.
    pub(crate) fn take_flips(&mut self) -> Vec<(Gpa, Guard)> {
        let mut flips = std::mem::take(&mut self.flips);
        if flips.len() > 1 {
            flips.reverse();
            flips.sort_by_key(|(page, _)| *page);
            flips.dedup_by_key(|(page, _)| *page);
        }
        flips
    }

    pub(crate) fn has_flips(&self) -> bool {
        !self.flips.is_empty()
    }

    /// Closes the page for a hand-over to a device, or for a device that writes what the CPU has.
    #[inline]
    pub(crate) fn close(&mut self, page: u64, writable: bool) {
        let Some(slot) = self.slot(page) else { return };
        let Some(record) = self.pages.get_mut(slot as usize) else { return };
        let least = if writable { Guard::Closed } else { Guard::ReadOnly };
        if record.watch.on && !record.watch.abandoned && record.watch.guard < least {
            record.watch.guard = least;
            self.flips.push((Gpa(page), least));
        }
    }

    /// Opens the page as far as nothing keeps it closed.
    pub(crate) fn relax(&mut self, page: u64) {
        let Some(slot) = self.slot(page) else { return };
        let Some(record) = self.pages.get_mut(slot as usize) else { return };
        if record.watch.guard == Guard::Open {
            return;
        }
        let owned = |writable| record.refs.iter().any(|r| r.writable == writable && r.owned != 0);
        let guard = if record.watch.abandoned {
            Guard::Open
        } else if owned(true) || record.watch.waiting != 0 || record.watch.unwritten.is_some() || self.arena.any_written(slot, 0, PAGE) {
            Guard::Closed
        } else if owned(false) {
            Guard::ReadOnly
        } else {
            Guard::Open
        };
        if record.watch.guard != guard {
            record.watch.guard = guard;
            self.flips.push((Gpa(page), guard));
        }
    }

    /// The last mapping of the page is gone.
    pub(super) fn unwatch(&mut self, slot: u32) {
        let Some(record) = self.pages.get_mut(slot as usize) else { return };
        let watch = std::mem::take(&mut record.watch);
        self.watched -= u64::from(watch.on && !watch.abandoned);
        if watch.guard != Guard::Open {
            self.flips.push((Gpa(record.gpa), Guard::Open));
        }
    }

    /// Gives the page up. Says how many mapped bytes that concerns; `None` when it was not watched.
    pub(crate) fn abandon(&mut self, page: u64) -> Option<u64> {
        let slot = self.slot(page)?;
        let record = self.pages.get_mut(slot as usize)?;
        if !record.watch.on || record.watch.abandoned {
            return None;
        }
        record.watch.abandoned = true;
        record.watch.writes = Vec::new();
        record.watch.own = None;
        record.watch.unwritten = None;
        self.watched -= 1;
        let bytes = record.refs.iter().map(|r| u64::from(r.end - r.start)).sum();
        self.relax(page);
        Some(bytes)
    }

    /// Counts an innocent access; true when the page has had more than its share. A page that holds nothing but memory for
    /// DMA has many more: giving it up would give up what it is watched for.
    pub(crate) fn count_innocent(&mut self, page: u64, budget: u32) -> bool {
        const EXCLUSIVE: u32 = 50;
        let Some(watch) = self.page_watch(page) else { return false };
        watch.innocent = watch.innocent.saturating_add(1);
        watch.innocent > if watch.exclusive { budget.saturating_mul(EXCLUSIVE) } else { budget }
    }

    /// The mappings whose bytes, or (for a write) whose device-owned lines, `start..end` of a page touches.
    pub(crate) fn touching(&self, page: u64, start: usize, end: usize, write: bool, out: &mut Vec<Touched>) {
        let Some(record) = self.slot(page).and_then(|slot| self.pages.get(slot as usize)) else { return };
        for r in &record.refs {
            let bytes = (r.start as usize, r.end as usize);
            let hit = (bytes.0.max(start), bytes.1.min(end));
            let inside = hit.0 < hit.1;
            let lines = if inside { self.lines(hit.0, hit.1) } else { self.lines(start, end) };
            if inside || (write && r.writable && r.owned & lines != 0) {
                let hit = if inside { hit } else { (start, start) };
                let (mapping, segment, writable) = (r.mapping, r.segment, r.writable);
                let (owned, taken, given_back, late, stuck) = (r.owned & lines, r.taken, r.given_back, r.late, r.stuck);
                out.push(Touched { mapping, segment, bytes, hit, writable, owned, taken, given_back, late, stuck });
            }
        }
    }

    /// The line of a byte, as a bit.
    pub(crate) fn line_bit(&self, byte: usize) -> u128 {
        self.lines(byte, byte + 1)
    }

    /// The bytes of `start..end` the device wrote and nobody took: from the first to one past the last.
    pub(crate) fn written_hull(&mut self, page: u64, start: usize, end: usize) -> Option<(usize, usize)> {
        let slot = self.slot(page)?;
        if !self.arena.any_written(slot, start, end) {
            return None;
        }
        self.scratch.written = Bits::EMPTY;
        self.arena.written(slot, start, end, &mut self.scratch.written);
        self.scratch.written.hull()
    }

    /// Both copies of a chunk around `first`.
    pub(crate) fn both_sides(&mut self, chunk: &Chunk, first: usize) -> Option<Evidence> {
        let slot = self.slot(chunk.page)?;
        let scratch = &mut *self.scratch;
        self.ram.read(chunk.page, chunk.start, scratch.cpu.bytes_mut().get_mut(chunk.start..chunk.end)?);
        self.arena.read(slot, chunk.start, scratch.device.bytes_mut().get_mut(chunk.start..chunk.end)?);
        Some(evidence(chunk, first, &scratch.cpu, &scratch.device))
    }

    /// Whether the CPU's copy of a page still is `bytes` from `start` on.
    pub(crate) fn cpu_has(&self, page: u64, start: usize, bytes: &[u8]) -> bool {
        let mut now = [0; 64];
        let Some(now) = now.get_mut(..bytes.len()) else { return false };
        self.ram.read(page, start, now);
        now == bytes
    }

    /// A device is about to write the chunk: what the CPU has of it is old from then on.
    #[inline]
    pub(crate) fn device_writes(&mut self, chunk: &Chunk, mapping: u32) {
        let touched = self.lines(chunk.start, chunk.end);
        let line = self.line;
        let Some(slot) = self.slot(chunk.page) else { return };
        let Some(page) = self.pages.get_mut(slot as usize) else { return };
        if !page.watch.on {
            return;
        }
        let Some(r) = find_ref(&mut page.refs, mapping, chunk) else { return };
        r.given_back &= !touched;
        r.late |= touched & !r.owned;
        let bounces = self.machine.edge.is_none();
        for write in &mut page.watch.writes {
            write.overtaken |= if bounces {
                write.start < chunk.end && chunk.start < write.end
            } else {
                super::lines(line, write.start, write.end) & touched != 0
            };
        }
        if let Some(unwritten) = &mut page.watch.unwritten {
            unwritten.clear(chunk.start, chunk.end);
            if unwritten.hull().is_none() {
                page.watch.unwritten = None;
            }
        }
        if let Some(own) = &mut page.watch.own {
            own.clear(chunk.start, chunk.end);
        }
        self.close(chunk.page, true);
    }

    /// Remembers a write. One that goes on where the last of the same place ended is the same.
    pub(crate) fn remember(&mut self, page: u64, write: CpuWrite) {
        let Some(watch) = self.page_watch(page) else { return };
        if let Some(last) = watch.writes.last_mut()
            && (last.site, last.mapping) == (write.site, write.mapping)
            && !(last.overtaken || last.discarded)
            && write.start <= last.end
            && last.start <= write.end
        {
            last.start = last.start.min(write.start);
            last.end = last.end.max(write.end);
            return;
        }
        if watch.writes.len() < MAX_WRITES {
            watch.writes.push(write);
        }
    }

    /// The CPU wrote `start..end`, which a device owns.
    pub(crate) fn note_own(&mut self, page: u64, start: usize, end: usize) {
        if let Some(watch) = self.page_watch(page).filter(|w| w.on && !w.abandoned) {
            watch.own.get_or_insert_with(|| Box::new(Bits::EMPTY)).set(start, end);
        }
    }

    /// Whether all of `start..end` holds what the CPU wrote there itself while a device owned it.
    pub(crate) fn is_own(&self, page: u64, start: usize, end: usize) -> bool {
        let own = self.slot(page).and_then(|slot| self.pages.get(slot as usize)).and_then(|record| record.watch.own.as_ref());
        own.is_some_and(|own| own.all(start, end))
    }

    /// Forgets the writes to the lines of a chunk that `mapping` knew of, and returns those that `keep` names.
    pub(crate) fn settle(&mut self, chunk: &Chunk, mapping: u32, keep: impl Fn(&CpuWrite) -> bool) -> Vec<CpuWrite> {
        let Some(watch) = self.page_watch(chunk.page) else { return Vec::new() };
        if let Some(own) = &mut watch.own {
            own.clear(chunk.start, chunk.end);
        }
        if watch.writes.is_empty() {
            return Vec::new();
        }
        let gone = |w: &CpuWrite| w.mapping == mapping && w.start < chunk.end && chunk.start < w.end;
        let kept = watch.writes.iter().filter(|w| gone(w) && keep(w)).copied().collect();
        watch.writes.retain(|w| !gone(w));
        kept
    }

    /// A read of the page waits for its verdict (or does not any more).
    pub(crate) fn wait(&mut self, page: u64, more: bool) {
        if let Some(watch) = self.page_watch(page) {
            watch.waiting = if more { watch.waiting + 1 } else { watch.waiting.saturating_sub(1) };
        }
        if more {
            self.close(page, true);
        } else {
            self.relax(page);
        }
    }

    /// The CPU is being given a chunk: remembers which of its bytes the device had and did not write in the transfer, `written`
    /// being those it wrote. What the CPU has already it was given before.
    pub(crate) fn note_unwritten(&mut self, chunk: &Chunk, mapping: u32, written: &Bits) {
        let line = self.line;
        let Some(slot) = self.slot(chunk.page) else { return };
        let Some(page) = self.pages.get_mut(slot as usize).filter(|p| p.watch.on && !p.watch.abandoned) else { return };
        let owned = find_ref(&mut page.refs, mapping, chunk).map_or(0, |r| r.owned);
        let unwritten = page.watch.unwritten.get_or_insert_with(|| Box::new(Bits::EMPTY));
        for at in (0..PAGE / line).filter(|at| owned >> at & 1 != 0) {
            let (from, to) = (chunk.start.max(at * line), chunk.end.min((at + 1) * line));
            if from < to {
                unwritten.set(from, to);
            }
        }
        for (word, written) in unwritten.0.iter_mut().zip(&written.0) {
            *word &= !written;
        }
        if unwritten.hull().is_none() {
            page.watch.unwritten = None;
        }
    }

    /// What the device wrote of a chunk and nobody took.
    pub(crate) fn written_bits(&mut self, chunk: &Chunk) -> Bits {
        let mut bits = Bits::EMPTY;
        if let Some(slot) = self.slot(chunk.page) {
            self.arena.written(slot, chunk.start, chunk.end, &mut bits);
        }
        bits
    }

    /// The bytes of a chunk are not awaited from the device any more: the CPU wrote them, or gave them away.
    pub(crate) fn forget_unwritten(&mut self, page: u64, start: usize, end: usize) {
        let Some(watch) = self.page_watch(page) else { return };
        if let Some(unwritten) = &mut watch.unwritten {
            unwritten.clear(start, end);
            if unwritten.hull().is_none() {
                watch.unwritten = None;
                self.relax(page);
            }
        }
    }

    /// The first byte of `start..end` that the device did not write in the transfer, nor any of the `tolerated` bytes before it.
    pub(crate) fn unwritten_in(&self, page: u64, start: usize, end: usize, tolerated: usize) -> Option<usize> {
        let record = self.slot(page).and_then(|slot| self.pages.get(slot as usize))?;
        let unwritten = record.watch.unwritten.as_ref()?;
        let mut run = (0..start).rev().take(tolerated).take_while(|at| unwritten.get(*at)).count();
        (start..end).find(|at| {
            run = if unwritten.get(*at) { run + 1 } else { 0 };
            run > tolerated
        })
    }

    /// Ends the only mapping of a watched page without a hand-over, and keeps the page: the bytes the device wrote are compared with
    /// until [`forget_remains`](Self::forget_remains). False when there is nothing to keep; then nothing was done.
    pub(crate) fn leave_remains(&mut self, chunk: &Chunk, mapping: u32) -> bool {
        let Some(slot) = self.slot(chunk.page) else { return false };
        let Some(page) = self.pages.get_mut(slot as usize) else { return false };
        let only = matches!(page.refs.as_slice(), [r] if r.mapping == mapping && r.segment == chunk.segment);
        if !only || !page.watch.on || page.watch.abandoned || !self.arena.any_written(slot, chunk.start, chunk.end) {
            return false;
        }
        page.refs.clear();
        // Who reads or wrote what in a transfer is of no interest any more.
        page.watch.unwritten = None;
        page.watch.writes.clear();
        self.refs -= 1;
        self.close(chunk.page, true);
        true
    }

    /// Whether the page is kept for comparison only.
    pub(crate) fn is_remains(&self, page: u64) -> bool {
        self.slot(page).and_then(|slot| self.pages.get(slot as usize)).is_some_and(|p| p.refs.is_empty())
    }

    /// Ends what [`leave_remains`](Self::leave_remains) began, unless the page was mapped again.
    pub(crate) fn forget_remains(&mut self, page: u64) {
        if self.is_remains(page) {
            self.retire(page);
        }
    }

    /// The CPU wrote `start..end` of a page that is kept for comparison: its lines are the CPU's. True when nothing is left.
    pub(crate) fn overwrite_remains(&mut self, page: u64, start: usize, end: usize) -> bool {
        let (first, last) = (start / self.line * self.line, end.next_multiple_of(self.line).min(PAGE));
        let Some(slot) = self.slot(page) else { return true };
        self.arena.forget(slot, first, last);
        !self.arena.any_written(slot, 0, PAGE)
    }

    /// The first and one past the last byte of `start..end` that the device wrote and that differ from the CPU's copy.
    pub(crate) fn differing_remains(&mut self, chunk: &Chunk) -> Option<(usize, usize, Evidence)> {
        self.untaken(chunk).map(|(_, first, last, evidence)| (first, last, evidence))
    }
}
