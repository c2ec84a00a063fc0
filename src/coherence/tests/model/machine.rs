//! What the other machines do to the bytes: docs/profiles.md, byte by byte.

use super::state::*;
use crate::*;

/// The machine and its edges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) profile: Profile,
    /// Lines covered in part take part as a whole.
    pub(crate) whole_lines: bool,
}

/// What a call does to a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It becomes the device's copy.
    Fetched,
    /// Only the bytes the device wrote come.
    Written,
    /// The same, and the CPU's changes beside them go to the device.
    Exchanged,
    /// It goes to the device's copy.
    WrittenBack,
    /// It stays as the CPU has it.
    Kept,
}

use Direction::{Bidirectional, FromDevice, ToDevice};
use Profile::{Arm, Arm64, Mips, Parisc, Riscv, Swiotlb, Worst};

impl Machine {
    /// Acts as arm64 does: the model's own operations.
    pub(crate) fn plain(self) -> bool {
        matches!(self.profile, Arm64 | Riscv) && !self.whole_lines
    }
    pub(crate) fn bounces(self) -> bool {
        self.profile == Swiotlb
    }
    /// What the CPU was given stays in its cache.
    pub(crate) fn keeps(self) -> bool {
        matches!(self.profile, Mips | Worst)
    }
    /// A dirty line that an invalidation covers in part is written back first; else it is dropped.
    fn saves_edges(self) -> bool {
        matches!(self.profile, Arm64 | Arm)
    }
}

impl Model {
    /// The bytes a call on a cut reaches.
    fn reach(&self, cut: Cut) -> std::ops::Range<usize> {
        if self.machine.whole_lines { cut.from / self.line * self.line..cut.to.next_multiple_of(self.line) } else { cut.from..cut.to }
    }

    /// Dirty bytes, and what was never handed over, go to the device.
    fn clean(&mut self, page: usize, bytes: std::ops::Range<usize>) {
        for b in &mut self.pages[page][bytes] {
            // What the CPU wrote is not awaited from the device.
            b.doomed &= b.cpu == b.base;
            if !(b.fresh || b.written) || b.dirty() {
                (b.device, b.base, b.written) = (b.cpu, b.cpu, false);
            }
            b.fresh = true;
        }
    }

    /// map and for_device. Says which bytes of the mapping the CPU had changed and lost, and whether there were such beside it.
    pub(crate) fn give(&mut self, m: usize, from: usize, to: usize, direction: Direction, at_map: bool) -> (Vec<usize>, bool) {
        let (mut dropped, mut beside) = (Vec::new(), false);
        if self.machine.plain() {
            self.hand_over(m, from, to);
            return (dropped, beside);
        }
        let profile = self.machine.profile;
        for cut in self.maps[m].cuts(from, to) {
            let reach = self.reach(cut);
            let copies = profile == Swiotlb && (at_map || direction != FromDevice);
            for line in self.lines_of(cut) {
                let of_line = reach.start.max(line * self.line)..reach.end.min((line + 1) * self.line);
                // What is copied over is not there to be taken any more.
                let untaken = self.pages[cut.page][of_line].iter().any(|b| b.written) && (at_map || !copies);
                let l = &mut self.maps[m].parts[cut.part].lines[line];
                (l.owned, l.handed) = (true, true);
                (l.wrong_sync, l.stale, l.late, l.stuck) = (false, false, false, false);
                l.given_back |= untaken;
            }
            match (profile, direction) {
                (Swiotlb, FromDevice) if !at_map => self.pages[cut.page][reach].iter_mut().for_each(|b| b.base = b.cpu),
                (Swiotlb, _) => {
                    for b in self.pages[cut.page][reach].iter_mut().filter(|b| !(at_map && b.written)) {
                        (b.device, b.base, b.fresh, b.written) = (b.cpu, b.cpu, true, false);
                    }
                }
                (Arm | Mips | Worst, FromDevice) if !at_map => {
                    for at in reach.clone() {
                        let line = at / self.line * self.line;
                        let whole = cut.from <= line && line + self.line <= cut.to;
                        let drops = whole || (self.machine.whole_lines && !self.machine.saves_edges());
                        let b = &mut self.pages[cut.page][at];
                        b.doomed &= b.cpu == b.base;
                        if drops && b.fresh && b.dirty() {
                            (b.cpu, b.base) = (b.device, b.device);
                            if (cut.from..cut.to).contains(&at) {
                                dropped.push(cut.offset + (at - cut.from));
                            } else {
                                beside = true;
                            }
                        }
                    }
                    self.clean(cut.page, reach.clone());
                }
                _ => self.clean(cut.page, reach.clone()),
            }
            if self.machine.keeps() && direction != ToDevice && direction != Direction::None {
                let reach = self.reach(cut);
                self.pages[cut.page][reach].iter_mut().for_each(|b| b.held = false);
            }
            if at_map && profile == Worst && direction == FromDevice {
                self.doom(m, cut);
            }
        }
        (dropped, beside)
    }

    /// `worst`: bytes of whole lines that nobody else has will come back as poison.
    fn doom(&mut self, m: usize, cut: Cut) {
        let line = self.line;
        let mut others = Vec::new();
        for o in self.on_page(cut.page) {
            for (i, p) in self.maps[o].parts.iter().enumerate() {
                if p.page == cut.page && (o, i) != (m, cut.part) {
                    others.push(p.from / line * line..p.to.next_multiple_of(line));
                }
            }
        }
        for at in cut.from.next_multiple_of(line)..cut.to / line * line {
            self.pages[cut.page][at].doomed = !others.iter().any(|o| o.contains(&at));
        }
    }

    fn fate(&self, direction: Direction, whole: bool, dirty: bool) -> Fate {
        let as_line = whole || self.machine.whole_lines;
        match self.machine.profile {
            Swiotlb => Fate::Fetched,
            Parisc if direction == Bidirectional => match (as_line, dirty) {
                (false, _) => Fate::Exchanged,
                (true, true) => Fate::WrittenBack,
                (true, false) => Fate::Fetched,
            },
            Mips if as_line && dirty => Fate::Kept,
            _ if !as_line => Fate::Written,
            _ if !whole && dirty && self.machine.saves_edges() => Fate::WrittenBack,
            _ => Fate::Fetched,
        }
    }

    /// for_cpu and unmap, where the machine is another than arm64.
    pub(crate) fn take_by_machine(&mut self, m: usize, from: usize, to: usize, direction: Direction, sync: bool) -> Taken {
        let mut taken = Taken::default();
        let nothing = matches!(direction, ToDevice | Direction::None);
        let cuts = self.maps[m].cuts(from, to);
        for cut in &cuts {
            taken.took |= !nothing && (cut.from..cut.to).any(|at| self.pages[cut.page][at].written);
        }
        for cut in cuts {
            let reach = self.reach(cut);
            if !nothing {
                self.take_lines(m, cut, direction, &mut taken);
            } else if self.machine.profile == Parisc {
                // A flush gives first.
                self.give(m, cut.offset, cut.offset + (cut.to - cut.from), Bidirectional, false);
                for line in self.lines_of(cut) {
                    self.maps[m].parts[cut.part].lines[line].owned = false;
                }
            } else if sync {
                self.take_nothing(m, cut.offset, cut.offset + (cut.to - cut.from));
            }
            if self.machine.keeps() {
                self.pages[cut.page][reach].iter_mut().for_each(|b| b.held = true);
            }
        }
        taken
    }

    fn take_lines(&mut self, m: usize, cut: Cut, direction: Direction, taken: &mut Taken) {
        let keeps = self.machine.keeps();
        let reach = self.reach(cut);
        for line in self.lines_of(cut) {
            let first = line * self.line;
            let bytes = first.max(reach.start)..(first + self.line).min(reach.end);
            let whole = cut.from <= first && first + self.line <= cut.to;
            let before = self.maps[m].parts[cut.part].lines[line];
            let inside = |at: &usize| (cut.from..cut.to).contains(at);
            let dirty = |b: &Byte| b.fresh && b.dirty();
            let page = &self.pages[cut.page];
            let fate = {
                let dirty = page[bytes.clone()].iter().any(dirty);
                self.fate(direction, whole, dirty)
            };
            let beside = !bytes.clone().filter(inside).any(|at| dirty(&page[at]));
            let (mut lost_here, mut left, mut stuck) = (false, false, false);
            for at in bytes {
                let here = inside(&at);
                let offset = (cut.offset + at).saturating_sub(cut.from);
                let b = &mut self.pages[cut.page][at];
                let dirty = dirty(b);
                let cached = match self.machine.profile {
                    Mips => b.held || dirty,
                    _ => keeps && b.held && !dirty,
                };
                let comes = match fate {
                    Fate::Fetched => b.fresh || b.written,
                    Fate::Written | Fate::Exchanged => b.written,
                    Fate::WrittenBack | Fate::Kept => false,
                };
                let goes = fate == Fate::WrittenBack || (fate == Fate::Exchanged && dirty && !b.written);
                let moves = comes && !cached;
                if here && b.dirty() && !b.fresh && !before.stale {
                    taken.never.push(offset);
                }
                if here && b.written && !moves && b.cpu != b.device {
                    let overwritten = matches!(fate, Fate::WrittenBack | Fate::Kept) || dirty;
                    let why = if overwritten { Why::Overwritten { beside } } else { Why::Stale { handed: before.handed } };
                    taken.hidden.push(Hidden { page: cut.page, line, offset, why });
                    stuck = true;
                }
                left |= here && dirty && !moves && !goes;
                if goes {
                    (b.device, b.base, b.fresh, b.written, b.doomed) = (b.cpu, b.cpu, true, false, false);
                } else if moves {
                    if b.doomed && whole && !b.written && !dirty {
                        b.device = POISON;
                    }
                    if b.dirty() && b.cpu != b.device {
                        if !here {
                            taken.beside |= dirty;
                        } else if before.stale {
                            taken.lost_known.push(offset);
                        } else {
                            if taken.lost.is_empty() {
                                (taken.cpu_owned, taken.unhanded) = (!before.owned, !b.fresh);
                            }
                            taken.lost.push(offset);
                            lost_here = true;
                        }
                    }
                    (b.cpu, b.base, b.fresh, b.written, b.doomed) = (b.device, b.device, true, false, false);
                }
            }
            let l = &mut self.maps[m].parts[cut.part].lines[line];
            (l.owned, l.late, l.given_back, l.stuck) = (false, false, false, stuck);
            l.taken |= taken.took;
            l.offended |= lost_here;
            if whole {
                (l.stale, l.wrong_sync) = (false, false);
            }
            l.wrong_sync |= left && !before.stale;
        }
    }
}
