//! What lines cost: bytes of the device the CPU does not get, and bytes of neighbours.

use super::judge::{Found, hull};
use super::state::*;
use crate::*;

impl Model {
    /// Something came of the writes to bytes that were lost, and of those that hid what the device wrote in their line.
    pub(crate) fn note_discards(&mut self, m: usize, taken: &Taken) {
        for i in 0..self.judge.writes.len() {
            let w = self.judge.writes[i];
            let lost = taken.lost.iter().chain(&taken.lost_known).any(|o| self.is_in(m, *o, &w));
            self.judge.writes[i].discarded |= lost || taken.hidden.iter().any(|h| h.is_by(&w, self.line));
        }
    }

    /// The CPU does not get what the device wrote: one finding, named by the first byte.
    pub(crate) fn hidden(&mut self, m: usize, site: Site, hidden: &[Hidden]) {
        let offsets: Vec<usize> = hidden.iter().map(|h| h.offset).collect();
        let (Some(first), Some(range)) = (hidden.first(), hull(&offsets)) else { return };
        let never = if self.maps[m].call.family == Family::Pages { Code::DV210 } else { Code::DV401 };
        let (code, kind, site) = match first.why {
            Why::Overwritten { beside: true } => return self.conflict(m, site, Some(range)),
            Why::Overwritten { beside: false } => {
                // The first write to the first line whose write was seen.
                let by = |h: &Hidden| self.judge.writes.iter().find(|w| h.is_by(w, self.line));
                let write = hidden.iter().filter(|h| h.why != Why::NeverHanded).find_map(by);
                (Code::DV203, None, write.map_or(site, |w| w.site))
            }
            Why::NeverHanded => (never, Some(Code::DV203), site),
            Why::Stale { handed: false } => (never, Some(Code::DV202), site),
            Why::Stale { handed: true } => {
                // Said when the device wrote.
                let wrote = self.maps[m].log.iter().rev().find(|e| e.what == What::DeviceWrite).map(|e| e.site);
                let call = &self.maps[m].call;
                let same = |f: &Found| (f.code, f.device, f.map_site, Some(f.site)) == (Code::DV222, call.device, call.site, wrote);
                if self.judge.found.iter().any(same) {
                    return;
                }
                (Code::DV222, Some(Code::DV202), site)
            }
        };
        let found = Found { kind, ..self.found(code, Severity::Error, m, site, Some(range)) };
        self.judge.keep(found);
    }

    /// DV303 by its consequence: an error where the driver laid the neighbour out, unless the write was seen.
    pub(crate) fn conflict(&mut self, m: usize, site: Site, range: Option<(usize, usize)>) {
        if self.maps[m].beside_seen {
            return;
        }
        let own = self.maps[m].call.kind == PageKind::Other;
        let severity = if own { Severity::Error } else { Severity::Warning };
        let found = Found { kind: Some(Code::DV203), ..self.found(Code::DV303, severity, m, site, range) };
        self.judge.keep(found);
    }
}
