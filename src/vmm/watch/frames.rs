//! Pages of guest RAM as dense numbers.

use std::ops::Range;

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// A page of guest RAM: its place in the list of all of them, low RAM first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Page(pub u32);

impl Page {
    /// As an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which guest physical addresses are RAM.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// Guest physical address and number of the first page of each region, and how many there are. Ascending.
    regions: Vec<(u64, Range<u32>)>,
}

impl Frames {
    /// The regions' guest physical addresses (page-aligned) and sizes in bytes, ascending.
    #[must_use]
    pub fn new(regions: &[(u64, usize)]) -> Self {
        let mut next = 0u32;
        let regions = regions
            .iter()
            .map(|&(gpa, size)| {
                let start = next;
                next = next.saturating_add(u32::try_from(size as u64 / PAGE).unwrap_or(u32::MAX));
                (gpa, start..next)
            })
            .collect();
        Self { regions }
    }

    /// The page that holds `gpa`, if it is RAM.
    #[must_use]
    pub fn page(&self, gpa: u64) -> Option<Page> {
        self.regions.iter().find_map(|(base, pages)| {
            let offset = u32::try_from(gpa.checked_sub(*base)? / PAGE).ok()?;
            let number = pages.start.checked_add(offset)?;
            (number < pages.end).then_some(Page(number))
        })
    }

    /// Guest physical address of a page; 0 for one that does not exist.
    #[must_use]
    pub fn gpa(&self, page: Page) -> u64 {
        self.regions
            .iter()
            .find(|(_, pages)| pages.contains(&page.0))
            .map_or(0, |(base, pages)| base + u64::from(page.0 - pages.start) * PAGE)
    }

    /// Number of pages.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.regions.last().map_or(0, |(_, pages)| pages.end)
    }

    /// Splits a range of pages where a region ends: the region's number, the first page's place in it, and how many pages.
    pub fn parts(&self, pages: Range<u32>) -> impl Iterator<Item = (usize, u32, u32)> + '_ {
        self.regions.iter().enumerate().filter_map(move |(region, (_, all))| {
            let start = pages.start.max(all.start);
            let end = pages.end.min(all.end);
            (start < end).then(|| (region, start - all.start, end - start))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_numbers_agree_across_the_hole() {
        let frames = Frames::new(&[(0, 0x3000), (1 << 32, 0x2000)]);
        assert_eq!(frames.count(), 5);
        for (gpa, page) in [(0, 0), (0x2fff, 2), (1 << 32, 3), ((1 << 32) + 0x1fff, 4)] {
            assert_eq!(frames.page(gpa), Some(Page(page)));
            assert_eq!(frames.gpa(Page(page)), gpa & !0xfff);
        }
        for gpa in [0x3000, (1 << 32) - 1, (1 << 32) + 0x2000, u64::MAX] {
            assert_eq!(frames.page(gpa), None);
        }
        assert_eq!(frames.parts(1..5).collect::<Vec<_>>(), [(0, 1, 2), (1, 0, 2)]);
    }
}
