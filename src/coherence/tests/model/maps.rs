//! The findings about a map call.

use super::state::*;
use crate::*;

impl Model {
    /// What the call is about.
    pub(crate) fn judge_map(&mut self, m: usize) {
        let call = self.maps[m].call.clone();
        let streaming = matches!(call.family, Family::Single | Family::Sg);
        // DV113: RAM where a device's memory belongs.
        if call.family == Family::Resource {
            let range = Some((0, self.maps[m].size));
            self.report(Code::DV113, Severity::Error, m, call.site, range);
        }
        // DV219, its error: coherent memory of the device is mapped.
        if streaming && !call.skip {
            let parts = self.maps[m].parts.clone();
            let live = self.live();
            let mine = |c: &&usize| self.maps[**c].call.family == Family::Coherent && self.maps[**c].call.device == call.device;
            let of = |p: &Part| live.iter().filter(mine).find(|c| self.maps[**c].parts.iter().any(|q| q.page == p.page)).copied();
            if let Some(coherent) = parts.iter().find_map(of) {
                self.report(Code::DV219, Severity::Error, coherent, call.site, None);
            }
        }
        // DV301: a buffer the driver laid out itself and the device writes begins or ends inside a line.
        if streaming && call.kind == PageKind::Other && self.maps[m].writable() {
            let mut offset = 0;
            for (_, start, len) in &call.pieces {
                if start % self.line != 0 || (start + len) % self.line != 0 {
                    self.report(Code::DV301, Severity::Note, m, call.site, Some((offset, offset + len)));
                    break;
                }
                offset += len;
            }
        }
        // DV302: it shares a line, but no byte there, with another one of the device. Only in pages the driver laid out itself.
        let laid_out = |x: &Mapping| matches!(x.call.family, Family::Single | Family::Sg) && x.writable() && x.call.kind == PageKind::Other;
        if laid_out(&self.maps[m]) {
            let near =
                |o: &usize| *o != m && self.maps[*o].call.device == call.device && laid_out(&self.maps[*o]) && self.beside_in_line(m, *o);
            if self.live().iter().any(near) {
                let range = Some((0, self.maps[m].size));
                self.report(Code::DV302, Severity::Warning, m, call.site, range);
            }
        }
        // DV116: it lies over another one of the device, both may be written by the device and both are the device's.
        let both = |x: &Mapping| x.two_copies() && x.writable();
        if both(&self.maps[m]) && !call.skip && call.family != Family::Pages {
            let over = |o: &usize| *o != m && self.maps[*o].call.device == call.device && both(&self.maps[*o]) && self.over(m, *o);
            if let Some(other) = self.live().into_iter().find(over) {
                self.report(Code::DV116, Severity::Warning, other, call.site, None);
            }
        }
    }

    /// Whether there is a line in which both have bytes and none in common.
    fn beside_in_line(&self, m: usize, other: usize) -> bool {
        self.maps[m].parts.iter().any(|p| {
            // Only the lines at its edges are not its own as a whole.
            self.maps[other].parts.iter().filter(|q| q.page == p.page).any(|q| {
                let has = |part: &Part, line: usize| (part.from.max(line * self.line), part.to.min((line + 1) * self.line));
                [p.from / self.line, (p.to - 1) / self.line].into_iter().any(|line| {
                    let (a, b) = (has(p, line), has(q, line));
                    a.0 < a.1 && b.0 < b.1 && (a.1 <= b.0 || b.1 <= a.0)
                })
            })
        })
    }

    /// Whether mapping `m` has bytes of `other` in lines that were handed over through that one and are the device's.
    fn over(&self, m: usize, other: usize) -> bool {
        self.maps[m].parts.iter().any(|p| {
            self.maps[other].parts.iter().filter(|q| q.page == p.page).any(|q| {
                let hit = p.from.max(q.from)..p.to.min(q.to);
                hit.into_iter().any(|at| q.lines[at / self.line].owned && q.lines[at / self.line].handed)
            })
        })
    }
}
