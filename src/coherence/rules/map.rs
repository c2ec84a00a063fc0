//! 110, 112, 113, 114, 116, 219: what a map or alloc call is given.

use super::Verdict;
use crate::bits::PAGE_U64;
use crate::call::{AllocFlags, Limits, MapCall, Rejected};
use crate::catalogue::Code;
use crate::chunk::Segment;
use crate::engine::names;
use crate::finding::{ByteRange, Severity};
use crate::ids::{Attrs, Direction, Family, PageKind};
use crate::mapping::Mapping;
use std::ops::Range;

/// First guest physical address that is RAM and nothing else: below it a PC has its video memory and its firmware.
const LEGACY_END: u64 = 1 << 20;

fn of_segment(segment: &Segment) -> ByteRange {
    ByteRange { start: segment.offset, end: segment.offset + segment.len }
}

/// DV110: memory of the kernel's image, known by its address. `zeros`: the bytes are all 0. Pages of zeroes for the device to read are
/// meant for that, and some kernels have theirs among their constants.
pub(crate) fn kernel_image(mapping: &Mapping, image: &[Range<u64>], zeros: impl Fn(&Segment) -> bool) -> Option<Verdict> {
    if image.is_empty() || !matches!(mapping.family, Family::Single | Family::Sg) || mapping.is_mmio() {
        return None;
    }
    let inside = |s: &&Segment| image.iter().any(|range| s.gpa < range.end && range.start < s.gpa + s.len);
    let constant = |s: &&Segment| mapping.direction == Direction::ToDevice && zeros(s);
    let segment = mapping.segments.iter().filter(inside).find(|s| !constant(s))?;
    let message = format!("{} bytes of the kernel's own code or constants were mapped.", segment.len);
    Some(Verdict::new(Code::DV110, message).range(of_segment(segment)))
}

/// DV112: an entry of a list against what the device declared. Where an entry comes to lie is the implementation's business; one
/// that crosses a boundary wherever its page is put is the driver's.
pub(crate) fn segment_limits(mapping: &Mapping, limits: &Limits) -> Option<Verdict> {
    if mapping.family != Family::Sg {
        return None;
    }
    // 0 declares nothing: the kernel's defaults are 64 KiB and 4 GiB.
    let longest = Some(u64::from(limits.max_seg_size)).filter(|len| *len != 0).unwrap_or(u64::MAX);
    if let Some(segment) = mapping.segments.iter().find(|s| s.len > longest) {
        let message = format!("An entry of {} bytes was mapped; the device declares segments of at most {longest} bytes.", segment.len);
        let verdict = Verdict::new(Code::DV112, message).range(of_segment(segment));
        return Some(verdict.advice("Declare what the device can do with dma_set_max_seg_size(), or build shorter entries."));
    }
    let boundary = limits.seg_boundary.checked_add(1).filter(|b| *b > 1 && b.is_power_of_two())?;
    let crosses = |s: &&Segment| s.gpa % boundary.min(PAGE_U64) + s.len > boundary;
    let segment = mapping.segments.iter().find(crosses)?;
    let message = format!("An entry of {} bytes cannot but cross a boundary of {boundary} bytes, which the device declares.", segment.len);
    let verdict = Verdict::new(Code::DV112, message).range(of_segment(segment));
    Some(verdict.advice("Declare what the device can do with dma_set_seg_boundary(), or cut entries at the boundary."))
}

/// DV113: RAM where a device's memory belongs. `in_ram`: all of these bytes are.
pub(crate) fn resource_in_ram(mapping: &Mapping, in_ram: impl Fn(u64, u64) -> bool) -> Option<Verdict> {
    if !mapping.is_mmio() {
        return None;
    }
    let segment = mapping.segments.iter().find(|s| s.gpa >= LEGACY_END && s.len > 0 && in_ram(s.gpa, s.len))?;
    let message = format!("{} bytes of RAM were mapped as a device's memory.", segment.len);
    Some(Verdict::new(Code::DV113, message).range(of_segment(segment)))
}

/// Whether a mapping can be one of the two of DV116. Pages of user mode and of the page cache are read to more than once at a time
/// without the driver's doing.
pub(crate) fn may_overlap(mapping: &Mapping) -> bool {
    mapping.is_live() && mapping.two_copies() && mapping.device_writable() && mapping.kind != PageKind::Foreign && !mapping.freed
}

/// DV116: a mapping over bytes of `other`, which its device owns and may write. For another device it is sharing; a map without a
/// sync says that the driver keeps count of who owns what.
pub(crate) fn remap_live(mapping: &Mapping, other: &Mapping) -> Option<Verdict> {
    let ignored = |m: &Mapping| m.attrs.contains(Attrs::DEBUGGING_IGNORE_CACHELINES);
    if mapping.device != other.device || mapping.skip_at_map() || !may_overlap(mapping) || !may_overlap(other) {
        return None;
    }
    if ignored(mapping) && ignored(other) {
        return None;
    }
    let message = format!(
        "{} bytes were mapped for the device to write over a live mapping of {} bytes that it may write, too.",
        mapping.size, other.size
    );
    Some(Verdict::new(Code::DV116, message))
}

/// DV219, its error: coherent memory of the same device is mapped. An exporter that maps its coherent memory for another device
/// does so without a sync.
pub(crate) fn maps_coherent(call: &MapCall, coherent: &Mapping, device: u32) -> Option<Verdict> {
    if coherent.device != device || call.attrs.contains(Attrs::SKIP_CPU_SYNC) {
        return None;
    }
    let what = names::map_name(call.family);
    let message = format!("Coherent memory was given to {what}: it has a handle already, of {} bytes.", coherent.size);
    let verdict = Verdict::new(Code::DV219, message).severity(Severity::Error);
    Some(verdict.advice("Use the handle dma_alloc_coherent() returned."))
}

/// DV110 and DV114, what the kernel's own code rejects before any DMA operation sees it: the call's name and the verdict.
pub(crate) fn rejected(what: Rejected) -> (&'static str, Verdict) {
    match what {
        Rejected::Vmalloc => {
            let message = "Memory of vmalloc() was given to dma_map_single(): the kernel rejected it with DMA_MAPPING_ERROR.";
            let advice = "Allocate the buffer with kmalloc or the page allocator, or map it page by page with vmalloc_to_page().";
            ("dma_map_single", Verdict::new(Code::DV110, message).advice(advice))
        }
        Rejected::Flags(flags) => {
            let names = [
                (AllocFlags::DMA, "__GFP_DMA"),
                (AllocFlags::DMA32, "__GFP_DMA32"),
                (AllocFlags::HIGHMEM, "__GFP_HIGHMEM"),
                (AllocFlags::COMP, "__GFP_COMP"),
            ];
            let given: Vec<_> = names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect();
            let message = format!("Pages for DMA were asked for with {}: the kernel rejected the call with NULL.", given.join(" | "));
            let verdict = Verdict::new(Code::DV114, message);
            let comp = flags == AllocFlags::COMP;
            ("dma_alloc_pages", if comp { verdict.advice("Drop __GFP_COMP: these pages are never a compound page.") } else { verdict })
        }
    }
}
