//! Pages of coherent memory: one copy, and a handle already.

use super::Engine;
use crate::bits::PAGE_U64;
use crate::call::MapCall;
use crate::chunk::chunks;
use crate::ids::{Attrs, Family};
use crate::rules;
use std::collections::HashMap;

/// The pages, a bit for each page of RAM, so that a map call finds out at the cost of looking at a bit.
#[derive(Debug, Default)]
pub(crate) struct CoherentPages {
    bits: Vec<u64>,
    /// The allocation each page belongs to: the allocators give whole pages.
    owners: HashMap<usize, u32>,
}

impl CoherentPages {
    fn set(&mut self, frame: usize, id: u32, pages: usize) {
        if self.bits.is_empty() {
            self.bits = vec![0; pages.div_ceil(64)];
        }
        if let Some(word) = self.bits.get_mut(frame / 64) {
            *word |= 1 << (frame % 64);
            self.owners.insert(frame, id);
        }
    }

    fn clear(&mut self, frame: usize, id: u32) {
        if self.owners.get(&frame) == Some(&id) {
            self.owners.remove(&frame);
            if let Some(word) = self.bits.get_mut(frame / 64) {
                *word &= !(1 << (frame % 64));
            }
        }
    }

    fn owner(&self, frame: usize) -> Option<u32> {
        let word = self.bits.get(frame / 64)?;
        if word >> (frame % 64) & 1 == 0 { None } else { self.owners.get(&frame).copied() }
    }
}

impl Engine {
    /// A mapping with one copy begins.
    pub(super) fn enter_one_copy(&mut self, id: u32) {
        self.watch_solo(id);
        let Some(mapping) = self.mappings.get(id).filter(|m| m.family == Family::Coherent) else { return };
        for chunk in chunks(&mapping.segments, mapping.whole()) {
            if let Some(frame) = self.ram.frame(chunk.page) {
                self.coherent.set(frame, id, self.ram.pages());
            }
        }
    }

    /// A mapping with one copy ends.
    pub(super) fn leave_one_copy(&mut self, id: u32) {
        self.unwatch_solo(id);
        let Some(mapping) = self.mappings.get(id).filter(|m| m.family == Family::Coherent) else { return };
        for chunk in chunks(&mapping.segments, mapping.whole()) {
            if let Some(frame) = self.ram.frame(chunk.page) {
                self.coherent.clear(frame, id);
            }
        }
    }

    /// What there is to say about a map call for memory that is coherent, and the allocation.
    pub(super) fn maps_coherent(&self, device: u32, call: &MapCall) -> Option<(u32, rules::Verdict)> {
        if self.coherent.owners.is_empty() || call.attrs.contains(Attrs::MMIO) || !matches!(call.family, Family::Single | Family::Sg) {
            return None;
        }
        let pages = call.extents.iter().flat_map(|e| {
            let first = e.gpa.0 / PAGE_U64;
            first..e.gpa.0.saturating_add(e.len).div_ceil(PAGE_U64)
        });
        let mut owners = pages.filter_map(|page| self.coherent.owner(self.ram.frame(page * PAGE_U64)?));
        owners.find_map(|id| Some((id, rules::map::maps_coherent(call, self.mappings.get(id)?, device)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_its_own_owner_and_bit() {
        let mut pages = CoherentPages::default();
        for (frame, id) in [(3, 1), (4, 2), (67, 3), (4, 4)] {
            pages.set(frame, id, 200);
        }
        pages.clear(4, 2);
        assert_eq!(
            [3, 4, 5, 67, 68].map(|frame| pages.owner(frame)),
            [Some(1), Some(4), None, Some(3), None],
            "it has another owner by now"
        );
        pages.clear(4, 4);
        assert_eq!([3, 4, 67].map(|frame| pages.owner(frame)), [Some(1), None, Some(3)]);
        pages.clear(3, 1);
        pages.clear(67, 3);
        assert!(pages.bits.iter().all(|word| *word == 0), "pages that are ordinary again cost no more than others");
    }
}
