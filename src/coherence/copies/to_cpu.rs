//! From the device to the CPU.

use super::by_line::{Beside, Hidden};
use super::{Copies, CpuWrite, Evidence, evidence, find_ref};
use crate::bits::{Bits, PAGE, block_differs, differing_word, word_mask, words};
use crate::chunk::Chunk;
use crate::ram::Ram;
use vm_memory::{Bytes, VolatileSlice};

/// CPU writes a hand-over to the CPU discarded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    /// First byte in the page.
    pub(crate) start: usize,
    /// One past the last.
    pub(crate) end: usize,
    /// Both sides before.
    pub(crate) evidence: Evidence,
    /// The first byte's line was the CPU's through this mapping.
    pub(crate) cpu_owned: bool,
    /// A for_cpu found the bytes changed before and could not move them.
    pub(crate) never_handed: bool,
    /// The first write among those discarded that was seen.
    pub(crate) write: Option<CpuWrite>,
}

/// What a hand-over to the CPU did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ToCpu {
    /// Bytes of the CPU's copy that were written.
    pub(crate) moved: u64,
    /// Writes of the CPU that were discarded.
    pub(crate) lost: Option<Lost>,
    /// Bytes the CPU changed that were never handed over: first, one past the last.
    pub(crate) never: Option<(usize, usize)>,
    /// The device had written some of the bytes.
    pub(crate) written: bool,
    /// What the device wrote and the CPU does not get.
    pub(crate) hidden: Option<Hidden>,
    /// Writes of the CPU beside the mapping that were discarded.
    pub(crate) beside: Option<Beside>,
}

impl Copies {
    /// Takes the device's bytes of a chunk: whole lines become the device's copy as far as they were ever handed over; of a
    /// line the chunk covers in part only the bytes the device wrote. Never writes guest RAM outside the chunk.
    pub(super) fn take_back(&mut self, chunk: &Chunk, mapping: u32) -> ToCpu {
        let touched = self.lines(chunk.start, chunk.end);
        let line = self.line;
        let mut result = ToCpu::default();
        let Some(slot) = self.slot(chunk.page) else { return result };
        let Some(page) = self.pages.get_mut(slot as usize) else { return result };
        let (start, end) = (chunk.start, chunk.end);
        let scratch = &mut *self.scratch;
        if let Some(cpu) = scratch.cpu.bytes_mut().get_mut(start..end) {
            self.ram.read(chunk.page, start, cpu);
        }
        let written = self.arena.any_written(slot, start, end);
        result.written = written;
        let equal = scratch.cpu.bytes().get(start..end) == page.baseline.bytes().get(start..end);
        let mut owned_before = 0;
        let mut stale = 0;
        let mut edge_dirty = 0;
        let mut lost_lines = 0;
        if written || !equal {
            if let Some(device) = scratch.device.bytes_mut().get_mut(start..end) {
                self.arena.read(slot, start, device);
            }
            if let Some(r) = find_ref(&mut page.refs, mapping, chunk) {
                owned_before = r.owned;
                stale = r.stale;
            }
            self.arena.written(slot, start, end, &mut scratch.written);
            scratch.changed = Bits::EMPTY;
            scratch.moved = Bits::EMPTY;
            let inner = (start.next_multiple_of(line), end / line * line);
            let mut lost = Bits::EMPTY;
            let mut never = Bits::EMPTY;
            for word in words(start, end) {
                let all = word_mask(word, start, end);
                let whole = word_mask(word, inner.0, inner.1);
                let fresh = page.fresh.0.get(word).copied().unwrap_or(0);
                let wrote = if written { scratch.written.0.get(word).copied().unwrap_or(0) & all } else { 0 };
                let moved = ((fresh | wrote) & whole) | (wrote & all);
                let dirty = if equal { 0 } else { differing_word(&scratch.cpu, &page.baseline, word) & all };
                // Without dirty bytes it does not matter which bytes of a block that moves as a whole differ.
                let changed = match moved {
                    0 => 0,
                    u64::MAX if dirty == 0 => {
                        if block_differs(&scratch.cpu, &scratch.device, word) {
                            moved
                        } else {
                            0
                        }
                    }
                    _ => differing_word(&scratch.cpu, &scratch.device, word) & moved,
                };
                if let (Some(m), Some(c), Some(l), Some(n)) =
                    (scratch.moved.0.get_mut(word), scratch.changed.0.get_mut(word), lost.0.get_mut(word), never.0.get_mut(word))
                {
                    *m = moved;
                    *c = changed;
                    *l = changed & dirty;
                    *n = dirty & !fresh;
                }
                let kept = dirty & fresh & !moved;
                if kept != 0 {
                    edge_dirty |=
                        super::lines(line, word * 64 + kept.trailing_zeros() as usize, word * 64 + 64 - kept.leading_zeros() as usize);
                }
            }
            // What the device was already found to have used stale is not found a second time.
            if !page.watch.writes.is_empty() {
                lost.runs().for_each(|(from, to)| page.watch.discard(from, to));
            }
            if stale != 0 {
                for at in (0..PAGE / line).filter(|at| stale >> at & 1 != 0) {
                    lost.clear(at * line, (at + 1) * line);
                    never.clear(at * line, (at + 1) * line);
                }
            }
            result.never = never.hull();
            if let Some((first, last)) = lost.hull() {
                let line_bit = super::lines(line, first, first + 1);
                lost_lines = lost.runs().fold(0, |all, (from, to)| all | super::lines(line, from, to));
                result.lost = Some(Lost {
                    start: first,
                    end: last,
                    evidence: evidence(chunk, first, &scratch.cpu, &scratch.device),
                    cpu_owned: owned_before & line_bit == 0,
                    never_handed: !page.fresh.get(first),
                    write: page.watch.first_write(&lost),
                });
            }
            result.moved = scratch.changed.count(start, end);
            if result.moved != 0 {
                store(&self.ram, chunk.page, scratch);
            }
            for (from, to) in scratch.moved.runs() {
                if let (Some(device), Some(baseline)) = (scratch.device.bytes().get(from..to), page.baseline.bytes_mut().get_mut(from..to))
                {
                    baseline.copy_from_slice(device);
                    page.fresh.set(from, to);
                }
            }
            if written {
                self.arena.forget(slot, start, end);
            }
        }
        if let Some(r) = find_ref(&mut page.refs, mapping, chunk) {
            r.given_to_cpu(touched, super::whole_lines(line, start, end), edge_dirty, 0, lost_lines);
        }
        result
    }

    /// The lines of a chunk were taken in a transfer.
    pub(crate) fn note_taken(&mut self, chunk: &Chunk, mapping: u32) {
        let touched = self.lines(chunk.start, chunk.end);
        let page = self.slot(chunk.page).and_then(|slot| self.pages.get_mut(slot as usize));
        if let Some(r) = page.and_then(|page| find_ref(&mut page.refs, mapping, chunk)) {
            r.taken |= touched;
        }
    }

    /// Gives a chunk to the CPU without moving data (DMA_TO_DEVICE). Remembers which lines the CPU had changed by then: if the
    /// device uses them, this call stands where a for_device belonged.
    pub(super) fn take_nothing(&mut self, chunk: &Chunk, mapping: u32) {
        let touched = self.lines(chunk.start, chunk.end);
        let line = self.line;
        let Some(slot) = self.slot(chunk.page) else { return };
        let Some(page) = self.pages.get_mut(slot as usize) else { return };
        let (start, end) = (chunk.start, chunk.end);
        let scratch = &mut *self.scratch;
        if let Some(cpu) = scratch.cpu.bytes_mut().get_mut(start..end) {
            self.ram.read(chunk.page, start, cpu);
        }
        let mut dirty_lines = 0;
        if scratch.cpu.bytes().get(start..end) != page.baseline.bytes().get(start..end) {
            for word in words(start, end) {
                let fresh = page.fresh.0.get(word).copied().unwrap_or(0);
                let dirty = differing_word(&scratch.cpu, &page.baseline, word) & word_mask(word, start, end) & fresh;
                // A word of 64 bytes holds at most two lines.
                for half in [dirty & 0xffff_ffff, dirty & !0xffff_ffff].into_iter().filter(|half| *half != 0) {
                    let first = word * 64 + half.trailing_zeros() as usize;
                    dirty_lines |= super::lines(line, first, first + 1);
                }
            }
        }
        if let Some(r) = find_ref(&mut page.refs, mapping, chunk) {
            r.owned &= !touched;
            r.wrong_sync |= dirty_lines & !r.stale;
        }
    }
}

/// Writes the changed bytes to guest RAM: aligned eight-byte stores where all eight move, single bytes elsewhere. Bytes that do
/// not move are never written, so a concurrent write of the CPU to them survives.
pub(super) fn store(ram: &Ram, page: u64, scratch: &super::Scratch) {
    if ram.feed.tap().is_some() {
        for (from, to) in scratch.changed.runs() {
            ram.feed.wrote(page + from as u64, scratch.device.bytes().get(from..to).unwrap_or_default());
        }
    }
    let Some(target) = ram.slice(page, 0, PAGE) else { return };
    let mut run = None;
    for (at, (changed, moved)) in scratch.changed.0.iter().zip(&scratch.moved.0).enumerate() {
        if *changed == 0 {
            flush(&target, scratch, &mut run, at * 8);
            continue;
        }
        if *changed == u64::MAX {
            run.get_or_insert(at * 8);
            continue;
        }
        for group in 0..8usize {
            let word = at * 8 + group;
            let changed = changed >> (group * 8) & 0xff;
            if changed != 0 && moved >> (group * 8) & 0xff == 0xff {
                run.get_or_insert(word);
                continue;
            }
            flush(&target, scratch, &mut run, word);
            for byte in (0..8usize).filter(|byte| changed >> byte & 1 != 0) {
                let offset = word * 8 + byte;
                if let Some(value) = scratch.device.bytes().get(offset) {
                    // The offset is inside the page.
                    let _ = target.write_obj(*value, offset);
                }
            }
        }
    }
    flush(&target, scratch, &mut run, PAGE / 8);
}

/// Stores the words from `run` up to `end`.
fn flush(target: &VolatileSlice<'_, ()>, scratch: &super::Scratch, run: &mut Option<usize>, end: usize) {
    let Some(first) = run.take() else { return };
    if let (Some(words), Ok(slice)) = (scratch.device.0.get(first..end), target.subslice(first * 8, (end - first) * 8)) {
        slice.copy_from(words);
    }
}
