//! Devices that go where they were not told to.

use super::compare::{Rig, gpa};
use super::history::Astray;
use super::state::PAGE;
use crate::*;
use vm_memory::{Bytes, GuestAddress};

impl Rig {
    /// The device goes where it was not told to: refused and found.
    pub(super) fn stray(&mut self, which: usize, to: Astray, len: usize, write: bool) -> Result<(), String> {
        let live = self.model.live();
        let m = if to == Astray::Dead { self.dead(which) } else { live.get(which % live.len().max(1)).copied() };
        let Some(m) = m else { return Ok(()) };
        let mapping = &self.model.maps[m];
        let mut device = mapping.call.device;
        let (first, last) = (mapping.handles[0], mapping.handles[mapping.handles.len() - 1]);
        let part = &mapping.parts[0];
        let physical = gpa(part.page) + part.from as u64;
        let mut relative = (which % first.2, which % first.2 + len);
        let iova = match to {
            Astray::Dead => first.0 + relative.0 as u64,
            Astray::OtherDevice => {
                device = 1 - device;
                first.0
            }
            Astray::PastTheEnd => {
                let into = last.2 - (which % 8).min(last.2);
                relative = (last.1 + into, last.1 + into + 64);
                last.0 + into as u64
            }
            Astray::BeforeTheStart if first.0 % PAGE as u64 >= 8 => {
                relative = (0, len.saturating_sub(8));
                first.0 - 8
            }
            Astray::BeforeTheStart => return Ok(()),
            Astray::Physical => physical,
            Astray::Error => u64::MAX - 256,
            Astray::Null => 1 + (which % 64) as u64,
        };
        let len = if to == Astray::PastTheEnd { 64 } else { len };
        self.kick(device);
        let site = self.model.judge.devices[device].kick;
        let mut bytes = vec![0; len];
        let done = if write {
            self.views[device].write_slice(&bytes, GuestAddress(iova)).is_ok()
        } else {
            self.views[device].read_slice(&mut bytes, GuestAddress(iova)).is_ok()
        };
        if done {
            return Err(format!("an access to {to:?} went through"));
        }
        if !self.masters(device) {
            return Ok(());
        }
        match to {
            Astray::Dead => {
                let hit = |f: &&(u64, usize, usize, usize)| f.1 == m && f.2 < relative.1 && relative.0 < f.3;
                let unmapped = self.model.maps[m].unmapped;
                let in_flight = unmapped != 0 && self.model.judge.flights.iter().any(|f| hit(&f));
                let (code, site) = if in_flight { (Code::DV115, unmapped) } else { (Code::DV208, site) };
                let mut found = self.model.found(code, Severity::Error, m, site, Some(relative));
                found.kind = in_flight.then_some(Code::DV208);
                self.model.judge.keep(found);
            }
            Astray::OtherDevice => self.model.report_by(device, Code::DV209, Some(m), site, None),
            Astray::PastTheEnd | Astray::BeforeTheStart => {
                self.model.report(Code::DV207, Severity::Error, m, site, Some(relative));
            }
            Astray::Physical => {
                let (page, at) = (self.model.maps[m].parts[0].page, self.model.maps[m].parts[0].from);
                let here = |o: &usize| self.model.maps[*o].parts.iter().any(|p| p.page == page && (p.from..p.to).contains(&at));
                let of = self.model.on_page(page).into_iter().find(here);
                self.model.report_by(device, Code::DV209, of, site, None);
            }
            Astray::Error | Astray::Null => self.unknown(device, iova, Code::DV209, site),
        }
        Ok(())
    }
}
