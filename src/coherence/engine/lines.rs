//! What lines cost: bytes of the device the CPU does not get, and bytes of neighbours.

use super::Engine;
use crate::catalogue::Code;
use crate::chunk::{Chunk, chunks};
use crate::copies::{Beside, Hidden, Why};
use crate::finding::ByteRange;
use crate::ids::{Direction, PageKind, SiteId};
use crate::mapping::Mapping;
use crate::profile::{Cache, Op};
use crate::rules;

impl Engine {
    /// Lets the adversary write lines of a range back before a hand-over of it.
    pub(super) fn evict(&mut self, device: u32, id: u32, site: SiteId, what: &str, range: ByteRange) {
        if !self.copies.evicts() {
            return;
        }
        let Some(mapping) = self.mappings.get(id).filter(|m| m.device_writable()) else { return };
        let range = ByteRange { start: range.start, end: range.end.min(mapping.size) };
        let mut found: Option<(ByteRange, Hidden)> = None;
        for chunk in chunks(&mapping.segments, range) {
            if let Some(here) = self.copies.evict(&chunk, id) {
                let bytes = chunk.range(here.start, here.end);
                found = Some(found.map_or((bytes, here), |(all, first)| (all.hull(bytes), first.and(here.write))));
            }
        }
        if let Some((bytes, hidden)) = found {
            self.hidden(device, id, (site, what), bytes, &hidden);
        }
    }

    /// The device wrote: the adversary fetches what it wrote first.
    pub(super) fn prefetch(&mut self, access: super::Access) {
        let Some(mapping) = self.mappings.get(access.mapping) else { return };
        let op = self.config.profile.machine().for_cpu.cell(mapping.direction).op;
        if let Some(chunk) = chunks(&mapping.segments, access.range).next() {
            self.copies.prefetch(&chunk, access.mapping, op);
        }
    }

    /// The unmap of a mapping that takes nothing, where the machine does something all the same.
    pub(super) fn drop_held_lines(&mut self, id: u32) {
        let machine = self.config.profile.machine();
        if machine.unmap.to_device.op == Op::Nothing && !machine.keeps_lines {
            return;
        }
        let Some(mapping) = self.mappings.get(id).filter(|m| m.direction == Direction::ToDevice) else { return };
        for chunk in chunks(&mapping.segments, mapping.whole()) {
            self.copies.take(&chunk, id, mapping.direction, true);
        }
    }

    /// Bytes the device wrote that the CPU does not get: whose fault that is.
    pub(super) fn hidden(&mut self, device: u32, id: u32, (site, what): (SiteId, &str), bytes: ByteRange, hidden: &Hidden) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let cache = if self.config.cache == Cache::Random { "random" } else { "evict" };
        let (verdict, place) = match hidden.why {
            Why::Overwritten { beside: true, evicted } => {
                if mapping.beside_seen {
                    return;
                }
                let own = is_own_neighbour(mapping);
                let verdict = rules::lines::overwritten_by_neighbour(mapping, bytes, what, own);
                (if evicted { verdict.made_visible_by(cache) } else { verdict }, (site, what))
            }
            Why::Overwritten { evicted, .. } => {
                let verdict = rules::ownership::overwritten(mapping, bytes, what, evicted);
                let verdict = if evicted { verdict.made_visible_by(cache) } else { verdict };
                match hidden.write {
                    Some(write) => (verdict.access(write.access).consequence(what, site), (write.site, "CPU write")),
                    None => (verdict, (site, what)),
                }
            }
            Why::NeverHanded => (rules::ownership::never_handed_written(mapping, bytes, what).made_visible_by(cache), (site, what)),
            Why::Stale { handed } => {
                let key = self.rearmed_key(device, id);
                if handed && key.is_some_and(|key| self.findings.knows(&key)) {
                    return;
                }
                (rules::sync::stale(mapping, bytes, what, handed), (site, what))
            }
        };
        let evidence = hidden.evidence;
        self.report(Some(device), Some(id), place.0, place.1, verdict, Some(&evidence));
    }

    /// Writes of the CPU beside a mapping went with a line of it.
    pub(super) fn lost_beside(&mut self, device: u32, id: u32, site: SiteId, what: &str, chunk: &Chunk, beside: Beside) {
        let Some(mapping) = self.mappings.get(id).filter(|m| !m.beside_seen) else { return };
        let before = beside.0 < chunk.start;
        let verdict = rules::lines::lost_beside(mapping, before, what, is_own_neighbour(mapping));
        self.report(Some(device), Some(id), site, what, verdict, None);
    }

    /// The key of the DV222 that the last write of a device to a mapping would have.
    fn rearmed_key(&self, device: u32, id: u32) -> Option<crate::findings::Key> {
        let mapping = self.mappings.get(id)?;
        let wrote = mapping.history.newest_first().find(|e| e.event == crate::history::Event::DeviceWrite)?;
        Some(crate::findings::Key { code: Code::DV222, device: Some(device), map_site: mapping.site, site: wrote.site })
    }
}

/// Whether what lies beside a mapping is the driver's own to lay out.
fn is_own_neighbour(mapping: &Mapping) -> bool {
    match mapping.kind {
        PageKind::Other => true,
        PageKind::Slab => mapping.object.0 > 0 || mapping.object.1 > 0,
        PageKind::PagePool | PageKind::Foreign => false,
    }
}
