//! 1xx, 215, 216: calls of the API against the mapping they name.

use super::Verdict;
use crate::call::{SyncCall, UnmapCall};
use crate::catalogue::Code;
use crate::engine::names;
use crate::finding::Severity;
use crate::ids::{Attrs, Direction, Family};
use crate::mapping::{MAPPING_ERROR, Mapping, State, attr_names};

/// DV101: what is unmapped is not mapped.
pub(crate) fn unmap_unknown(iova: u64, mapping: Option<&Mapping>, device: u32, physical: bool) -> Option<Verdict> {
    let message = match mapping {
        _ if iova == MAPPING_ERROR => "DMA_MAPPING_ERROR was unmapped: the map call had failed.".to_owned(),
        None if physical => format!("{iova:#x} was unmapped: that is the physical address of a mapped buffer, not its handle."),
        None => format!("{iova:#x} was unmapped, but no map or alloc call returned that handle."),
        Some(m) if m.device != device => "A handle of another device was unmapped.".to_owned(),
        Some(m) if matches!(m.state, State::Dead { .. }) => format!("A mapping of {} bytes was unmapped a second time.", m.size),
        Some(m) if m.first() != iova && m.locate(iova, 1).is_none() => {
            format!("{iova:#x} was unmapped: it is next to a mapping of {} bytes, not in it.", m.size)
        }
        Some(m) if m.first() != iova => {
            format!("A handle from the middle of a mapping was unmapped: {} bytes from its start.", iova.abs_diff(m.first()))
        }
        Some(_) => return None,
    };
    let verdict = Verdict::new(Code::DV101, message);
    Some(match mapping {
        Some(m) if m.is_live() && m.device == device => verdict.advice("Unmap with the handle the map call returned."),
        None if iova == MAPPING_ERROR => verdict.advice("Do not unmap what dma_mapping_error() says was never mapped."),
        _ => verdict,
    })
}

/// DV102 to DV105, DV107: the unmap does not fit the map. Another family explains all the rest; otherwise each is its own mistake.
pub(crate) fn unmap_mismatch(mapping: &Mapping, call: &UnmapCall) -> Vec<Verdict> {
    if call.family != mapping.family {
        let message = format!("What {} made was given to {}.", names::map_name(mapping.family), names::unmap_name(call.family));
        return vec![Verdict::new(Code::DV104, message).advice(format!("Call {}().", names::unmap_name(mapping.family)))];
    }
    [
        unmap_size(mapping, call),
        unmap_direction(mapping, call),
        free_cpu_addr(mapping, call),
        unmap_entries(mapping, call),
        unmap_attrs(mapping, call),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn unmap_size(mapping: &Mapping, call: &UnmapCall) -> Option<Verdict> {
    let given = call.ranges.first()?.1;
    if mapping.family == Family::Sg || given == mapping.size {
        return None;
    }
    Some(Verdict::new(Code::DV102, format!("{} bytes were mapped, {given} bytes were unmapped.", mapping.size)))
}

fn unmap_direction(mapping: &Mapping, call: &UnmapCall) -> Option<Verdict> {
    if mapping.family == Family::Coherent || call.direction == mapping.direction {
        return None;
    }
    let message = format!("Mapped with {}, unmapped with {}.", mapping.direction.name(), call.direction.name());
    Some(Verdict::new(Code::DV103, message))
}

fn free_cpu_addr(mapping: &Mapping, call: &UnmapCall) -> Option<Verdict> {
    if !matches!(mapping.family, Family::Coherent | Family::Pages) || call.cpu_addr == mapping.cpu_addr {
        return None;
    }
    let offset = match call.cpu_addr.checked_sub(mapping.cpu_addr) {
        Some(after) if after < mapping.size => format!(": it is {after} bytes into the allocation"),
        _ => String::new(),
    };
    Some(Verdict::new(Code::DV105, format!("The address given to the free is not the one the alloc returned{offset}.")))
}

/// DV106. The attributes that say how memory was allocated or mapped; all others may differ (kernel/dma/debug.c of 7.2,
/// `DMA_ATTR_UNMAP_VALID`). DMA_ATTR_MMIO is a family of its own here.
fn unmap_attrs(mapping: &Mapping, call: &UnmapCall) -> Option<Verdict> {
    const MUST_MATCH: Attrs = Attrs::NO_KERNEL_MAPPING.union(Attrs::FORCE_CONTIGUOUS).union(Attrs::PRIVILEGED).union(Attrs::CC_SHARED);
    let differ = (mapping.attrs ^ call.attrs) & MUST_MATCH;
    if differ.is_empty() {
        return None;
    }
    let (missing, added) = (attr_names(differ & mapping.attrs), attr_names(differ & call.attrs));
    let (made, ended) = (names::map_name(mapping.family), names::unmap_name(mapping.family));
    let message = if missing.is_empty() {
        format!("{ended} was given {} and {made} was not.", added.join(", "))
    } else {
        format!("{made} was given {} and {ended} was not.", missing.join(", "))
    };
    Some(Verdict::new(Code::DV106, message))
}

fn unmap_entries(mapping: &Mapping, call: &UnmapCall) -> Option<Verdict> {
    (mapping.family == Family::Sg).then(|| entries(mapping, call.ranges.len(), "unmapped")).flatten()
}

/// DV107 for a sync of a whole list.
pub(crate) fn sync_entries(mapping: &Mapping, given: usize) -> Option<Verdict> {
    entries(mapping, given, "synced")
}

fn entries(mapping: &Mapping, given: usize, what: &str) -> Option<Verdict> {
    if given == mapping.entries {
        return None;
    }
    Some(Verdict::new(Code::DV107, format!("A scatterlist of {} entries was mapped, {given} were {what}.", mapping.entries)))
}

/// DV108: still mapped when the driver is gone.
pub(crate) fn leak(mapping: &Mapping, severity: Severity) -> Verdict {
    let made = if matches!(mapping.family, Family::Coherent | Family::Pages) { "allocated" } else { "mapped" };
    let message =
        format!("{} bytes {made} by {} were still {made} when the driver was gone.", mapping.size, names::map_name(mapping.family));
    Verdict::new(Code::DV108, message).severity(severity)
}

/// DV111: a map after a refused mask.
pub(crate) fn mapped_after_refused_mask(mask: u64) -> Verdict {
    Verdict::new(Code::DV111, format!("Memory was mapped although the mask {mask:#x} had been refused."))
}

/// DV111: a mask below what is mapped.
pub(crate) fn mask_lowered(mapping: &Mapping, mask: u64, count: usize) -> Verdict {
    let others = if count > 1 { format!(", and {} more like it", count - 1) } else { String::new() };
    let message = format!("The mask was lowered to {mask:#x} while a mapping of {} bytes above it is alive{others}.", mapping.size);
    Verdict::new(Code::DV111, message).severity(Severity::Warning).advice("Set the mask once, in probe, before the first mapping.")
}

/// DV215: a sync that is not inside one live mapping of its device.
pub(crate) fn sync_outside(iova: u64, len: u64, mapping: Option<&Mapping>, device: u32) -> Verdict {
    let message = match mapping {
        None => format!("{len} bytes at {iova:#x} were synced, but nothing is mapped there."),
        Some(m) if m.device != device => "A handle of another device was synced.".to_owned(),
        Some(m) if !m.is_live() => format!("{len} bytes of a mapping were synced after it was unmapped."),
        Some(m) if iova < m.first() => format!("{len} bytes beginning before a mapping of {} bytes were synced.", m.size),
        Some(m) => {
            let (start, end) = m.segment_at(iova).map_or((0, 0), |at| m.handle_range(at));
            let past = iova.saturating_add(len).saturating_sub(end);
            format!(
                "{len} bytes at offset {} of {} bytes mapped were synced, {past} past their end.",
                iova.saturating_sub(start),
                end - start
            )
        }
    };
    Verdict::new(Code::DV215, message)
}

/// DV216: the sync's direction is not the mapping's.
pub(crate) fn sync_direction(mapping: &Mapping, call: &SyncCall) -> Option<Verdict> {
    // Syncs of coherent memory are another matter (DV219).
    if mapping.family == Family::Coherent || call.direction == mapping.direction {
        return None;
    }
    let message = format!("Mapped with {}, synced with {}.", mapping.direction.name(), call.direction.name());
    let verdict = Verdict::new(Code::DV216, message);
    Some(if call.direction == Direction::None { verdict.advice("DMA_NONE is no direction to sync with.") } else { verdict })
}
