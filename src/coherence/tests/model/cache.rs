//! The cache on its own (`--cache`): docs/profiles.md, line by line.

use super::state::*;
use crate::*;

/// What the cache does, and the numbers that decide where it is `random`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adversary {
    pub(crate) cache: Cache,
    /// State of SplitMix64.
    pub(crate) numbers: u64,
}

impl Adversary {
    /// The next number of SplitMix64.
    fn number(&mut self) -> u64 {
        self.numbers = self.numbers.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mix = |x: u64, shift: u32, factor: u64| (x ^ (x >> shift)).wrapping_mul(factor);
        let x = mix(mix(self.numbers, 30, 0xbf58_476d_1ce4_e5b9), 27, 0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// An opportunity comes.
    fn takes(&mut self, opportunity: Cache) -> bool {
        match self.cache {
            Cache::Random => !self.number().is_multiple_of(2),
            cache => cache == opportunity,
        }
    }

    fn never(self, opportunity: Cache) -> bool {
        ![Cache::Random, opportunity].contains(&self.cache)
    }
}

#[test]
fn the_numbers_are_those_of_split_mix_64() {
    let mut adversary = Adversary { cache: Cache::Random, numbers: 1_234_567 };
    let known = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431];
    assert_eq!(known.map(|_| adversary.number()), known);
}

impl Model {
    /// Before a hand-over of bytes of a mapping: what was written back by then.
    pub(crate) fn evict(&mut self, m: usize, from: usize, to: usize, site: Site) {
        if self.adversary.never(Cache::Evict) || !self.maps[m].writable() {
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
                if has(|b| b.written) && (never || early) && self.adversary.takes(Cache::Evict) {
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
        if self.adversary.never(Cache::Prefetch) || self.machine.keeps() || !self.maps[m].writable() {
            return;
        }
        let cut = self.maps[m].cuts(at, at + 1)[0];
        let part = &self.maps[m].parts[cut.part];
        let line = cut.from / self.line;
        let bytes = line * self.line..(line + 1) * self.line;
        let whole = part.from <= bytes.start && bytes.end <= part.to;
        let handed = self.pages[cut.page][bytes.clone()].iter().all(|b| b.fresh);
        let dirty = self.pages[cut.page][bytes.clone()].iter().any(|b| b.fresh && b.dirty());
        let fetched = part.lines[line].owned && (whole || self.machine.whole_lines) && handed && !dirty;
        if fetched && self.adversary.takes(Cache::Prefetch) {
            for b in &mut self.pages[cut.page][bytes] {
                (b.cpu, b.base) = (b.device, b.device);
            }
        }
    }
}
