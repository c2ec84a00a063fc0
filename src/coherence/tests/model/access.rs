//! The findings about accesses: of the devices, and of the CPU where it is seen.

use super::held::{Held, Waits};
use super::judge::{Found, Kept, hull};
use super::state::*;
use crate::*;

/// Bytes past the end of a transfer that may be read: copies go by words.
const PAST_THE_END: usize = 7;
/// Writes of the CPU remembered for a page.
const WRITES: usize = 32;

impl Model {
    /// The device reads bytes of a live mapping of its own. Says what it sees.
    pub(crate) fn device_read(&mut self, m: usize, from: usize, to: usize, intent: Intent) -> Vec<u8> {
        let site = self.judge.devices[self.maps[m].call.device].kick;
        let what = match intent {
            Intent::Use => What::DeviceRead,
            Intent::Poll => What::DevicePoll,
            Intent::Prefetch => What::DevicePrefetch,
        };
        self.maps[m].note(what, from, to, site, self.seq, false);
        if intent == Intent::Use {
            self.use_bytes(m, from, to);
        }
        let two = self.maps[m].two_copies();
        let bytes = self.maps[m].cuts(from, to).into_iter().flat_map(|c| (c.from..c.to).map(move |at| (c.page, at)));
        bytes.map(|(page, at)| if two { self.pages[page][at].device } else { self.pages[page][at].cpu }).collect()
    }

    /// The device uses bytes: DV206, or DV201 and what is more exact.
    pub(crate) fn use_bytes(&mut self, m: usize, from: usize, to: usize) {
        if !self.maps[m].two_copies() {
            return;
        }
        let site = self.judge.devices[self.maps[m].call.device].kick;
        if self.maps[m].call.direction == Direction::FromDevice {
            self.report(Code::DV206, Severity::Warning, m, site, Some((from, to)));
            return;
        }
        let mut stale = Vec::new();
        let mut first: Option<(Cut, Line, Byte)> = None;
        for cut in self.maps[m].cuts(from, to) {
            for line in self.lines_of(cut) {
                let before = self.maps[m].parts[cut.part].lines[line];
                let mut bad = false;
                for at in self.in_line(cut, line) {
                    let b = self.pages[cut.page][at];
                    if !b.written && (!b.fresh || b.dirty()) {
                        stale.push(cut.offset + (at - cut.from));
                        first.get_or_insert((Cut { from: at, ..cut }, before, b));
                        bad = true;
                    }
                }
                let l = &mut self.maps[m].parts[cut.part].lines[line];
                if bad {
                    l.reused |= l.used && !l.offended;
                    (l.stale, l.offended) = (true, true);
                } else {
                    l.used = true;
                }
            }
        }
        let (Some(range), Some((at, line, byte))) = (hull(&stale), first) else { return };
        let code = self.name_stale_read(m, (from, to), range, line, byte);
        let mut found = self.found(code, Severity::Error, m, site, Some(range));
        if code != Code::DV201 {
            found.kind = Some(Code::DV201);
            self.judge.keep(found);
            return;
        }
        for held in self.take_held(m, |h| matches!(h.waits, Waits::ForDevice(..)) && h.from < range.1 && range.0 < h.to) {
            self.judge.keep(held.found);
        }
        // Of the bytes the report shows the CPU's must be the same still for a later for_device to be meant for this use.
        let begin = self.first_of_cut(m, at, from);
        let show = (at.from / 16 * 16).max(begin);
        let until = at.to.min(show + 64);
        let shown = self.pages[at.page][show..until].iter().map(|b| b.cpu).collect();
        let waits = Waits::ForDevice(at.page, show, shown);
        self.hold(m, Held { waits, from: range.0, to: range.1, found });
    }

    /// The first byte in the page of the part of an access that begins at `from` which has the byte of `at`.
    fn first_of_cut(&self, m: usize, at: Cut, from: usize) -> usize {
        let part = &self.maps[m].parts[at.part];
        part.from + from.saturating_sub(part.offset)
    }

    /// Which rule names a use of stale bytes `range` in the transfer `used`: 403, 401, 210, 213, 214, 217, else 201. `line` and
    /// `byte` are those of the first.
    fn name_stale_read(&self, m: usize, used: (usize, usize), range: (usize, usize), line: Line, byte: Byte) -> Code {
        let call = &self.maps[m].call;
        let short = self.maps[m]
            .log
            .iter()
            .rev()
            .take_while(|e| !(e.what == What::ForCpu && e.overlaps(used.0, used.1)))
            .find(|e| e.what == What::ForDevice && e.overlaps(used.0, used.1))
            .is_some_and(|e| !e.overlaps(range.0, range.1));
        if byte.fresh && self.alias(m, range.0).is_some() {
            Code::DV403
        } else if call.family != Family::Pages && call.skip && !line.handed {
            Code::DV401
        } else if call.family == Family::Pages && !byte.fresh {
            Code::DV210
        } else if line.wrong_sync {
            Code::DV213
        } else if short {
            Code::DV214
        } else if (line.used && !line.offended) || line.reused {
            Code::DV217
        } else {
            Code::DV201
        }
    }

    /// The device writes bytes of a live mapping of its own.
    pub(crate) fn device_write(&mut self, m: usize, from: usize, data: &[u8]) {
        let (device, to) = (self.maps[m].call.device, from + data.len());
        let (site, signal) = (self.judge.devices[device].kick, self.judge.devices[device].signal);
        // A sign of the device ends the transfer.
        let apart = self.maps[m].log.last().is_some_and(|e| e.what == What::DeviceWrite && signal > e.seq);
        self.maps[m].note(What::DeviceWrite, from, to, site, self.seq, apart);
        self.rearmed(m, from, to, site);
        let cuts = self.maps[m].cuts(from, to);
        if !self.maps[m].two_copies() {
            for (i, (page, at)) in cuts.iter().flat_map(|c| (c.from..c.to).map(|at| (c.page, at))).enumerate() {
                self.pages[page][at].cpu = data[i];
            }
            return;
        }
        let bounces = self.machine.bounces();
        if self.judge.watched {
            for cut in &cuts {
                for line in self.lines_of(*cut) {
                    let l = &mut self.maps[m].parts[cut.part].lines[line];
                    l.given_back = false;
                    l.late |= !l.owned;
                    let size = self.line;
                    for w in self.judge.writes.iter_mut().filter(|w| w.page == cut.page) {
                        let over = w.from < cut.to && cut.from < w.to;
                        w.overtaken |= if bounces { over } else { w.from / size <= line && line <= (w.to - 1) / size };
                    }
                }
            }
            self.overwrite_held(m, from, to);
        }
        if self.maps[m].call.direction == Direction::ToDevice {
            self.report(Code::DV205, Severity::Error, m, site, Some((from, to)));
        }
        for (i, (page, at)) in cuts.iter().flat_map(|c| (c.from..c.to).map(|at| (c.page, at))).enumerate() {
            let b = &mut self.pages[page][at];
            (b.device, b.written, b.awaited, b.own) = (data[i], true, false, false);
        }
        self.prefetch(m, from);
    }

    /// DV222: the device writes what was synced for the CPU and not given back.
    fn rearmed(&mut self, m: usize, from: usize, to: usize, site: Site) {
        if self.maps[m].call.direction != Direction::FromDevice {
            return;
        }
        let Some(last) = self.maps[m].last_handover(from, to).filter(|e| e.what == What::ForCpu) else { return };
        let severity = if self.judge.rearm_is_error { Severity::Error } else { Severity::Note };
        let (from, to) = (from.max(last.from), to.min(last.to));
        let found = self.found(Code::DV222, severity, m, site, Some((from, to)));
        let known = |f: &Found| (f.code, f.device, f.map_site, f.site) == (found.code, found.device, found.map_site, found.site);
        if self.maps[m].held.iter().any(|h| h.waits == Waits::GiveBack) || self.judge.found.iter().any(known) {
            return;
        }
        self.hold(m, Held { waits: Waits::GiveBack, from, to, found });
    }

    /// The CPU reads and is seen.
    pub(crate) fn cpu_read(&mut self, page: usize, start: usize, end: usize, site: Site) {
        self.seq += 1;
        if let Some(at) = self.judge.kept.iter().rposition(|k| k.page == page) {
            self.read_kept(at, start, end, site);
            return;
        }
        for m in self.on_page(page) {
            for part in 0..self.maps[m].parts.len() {
                let p = self.maps[m].parts[part].clone();
                let (from, to) = (start.max(p.from), end.min(p.to));
                if p.page != page || from >= to {
                    continue;
                }
                let cut = Cut { part, page, from, to, offset: p.offset + (from - p.from) };
                self.read_part(m, cut, start >= p.from, end - start, site);
            }
        }
    }

    fn read_part(&mut self, m: usize, cut: Cut, inside: bool, len: usize, site: Site) {
        let Cut { page, from, to, offset, .. } = cut;
        let device = self.maps[m].call.device;
        let looked =
            |h: &Held| matches!(h.waits, Waits::SecondLook { page: p, from: a, to: b, retaken: true } if p == page && from < b && a < to);
        for held in self.take_held(m, looked) {
            self.judge.strikes.remove(&(held.found.map_site, held.found.site));
        }
        let at = |byte: usize| offset + (byte - from);
        let written: Vec<usize> = (from..to).filter(|byte| self.pages[page][*byte].written).collect();
        let owned = self.lines_of(cut).any(|line| self.maps[m].parts[cut.part].lines[line].owned);
        // A word that begins in what the CPU has and runs into what it has not is a copy by words.
        let counts = inside && written.first().is_some_and(|first| *first == from || len > 8);
        if !counts {
            let own = (from..to).all(|byte| self.pages[page][byte].own);
            if self.maps[m].writable() && owned && inside && !own {
                self.report(Code::DV204, Severity::Warning, m, site, Some((at(from), at(to))));
                self.maps[m].note(What::CpuRead, at(from), at(to), site, self.seq, false);
            } else if let Some(first) = self.short_transfer(page, from, to) {
                self.report(Code::DV218, Severity::Note, m, site, Some((at(first), at(to))));
            }
            return;
        }
        let (first, last) = hull(&written).unwrap();
        let range = (at(first), at(last));
        let line = self.maps[m].parts[cut.part].lines[first / self.line];
        let late = !line.owned && line.late;
        // What a for_cpu did not bring was said there.
        if !late && !line.owned && line.stuck {
            return;
        }
        let wrote = self.maps[m].log.iter().rev().find(|e| e.what == What::DeviceWrite && e.overlaps(range.0, range.1)).copied();
        if late && self.judge.devices[device].signal <= wrote.map_or(0, |e| e.seq) {
            return;
        }
        let code = if late {
            Code::DV212
        } else if line.given_back {
            Code::DV213
        } else if self.synced_short(m, wrote, line, range) {
            Code::DV214
        } else if line.taken {
            Code::DV217
        } else {
            Code::DV202
        };
        let mut found = self.found(code, Severity::Error, m, site, Some(range));
        found.kind = (code != Code::DV202).then_some(Code::DV202);
        if late {
            self.maps[m].peeked = true;
            let waits = Waits::SecondLook { page, from: first, to: last, retaken: false };
            let same = |h: &Held| h.waits == waits && h.found.site == site;
            if !self.maps[m].held.iter().any(same) {
                self.hold(m, Held { waits, from: range.0, to: range.1, found });
            }
        } else {
            self.judge.keep(found);
        }
        self.maps[m].note(What::CpuRead, range.0, range.1, site, self.seq, false);
    }

    /// The for_cpu since the device wrote took other bytes of the same transfer.
    fn synced_short(&self, m: usize, wrote: Option<Entry>, line: Line, range: (usize, usize)) -> bool {
        let since = wrote.map_or(0, |e| e.seq);
        let same = |e: &Entry| !line.owned || wrote.is_some_and(|w| w.overlaps(e.from, e.to));
        let after = self.maps[m].log.iter().rev().take_while(|e| e.seq > since);
        after.into_iter().any(|e| e.what == What::ForCpu && !e.overlaps(range.0, range.1) && same(e))
    }

    /// The first byte the device did not write in the transfer, more than a word past its end.
    fn short_transfer(&self, page: usize, from: usize, to: usize) -> Option<usize> {
        let awaited = |at: usize| self.pages[page][at].awaited;
        let past = |at: usize| at >= PAST_THE_END && (at - PAST_THE_END..=at).all(awaited);
        (from..to).find(|at| past(*at))
    }

    /// DV402: what the device wrote before an unmap without a sync is read.
    fn read_kept(&mut self, at: usize, start: usize, end: usize, site: Site) {
        let Kept { mapping, page, from, to, offset } = self.judge.kept[at];
        let (first, last) = (start.max(from), end.min(to));
        if start < from || first >= last {
            return;
        }
        let differ = |b: Byte| b.written && b.cpu != b.device;
        let bytes: Vec<usize> = (first..last).filter(|at| differ(self.pages[page][*at])).map(|at| offset + (at - from)).collect();
        if let Some(range) = hull(&bytes) {
            self.report(Code::DV402, Severity::Error, mapping, site, Some(range));
        }
    }

    /// The CPU writes; `seen`: and that is seen.
    pub(crate) fn cpu_write(&mut self, page: usize, start: usize, data: &[u8], site: Site, seen: bool) {
        let end = start + data.len();
        if seen {
            self.seq += 1;
            if self.judge.kept.iter().any(|k| k.page == page) {
                self.write_kept(page, start, end);
            } else {
                self.judge_write(page, start, end, site);
            }
        }
        for (i, byte) in data.iter().enumerate() {
            self.pages[page][start + i].cpu = *byte;
        }
    }

    fn judge_write(&mut self, page: usize, start: usize, end: usize, site: Site) {
        for m in self.on_page(page) {
            for part in 0..self.maps[m].parts.len() {
                let p = self.maps[m].parts[part].clone();
                if p.page != page {
                    continue;
                }
                let (from, to) = (start.max(p.from), end.min(p.to));
                if from >= to {
                    self.beside(m, &p, start, end, site);
                    continue;
                }
                for at in from..to {
                    self.pages[page][at].awaited &= !self.judge.pedantic;
                }
                let owned = (from..to).any(|at| p.lines[at / self.line].owned);
                if !owned {
                    continue;
                }
                let range = (p.offset + (from - p.from), p.offset + (to - p.from));
                self.maps[m].note(What::CpuWrite, range.0, range.1, site, self.seq, false);
                if self.maps[m].writable() {
                    (from..to).for_each(|at| self.pages[page][at].own = true);
                    self.remember(Write { mapping: m, page, from, to, site, overtaken: false, discarded: false });
                }
            }
        }
    }

    /// A write that goes on where the last one of the same place ended is the same.
    fn remember(&mut self, write: Write) {
        let mut here: Vec<&mut Write> = self.judge.writes.iter_mut().filter(|w| w.page == write.page).collect();
        if let Some(last) = here.last_mut()
            && (last.site, last.mapping, last.overtaken, last.discarded) == (write.site, write.mapping, false, false)
            && write.from <= last.to
            && last.from <= write.to
        {
            (last.from, last.to) = (last.from.min(write.from), last.to.max(write.to));
            return;
        }
        if here.len() < WRITES {
            self.judge.writes.push(write);
        }
    }

    /// DV303: a write beside a mapping, in a line the device owns through it. What is in another slab object is nobody's business.
    fn beside(&mut self, m: usize, p: &Part, start: usize, end: usize, site: Site) {
        let owned = (start..end).any(|at| p.lines[at / self.line].owned);
        if self.maps[m].writable() && owned && self.maps[m].call.kind == PageKind::Other {
            let severity = if self.machine.whole_lines { Severity::Error } else { Severity::Warning };
            self.report(Code::DV303, severity, m, site, None);
            self.maps[m].beside_seen = true;
        }
    }

    /// What the CPU writes after an unmap is its own, by lines.
    fn write_kept(&mut self, page: usize, start: usize, end: usize) {
        for at in start / self.line * self.line..end.next_multiple_of(self.line).min(PAGE) {
            self.pages[page][at].written = false;
        }
        if !self.pages[page].iter().any(|b| b.written) {
            self.judge.kept.retain(|k| k.page != page);
            self.enter(page);
        }
    }
}
