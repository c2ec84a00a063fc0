//! The findings: what the rules (RULES.md) say of each event. Calls here, accesses in `access`.

use super::held::Waits;
use super::state::*;
use crate::*;
use std::collections::BTreeMap;

/// A finding, as far as it is the same in every run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) code: Code,
    pub(crate) kind: Option<Code>,
    pub(crate) severity: Severity,
    pub(crate) device: usize,
    pub(crate) map_site: Site,
    pub(crate) site: Site,
    pub(crate) range: Option<(usize, usize)>,
}

#[derive(Default, Debug)]
pub(crate) struct Device {
    pub(crate) master: bool,
    pub(crate) bound: bool,
    pub(crate) kick: Site,
    /// When it last gave a sign, or the driver was shown by a for_cpu that it had.
    pub(crate) signal: u64,
    /// Where and of which family a call failed.
    pub(crate) failed: Option<(Site, Family)>,
}

/// A page whose mapping ended without a sync after the device wrote.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) mapping: usize,
    pub(crate) page: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) offset: usize,
}

#[derive(Default, Debug)]
pub(crate) struct Judge {
    pub(crate) found: Vec<Found>,
    pub(crate) devices: Vec<Device>,
    pub(crate) writes: Vec<Write>,
    pub(crate) kept: Vec<Kept>,
    pub(crate) flights: Vec<(u64, usize, usize, usize)>,
    pub(crate) strikes: BTreeMap<(Site, Site), u32>,
    /// Places of stale reads of the CPU and of reads of what the device owned: (device, map site, place).
    pub(crate) pedantic: bool,
    pub(crate) watched: bool,
    /// Where cache operations at for_cpu do nothing, DV222 is an error.
    pub(crate) rearm_is_error: bool,
}

impl Judge {
    fn knows(&self, f: &Found) -> bool {
        self.found.iter().any(|k| (k.code, k.device, k.map_site, k.site) == (f.code, f.device, f.map_site, f.site))
    }
    /// One finding for each code, device, place of the map and of the offence.
    pub(crate) fn keep(&mut self, f: Found) {
        if !self.knows(&f) {
            self.found.push(f);
        }
    }
    /// All, without the early looks at a place that also read what was stale: one offence, one code.
    pub(crate) fn all(&self) -> Vec<Found> {
        let stale = |f: &Found| f.code == Code::DV202 || f.kind == Some(Code::DV202);
        let shadowed = |f: &Found| {
            let same = |s: &Found| stale(s) && (s.device, s.map_site, s.site) == (f.device, f.map_site, f.site);
            f.code == Code::DV204 && self.found.iter().any(same)
        };
        let mut all: Vec<Found> = self.found.iter().filter(|f| !shadowed(f)).cloned().collect();
        all.sort();
        all
    }
}

pub(crate) fn hull(bytes: &[usize]) -> Option<(usize, usize)> {
    Some((*bytes.iter().min()?, bytes.iter().max()? + 1))
}

impl Model {
    pub(crate) fn found(&self, code: Code, severity: Severity, m: usize, site: Site, range: Option<(usize, usize)>) -> Found {
        let call = &self.maps[m].call;
        Found { code, kind: None, severity, device: call.device, map_site: call.site, site, range }
    }

    pub(crate) fn report(&mut self, code: Code, severity: Severity, m: usize, site: Site, range: Option<(usize, usize)>) {
        let found = self.found(code, severity, m, site, range);
        self.judge.keep(found);
    }

    /// About a handle that may be another device's, or nobody's.
    pub(crate) fn report_by(&mut self, device: usize, code: Code, m: Option<usize>, site: Site, range: Option<(usize, usize)>) {
        let map_site = m.map_or(0, |m| self.maps[m].call.site);
        self.judge.keep(Found { code, kind: None, severity: Severity::Error, device, map_site, site, range });
    }

    pub(crate) fn map(&mut self, call: Call, handles: &[(Iova, u64)]) -> usize {
        self.seq += 1;
        let mut parts = Vec::new();
        let mut offset = 0;
        for (page, start, len) in &call.pieces {
            let (mut page, mut from, mut left) = (*page, *start, *len);
            while left > 0 {
                let to = (from + left).min(PAGE);
                parts.push(Part { page, from, to, offset, lines: vec![Line::default(); PAGE / self.line] });
                offset += to - from;
                left -= to - from;
                (page, from) = (page + 1, 0);
            }
        }
        let mut at = 0;
        let mut list = Vec::new();
        for (iova, len) in handles {
            let len = usize::try_from(*len).unwrap();
            list.push((iova.0, at, len));
            at += len;
        }
        let (family, skip, site) = (call.family, call.skip, call.site);
        let m = self.maps.len();
        let one_copy = match call.family {
            Family::Coherent | Family::Resource => true,
            Family::Pages => self.machine.bounces(),
            Family::Single | Family::Sg => false,
        };
        let direction = call.direction;
        let mapping = Mapping {
            call,
            size: offset,
            one_copy,
            parts,
            handles: list,
            live: true,
            unmapped: 0,
            beside_seen: false,
            log: Vec::new(),
            held: Vec::new(),
            peeked: false,
        };
        let pages: Vec<usize> = mapping.parts.iter().map(|p| p.page).collect();
        if mapping.two_copies() {
            for page in pages {
                if self.on_page(page).is_empty() {
                    self.judge.kept.retain(|k| k.page != page);
                    self.enter(page);
                }
            }
        }
        self.maps.push(mapping);
        let what = match family {
            Family::Coherent | Family::Pages => What::Alloc,
            _ if skip => What::MapSkip,
            _ => What::Map,
        };
        self.maps[m].note(what, 0, offset, site, self.seq, false);
        if self.maps[m].two_copies() {
            if what != What::Alloc {
                self.given(m, 0, offset);
            }
            match what {
                What::Map => drop(self.give(m, 0, offset, direction, true)),
                What::MapSkip if self.machine.bounces() => drop(self.give(m, 0, offset, direction, true)),
                _ => self.poison(m, what == What::MapSkip),
            }
        }
        self.judge_map(m);
        m
    }

    /// The device gets bytes: the CPU does not await them any more.
    fn given(&mut self, m: usize, from: usize, to: usize) {
        for cut in self.maps[m].cuts(from, to) {
            for at in cut.from..cut.to {
                self.pages[cut.page][at].awaited = false;
            }
        }
    }

    /// An unmap that found its mapping; `calls` are the codes of what does not fit.
    pub(crate) fn unmap(&mut self, m: usize, skip: bool, site: Site, wrong: &[Code]) {
        for code in wrong {
            self.report(*code, Severity::Error, m, site, None);
        }
        let mapping = &self.maps[m];
        let (family, size, two, writable) = (mapping.call.family, mapping.size, mapping.two_copies(), mapping.writable());
        let alloc = matches!(family, Family::Coherent | Family::Pages);
        if two {
            if alloc || skip {
                self.maps[m].held.retain(|h| h.waits != Waits::GiveBack);
            }
            self.release(m);
            if !alloc && !skip {
                self.evict(m, 0, size, site);
            }
            if !alloc && !skip && writable {
                self.take(m, site, 0, size, false);
            } else if writable {
                self.lost_device_writes(m, 0, size, site);
            } else if !alloc && !skip && !self.machine.plain() {
                self.take_by_machine(m, 0, size, Direction::ToDevice, false);
            }
            self.settle(m, 0, size);
        }
        if two && !alloc && skip && writable && self.judge.watched {
            self.keep_remains(m);
        } else {
            self.leave(m);
        }
        self.maps[m].unmapped = site;
    }

    /// Pages that only this mapping has, with what the device wrote there, are kept for comparison.
    fn keep_remains(&mut self, m: usize) {
        let mut kept = Vec::new();
        let parts = self.maps[m].parts.clone();
        for (i, p) in parts.iter().enumerate() {
            let others = self.on_page(p.page).len() > 1 || parts[i + 1..].iter().any(|q| q.page == p.page);
            if !others && (p.from..p.to).any(|at| self.pages[p.page][at].written) {
                let bytes: Vec<usize> = (p.from..p.to).filter(|at| self.pages[p.page][*at].written).collect();
                kept.push((p.clone(), bytes));
            }
        }
        self.leave(m);
        for (p, bytes) in kept {
            bytes.into_iter().for_each(|at| self.pages[p.page][at].written = true);
            self.judge.kept.push(Kept { mapping: m, page: p.page, from: p.from, to: p.to, offset: p.offset });
        }
    }

    /// The driver is gone.
    pub(crate) fn unbound(&mut self, device: usize) {
        self.judge.devices[device].bound = false;
        for m in self.live() {
            if self.maps[m].call.device != device || self.maps[m].call.kind == PageKind::PagePool {
                continue;
            }
            self.leak(m, Severity::Error);
            self.maps[m].held.retain(|h| h.waits != Waits::GiveBack);
            self.release(m);
            if self.maps[m].two_copies() {
                self.forget_writes(m, 0, usize::MAX);
            }
            self.leave(m);
        }
    }

    fn leak(&mut self, m: usize, severity: Severity) {
        if self.maps[m].two_copies() && self.maps[m].writable() {
            self.lost_device_writes(m, 0, usize::MAX, 0);
        }
        self.report(Code::DV108, severity, m, 0, None);
    }

    /// The run ends.
    pub(crate) fn finish(&mut self) {
        for m in self.live() {
            self.maps[m].held.retain(|h| h.waits != Waits::GiveBack);
            self.release(m);
            if !self.judge.devices[self.maps[m].call.device].bound {
                self.leak(m, Severity::Warning);
            } else if self.maps[m].two_copies() && self.maps[m].writable() {
                self.lost_device_writes(m, 0, usize::MAX, 0);
            }
        }
    }

    /// A sync of bytes of a live mapping with the direction given.
    pub(crate) fn sync(&mut self, m: usize, for_cpu: bool, direction: Direction, from: usize, to: usize, site: Site) {
        let coherent = self.maps[m].call.family == Family::Coherent;
        let wrong = !coherent && direction != self.maps[m].call.direction;
        if wrong {
            self.report(Code::DV216, Severity::Error, m, site, Some((from, to)));
        }
        if self.judge.pedantic {
            self.judge_need(m, for_cpu, from, to, site);
        }
        let size = self.maps[m].size;
        let cuts_line = !from.is_multiple_of(self.line) || (to != size && !to.is_multiple_of(self.line));
        let whole_lines = self.machine.whole_lines;
        if (self.judge.pedantic || whole_lines) && self.maps[m].two_copies() && self.maps[m].writable() && cuts_line {
            let severity = if whole_lines { Severity::Warning } else { Severity::Note };
            self.report(Code::DV304, severity, m, site, Some((from, to)));
        }
        if self.maps[m].two_copies() {
            self.settle_held(m, for_cpu, from, to);
            if !for_cpu {
                self.given(m, from, to);
                self.evict(m, from, to, site);
                self.settle_given(m, from, to);
                let (writable, bounces) = (self.maps[m].writable(), self.machine.bounces());
                if writable && bounces {
                    self.lost_device_writes(m, from, to, site);
                }
                let (dropped, beside) = self.give(m, from, to, direction, false);
                if let Some(range) = hull(&dropped) {
                    self.report(Code::DV203, Severity::Note, m, site, Some(range));
                }
                if beside {
                    self.conflict(m, site, None);
                }
                if writable && !bounces {
                    self.lost_device_writes(m, from, to, site);
                }
                self.note_sync(m, for_cpu, from, to, site);
                return;
            }
            self.evict(m, from, to, site);
            if !self.machine.plain() && (wrong || matches!(direction, Direction::ToDevice | Direction::None)) {
                let taken = self.take_by_machine(m, from, to, direction, true);
                self.note_discards(m, &taken);
            } else if matches!(direction, Direction::ToDevice | Direction::None) {
                self.take_nothing(m, from, to);
            } else if wrong {
                // Told of as what it is; what the CPU wrote went all the same.
                let taken = self.take_back(m, from, to);
                self.note_discards(m, &taken);
            } else {
                self.take(m, site, from, to, true);
            }
        }
        self.note_sync(m, for_cpu, from, to, site);
    }

    fn note_sync(&mut self, m: usize, for_cpu: bool, from: usize, to: usize, site: Site) {
        let what = if for_cpu { What::ForCpu } else { What::ForDevice };
        self.maps[m].note(what, from, to, site, self.seq, false);
    }

    /// DV219, DV220.
    fn judge_need(&mut self, m: usize, for_cpu: bool, from: usize, to: usize, site: Site) {
        let range = Some((from, to));
        let mapping = &self.maps[m];
        if mapping.call.family == Family::Coherent {
            self.report(Code::DV219, Severity::Note, m, site, range);
            return;
        }
        if !mapping.two_copies() {
            return;
        }
        let last = mapping.last_handover(from, to).filter(|e| e.from <= from && to <= e.to && e.site != site);
        let repeats = last.is_some_and(|e| match e.what {
            What::ForCpu => for_cpu,
            What::ForDevice | What::Map => !for_cpu,
            _ => false,
        });
        let unchanged = mapping.cuts(from, to).into_iter().all(|cut| {
            let has = |l: Line| if for_cpu { !l.owned } else { l.owned && l.handed };
            self.lines_of(cut).all(|line| has(mapping.parts[cut.part].lines[line]))
                && self.pages[cut.page][cut.from..cut.to].iter().all(|b| b.fresh && !b.written && !b.dirty())
        });
        if repeats && unchanged {
            self.report(Code::DV220, Severity::Note, m, site, range);
        }
    }

    /// The CPU takes bytes: what that discards.
    fn take(&mut self, m: usize, site: Site, from: usize, to: usize, sync: bool) {
        let call = self.maps[m].call.clone();
        let to = to.min(self.maps[m].size);
        if sync && self.judge.pedantic && self.judge.watched && call.direction == Direction::FromDevice {
            for cut in self.maps[m].cuts(from, to) {
                for at in cut.from..cut.to {
                    // What the CPU has already it was given before.
                    let owned = self.maps[m].parts[cut.part].lines[at / self.line].owned;
                    let b = &mut self.pages[cut.page][at];
                    b.awaited = (b.awaited || owned) && !b.written;
                }
            }
        }
        let plain = self.machine.plain();
        let taken = if plain { self.take_back(m, from, to) } else { self.take_by_machine(m, from, to, call.direction, sync) };
        if taken.took {
            self.judge.devices[call.device].signal = self.seq;
        }
        let never = hull(&taken.never).filter(|_| sync && call.family == Family::Pages && (taken.lost.is_empty() || taken.unhanded));
        if never.is_some() {
            self.report(Code::DV210, Severity::Warning, m, site, never);
        } else if let Some(range) = hull(&taken.lost) {
            let write = taken.lost.iter().find_map(|o| self.judge.writes.iter().find(|w| self.is_in(m, *o, w)).copied());
            let shared = !taken.cpu_owned && self.alias(m, range.0).is_some();
            let (code, site) = match write {
                Some(w) if !taken.cpu_owned && !shared => (Code::DV203, w.site),
                Some(w) if !taken.cpu_owned => (Code::DV403, w.site),
                _ if shared => (Code::DV403, site),
                _ if sync && taken.cpu_owned => (Code::DV213, site),
                _ => (Code::DV203, site),
            };
            let mut found = self.found(code, Severity::Error, m, site, Some(range));
            found.kind = (code != Code::DV203).then_some(Code::DV203);
            self.judge.keep(found);
        }
        self.note_discards(m, &taken);
        if taken.lost.is_empty() {
            self.hidden(m, site, &taken.hidden);
        }
        if taken.beside {
            self.conflict(m, site, None);
        }
        self.settle(m, from, to);
        if sync && taken.took && !std::mem::take(&mut self.maps[m].peeked) {
            self.judge.strikes.retain(|(map, _), _| *map != call.site);
        }
    }

    /// Whether the byte at an offset of a mapping is one of those written.
    pub(crate) fn is_in(&self, m: usize, offset: usize, w: &Write) -> bool {
        let hit = |c: &Cut| c.page == w.page && (w.from..w.to).contains(&c.from);
        self.maps[m].cuts(offset, offset + 1).first().is_some_and(hit)
    }

    /// The mapping for another device through which the CPU took a byte, where one of the two was made to share a buffer.
    pub(crate) fn alias(&self, m: usize, offset: usize) -> Option<usize> {
        let cut = *self.maps[m].cuts(offset, offset + 1).first()?;
        let call = &self.maps[m].call;
        self.on_page(cut.page).into_iter().find(|o| {
            let other = &self.maps[*o];
            other.call.device != call.device
                && (call.skip || other.call.skip)
                && other.parts.iter().any(|p| {
                    let byte = p.offset + cut.from.saturating_sub(p.from);
                    p.page == cut.page
                        && (p.from..p.to).contains(&cut.from)
                        && !p.lines[cut.from / self.line].owned
                        && other.last_handover(byte, byte + 1).is_some_and(|e| e.what == What::ForCpu)
                })
        })
    }

    /// Writes of the CPU to bytes that come back: nothing came of those that were not discarded.
    fn settle(&mut self, m: usize, from: usize, to: usize) {
        for (write, range) in self.forget_writes(m, from, to) {
            if !write.discarded {
                self.report(Code::DV203, Severity::Note, m, write.site, Some(range));
            }
        }
    }

    /// Writes of the CPU that are about to be given: those the device has overtaken go over its bytes.
    fn settle_given(&mut self, m: usize, from: usize, to: usize) {
        for (write, range) in self.forget_writes(m, from, to) {
            if write.overtaken {
                self.report(Code::DV203, Severity::Error, m, write.site, Some(range));
            }
        }
    }

    /// Takes the writes through a mapping to bytes `from..to` out, each with those of its bytes that are in the first part it meets.
    fn forget_writes(&mut self, m: usize, from: usize, to: usize) -> Vec<(Write, (usize, usize))> {
        let mut gone = Vec::new();
        for cut in self.maps[m].cuts(from, to) {
            (cut.from..cut.to).for_each(|at| self.pages[cut.page][at].own = false);
            self.judge.writes.retain(|w| {
                let hit = w.mapping == m && w.page == cut.page && w.from < cut.to && cut.from < w.to;
                if hit {
                    let at = |byte: usize| cut.offset + (byte - cut.from);
                    gone.push((*w, (at(w.from.max(cut.from)), at(w.to.min(cut.to)))));
                }
                !hit
            });
        }
        gone
    }

    /// DV221: what the device wrote stays with it, or goes with the mapping.
    fn lost_device_writes(&mut self, m: usize, from: usize, to: usize, site: Site) {
        let mut bytes = Vec::new();
        for cut in self.maps[m].cuts(from, to) {
            for at in cut.from..cut.to {
                let b = self.pages[cut.page][at];
                let stuck = |o: &Mapping| o.parts.iter().any(|p| p.page == cut.page && p.lines[at / self.line].stuck);
                // What a for_cpu could not bring was said there.
                if b.written && b.cpu != b.device && !self.on_page(cut.page).iter().any(|o| stuck(&self.maps[*o])) {
                    bytes.push(cut.offset + (at - cut.from));
                }
            }
        }
        if let Some(range) = hull(&bytes) {
            self.report(Code::DV221, Severity::Note, m, site, Some(range));
        }
    }
}
