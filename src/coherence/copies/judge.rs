//! Whether what a device reads is what the CPU means it to read.

use super::{Copies, Evidence, evidence, find_ref};
use crate::bits::{Bits, differing_word, word_mask, words};
use crate::chunk::Chunk;

/// Bytes a device used although the CPU's changes to them were not handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StaleRead {
    /// First such byte in the page.
    pub(crate) start: usize,
    /// One past the last.
    pub(crate) end: usize,
    /// Both sides.
    pub(crate) evidence: Evidence,
    /// The first byte was never handed over.
    pub(crate) never_handed: bool,
    /// Its line was handed over through this mapping.
    pub(crate) handed_here: bool,
    /// A for_cpu came where a for_device belonged.
    pub(crate) wrong_sync: bool,
    /// The device had read the line before and it was right, and that was so when it was first found stale.
    pub(crate) used_before: bool,
}

impl Copies {
    /// Judges a read of a chunk that the device uses now.
    #[inline]
    pub(crate) fn judge_read(&mut self, chunk: &Chunk, mapping: u32) -> Option<StaleRead> {
        let touched = self.lines(chunk.start, chunk.end);
        let line = self.line;
        let slot = self.slot(chunk.page)?;
        let page = self.pages.get_mut(slot as usize)?;
        let (start, end) = (chunk.start, chunk.end);
        let scratch = &mut *self.scratch;
        let cpu = scratch.cpu.bytes_mut().get_mut(start..end)?;
        self.ram.read(chunk.page, start, cpu);
        let equal = *cpu == *page.baseline.bytes().get(start..end)?;
        if equal && page.fresh.all(start, end) {
            find_ref(&mut page.refs, mapping, chunk)?.used |= touched;
            return None;
        }
        self.arena.written(slot, start, end, &mut scratch.written);
        scratch.changed = Bits::EMPTY;
        for word in words(start, end) {
            let fresh = *page.fresh.0.get(word)?;
            let differ = if equal { 0 } else { differing_word(&scratch.cpu, &page.baseline, word) };
            // What the device wrote itself it may read, whatever the CPU did meanwhile: the order is not known.
            *scratch.changed.0.get_mut(word)? = !scratch.written.0.get(word)? & (!fresh | differ) & word_mask(word, start, end);
        }
        let Some((first, last)) = scratch.changed.hull() else {
            find_ref(&mut page.refs, mapping, chunk)?.used |= touched;
            return None;
        };
        self.arena.read(slot, start, scratch.device.bytes_mut().get_mut(start..end)?);
        let never_handed = !page.fresh.get(first);
        let line_bit = super::lines(line, first, first + 1);
        let dirty_lines = scratch.changed.runs().fold(0, |all, (from, to)| all | super::lines(line, from, to));
        let r = find_ref(&mut page.refs, mapping, chunk)?;
        let stale = StaleRead {
            start: first,
            end: last,
            evidence: evidence(chunk, first, &scratch.cpu, &scratch.device),
            never_handed,
            handed_here: r.handed & line_bit != 0,
            wrong_sync: r.wrong_sync & line_bit != 0,
            used_before: (r.used & !r.offended | r.reused) & line_bit != 0,
        };
        r.reused |= dirty_lines & r.used & !r.offended;
        r.stale |= dirty_lines;
        r.offended |= dirty_lines;
        r.used |= touched & !dirty_lines;
        Some(stale)
    }
}
