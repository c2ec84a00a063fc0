//! Guest RAM as the core sees it: the CPU's copy.

use crate::arena::{DeviceWrites, WriteMarks};
use crate::bits::{PAGE, PAGE_U64, index};
use crate::error::Error;
use crate::tap::{Feed, RamRegion};
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion, VolatileMemory, VolatileSlice};

/// One region of guest RAM.
#[derive(Debug)]
struct Region {
    base: u64,
    len: u64,
    /// Number of its first page among all pages of RAM.
    first: usize,
    map: Arc<MmapRegion<()>>,
    /// The same memory once more, in the type a device's view hands out: what coherent memory is accessed through. `None`
    /// when the region has no file behind it.
    shared: Option<MmapRegion<DeviceWrites>>,
}

/// Guest RAM.
#[derive(Debug)]
pub(crate) struct Ram {
    regions: Vec<Region>,
    pages: usize,
    /// What the core reads here it takes in, as all else.
    pub(crate) feed: Feed,
}

impl Ram {
    pub(crate) fn new(memory: &GuestMemoryMmap, feed: Feed) -> Result<Self, Error> {
        let mut regions = Vec::new();
        let mut pages = 0usize;
        for region in memory.iter() {
            let (base, len) = (region.start_addr().0, region.len());
            if base % PAGE_U64 != 0 || len % PAGE_U64 != 0 {
                return Err(Error::RamRegion { base, len });
            }
            let map = region.get_mmap();
            let shared = map.file_offset().cloned().map(|file| MmapRegion::from_file(file, index(len)));
            let shared = shared.transpose().map_err(|source| Error::SharedRam { base, source })?;
            regions.push(Region { base, len, first: pages, map, shared });
            pages = pages.saturating_add(index(len / PAGE_U64));
        }
        if u32::try_from(pages).is_err() {
            return Err(Error::RamSize(pages));
        }
        Ok(Self { regions, pages, feed })
    }

    #[inline]
    fn region(&self, gpa: u64) -> Option<&Region> {
        self.regions.iter().find(|region| gpa.wrapping_sub(region.base) < region.len)
    }

    /// The regions, in order.
    pub(crate) fn layout(&self) -> Vec<RamRegion> {
        self.regions.iter().map(|r| RamRegion { base: r.base, len: r.len, shared: r.shared.is_some() }).collect()
    }

    /// Pages of RAM.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Number of the page at `gpa` among all pages of RAM.
    #[inline]
    pub(crate) fn frame(&self, gpa: u64) -> Option<usize> {
        self.region(gpa).map(|region| region.first + index((gpa - region.base) / PAGE_U64))
    }

    /// Whether all of `gpa..gpa + len` is RAM.
    pub(crate) fn contains(&self, gpa: u64, len: u64) -> bool {
        let Some(end) = gpa.checked_add(len) else { return false };
        let mut at = gpa;
        while at < end {
            let Some(region) = self.region(at) else { return false };
            at = region.base + region.len;
        }
        len > 0 || self.region(gpa).is_some()
    }

    /// `len` bytes of the page at `page` (its guest physical address) from `offset` on.
    #[inline]
    pub(crate) fn slice(&self, page: u64, offset: usize, len: usize) -> Option<VolatileSlice<'_, ()>> {
        let region = self.region(page)?;
        if offset.saturating_add(len) > PAGE {
            return None;
        }
        region.map.get_slice(index(page - region.base) + offset, len).ok()
    }

    /// Copies `start..start + out.len()` of a page out.
    #[inline]
    pub(crate) fn read(&self, page: u64, start: usize, out: &mut [u8]) {
        if let Some(slice) = self.slice(page, start, out.len()) {
            slice.copy_to(out);
            self.feed.read(page + start as u64, out);
        }
    }

    /// Guest RAM itself for a device, at most `len` bytes and to the end of the region. `Err` when the region is not shared.
    pub(crate) fn shared(&self, gpa: u64, len: usize) -> Result<VolatileSlice<'_, WriteMarks<'_>>, ()> {
        let region = self.region(gpa).ok_or(())?;
        let offset = gpa - region.base;
        let len = len.min(index(region.len - offset));
        region.shared.as_ref().ok_or(())?.get_slice(index(offset), len).map_err(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    #[test]
    fn frames_are_numbered_over_the_hole() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000), (GuestAddress(0x10_0000), 0x2000)]).unwrap();
        let ram = Ram::new(&memory, Feed::new(None)).unwrap();
        assert_eq!(ram.pages(), 6);
        assert_eq!(ram.frame(0x3fff), Some(3));
        assert_eq!(ram.frame(0x4000), None);
        assert_eq!(ram.frame(0x10_1000), Some(5));
        assert!(ram.contains(0x3000, 0x1000) && !ram.contains(0x3000, 0x1001));
        assert!(!ram.contains(u64::MAX, 2));
        assert!(ram.shared(0, 16).is_err(), "anonymous memory cannot be shared");
    }

    #[test]
    fn half_pages_are_refused() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4800)]).unwrap();
        assert!(matches!(Ram::new(&memory, Feed::new(None)), Err(Error::RamRegion { base: 0, len: 0x4800 })));
    }
}
