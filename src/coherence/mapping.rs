//! Records of mappings, alive and dead.

use crate::bits::{PAGE_U64, narrow};
use crate::call::{Limits, MapCall};
use crate::chunk::Segment;
use crate::finding::{ByteRange, MappingInfo};
use crate::handles::{Block, order_of_mask, pages_of};
use crate::held::Held;
use crate::history::{Event, History};
use crate::ids::{Attrs, Direction, Family, Gpa, Iova, PageKind, SiteId};
use std::collections::VecDeque;

/// Dead mappings remembered, so that a use after unmap can be told from a handle that never was.
const DEAD_KEPT: usize = 4096;
/// Entries of one call.
pub(crate) const MAX_EXTENTS: usize = 1 << 16;
/// Bytes of one mapping: offsets are kept in 32 bits.
pub(crate) const MAX_BYTES: u64 = 0xffff_f000;
/// `DMA_MAPPING_ERROR`.
pub(crate) const MAPPING_ERROR: u64 = !0;

/// Where a mapping is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// The record is not in use.
    #[default]
    Free,
    /// Mapped.
    Live,
    /// Unmapped; its handles wait in quarantine.
    Dead {
        /// Where it was unmapped.
        site: SiteId,
    },
}

/// One map or alloc call's result.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) state: State,
    pub(crate) device: u32,
    pub(crate) family: Family,
    pub(crate) direction: Direction,
    pub(crate) attrs: Attrs,
    pub(crate) kind: PageKind,
    /// Bytes of the same object before and behind it.
    pub(crate) object: (u32, u32),
    pub(crate) size: u64,
    pub(crate) cpu_addr: u64,
    /// Entries the driver passed: the original nents.
    pub(crate) entries: usize,
    pub(crate) site: SiteId,
    pub(crate) seq: u64,
    pub(crate) block: Block,
    pub(crate) segments: Vec<Segment>,
    pub(crate) history: History,
    /// Offences whose name depends on what comes next.
    pub(crate) held: Vec<Held>,
    /// A read came after the device wrote and before a sync, since the last for_cpu that took something.
    pub(crate) peeked: bool,
    /// The memory went back to the allocator while it was mapped.
    pub(crate) freed: bool,
    /// Bytes of a DMA_FROM_DEVICE mapping were synced for the CPU and not (all) given back since.
    pub(crate) cpu_has: bool,
    /// An allocation on a machine with bounce buffers: it lies where the device reaches it.
    pub(crate) one_copy: bool,
    /// A write beside it, in a line it shares, was seen and reported.
    pub(crate) beside_seen: bool,
}

impl Mapping {
    fn unused() -> Self {
        Self {
            state: State::Free,
            device: 0,
            family: Family::Single,
            direction: Direction::None,
            attrs: Attrs::empty(),
            kind: PageKind::Other,
            object: (0, 0),
            size: 0,
            cpu_addr: 0,
            entries: 0,
            site: SiteId::default(),
            seq: 0,
            block: Block::default(),
            segments: Vec::new(),
            history: History::default(),
            held: Vec::new(),
            peeked: false,
            freed: false,
            cpu_has: false,
            one_copy: false,
            beside_seen: false,
        }
    }

    #[inline]
    pub(crate) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Whether CPU and device have a copy each: everything but coherent memory and MMIO.
    #[inline]
    pub(crate) fn two_copies(&self) -> bool {
        !matches!(self.family, Family::Coherent | Family::Resource) && !self.attrs.contains(Attrs::MMIO) && !self.one_copy
    }

    #[inline]
    pub(crate) fn is_mmio(&self) -> bool {
        self.family == Family::Resource || self.attrs.contains(Attrs::MMIO)
    }

    pub(crate) fn skip_at_map(&self) -> bool {
        self.attrs.contains(Attrs::SKIP_CPU_SYNC)
    }

    pub(crate) fn device_writable(&self) -> bool {
        matches!(self.direction, Direction::Bidirectional | Direction::FromDevice)
    }

    pub(crate) fn whole(&self) -> ByteRange {
        ByteRange { start: 0, end: self.size }
    }

    /// First handle.
    pub(crate) fn first(&self) -> u64 {
        self.segments.first().map_or(0, |s| s.iova)
    }

    /// One past the last handle.
    pub(crate) fn end(&self) -> u64 {
        self.segments.last().map_or(0, |s| s.iova + s.len)
    }

    /// The segment that holds `iova`, or else the last one before it.
    #[inline]
    pub(crate) fn segment_at(&self, iova: u64) -> Option<usize> {
        match self.segments.as_slice() {
            [only] => (only.iova <= iova).then_some(0),
            many => many.partition_point(|s| s.iova <= iova).checked_sub(1),
        }
    }

    /// The handle range around segment `at`: its own bytes and those joined to it.
    pub(crate) fn handle_range(&self, at: usize) -> (u64, u64) {
        let mut first = at;
        while first > 0 && self.segments.get(first).is_some_and(|s| s.joined) {
            first -= 1;
        }
        let start = self.segments.get(first).map_or(0, |s| s.iova);
        let mut end = self.segments.get(at).map_or(start, |s| s.iova + s.len);
        for segment in self.segments.iter().skip(at + 1).take_while(|s| s.joined) {
            end = segment.iova + segment.len;
        }
        (start, end)
    }

    /// `iova..iova + len` as bytes of the mapping, if all of it is inside one handle of it.
    #[inline]
    pub(crate) fn locate(&self, iova: u64, len: u64) -> Option<ByteRange> {
        if let [only] = self.segments.as_slice() {
            let start = iova.checked_sub(only.iova)?;
            let end = start.checked_add(len)?;
            return (start < only.len.max(1) && end <= only.len).then_some(ByteRange { start, end });
        }
        let at = self.segment_at(iova)?;
        let segment = self.segments.get(at)?;
        let end = iova.checked_add(len)?;
        if end > segment.iova + segment.len {
            let (_, handle_end) = self.handle_range(at);
            if end > handle_end || iova >= handle_end {
                return None;
            }
        }
        let start = segment.offset + (iova - segment.iova);
        Some(ByteRange { start, end: start + len })
    }

    /// The handles as the driver was given them.
    pub(crate) fn handles(&self) -> Vec<(Iova, u64)> {
        let mut handles: Vec<(Iova, u64)> = Vec::new();
        for segment in &self.segments {
            match handles.last_mut() {
                Some((_, len)) if segment.joined => *len += segment.len,
                _ => handles.push((Iova(segment.iova), segment.len)),
            }
        }
        handles
    }

    pub(crate) fn info(&self) -> MappingInfo {
        MappingInfo {
            family: self.family,
            size: self.size,
            entries: self.entries,
            direction: self.direction,
            attrs: attr_names(self.attrs),
            handle: Iova(self.first()),
            handle_end: Iova(self.end()),
            gpa: Gpa(self.segments.first().map_or(0, |s| s.gpa)),
            map_site: self.site,
            map_seq: self.seq,
            unmap_site: match self.state {
                State::Dead { site, .. } => Some(site),
                _ => None,
            },
        }
    }
}

/// Names of attributes as in include/linux/dma-mapping.h; unknown bits in hex.
pub(crate) fn attr_names(attrs: Attrs) -> Vec<String> {
    attrs
        .iter_names()
        .map(|(name, _)| format!("DMA_ATTR_{name}"))
        .chain(
            attrs
                .bits()
                .checked_sub(attrs.iter_names().fold(0, |all, (_, one)| all | one.bits()))
                .filter(|rest| *rest != 0)
                .map(|rest| format!("{rest:#x}")),
        )
        .collect()
}

/// All records. Ids are indices; a record is used again once it is dead and no longer remembered.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    list: Vec<Mapping>,
    free: Vec<u32>,
    dead: VecDeque<u32>,
    live: usize,
}

impl Mappings {
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&Mapping> {
        self.list.get(id as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Mapping> {
        self.list.get_mut(id as usize)
    }

    /// A record for a new mapping; its vectors are empty but keep their memory.
    pub(crate) fn create(&mut self) -> (u32, &mut Mapping) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.list.push(Mapping::unused());
            narrow(self.list.len() - 1)
        });
        self.live += 1;
        // The id is either one that was free or the one just pushed.
        let at = (id as usize).min(self.list.len().saturating_sub(1));
        let mapping = &mut self.list[at];
        mapping.state = State::Live;
        mapping.segments.clear();
        mapping.history.clear();
        mapping.held.clear();
        mapping.peeked = false;
        mapping.freed = false;
        mapping.beside_seen = false;
        mapping.cpu_has = false;
        (id, mapping)
    }

    /// Ends a mapping; its record stays for a while.
    pub(crate) fn end(&mut self, id: u32, seq: u64, event: Event, site: SiteId) {
        let Some(mapping) = self.list.get_mut(id as usize) else { return };
        let range = mapping.whole();
        mapping.history.push(seq, event, range, site);
        mapping.state = State::Dead { site };
        self.live = self.live.saturating_sub(1);
        self.dead.push_back(id);
        if self.dead.len() > DEAD_KEPT {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(old) = self.dead.pop_front()
            && let Some(mapping) = self.list.get_mut(old as usize)
        {
            mapping.state = State::Free;
            // Long lists do not stay behind in short records.
            mapping.segments.shrink_to(8);
            self.free.push(old);
        }
    }

    /// Undoes [`create`](Self::create) for a mapping that could not be made.
    pub(crate) fn cancel(&mut self, id: u32) {
        if let Some(mapping) = self.list.get_mut(id as usize) {
            mapping.state = State::Free;
            self.live = self.live.saturating_sub(1);
            self.free.push(id);
        }
    }

    /// Live mappings that `keep` accepts, in the order they were made.
    pub(crate) fn live_where(&self, keep: impl Fn(&Mapping) -> bool) -> Vec<u32> {
        let mut ids: Vec<u32> = self.list.iter().enumerate().filter(|(_, m)| m.is_live() && keep(m)).map(|(id, _)| narrow(id)).collect();
        ids.sort_by_key(|id| self.get(*id).map(|m| m.seq));
        ids
    }
}

/// How a call's memory lies in its block, addresses relative to the block.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) pages: u64,
    pub(crate) min_order: u32,
}

/// Lays `call`'s pieces out one after the other, a guard page between them, and puts them in `segments` (handles relative to the
/// block). Page offsets and the bits of `min_align_mask` are kept; a piece does not cross the segment boundary if it can help it.
/// With `merge`, neighbours that meet at a page boundary are joined as long as the device takes the length.
pub(crate) fn lay_out(call: &MapCall, merge: bool, segments: &mut Vec<Segment>) -> Option<Layout> {
    let Limits { seg_boundary, max_seg_size, min_align_mask, .. } = call.limits;
    // Only masks of the usual form and a sensible size are honoured: the guest sends them.
    let align = if u64::from(min_align_mask).saturating_add(1).is_power_of_two() && min_align_mask < 1 << 20 {
        u64::from(min_align_mask)
    } else {
        0
    };
    let boundary = seg_boundary.checked_add(1).filter(|b| b.is_power_of_two() && *b >= PAGE_U64);
    let is_list = call.family == Family::Sg;
    let mut next = 0u64;
    let mut offset = 0u64;
    let mut joined_len = 0u64;
    let mut page_end = false;
    for extent in &call.extents {
        let in_page = extent.gpa.0 % PAGE_U64;
        let crosses = |at: u64| boundary.is_some_and(|b| at / b != (at + extent.len.max(1) - 1) / b);
        let fits = !is_list
            || (merge
                && joined_len.saturating_add(extent.len) <= u64::from(max_seg_size)
                && !boundary.is_some_and(|b| next.is_multiple_of(b)));
        // An entry without bytes has a page of its own: what is joined lies end to end.
        let joined = !segments.is_empty() && page_end && in_page == 0 && fits && extent.len > 0;
        if !joined {
            joined_len = 0;
            if !segments.is_empty() {
                next += PAGE_U64;
            }
            let wanted = extent.gpa.0 & align & !(PAGE_U64 - 1);
            let place = |next: u64| next + (wanted.wrapping_sub(next) & align & !(PAGE_U64 - 1));
            next = place(next);
            if let Some(b) = boundary
                && in_page + extent.len <= b
                && crosses(next + in_page)
            {
                next = place(next.next_multiple_of(b));
            }
        }
        segments.push(Segment { iova: next + in_page, gpa: extent.gpa.0, len: extent.len, offset, joined });
        offset = offset.checked_add(extent.len)?;
        joined_len = joined_len.saturating_add(extent.len);
        next = next.checked_add(pages_of(in_page, extent.len) * PAGE_U64)?;
        page_end = extent.len > 0 && (in_page + extent.len).is_multiple_of(PAGE_U64);
        if offset > MAX_BYTES {
            return None;
        }
    }
    Some(Layout { pages: next / PAGE_U64 + 1, min_order: order_of_mask(align) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Extent;

    fn sg(extents: &[(u64, u64)], limits: Limits) -> MapCall {
        MapCall {
            family: Family::Sg,
            extents: extents.iter().map(|(gpa, len)| Extent { gpa: Gpa(*gpa), len: *len }).collect(),
            direction: Direction::ToDevice,
            attrs: Attrs::empty(),
            limits,
            kind: PageKind::Other,
            object: (0, 0),
            cpu_addr: 0,
        }
    }

    fn laid(call: &MapCall, merge: bool) -> (Vec<(u64, bool)>, u64) {
        let mut segments = Vec::new();
        let layout = lay_out(call, merge, &mut segments).unwrap();
        (segments.iter().map(|s| (s.iova, s.joined)).collect(), layout.pages)
    }

    #[test]
    fn entries_keep_their_page_offset_and_a_guard_between_them() {
        let call = sg(&[(0x5f00, 0x100), (0x8000, 0x1000), (0xa010, 0x20)], Limits::default());
        assert_eq!(laid(&call, false), (vec![(0xf00, false), (0x2000, false), (0x4010, false)], 6));
    }

    #[test]
    fn neighbours_are_merged_at_page_boundaries_only() {
        let call = sg(&[(0x5f00, 0x100), (0x8000, 0x1000), (0xa000, 0x20), (0xb000, 0x1000)], Limits::default());
        assert_eq!(laid(&call, true).0, [(0xf00, false), (0x1000, true), (0x2000, true), (0x4000, false)]);
        let limits = Limits { max_seg_size: 0x1100, ..Limits::default() };
        let call = sg(&[(0x5f00, 0x100), (0x8000, 0x1000), (0xa000, 0x20)], limits);
        assert_eq!(laid(&call, true).0, [(0xf00, false), (0x1000, true), (0x3000, false)]);
    }

    #[test]
    fn the_segment_boundary_and_the_alignment_mask_are_kept() {
        let limits = Limits { seg_boundary: 0xffff, ..Limits::default() };
        let call = sg(&[(0x5000, 0xc000), (0x20000, 0x8000)], limits);
        assert_eq!(laid(&call, false).0, [(0, false), (0x10000, false)]);
        let limits = Limits { min_align_mask: 0x3fff, ..Limits::default() };
        let call = sg(&[(0x2_7080, 0x100), (0x8000, 0x10)], limits);
        assert_eq!(laid(&call, false).0, [(0x3080, false), (0x8000, false)]);
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let call = sg(&[(0, MAX_BYTES), (0, MAX_BYTES)], Limits::default());
        assert!(lay_out(&call, false, &mut Vec::new()).is_none());
    }
}
