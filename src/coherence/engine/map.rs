//! dma_map_* and dma_alloc_*.

use super::Engine;
use crate::bits::{PAGE, PAGE_U64};
use crate::call::{Answer, MapCall};
use crate::catalogue::Code;
use crate::chunk::{Segment, chunks};
use crate::finding::ByteRange;
use crate::handles::Block;
use crate::history::Event;
use crate::ids::{Attrs, Direction, Family, SiteId};
use crate::mapping::{MAX_EXTENTS, lay_out};
use crate::rules;
use crate::summary::CallKind;

/// What the family's map or alloc call is called in a report.
pub(crate) fn map_name(family: Family) -> &'static str {
    match family {
        Family::Single => "dma_map_single",
        Family::Sg => "dma_map_sg",
        Family::Resource => "dma_map_resource",
        Family::Coherent => "dma_alloc_coherent",
        Family::Pages => "dma_alloc_pages",
    }
}

impl Engine {
    pub(super) fn map(&mut self, device: u32, site: SiteId, call: &MapCall) -> Answer {
        let answer = self.try_map(device, site, call);
        if answer == Answer::Failed {
            self.stats.failed_maps += 1;
        } else {
            self.stats.maps += 1;
        }
        self.note_peaks();
        answer
    }

    fn try_map(&mut self, device: u32, site: SiteId, call: &MapCall) -> Answer {
        let seq = self.seq();
        let alloc = matches!(call.family, Family::Coherent | Family::Pages);
        let kind = if alloc { CallKind::Alloc } else { CallKind::Map };
        let Some(record) = self.devices.get_mut(device as usize) else { return Answer::Failed };
        record.called(kind, site);
        // The first map after a refusal is the offence; what follows is more of it.
        let refused_mask = record.refused_mask.take();
        if super::fault::requires_coherent(call) {
            return self.remember_failed(device, site, call.family, Code::DV404);
        }
        if let Some(lost) = self.refuse(call) {
            self.blind_spot(lost);
            return Answer::Failed;
        }
        let merge = self.config.sg_merge;
        let (id, mapping) = self.mappings.create();
        let layout = lay_out(call, merge, &mut mapping.segments);
        let segments = &mapping.segments;
        let own_address = |block: &Block| segments.iter().any(|s| (block.base + s.iova) / PAGE_U64 == s.gpa / PAGE_U64);
        let block = layout.and_then(|l| self.handles.alloc(l.pages, call.limits.mask, l.min_order, |block| !own_address(block)));
        let Some(block) = block else {
            self.mappings.cancel(id);
            self.blind_spot("a map call failed for want of handles below the device's mask");
            return Answer::Failed;
        };
        mapping.segments.iter_mut().for_each(|s| s.iova += block.base);
        mapping.device = device;
        mapping.family = call.family;
        mapping.direction = call.direction;
        mapping.attrs = call.attrs;
        mapping.kind = call.kind;
        mapping.object = call.object;
        mapping.size = mapping.segments.last().map_or(0, |s| s.offset + s.len);
        mapping.cpu_addr = call.cpu_addr;
        mapping.entries = call.extents.len();
        mapping.one_copy = call.family == Family::Pages && self.config.profile.bounces();
        mapping.site = site;
        mapping.seq = seq;
        mapping.block = block;
        let whole = mapping.whole();
        let event = match (alloc, mapping.skip_at_map()) {
            (true, _) => Event::Alloc,
            (false, true) => Event::MapSkip,
            (false, false) => Event::Map,
        };
        mapping.history.push(seq, event, whole, site);
        let two_copies = mapping.two_copies();
        if two_copies && !self.cover(id) {
            self.mappings.cancel(id);
            self.handles.free(block);
            self.blind_spot("a map call failed: too many mappings of one page");
            return Answer::Failed;
        }
        self.table.set(&block.range(), id);
        if two_copies {
            self.watch_mapping(id);
            if event != Event::Alloc {
                self.close_for_device(id, whole);
            }
            self.first_handover(id, event);
            self.relax_mapping(id, whole);
        } else {
            self.enter_one_copy(id);
        }
        if let Some(record) = self.devices.get_mut(device as usize) {
            record.mappings += 1;
            record.bytes_mapped = record.bytes_mapped.saturating_add(whole.end);
        }
        self.judge_map(device, id, site, refused_mask, call);
        let handles = self.mappings.get(id).map(crate::mapping::Mapping::handles);
        Answer::Handles(handles.unwrap_or_default())
    }

    /// Why a call cannot be served, for the report.
    fn refuse(&self, call: &MapCall) -> Option<&'static str> {
        let mmio = call.family == Family::Resource || call.attrs.contains(Attrs::MMIO);
        if call.extents.is_empty() || call.direction == Direction::None {
            return Some("a map call without memory or with DMA_NONE was refused");
        }
        if call.extents.len() > MAX_EXTENTS {
            return Some("a scatterlist with more than 65536 entries was refused");
        }
        if self.mappings.live() >= self.config.max_mappings as usize {
            return Some("a map call failed: too many mappings are alive");
        }
        let mut pages = 0usize;
        for extent in &call.extents {
            if !mmio && !self.ram.contains(extent.gpa.0, extent.len) {
                return Some("a map call for memory outside guest RAM was refused");
            }
            if extent.gpa.0.checked_add(extent.len).is_none() {
                return Some("a map call for memory beyond the end of the address space was refused");
            }
            pages = pages.saturating_add(crate::bits::index(crate::handles::pages_of(extent.gpa.0, extent.len)));
        }
        if self.copies.refs().saturating_add(pages) > self.config.max_page_refs {
            return Some("a map call failed: too many pages are mapped");
        }
        None
    }

    /// Puts every page of a new mapping under two copies; undoes it all if one has no room.
    fn cover(&mut self, id: u32) -> bool {
        let Some(mapping) = self.mappings.get(id) else { return false };
        for chunk in chunks(&mapping.segments, mapping.whole()) {
            if !self.copies.enter(&chunk, id, mapping.device_writable()) {
                for done in chunks(&mapping.segments, ByteRange { start: 0, end: chunk.offset }) {
                    self.copies.leave(&done, id);
                }
                return false;
            }
        }
        true
    }

    fn first_handover(&mut self, id: u32, event: Event) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let mut moved = 0;
        for chunk in chunks(&mapping.segments, mapping.whole()) {
            match event {
                Event::Map => moved += self.copies.give(&chunk, id, mapping.direction, true).moved,
                // A bounce buffer is filled whatever the attributes say.
                Event::MapSkip if self.config.profile.bounces() => moved += self.copies.give(&chunk, id, mapping.direction, true).moved,
                _ => self.copies.poison(&chunk, id, event == Event::MapSkip),
            }
        }
        self.stats.bytes_to_device += moved;
        self.stats.handovers += u64::from(event == Event::Map);
    }

    /// Rules about the call itself.
    fn judge_map(&mut self, device: u32, id: u32, site: SiteId, refused_mask: Option<u64>, call: &MapCall) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let what = map_name(mapping.family);
        let refused = refused_mask.map(rules::life::mapped_after_refused_mask);
        let line = u64::from(self.config.line_size);
        let unaligned = rules::lines::unaligned_buffer(mapping, line);
        let shared = self.line_neighbour(id, line);
        let image = rules::map::kernel_image(mapping, &self.config.kernel_image, |segment| self.is_zero(segment));
        let limits = rules::map::segment_limits(mapping, &call.limits);
        let resource = rules::map::resource_in_ram(mapping, |gpa, len| self.ram.contains(gpa, len));
        // These name the other mapping: where it was made is half of the story.
        let remapped = self.live_overlap(id).and_then(|other| Some((other, rules::map::remap_live(mapping, self.mappings.get(other)?)?)));
        let coherent = self.maps_coherent(device, call);
        for verdict in [refused, image, limits, resource, unaligned, shared].into_iter().flatten() {
            self.report(Some(device), Some(id), site, what, verdict, None);
        }
        for (other, verdict) in [remapped, coherent].into_iter().flatten() {
            self.report(Some(device), Some(other), site, what, verdict, None);
        }
    }

    /// Whether the CPU's copy of a segment is all zeroes.
    fn is_zero(&self, segment: &Segment) -> bool {
        let whole = ByteRange { start: segment.offset, end: segment.offset + segment.len };
        let mut bytes = [0; PAGE];
        chunks(std::slice::from_ref(segment), whole).all(|chunk| {
            let bytes = bytes.get_mut(..chunk.end - chunk.start).unwrap_or_default();
            self.ram.read(chunk.page, chunk.start, bytes);
            bytes.iter().all(|byte| *byte == 0)
        })
    }

    /// The oldest live mapping of bytes of mapping `id` whose device owns them and may write them, when this one may, too. Memory
    /// that was just allocated is the CPU's.
    fn live_overlap(&self, id: u32) -> Option<u32> {
        let mapping = self.mappings.get(id).filter(|m| rules::map::may_overlap(m) && m.family != Family::Pages)?;
        let same_device = |other: &u32| self.mappings.get(*other).is_some_and(|m| m.device == mapping.device && rules::map::may_overlap(m));
        let all = chunks(&mapping.segments, mapping.whole());
        let over = all.flat_map(|chunk| self.copies.owned_over(&chunk, id).filter(same_device).collect::<Vec<_>>());
        over.min_by_key(|other| self.mappings.get(*other).map(|m| m.seq))
    }

    /// The oldest live mapping of the device that shares a line, but no byte of it, with mapping `id`, and what that means.
    fn line_neighbour(&self, id: u32, line: u64) -> Option<rules::Verdict> {
        let mapping = self.mappings.get(id).filter(|m| rules::lines::may_share(m))?;
        let near = chunks(&mapping.segments, mapping.whole()).flat_map(|chunk| self.copies.sharing_lines(&chunk, id).collect::<Vec<_>>());
        let near = near.filter_map(|other| self.mappings.get(other));
        let shared = near.filter_map(|other| Some((other.seq, rules::lines::shared_line(mapping, other, line)?)));
        shared.min_by_key(|(seq, _)| *seq).map(|(_, verdict)| verdict)
    }
}
