//! Calls of the DMA API, right and wrong, on core and model.

use super::compare::{MASK, RAM, Rig, gpa};
use super::history::Slip;
use super::judge::Found;
use super::state::*;
use crate::*;

/// The bytes of `page` there are from `start` on, with those of the page that adjoins.
fn room(page: usize, start: usize) -> usize {
    (if page == 0 { 2 * PAGE } else { PAGE }) - start
}

impl Rig {
    pub(super) fn map_call(&self, call: &Call) -> MapCall {
        let extents = call.pieces.iter().map(|(page, start, len)| Extent { gpa: Gpa(gpa(*page) + *start as u64), len: *len as u64 });
        let extents: Vec<_> = extents.collect();
        MapCall {
            family: call.family,
            cpu_addr: extents.first().map_or(0, |e| e.gpa.0),
            extents,
            direction: call.direction,
            attrs: if call.skip { Attrs::SKIP_CPU_SYNC } else { Attrs::empty() },
            limits: Limits { mask: MASK[call.device], ..Limits::default() },
            kind: call.kind,
            object: (0, 0),
        }
    }

    pub(super) fn map(
        &mut self,
        device: usize,
        family: Family,
        raw: &[(usize, usize, usize)],
        direction: u8,
        skip: bool,
        kind: u8,
    ) -> Result<(), String> {
        let mut pieces: Vec<(usize, usize, usize)> = Vec::new();
        for (page, start, len) in raw.iter().take(if family == Family::Sg { 3 } else { 1 }) {
            let len = (*len).min(room(*page, *start));
            let at = |p: &(usize, usize, usize)| (p.0 * PAGE + p.1, p.0 * PAGE + p.1 + p.2);
            let new = at(&(*page, *start, len));
            // An entry twice in one list is legal and of no interest.
            if pieces.iter().all(|p| at(p).1 <= new.0 || new.1 <= at(p).0) {
                pieces.push((*page, *start, len));
            }
        }
        let pages: Vec<usize> = pieces.iter().flat_map(|(page, start, len)| *page..=page + (start + len - 1) / PAGE).collect();
        if family == Family::Coherent {
            // What is allocated was free before, and is whole pages.
            let taken = self.model.live().iter().any(|m| self.model.maps[*m].parts.iter().any(|p| pages.contains(&p.page)));
            if taken {
                return Ok(());
            }
            pages.iter().for_each(|page| self.solo[*page] = true);
        }
        let direction = match family {
            Family::Coherent => Direction::Bidirectional,
            _ => [Direction::Bidirectional, Direction::ToDevice, Direction::FromDevice][usize::from(direction % 3)],
        };
        let kind = match kind {
            0 | 1 => PageKind::Other,
            2 => PageKind::PagePool,
            _ => PageKind::Slab,
        };
        // Only streaming calls take DMA_ATTR_SKIP_CPU_SYNC.
        let skip = skip && matches!(family, Family::Single | Family::Sg);
        let call = Call { device, family, direction, skip, kind, pieces, site: self.place(0) };
        let Answer::Handles(handles) = self.call(device, call.site, &ApiCall::Map(self.map_call(&call))) else {
            return Err("the map call failed".into());
        };
        self.check_handles(&call, &handles)?;
        self.model.map(call, &handles);
        Ok(())
    }

    /// What the design says of handles.
    pub(super) fn check_handles(&self, call: &Call, handles: &[(Iova, u64)]) -> Result<(), String> {
        let size: usize = call.pieces.iter().map(|p| p.2).sum();
        let given: u64 = handles.iter().map(|h| h.1).sum();
        let page = |at: u64| at / PAGE as u64;
        let clear = |(iova, len): &(Iova, u64)| {
            let old = self.model.maps.iter().flat_map(|m| m.handles.iter().map(move |h| (m.live, h)));
            let apart = old.filter(|(live, _)| *live).all(|(_, h)| page(iova.0 + len) < page(h.0) || page(h.0 + h.2 as u64) < page(iova.0));
            apart && iova.0 >= RAM && iova.0 + len - 1 <= MASK[call.device]
        };
        let starts = iova_starts(call, handles, self.setup.merge);
        if given != size as u64 || !handles.iter().all(clear) || !starts {
            return Err(format!("handles {handles:x?} for {call:?}"));
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, device: usize, family: Family) -> Result<(), String> {
        let (site, pieces) = (self.place(0), vec![(0, 0, 64)]);
        let direction = Direction::Bidirectional;
        let call = Call { device, family, direction, skip: false, kind: PageKind::Slab, pieces, site };
        match self.call(device, site, &ApiCall::Fail(self.map_call(&call))) {
            Answer::Failed => self.model.judge.devices[device].failed = Some((site, family)),
            other => return Err(format!("a call that was to fail: {other:?}")),
        }
        Ok(())
    }

    /// A use of an address nothing is known of: DV109 when it comes from a call that failed.
    pub(super) fn unknown(&mut self, device: usize, iova: u64, otherwise: Code, site: Site) {
        let failed = self.model.judge.devices[device].failed;
        let comes = |family| {
            let unset = matches!(family, Family::Coherent | Family::Pages | Family::Sg);
            iova >= u64::MAX - 65536 || (iova < 65536 && (unset || iova % 2 == 1))
        };
        match failed.filter(|(_, family)| comes(*family)) {
            Some((at, _)) => {
                let found = Found {
                    code: Code::DV109,
                    kind: Some(otherwise),
                    severity: Severity::Error,
                    device,
                    map_site: 0,
                    site: at,
                    range: None,
                };
                self.model.judge.keep(found);
            }
            None => self.model.report_by(device, otherwise, None, site, None),
        }
    }

    pub(super) fn unmap(&mut self, m: usize, skip: bool, slip: Slip) {
        let mapping = &self.model.maps[m];
        let (call, live, size) = (mapping.call.clone(), mapping.live, mapping.size);
        let mut ranges: Vec<(Iova, u64)> = mapping.handles.iter().map(|h| (Iova(h.0), h.2 as u64)).collect();
        // The driver gives the entries it mapped, however many handles they got.
        ranges.resize(call.pieces.len(), (Iova(0), 0));
        let (mut device, mut family, mut direction) = (call.device, call.family, call.direction);
        let alloc = matches!(family, Family::Coherent | Family::Pages);
        let mut cpu_addr = if alloc { gpa(call.pieces[0].0) + call.pieces[0].1 as u64 } else { 0 };
        let mut wrong = Vec::new();
        match slip {
            Slip::Size if family != Family::Sg => {
                ranges[0].1 += 1;
                wrong.push(Code::DV102);
            }
            Slip::Direction => {
                direction = if direction == Direction::ToDevice { Direction::FromDevice } else { Direction::ToDevice };
                if family != Family::Coherent {
                    wrong.push(Code::DV103);
                }
            }
            Slip::Family => {
                family = if family == Family::Resource { Family::Single } else { Family::Resource };
                wrong.push(Code::DV104);
            }
            Slip::OtherDevice => device = 1 - device,
            Slip::Middle if ranges[0].1 > 1 => {
                ranges[0].0.0 += 1;
                wrong.push(Code::DV101);
            }
            Slip::Error => ranges[0].0 = Iova(u64::MAX),
            Slip::Entries if family == Family::Sg => {
                ranges.push((Iova(0), 0));
                wrong.push(Code::DV107);
            }
            Slip::Address if alloc => {
                cpu_addr += 64;
                wrong.push(Code::DV105);
            }
            _ => {}
        }
        let attrs = if skip { Attrs::SKIP_CPU_SYNC } else { Attrs::empty() };
        let site = self.place(1);
        self.model.seq += 1;
        self.call(device, site, &ApiCall::Unmap(UnmapCall { family, ranges, direction, attrs, cpu_addr }));
        match slip {
            Slip::Error => self.unknown(device, u64::MAX, Code::DV101, site),
            _ if !live || device != call.device => self.model.report_by(device, Code::DV101, Some(m), site, None),
            _ => {
                debug_assert!(size > 0);
                self.model.unmap(m, skip, site, &wrong);
            }
        }
    }

    pub(super) fn sync(&mut self, m: usize, for_cpu: bool, start: usize, len: usize, slip: Slip) {
        let mapping = &self.model.maps[m];
        let (call, live, size) = (mapping.call.clone(), mapping.live, mapping.size);
        let mut direction = call.direction;
        let mut device = call.device;
        let site = self.place(2);
        if slip == Slip::Direction {
            direction = match direction {
                Direction::ToDevice => Direction::FromDevice,
                Direction::FromDevice if start.is_multiple_of(2) => Direction::None,
                _ => Direction::ToDevice,
            };
        }
        // A list as a whole.
        if call.family == Family::Sg && live && start == 0 && matches!(slip, Slip::Nothing | Slip::Direction | Slip::Entries) {
            let mut ranges: Vec<(Iova, u64)> = mapping.handles.iter().map(|h| (Iova(h.0), h.2 as u64)).collect();
            ranges.resize(call.pieces.len(), (Iova(0), 0));
            let mut to = size;
            if slip == Slip::Entries && ranges.len() > 1 {
                ranges.pop();
                to -= call.pieces.last().map_or(0, |p| p.2);
                self.model.report(Code::DV107, Severity::Error, m, site, None);
            }
            self.call(device, site, &ApiCall::Sync(SyncCall { for_cpu, sg: true, ranges, direction }));
            self.model.sync(m, for_cpu, direction, 0, to, site);
            return;
        }
        let (from, mut to) = self.inside(m, start, len);
        let mut iova = self.handle(m, from);
        let (end, _) = self.inside(m, from, usize::MAX / 2);
        let handle_end = self.inside(m, end, usize::MAX / 2).1;
        let mut outside = false;
        match slip {
            Slip::Size => {
                to = handle_end + 8;
                outside = true;
            }
            Slip::OtherDevice => device = 1 - device,
            Slip::Error => iova = Iova(u64::MAX - 64),
            _ => {}
        }
        let ranges = vec![(iova, (to - from) as u64)];
        self.call(device, site, &ApiCall::Sync(SyncCall { for_cpu, sg: false, ranges, direction }));
        if slip == Slip::Error {
            self.unknown(device, iova.0, Code::DV215, site);
        } else if !live || device != call.device {
            self.model.report_by(device, Code::DV215, Some(m), site, None);
        } else if outside {
            self.model.report(Code::DV215, Severity::Error, m, site, None);
            self.model.sync(m, for_cpu, direction, from, handle_end, site);
        } else {
            self.model.sync(m, for_cpu, direction, from, to, site);
        }
    }
}

/// Whether handles begin where the entries do in their pages.
fn iova_starts(call: &Call, handles: &[(Iova, u64)], merge: bool) -> bool {
    let first = call.pieces[0].1 == usize::try_from(handles[0].0.0).unwrap() % PAGE;
    first && (merge || handles.len() == call.pieces.len())
}
