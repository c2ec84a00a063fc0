//! From the CPU to the device.

use super::{Copies, POISON_PAGE, find_ref};
use crate::bits::{block_differs, differing_word, word_mask, words};
use crate::chunk::Chunk;

impl Copies {
    /// Hands the dirty bytes of a chunk over: device copy and baseline become the CPU's copy. Says how many bytes moved.
    pub(super) fn hand_over(&mut self, chunk: &Chunk, mapping: u32) -> u64 {
        let touched = self.lines(chunk.start, chunk.end);
        let Some(slot) = self.slot(chunk.page) else { return 0 };
        let (start, end) = (chunk.start, chunk.end);
        let mut moved = 0;
        let written = self.arena.any_written(slot, start, end);
        let untaken = if written { self.written_lines(slot, start, end) } else { 0 };
        let Some(page) = self.pages.get_mut(slot as usize) else { return 0 };
        if !written && !page.fresh.any(start, end) {
            if let Some(baseline) = page.baseline.bytes_mut().get_mut(start..end) {
                self.ram.read(chunk.page, start, baseline);
                self.arena.store(slot, start, baseline);
                moved = (end - start) as u64;
            }
        } else {
            let scratch = &mut *self.scratch;
            if let Some(cpu) = scratch.cpu.bytes_mut().get_mut(start..end) {
                self.ram.read(chunk.page, start, cpu);
            }
            let equal = scratch.cpu.bytes().get(start..end) == page.baseline.bytes().get(start..end);
            if !equal || !page.fresh.all(start, end) {
                let range = words(start, end);
                scratch.changed = crate::bits::Bits::EMPTY;
                self.arena.written(slot, start, end, &mut scratch.written);
                for word in range {
                    let (Some(fresh), Some(written), Some(out)) =
                        (page.fresh.0.get(word), scratch.written.0.get(word), scratch.changed.0.get_mut(word))
                    else {
                        continue;
                    };
                    // What the device wrote counts as fresh: the CPU's line is clean unless its bytes changed.
                    let known = fresh | written;
                    let written_here = *written != 0;
                    let all = word_mask(word, start, end);
                    let differ = match (equal, written_here) {
                        (true, _) => 0,
                        // Where the device wrote nothing, bytes that are not dirty are the same on both sides: the block may
                        // move as a whole.
                        (false, false) => {
                            if block_differs(&scratch.cpu, &page.baseline, word) {
                                all
                            } else {
                                0
                            }
                        }
                        (false, true) => differing_word(&scratch.cpu, &page.baseline, word),
                    };
                    *out = (!known | differ) & all;
                }
                for (from, to) in scratch.changed.runs() {
                    let (Some(cpu), Some(baseline)) = (scratch.cpu.bytes().get(from..to), page.baseline.bytes_mut().get_mut(from..to))
                    else {
                        continue;
                    };
                    self.arena.store(slot, from, cpu);
                    baseline.copy_from_slice(cpu);
                    moved += (to - from) as u64;
                }
            }
        }
        // What the device wrote before is handed over, too, though it does not move.
        page.fresh.set(start, end);
        if let Some(r) = find_ref(&mut page.refs, mapping, chunk) {
            r.handed_over(touched, untaken);
        }
        moved
    }

    /// Memory that was allocated or mapped without a sync: the CPU's copy becomes the baseline to tell later writes by, the
    /// device's copy is poison until the first hand-over. Bytes that are fresh through another mapping are left alone.
    pub(crate) fn poison(&mut self, chunk: &Chunk, mapping: u32, to_device: bool) {
        let touched = self.lines(chunk.start, chunk.end);
        let Some(slot) = self.slot(chunk.page) else { return };
        let Some(page) = self.pages.get_mut(slot as usize) else { return };
        let (start, end) = (chunk.start, chunk.end);
        let unknown = &mut self.scratch.changed;
        *unknown = crate::bits::Bits::EMPTY;
        unknown.set(start, end);
        self.scratch.written = crate::bits::Bits::EMPTY;
        self.arena.written(slot, start, end, &mut self.scratch.written);
        for ((bits, fresh), written) in unknown.0.iter_mut().zip(&page.fresh.0).zip(&self.scratch.written.0) {
            *bits &= !(fresh | written);
        }
        for (from, to) in unknown.runs() {
            if let (Some(baseline), Some(poison)) = (page.baseline.bytes_mut().get_mut(from..to), POISON_PAGE.get(from..to)) {
                self.ram.read(chunk.page, from, baseline);
                self.arena.store(slot, from, poison);
            }
        }
        if to_device && let Some(r) = find_ref(&mut page.refs, mapping, chunk) {
            r.owned |= touched;
        }
    }
}
