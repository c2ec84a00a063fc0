//! dma_unmap_* and dma_free_*, and what is left when a driver goes.

use super::Engine;
use crate::call::UnmapCall;
use crate::catalogue::Code;
use crate::chunk::chunks;
use crate::copies::{CpuWrite, Hidden, Lost};
use crate::finding::{ByteRange, Severity};
use crate::history::Event;
use crate::ids::{Attrs, Direction, Family, PageKind, SiteId};
use crate::mapping::MAPPING_ERROR;
use crate::rules::{self, life};
use crate::summary::{CallKind, Summary};

/// What the family's unmap or free call is called in a report.
pub(crate) fn unmap_name(family: Family) -> &'static str {
    match family {
        Family::Single => "dma_unmap_single",
        Family::Sg => "dma_unmap_sg",
        Family::Resource => "dma_unmap_resource",
        Family::Coherent => "dma_free_coherent",
        Family::Pages => "dma_free_pages",
    }
}

impl Engine {
    pub(super) fn unmap(&mut self, device: u32, site: SiteId, call: &UnmapCall) {
        self.stats.unmaps += 1;
        let free = matches!(call.family, Family::Coherent | Family::Pages);
        if let Some(record) = self.devices.get_mut(device as usize) {
            record.called(if free { CallKind::Free } else { CallKind::Unmap }, site);
        }
        let what = unmap_name(call.family);
        let iova = call.ranges.first().map_or(MAPPING_ERROR, |range| range.0.0);
        let found = self.find(iova);
        if found.is_none() && self.used_unchecked(device, iova, Code::DV101, what, site) {
            return;
        }
        let mapping = found.and_then(|id| self.mappings.get(id));
        if let Some(verdict) = life::unmap_unknown(iova, mapping, device, self.is_mapped_gpa(iova)) {
            // A handle from the middle of a live mapping of this device stands for the mapping; nothing else can be unmapped.
            let stands_for_it = mapping.is_some_and(|m| m.is_live() && m.device == device && m.locate(iova, 1).is_some());
            self.report(Some(device), found, site, what, verdict, None);
            if !stands_for_it {
                return;
            }
        } else if let Some(mapping) = mapping {
            let verdicts = life::unmap_mismatch(mapping, call);
            for verdict in verdicts {
                self.report(Some(device), found, site, what, verdict, None);
            }
        }
        if let Some(id) = found {
            self.end_mapping(device, id, site, what, call.attrs.contains(Attrs::SKIP_CPU_SYNC));
        }
    }

    /// Ends a live mapping as its own family and direction want it.
    fn end_mapping(&mut self, device: u32, id: u32, site: SiteId, what: &str, skip: bool) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let (block, two_copies, freed) = (mapping.block, mapping.two_copies(), mapping.freed);
        let event = match mapping.family {
            Family::Coherent | Family::Pages => Event::Free,
            _ if skip => Event::UnmapSkip,
            _ => Event::Unmap,
        };
        let takes = event == Event::Unmap && mapping.direction != Direction::ToDevice;
        let drops = event != Event::Unmap && mapping.device_writable();
        if two_copies {
            if event != Event::Unmap {
                self.forgive_rearmed(id);
            }
            self.release_held(id);
            // Memory that has another owner is left alone.
            if event == Event::Unmap && !freed {
                self.evict(device, id, site, what, ByteRange { start: 0, end: u64::MAX });
                self.drop_held_lines(id);
            }
            if takes && !freed {
                self.take(device, id, site, what, ByteRange { start: 0, end: u64::MAX }, false);
            } else if drops && !freed {
                self.note_lost_writes(device, id, site, what, ByteRange { start: 0, end: u64::MAX });
            }
            self.stats.handovers += 1;
            self.settle_writes_ended(device, id);
            if event == Event::UnmapSkip {
                self.uncover_skipped(device, id);
            } else {
                self.uncover(id);
            }
        } else {
            self.leave_one_copy(id);
        }
        let seq = self.seq();
        self.mappings.end(id, seq, event, site);
        self.handles.free(block);
        self.note_peaks();
    }

    fn uncover(&mut self, id: u32) {
        let Some(mapping) = self.mappings.get(id) else { return };
        for chunk in chunks(&mapping.segments, mapping.whole()) {
            self.copies.leave(&chunk, id);
        }
    }

    /// Moves the device's bytes of a range of a mapping to the CPU's copy and reports what that discarded.
    pub(super) fn take(&mut self, device: u32, id: u32, site: SiteId, what: &str, range: ByteRange, sync: bool) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let range = ByteRange { start: range.start, end: range.end.min(mapping.size) };
        let mut lost: Option<(ByteRange, Lost)> = None;
        let mut never: Option<ByteRange> = None;
        let mut moved = 0;
        let mut took = false;
        let mut write: Option<CpuWrite> = None;
        let mut hidden: Option<(ByteRange, Hidden)> = None;
        let mut beside = None;
        for chunk in chunks(&mapping.segments, range) {
            let unwritten = sync && self.config.pedantic && mapping.direction == Direction::FromDevice;
            if unwritten {
                let written = self.copies.written_bits(&chunk);
                self.copies.note_unwritten(&chunk, id, &written);
            }
            let result = self.copies.take(&chunk, id, mapping.direction, !sync);
            moved += result.moved;
            took |= result.written;
            if let Some(here) = result.lost {
                write = write.or(here.write);
                let bytes = chunk.range(here.start, here.end);
                lost = Some(lost.map_or((bytes, here), |(all, first)| (all.hull(bytes), first)));
            }
            if let Some(here) = result.hidden {
                let bytes = chunk.range(here.start, here.end);
                hidden = Some(hidden.map_or((bytes, here), |(all, first)| (all.hull(bytes), first.and(here.write))));
            }
            beside = beside.or_else(|| result.beside.map(|bytes| (chunk, bytes)));
            if let Some((start, end)) = result.never {
                let bytes = chunk.range(start, end);
                never = Some(never.map_or(bytes, |all| all.hull(bytes)));
            }
        }
        self.stats.bytes_to_cpu += moved;
        if took {
            chunks(&mapping.segments, range).for_each(|chunk| self.copies.note_taken(&chunk, id));
        }
        if took && let Some(record) = self.devices.get_mut(device as usize) {
            record.signal = self.seq;
        }
        let never_handed = mapping.family == Family::Pages && lost.as_ref().is_none_or(|(_, lost)| lost.never_handed);
        let never = never.filter(|_| sync && never_handed);
        // There the for_cpu is the offence, not the write.
        let seen = write.filter(|_| never.is_none() && lost.as_ref().is_some_and(|(_, lost)| !lost.cpu_owned));
        let offence = seen.map_or((site, what), |write: CpuWrite| (write.site, "CPU write"));
        let lost_nothing = lost.is_none();
        let verdict = match (never, lost) {
            (Some(range), _) => Some((rules::ownership::never_handed_over(range), None)),
            (_, Some((range, lost))) => Some((
                match (&seen, self.alias(id, range.start)) {
                    (Some(write), None) => rules::cpu::discarded_write(mapping, write, range, what).consequence(what, site),
                    (_, alias) => rules::ownership::lost_write(mapping, &lost, range, what, sync, alias),
                },
                Some(lost.evidence),
            )),
            _ => None,
        };
        if let Some((verdict, evidence)) = verdict {
            self.report(Some(device), Some(id), offence.0, offence.1, verdict, evidence.as_ref());
        }
        if let Some((bytes, hidden)) = hidden.filter(|_| lost_nothing) {
            self.hidden(device, id, (site, what), bytes, &hidden);
        }
        if let Some((chunk, bytes)) = beside {
            self.lost_beside(device, id, site, what, &chunk, bytes);
        }
        self.settle_writes_taken(device, id, range);
        if sync && took {
            self.clean_lap(id);
        }
    }

    /// The driver is gone: what it left mapped is a leak and is dropped. Pages of a page_pool may come back later.
    pub(super) fn unbound(&mut self, device: u32) {
        if let Some(record) = self.devices.get_mut(device as usize) {
            record.bound = false;
            record.refused_mask = None;
        }
        let left = self.mappings.live_where(|m| m.device == device && m.kind != PageKind::PagePool);
        for id in left {
            self.leak(device, id, "the driver was unbound", Severity::Error);
            let Some(mapping) = self.mappings.get(id) else { continue };
            let (block, two_copies) = (mapping.block, mapping.two_copies());
            self.forgive_rearmed(id);
            self.release_held(id);
            if two_copies {
                self.forget_writes(id);
                self.uncover(id);
            } else {
                self.leave_one_copy(id);
            }
            let seq = self.seq();
            self.mappings.end(id, seq, Event::Dropped, SiteId::default());
            self.handles.free(block);
        }
        self.note_peaks();
    }

    fn leak(&mut self, device: u32, id: u32, what: &str, severity: Severity) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let verdict = life::leak(mapping, severity);
        if mapping.two_copies() && mapping.device_writable() {
            self.note_lost_writes(device, id, SiteId::default(), what, ByteRange { start: 0, end: u64::MAX });
        }
        self.report(Some(device), Some(id), SiteId::default(), what, verdict, None);
    }

    /// See [`Coherence::finish`](crate::Coherence::finish).
    pub(super) fn finish(&mut self) -> Summary {
        self.tick();
        self.wait.over();
        let what = "end of the run";
        // A run that was stopped has not come to the end, where mappings would be leaks.
        let open = if self.wait.at().is_none() { self.mappings.live_where(|_| true) } else { Vec::new() };
        for id in open {
            let Some(mapping) = self.mappings.get(id) else { continue };
            let device = mapping.device;
            self.forgive_rearmed(id);
            self.release_held(id);
            let Some(mapping) = self.mappings.get(id) else { continue };
            let bound = self.devices.get(device as usize).is_some_and(|d| d.bound);
            let had_driver = self.devices.get(device as usize).is_some_and(|d| !d.drivers.is_empty());
            if !bound && had_driver {
                self.leak(device, id, what, Severity::Warning);
            } else if mapping.two_copies() && mapping.device_writable() {
                self.note_lost_writes(device, id, SiteId::default(), what, ByteRange { start: 0, end: u64::MAX });
            }
        }
        let stats = self.stats_now();
        Summary {
            findings: self.sorted_findings(),
            stats,
            sites: self.sites.clone(),
            devices: self.devices.iter().map(crate::device::Device::summary).collect(),
            stopped_at: self.wait.at(),
        }
    }

    /// Whether an address is the guest physical address of memory that is mapped.
    pub(super) fn is_mapped_gpa(&self, address: u64) -> bool {
        self.copies.slot(address & !0xfff).is_some()
    }
}
