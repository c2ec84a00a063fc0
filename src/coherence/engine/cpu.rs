//! Accesses of the CPU that were seen.

use super::Engine;
use crate::bits::{PAGE, PAGE_U64, index};
use crate::chunk::{Chunk, chunks};
use crate::copies::{CpuWrite, Touched};
use crate::finding::{AccessInfo, ByteRange, Severity};
use crate::held::Waits;
use crate::history::Event;
use crate::ids::{Direction, PageKind, SiteId};
use crate::mapping::Mapping;
use crate::profile::Edges;
use crate::rules::{self, Verdict};
use crate::site::Frame;
use crate::watch::{CpuAccess, CpuOp, Seen, Witness};

/// An instruction under judgement. Where it comes from is found out when it matters, once.
pub(crate) struct Scene<'a, 'w> {
    pub(crate) op: CpuOp<'a>,
    pub(crate) witness: &'w mut dyn Witness,
    site: Option<SiteId>,
}

impl Scene<'_, '_> {
    pub(crate) fn info(&self, access: &CpuAccess) -> AccessInfo {
        AccessInfo { rip: self.op.rip, len: access.len, write: access.write && !access.read, user: self.op.user, cpu: self.op.cpu }
    }
}

/// Where in its page an access lies.
pub(crate) fn in_page(access: &CpuAccess) -> (usize, usize) {
    let start = index(access.gpa.0 % PAGE_U64);
    (start, (start + access.len as usize).min(PAGE))
}

/// The bytes of a mapping's segment in a page.
fn chunk_of(mapping: &Mapping, page: u64, touched: &Touched) -> Option<Chunk> {
    let segment = mapping.segments.get(touched.segment as usize)?;
    let offset = segment.offset + (page + touched.bytes.0 as u64).checked_sub(segment.gpa)?;
    Some(Chunk { page, start: touched.bytes.0, end: touched.bytes.1, offset, segment: touched.segment })
}

impl Engine {
    /// See [`Coherence::cpu_access`](crate::Coherence::cpu_access).
    pub(super) fn cpu_access(&mut self, op: &CpuOp<'_>, witness: &mut dyn Witness, perform: &mut dyn FnMut()) -> Seen {
        self.tick();
        self.expire_remains();
        self.stats.cpu_accesses += 1;
        let mut scene = Scene { op: *op, witness, site: None };
        let mut innocent = true;
        for access in op.accesses {
            innocent &= self.touch(access, &mut scene);
        }
        perform();
        self.stats.innocent_accesses += u64::from(innocent);
        self.pass_on_guards();
        Seen { innocent }
    }

    /// The place of the access.
    pub(super) fn site_of(&mut self, scene: &mut Scene<'_, '_>) -> SiteId {
        if let Some(site) = scene.site {
            return site;
        }
        let stack = scene.witness.stack();
        let site = self.sites.intern(stack);
        scene.site = Some(site);
        site
    }

    fn touch(&mut self, access: &CpuAccess, scene: &mut Scene<'_, '_>) -> bool {
        let page = access.gpa.0 & !(PAGE_U64 - 1);
        if self.copies.slot(page).is_none() {
            return self.touch_solo(page, access, scene);
        }
        if self.copies.is_remains(page) {
            return self.touch_remains(page, access, scene);
        }
        let (start, end) = in_page(access);
        let mut touched = std::mem::take(&mut self.touched);
        touched.clear();
        self.copies.touching(page, start, end, access.write, &mut touched);
        // Where mappings share a place, which of them comes first is not to depend on which others ended before.
        if touched.len() > 1 {
            touched.sort_by_key(|t| (self.mappings.get(t.mapping).map(|m| m.seq), t.segment));
        }
        let mut innocent = true;
        for one in &touched {
            if one.hit.0 >= one.hit.1 {
                self.write_beside(start, one, access, scene);
                continue;
            }
            if access.read {
                innocent &= self.read(page, one, access, scene);
            }
            if access.write {
                innocent &= self.write(page, one, access, scene);
            }
        }
        self.touched = touched;
        if innocent && self.copies.is_watched(page) && self.copies.count_innocent(page, self.config.innocent_budget) {
            // Stated in the coverage figures; no blind spot.
            self.give_up(page);
        }
        innocent
    }

    pub(super) fn is_foreign(&self, id: u32) -> bool {
        self.mappings.get(id).is_some_and(|m| m.kind == PageKind::Foreign)
    }

    /// Whether an offence on the mapping's memory counts: on pages others may use at any time only the driver's own code does.
    fn counts(&mut self, id: u32, scene: &mut Scene<'_, '_>) -> bool {
        if !self.is_foreign(id) {
            return true;
        }
        let device = self.mappings.get(id).map_or(0, |m| m.device);
        let driver = self.devices.get(device as usize).map(|d| d.driver().to_owned()).unwrap_or_default();
        let counts = !scene.op.user && scene.witness.in_driver(&driver);
        self.stats.foreign_offences += u64::from(!counts);
        counts
    }

    /// True when nothing of the device's was read.
    fn read(&mut self, page: u64, touched: &Touched, access: &CpuAccess, scene: &mut Scene<'_, '_>) -> bool {
        let Some(mapping) = self.mappings.get(touched.mapping) else { return true };
        let Some(chunk) = chunk_of(mapping, page, touched) else { return true };
        if mapping.freed {
            return true;
        }
        let (device, seq) = (mapping.device, self.seq());
        let (start, end) = touched.hit;
        if !mapping.held.is_empty() {
            self.look_again(touched.mapping, page, start, end);
        }
        // What begins before the mapping is somebody's look at its neighbour. A word that begins in bytes the CPU has and runs
        // into others is a copy by words.
        let begins_inside = in_page(access).0 >= touched.bytes.0;
        let written = self.copies.written_hull(page, start, end);
        let written = written.filter(|(first, _)| begins_inside && (*first == start || access.len > 8));
        let Some(mapping) = self.mappings.get(touched.mapping) else { return true };
        let info = AccessInfo { write: false, ..scene.info(access) };
        let Some((first, last)) = written else {
            // Its own bytes are not what the CPU waits for from the device. Linux puts an skb's bookkeeping behind the frame, in a
            // page_pool page that stays mapped and of which only the frame is synced; if the device writes there, that is DV203.
            let own = self.copies.is_own(page, start, end);
            if touched.writable && touched.owned != 0 && begins_inside && !own {
                let verdict = rules::cpu::read_owned(mapping, chunk.range(start, end)).access(info);
                if self.counts(touched.mapping, scene) {
                    let site = self.site_of(scene);
                    let evidence = self.copies.both_sides(&chunk, start);
                    self.report(Some(device), Some(touched.mapping), site, "CPU read", verdict, evidence.as_ref());
                    self.remember_event(touched.mapping, seq, Event::CpuRead, chunk.range(start, end), site);
                }
                return false;
            }
            if let Some(first) = self.copies.unwritten_in(page, start, end, rules::cpu::PAST_THE_END) {
                let verdict = rules::cpu::short_transfer(mapping, chunk.range(first, end));
                if self.counts(touched.mapping, scene) {
                    let site = self.site_of(scene);
                    self.report(Some(device), Some(touched.mapping), site, "CPU read", verdict.access(info), None);
                }
            }
            return touched.owned == 0;
        };
        let bytes = chunk.range(first, last);
        let line = self.copies.line_bit(first);
        let late = touched.owned & line == 0 && touched.late & line != 0;
        if !late && touched.owned & line == 0 && touched.stuck & line != 0 {
            // The for_cpu that did not bring them was the offence, or what came before it.
            return false;
        }
        if late && !self.had_sign(mapping, bytes) {
            self.stats.peeks += 1;
            return false;
        }
        let verdict = if late { rules::cpu::early_sync(mapping, bytes) } else { rules::cpu::early_read(mapping, touched, line, bytes) };
        let verdict = verdict.access(info);
        if !self.counts(touched.mapping, scene) {
            return false;
        }
        let site = self.site_of(scene);
        let evidence = self.copies.both_sides(&chunk, first);
        if late {
            let finding = self.draft(Some(device), Some(touched.mapping), site, "CPU read", verdict, evidence.as_ref());
            let waits = Waits::SecondLook { page, start: first, end: last, retaken: false };
            self.hold_peek(touched.mapping, waits, bytes, finding);
        } else {
            self.report(Some(device), Some(touched.mapping), site, "CPU read", verdict, evidence.as_ref());
        }
        self.remember_event(touched.mapping, seq, Event::CpuRead, bytes, site);
        false
    }

    /// Whether the driver had a sign from the device since it wrote the bytes.
    fn had_sign(&self, mapping: &Mapping, bytes: ByteRange) -> bool {
        let wrote = mapping.history.newest_first().find(|e| e.event == Event::DeviceWrite && e.range().overlaps(bytes));
        let signal = self.devices.get(mapping.device as usize).map_or(0, |d| d.signal);
        signal > wrote.map_or(0, |e| e.seq)
    }

    /// True when nothing of the device's was written.
    fn write(&mut self, page: u64, touched: &Touched, access: &CpuAccess, scene: &mut Scene<'_, '_>) -> bool {
        let id = touched.mapping;
        if self.config.pedantic {
            self.copies.forget_unwritten(page, touched.hit.0, touched.hit.1);
        }
        let Some(mapping) = self.mappings.get(id) else { return true };
        let Some(chunk) = chunk_of(mapping, page, touched) else { return true };
        if touched.owned == 0 || mapping.freed {
            return touched.owned == 0;
        }
        let (device, seq) = (mapping.device, self.seq());
        let bytes = chunk.range(touched.hit.0, touched.hit.1);
        let to_device = mapping.direction == Direction::ToDevice;
        if (!to_device || self.config.pedantic)
            && !scene.op.user
            && let Some(function) = scene.witness.allocator()
        {
            self.freed(device, id, &function, bytes, access, scene);
            return false;
        }
        if to_device {
            // Legal when a for_device follows; what the device makes of it otherwise is told by content.
            let site = self.sites.intern(vec![Frame::at(scene.op.rip, String::new())]);
            self.remember_event(id, seq, Event::CpuWrite, bytes, site);
            return false;
        }
        let (start, end) = touched.hit;
        self.copies.note_own(page, start, end);
        if !self.counts(id, scene) {
            return false;
        }
        let site = self.site_of(scene);
        let info = AccessInfo { write: true, ..scene.info(access) };
        self.copies.remember(page, CpuWrite { mapping: id, start, end, site, access: info, overtaken: false, discarded: false });
        self.remember_event(id, seq, Event::CpuWrite, bytes, site);
        false
    }

    fn remember_event(&mut self, id: u32, seq: u64, event: Event, range: ByteRange, site: SiteId) {
        if let Some(mapping) = self.mappings.get_mut(id) {
            mapping.history.push(seq, event, range, site);
        }
    }

    /// DV117. What else happens to the memory until the unmap is its new owner's business.
    fn freed(&mut self, device: u32, id: u32, function: &str, bytes: ByteRange, access: &CpuAccess, scene: &mut Scene<'_, '_>) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let info = AccessInfo { write: true, ..scene.info(access) };
        let verdict = rules::cpu::freed_while_mapped(mapping, function, bytes).access(info);
        let site = self.site_of(scene);
        self.report(Some(device), Some(id), site, "CPU write", verdict, None);
        if let Some(mapping) = self.mappings.get_mut(id) {
            mapping.freed = true;
        }
    }

    /// A write outside a mapping, in a line the device owns through it.
    fn write_beside(&mut self, start: usize, touched: &Touched, access: &CpuAccess, scene: &mut Scene<'_, '_>) {
        let Some(mapping) = self.mappings.get(touched.mapping) else { return };
        let (first, last) = touched.bytes;
        let before = start < first;
        let distance = if before { first - start } else { start + 1 - last };
        // Only what the driver laid out itself: fields of the object the buffer is in, or of a page it allocated.
        let same_object = match mapping.kind {
            PageKind::Slab => distance <= if before { mapping.object.0 } else { mapping.object.1 } as usize,
            PageKind::Other => true,
            PageKind::PagePool | PageKind::Foreign => false,
        };
        if !same_object || mapping.freed || scene.op.user {
            return;
        }
        let (device, line) = (mapping.device, u64::from(self.config.line_size));
        let verdict = rules::cpu::shared_line_write(mapping, before, distance as u64, line);
        let verdict = if self.config.edges == Edges::Line { verdict.severity(Severity::Error) } else { verdict };
        let driver = self.devices.get(device as usize).map(|d| d.driver().to_owned()).unwrap_or_default();
        if scene.witness.in_driver(&driver) {
            let info = AccessInfo { write: true, ..scene.info(access) };
            let site = self.site_of(scene);
            self.report(Some(device), Some(touched.mapping), site, "CPU write", verdict.access(info), None);
            if let Some(mapping) = self.mappings.get_mut(touched.mapping) {
                mapping.beside_seen = true;
            }
        }
    }

    /// A for_device is about to clean the lines of a range: writes of the CPU the device has overtaken are written over its bytes.
    pub(super) fn settle_writes_given(&mut self, device: u32, id: u32, range: ByteRange, what: &str, site: SiteId) {
        self.settle_writes(device, id, range, |write, mapping, bytes| {
            write.overtaken.then(|| rules::cpu::overtaken_write(mapping, write, bytes, what).consequence(what, site))
        });
    }

    /// A hand-over to the CPU, or the end of the mapping: nothing came of the writes of a range that were not discarded and hid nothing the
    /// device wrote.
    pub(super) fn settle_writes_taken(&mut self, device: u32, id: u32, range: ByteRange) {
        self.settle_writes(device, id, range, |write, mapping, bytes| {
            (!write.discarded).then(|| rules::cpu::idle_write(mapping, write, bytes))
        });
    }

    /// The mapping ends without a hand-over: nothing came of what is remembered still.
    pub(super) fn settle_writes_ended(&mut self, device: u32, id: u32) {
        self.settle_writes_taken(device, id, ByteRange { start: 0, end: u64::MAX });
    }

    /// The mapping is dropped: what became of the writes through it nobody will know.
    pub(super) fn forget_writes(&mut self, id: u32) {
        self.settle_writes(0, id, ByteRange { start: 0, end: u64::MAX }, |_, _, _| None);
    }

    fn settle_writes(&mut self, device: u32, id: u32, range: ByteRange, judge: impl Fn(&CpuWrite, &Mapping, ByteRange) -> Option<Verdict>) {
        let Some(mapping) = self.mappings.get(id).filter(|_| self.cpu.watches()) else { return };
        let range = ByteRange { start: range.start, end: range.end.min(mapping.size) };
        let mut verdicts = Vec::new();
        for chunk in chunks(&mapping.segments, range) {
            for write in self.copies.settle(&chunk, id, |_| true) {
                let bytes = chunk.range(write.start.max(chunk.start), write.end.min(chunk.end));
                verdicts.extend(judge(&write, mapping, bytes).map(|verdict| (write.site, verdict)));
            }
        }
        for (site, verdict) in verdicts {
            self.report(Some(device), Some(id), site, "CPU write", verdict, None);
        }
    }

    /// Drops the DV204 of a place that also has a finding about bytes that were stale there: one offence, one code.
    pub(super) fn drop_shadowed(&self, findings: &mut Vec<crate::finding::Finding>) {
        use crate::catalogue::Code;
        let place = |f: &crate::finding::Finding| (f.requester, f.mapping.as_ref().map(|m| m.map_site), f.access.map(|a| a.rip));
        let stale: Vec<_> =
            findings.iter().filter(|f| f.access.is_some() && f.kind == Some(Code::DV202) || f.code == Code::DV202).map(place).collect();
        findings.retain(|f| f.code != Code::DV204 || !stale.contains(&place(f)));
    }
}
