//! The cache on its own (`--cache`): docs/profiles.md, line by line. `random` is not played: the page does not say which number
//! takes which opportunity.

use super::state::*;
use crate::*;

impl Model {
    /// Before a hand-over of bytes of a mapping: what was written back by then.
    pub(crate) fn evict(&mut self, m: usize, from: usize, to: usize, site: Site) {
        if self.cache != Cache::Evict || !self.maps[m].writable() {
            return;
        }
        let mut taken = Taken::default();
        for cut in self.maps[m].cuts(from, to.min(self.maps[m].size)) {
            for line in self.lines_of(cut) {
                let bytes = line * self.line..(line + 1) * self.line;
                let whole = cut.from <= bytes.start && bytes.end <= cut.to;
                if !(whole || self.machine.whole_lines) {
                    continue;
                }
                let has = |which: fn(&Byte) -> bool| self.pages[cut.page][bytes.clone()].iter().any(which);
                let through = |o: usize| self.maps[o].parts.iter().any(|p| p.page == cut.page && p.lines[line].handed);
                let handed = self.on_page(cut.page).into_iter().any(through);
                let never = !handed && !has(|b| b.fresh);
                let early = has(|b| b.fresh && b.dirty()) && self.maps[m].parts[cut.part].lines[line].owned;
                if has(|b| b.written) && (never || early) {
                    let here = bytes.start.max(cut.from)..bytes.end.min(cut.to);
                    let beside = !self.pages[cut.page][here.clone()].iter().any(|b| b.fresh && b.dirty());
                    let why = if never { Why::NeverHanded } else { Why::Overwritten { beside } };
                    for at in here.filter(|at| self.pages[cut.page][*at].written) {
                        if self.pages[cut.page][at].cpu != self.pages[cut.page][at].device {
                            taken.hidden.push(Hidden { page: cut.page, line, offset: cut.offset + (at - cut.from), why });
                        }
                    }
                    for b in &mut self.pages[cut.page][bytes] {
                        (b.device, b.base, b.fresh, b.written, b.doomed) = (b.cpu, b.cpu, true, false, false);
                    }
                }
            }
        }
        self.note_discards(m, &taken);
        self.hidden(m, site, &taken.hidden);
    }

    /// The device wrote from an offset of a mapping on: the line is fetched.
    pub(crate) fn prefetch(&mut self, m: usize, at: usize) {
        if self.cache != Cache::Prefetch || self.machine.keeps() || !self.maps[m].writable() {
            return;
        }
        let cut = self.maps[m].cuts(at, at + 1)[0];
        let part = &self.maps[m].parts[cut.part];
        let line = cut.from / self.line;
        let bytes = line * self.line..(line + 1) * self.line;
        let whole = part.from <= bytes.start && bytes.end <= part.to;
        let handed = self.pages[cut.page][bytes.clone()].iter().all(|b| b.fresh);
        let dirty = self.pages[cut.page][bytes.clone()].iter().any(|b| b.fresh && b.dirty());
        if part.lines[line].owned && (whole || self.machine.whole_lines) && handed && !dirty {
            for b in &mut self.pages[cut.page][bytes] {
                (b.cpu, b.base) = (b.device, b.device);
            }
        }
    }
}
