//! From a handle's page to the mapping that was last given it: a two-level table for each window, O(1).

use crate::bits::{PAGE_U64, index};
use std::ops::Range;

const LEAF: usize = 1024;

/// One span of handle space.
#[derive(Debug)]
struct Span {
    first: u64,
    leaves: Vec<Option<Box<[u32; LEAF]>>>,
}

impl Span {
    fn new(range: &Range<u64>) -> Self {
        let first = range.start / PAGE_U64;
        let pages = index(range.end.div_ceil(PAGE_U64).saturating_sub(first));
        Self { first, leaves: vec![None; pages.div_ceil(LEAF)] }
    }

    #[inline]
    fn get(&self, page: u64) -> Option<u32> {
        let at = index(page.checked_sub(self.first)?);
        let leaf = self.leaves.get(at / LEAF)?.as_ref()?;
        leaf.get(at % LEAF).copied()
    }

    fn set(&mut self, pages: Range<u64>, value: u32) {
        for page in pages {
            let Some(at) = page.checked_sub(self.first).map(index) else { continue };
            let Some(leaf) = self.leaves.get_mut(at / LEAF) else { return };
            let leaf = leaf.get_or_insert_with(|| Box::new([0; LEAF]));
            if let Some(entry) = leaf.get_mut(at % LEAF) {
                *entry = value;
            }
        }
    }
}

/// The table. Entries are never cleared: whoever looks one up checks that the mapping it names still covers the address.
#[derive(Debug)]
pub(crate) struct Table {
    spans: Vec<Span>,
}

impl Table {
    pub(crate) fn new(spans: &[Range<u64>]) -> Self {
        Self { spans: spans.iter().filter(|range| !range.is_empty()).map(Span::new).collect() }
    }

    /// The mapping that was last given the page of `iova`.
    #[inline]
    pub(crate) fn get(&self, iova: u64) -> Option<u32> {
        let page = iova / PAGE_U64;
        let entry = self.spans.iter().find_map(|span| span.get(page))?;
        entry.checked_sub(1)
    }

    /// Gives the pages of `range` to `mapping`.
    pub(crate) fn set(&mut self, range: &Range<u64>, mapping: u32) {
        let pages = range.start / PAGE_U64..range.end.div_ceil(PAGE_U64);
        for span in &mut self.spans {
            let last = span.first + (span.leaves.len() * LEAF) as u64;
            if pages.start >= span.first && pages.start < last {
                span.set(pages.clone(), mapping.saturating_add(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_name_their_mapping() {
        let mut table = Table::new(&[0x10_0000..0x4000_0000, 0x10_0000_0000..0x20_0000_0000]);
        table.set(&(0x20_0000..0x20_2000), 0);
        table.set(&(0x1f_ffff_e000..0x20_0000_0000), 7);
        assert_eq!(table.get(0x20_1fff), Some(0));
        assert_eq!(table.get(0x20_2000), None);
        assert_eq!(table.get(0x1f_ffff_f123), Some(7));
        assert_eq!(table.get(u64::MAX), None);
        assert_eq!(table.get(0), None);
    }
}
