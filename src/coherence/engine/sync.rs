//! dma_sync_*.

use super::Engine;
use crate::call::SyncCall;
use crate::catalogue::Code;
use crate::chunk::chunks;
use crate::copies::Evidence;
use crate::finding::ByteRange;
use crate::history::Event;
use crate::ids::{Direction, Family, SiteId};
use crate::profile::Edges;
use crate::rules;
use crate::summary::{CallKind, LostWrite};

fn sync_name(call: &SyncCall) -> &'static str {
    match (call.for_cpu, call.sg) {
        (true, false) => "dma_sync_single_for_cpu",
        (false, false) => "dma_sync_single_for_device",
        (true, true) => "dma_sync_sg_for_cpu",
        (false, true) => "dma_sync_sg_for_device",
    }
}

impl Engine {
    pub(super) fn sync(&mut self, device: u32, site: SiteId, call: &SyncCall) {
        let (count, kind) = if call.for_cpu {
            (&mut self.stats.syncs_for_cpu, CallKind::SyncForCpu)
        } else {
            (&mut self.stats.syncs_for_device, CallKind::SyncForDevice)
        };
        *count += 1;
        if let Some(record) = self.devices.get_mut(device as usize) {
            record.called(kind, site);
        }
        if call.sg && self.sync_list(device, site, call) {
            return;
        }
        for (iova, len) in &call.ranges {
            self.sync_range(device, site, call, iova.0, *len);
        }
    }

    /// A whole scatterlist, found by its first handle. False when it is not one: then the entries stand for themselves.
    fn sync_list(&mut self, device: u32, site: SiteId, call: &SyncCall) -> bool {
        let Some(id) = call.ranges.first().and_then(|(iova, _)| self.find(iova.0)) else { return false };
        let Some(mapping) = self.mappings.get(id) else { return false };
        let is_start = call.ranges.first().is_some_and(|(iova, _)| iova.0 == mapping.first());
        if !mapping.is_live() || mapping.device != device || mapping.family != Family::Sg || !is_start {
            return false;
        }
        let size = mapping.size;
        let verdict = rules::life::sync_entries(mapping, call.ranges.len());
        let Some(verdict) = verdict else {
            self.sync_mapping(device, id, site, call, ByteRange { start: 0, end: size });
            return true;
        };
        let covered = mapping.segments.get(call.ranges.len()).map_or(size, |s| s.offset);
        self.report(Some(device), Some(id), site, sync_name(call), verdict, None);
        self.sync_mapping(device, id, site, call, ByteRange { start: 0, end: covered });
        true
    }

    fn sync_range(&mut self, device: u32, site: SiteId, call: &SyncCall, iova: u64, len: u64) {
        if len == 0 {
            return;
        }
        let found = self.find(iova);
        let mapping = found.and_then(|id| self.mappings.get(id));
        let known = mapping.filter(|m| m.is_live() && m.device == device);
        if let Some(range) = known.and_then(|m| m.locate(iova, len)) {
            if let Some(id) = found {
                self.sync_mapping(device, id, site, call, range);
            }
            return;
        }
        if found.is_none() && self.used_unchecked(device, iova, Code::DV215, sync_name(call), site) {
            return;
        }
        let mapping = found.and_then(|id| self.mappings.get(id));
        let known = mapping.filter(|m| m.is_live() && m.device == device);
        let verdict = rules::life::sync_outside(iova, len, mapping, device);
        // The part that is inside is synced all the same.
        let inside = known.and_then(|m| {
            let at = m.segment_at(iova)?;
            let (start, end) = m.handle_range(at);
            if iova < start || iova >= end { None } else { m.locate(iova, end - iova) }
        });
        self.report(Some(device), found, site, sync_name(call), verdict, None);
        if let (Some(id), Some(range)) = (found, inside) {
            self.sync_mapping(device, id, site, call, range);
        }
    }

    /// Syncs bytes of a live mapping of the device. The direction given decides what moves, as it does on the real machine.
    fn sync_mapping(&mut self, device: u32, id: u32, site: SiteId, call: &SyncCall, range: ByteRange) {
        let what = sync_name(call);
        let Some(mapping) = self.mappings.get(id) else { return };
        let (writable, two_copies) = (mapping.device_writable(), mapping.two_copies());
        let wrong = rules::life::sync_direction(mapping, call);
        let judged = wrong.is_none();
        if let Some(verdict) = wrong {
            self.report(Some(device), Some(id), site, what, verdict.range(range), None);
        }
        if self.config.pedantic {
            self.judge_need(device, id, site, call, range);
        }
        if two_copies && (self.config.pedantic || self.config.edges == Edges::Line) {
            self.judge_alignment(device, id, site, what, range);
        }
        if let Some(mapping) = self.mappings.get_mut(id)
            && mapping.direction == Direction::FromDevice
        {
            mapping.cpu_has = call.for_cpu || (mapping.cpu_has && range != mapping.whole());
        }
        if two_copies {
            self.stats.handovers += 1;
            self.settle_held(id, range, call.for_cpu, what, site);
            if !call.for_cpu {
                self.close_for_device(id, range);
                // First: a write that cost the device its line is told of once, as that.
                self.evict(device, id, site, what, range);
                self.settle_writes_given(device, id, range, what, site);
                // A copy into a bounce buffer leaves nothing to look at.
                let bounces = self.config.profile.bounces();
                if writable && bounces {
                    self.note_lost_writes(device, id, site, what, range);
                }
                self.give(device, id, site, call.direction, what, range);
                if writable && !bounces {
                    self.note_lost_writes(device, id, site, what, range);
                }
            } else if judged && !matches!(call.direction, Direction::ToDevice | Direction::None) {
                self.evict(device, id, site, what, range);
                self.take(device, id, site, what, range, true);
            } else {
                self.evict(device, id, site, what, range);
                let Some(mapping) = self.mappings.get(id) else { return };
                let mut took = false;
                for chunk in chunks(&mapping.segments, range) {
                    let taken = self.copies.take(&chunk, id, call.direction, false);
                    self.stats.bytes_to_cpu += taken.moved;
                    took |= taken.written;
                }
                if took {
                    chunks(&mapping.segments, range).for_each(|chunk| self.copies.note_taken(&chunk, id));
                }
            }
            self.relax_mapping(id, range);
        }
        let seq = self.seq();
        let event = if call.for_cpu { Event::ForCpu } else { Event::ForDevice };
        if let Some(mapping) = self.mappings.get_mut(id) {
            mapping.history.push(seq, event, range, site);
        }
    }

    /// Whether a sync does anything, and cuts cache lines.
    fn judge_need(&mut self, device: u32, id: u32, site: SiteId, call: &SyncCall, range: ByteRange) {
        let what = sync_name(call);
        let Some(mapping) = self.mappings.get(id) else { return };
        if mapping.family == Family::Coherent {
            let verdict = rules::sync::coherent(mapping, what, range);
            self.report(Some(device), Some(id), site, what, verdict, None);
            return;
        }
        if !mapping.two_copies() {
            return;
        }
        let redundant = rules::sync::repeats(mapping, range, call.for_cpu, site).and_then(|last| {
            let mut bytes = chunks(&mapping.segments, range);
            let unchanged = bytes.all(|chunk| self.copies.has_already(&chunk, id, call.for_cpu));
            unchanged.then(|| rules::sync::redundant(mapping, &last, call.for_cpu, range))
        });
        if let Some(verdict) = redundant {
            self.report(Some(device), Some(id), site, what, verdict, None);
        }
    }

    /// Whether a sync cuts cache lines.
    fn judge_alignment(&mut self, device: u32, id: u32, site: SiteId, what: &str, range: ByteRange) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let verdict = rules::lines::unaligned_sync(mapping, what, range, u64::from(self.config.line_size), self.config.edges);
        if let Some(verdict) = verdict {
            self.report(Some(device), Some(id), site, what, verdict, None);
        }
    }

    fn give(&mut self, device: u32, id: u32, site: SiteId, direction: Direction, what: &str, range: ByteRange) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let mut dropped: Option<(ByteRange, Evidence)> = None;
        let mut beside = None;
        for chunk in chunks(&mapping.segments, range) {
            let given = self.copies.give(&chunk, id, direction, false);
            self.stats.bytes_to_device += given.moved;
            if let Some((start, end, evidence)) = given.dropped {
                let bytes = chunk.range(start, end);
                dropped = Some(dropped.map_or((bytes, evidence), |(all, first)| (all.hull(bytes), first)));
            }
            beside = beside.or_else(|| given.beside.map(|bytes| (chunk, bytes)));
        }
        if let Some((bytes, evidence)) = dropped {
            let verdict = rules::ownership::dropped_write(mapping, bytes, what);
            self.report(Some(device), Some(id), site, what, verdict, Some(&evidence));
        }
        if let Some((chunk, bytes)) = beside {
            self.lost_beside(device, id, site, what, &chunk, bytes);
        }
    }

    /// Notes bytes the device wrote that this event leaves with the device or drops (DV221).
    pub(super) fn note_lost_writes(&mut self, device: u32, id: u32, site: SiteId, what: &str, range: ByteRange) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let range = ByteRange { start: range.start, end: range.end.min(mapping.size) };
        let mut total = 0;
        let mut found: Option<(ByteRange, Evidence)> = None;
        for chunk in chunks(&mapping.segments, range) {
            if let Some((bytes, start, end, evidence)) = self.copies.untaken(&chunk) {
                total += bytes;
                let here = chunk.range(start, end);
                found = Some(found.map_or((here, evidence), |(all, first)| (all.hull(here), first)));
            }
        }
        let Some((bytes, evidence)) = found else { return };
        let verdict = rules::ownership::lost_device_write(bytes, total, what);
        let info = mapping.info();
        if let Some(record) = self.devices.get_mut(device as usize) {
            record.lose(total, || LostWrite {
                mapping: info,
                what: what.to_owned(),
                site,
                range: bytes,
                bytes_at: evidence.at,
                cpu_bytes: evidence.cpu.iter().take(evidence.len).copied().collect(),
                device_bytes: evidence.device.iter().take(evidence.len).copied().collect(),
            });
        }
        self.report(Some(device), Some(id), site, what, verdict, Some(&evidence));
    }
}
