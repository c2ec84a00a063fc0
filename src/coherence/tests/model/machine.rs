//! What the other machines do to the bytes: docs/profiles.md, byte by byte. Findings are compared where a machine acts as arm64.

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
    fn keeps(self) -> bool {
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

    /// map and for_device.
    pub(crate) fn give(&mut self, m: usize, from: usize, to: usize, direction: Direction, at_map: bool) {
        if self.machine.plain() {
            self.hand_over(m, from, to);
            return;
        }
        let profile = self.machine.profile;
        for cut in self.maps[m].cuts(from, to) {
            for line in self.lines_of(cut) {
                let l = &mut self.maps[m].parts[cut.part].lines[line];
                (l.owned, l.handed) = (true, true);
            }
            let reach = self.reach(cut);
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
                        let dropped = whole || (self.machine.whole_lines && !self.machine.saves_edges());
                        let b = &mut self.pages[cut.page][at];
                        b.doomed &= b.cpu == b.base;
                        if dropped && b.fresh && b.dirty() {
                            (b.cpu, b.base) = (b.device, b.device);
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
    pub(crate) fn take_by_machine(&mut self, m: usize, from: usize, to: usize, direction: Direction) {
        let profile = self.machine.profile;
        for cut in self.maps[m].cuts(from, to) {
            for line in self.lines_of(cut) {
                self.maps[m].parts[cut.part].lines[line].owned = false;
            }
            let reach = self.reach(cut);
            if matches!(direction, ToDevice | Direction::None) {
                if profile == Parisc {
                    self.clean(cut.page, reach.clone());
                }
            } else {
                self.take_lines(cut, reach.clone(), direction);
            }
            if self.machine.keeps() {
                self.pages[cut.page][reach].iter_mut().for_each(|b| b.held = true);
            }
        }
    }

    fn take_lines(&mut self, cut: Cut, reach: std::ops::Range<usize>, direction: Direction) {
        let keeps = self.machine.keeps();
        for first in (reach.start / self.line * self.line..reach.end).step_by(self.line) {
            let bytes = first.max(reach.start)..(first + self.line).min(reach.end);
            let whole = cut.from <= first && first + self.line <= cut.to;
            let dirty = self.pages[cut.page][bytes.clone()].iter().any(|b| b.fresh && b.dirty());
            let fate = self.fate(direction, whole, dirty);
            for b in &mut self.pages[cut.page][bytes] {
                let dirty = b.fresh && b.dirty();
                let cached = match self.machine.profile {
                    Mips => b.held || dirty,
                    _ => keeps && b.held && !dirty,
                };
                let comes = match fate {
                    Fate::Fetched => b.fresh || b.written,
                    Fate::Written | Fate::Exchanged => b.written,
                    Fate::WrittenBack | Fate::Kept => false,
                };
                if fate == Fate::WrittenBack || (fate == Fate::Exchanged && dirty && !b.written) {
                    (b.device, b.base, b.fresh, b.written, b.doomed) = (b.cpu, b.cpu, true, false, false);
                } else if comes && !cached {
                    if b.doomed && whole && !b.written && !dirty {
                        b.device = POISON;
                    }
                    (b.cpu, b.base, b.fresh, b.written, b.doomed) = (b.device, b.device, true, false, false);
                }
            }
        }
    }
}
