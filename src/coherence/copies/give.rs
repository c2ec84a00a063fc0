//! Hand-overs as the machine makes them: which operation of the table is which movement of bytes.

use super::by_line::{Beside, byte};
use super::to_cpu::{ToCpu, store};
use super::{Copies, Evidence, evidence, find_ref};
use crate::bits::Bits;
use crate::chunk::Chunk;
use crate::ids::Direction;
use crate::profile::{Cache, Edge, Edges, Op};

/// What a hand-over to the device did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ToDevice {
    /// Bytes of the device's copy that were written.
    pub(crate) moved: u64,
    /// Writes of the CPU that were dropped: the first such byte in the page, one past the last, and both sides before.
    pub(crate) dropped: Option<(usize, usize, Evidence)>,
    /// The same beside the mapping.
    pub(crate) beside: Option<Beside>,
}

impl Copies {
    /// Gives a chunk to the device, as the machine does it at the map or at a for_device.
    pub(crate) fn give(&mut self, chunk: &Chunk, mapping: u32, direction: Direction, at_map: bool) -> ToDevice {
        let row = if at_map { &self.machine.map } else { &self.machine.for_device };
        let op = row.cell(direction).op;
        let mut result = ToDevice::default();
        let (start, end) = self.reach(chunk.start, chunk.end);
        let reach = Chunk { start, end, ..*chunk };
        match op {
            Op::CopyIn => result.moved = self.copy_in(chunk, mapping, at_map),
            Op::CopyOut => {}
            Op::Nothing => self.settle_bounced(chunk, mapping),
            Op::Clean => {
                self.no_longer_awaited(&reach);
                result.moved = self.hand_over(&reach, mapping);
            }
            Op::Invalidate | Op::CleanInvalidate => {
                self.no_longer_awaited(&reach);
                if op == Op::Invalidate && !at_map {
                    (result.dropped, result.beside) = self.drop_dirty(chunk);
                }
                result.moved = self.hand_over(&reach, mapping);
                if let Some(extra) = self.extra(chunk.page) {
                    extra.held.clear(start, end);
                }
            }
        }
        if at_map && self.machine.poisons && direction == Direction::FromDevice {
            self.await_device(chunk, mapping);
        }
        result
    }

    /// Gives a chunk to the CPU, as the machine does it at a for_cpu or the unmap.
    pub(crate) fn take(&mut self, chunk: &Chunk, mapping: u32, direction: Direction, at_unmap: bool) -> ToCpu {
        let row = if at_unmap { &self.machine.unmap } else { &self.machine.for_cpu };
        let op = row.cell(direction).op;
        if !matches!(direction, Direction::ToDevice | Direction::None) {
            let plain = op == Op::Invalidate && self.edges == Edges::Isolate && !self.machine.keeps_lines;
            return if plain { self.take_back(chunk, mapping) } else { self.take_by_line(chunk, mapping, op) };
        }
        let (start, end) = self.reach(chunk.start, chunk.end);
        if op == Op::CleanInvalidate {
            self.hand_over(&Chunk { start, end, ..*chunk }, mapping);
            self.leave_to_cpu(chunk, mapping);
        } else if !at_unmap {
            self.take_nothing(chunk, mapping);
        }
        if let Some(extra) = self.extra(chunk.page) {
            extra.held.set(start, end);
        }
        ToCpu::default()
    }

    fn extra(&mut self, page: u64) -> Option<&mut super::Extra> {
        let slot = self.slot(page)?;
        self.pages.get_mut(slot as usize)?.extra.as_deref_mut()
    }

    fn leave_to_cpu(&mut self, chunk: &Chunk, mapping: u32) {
        let touched = self.lines(chunk.start, chunk.end);
        let Some(page) = self.slot(chunk.page).and_then(|slot| self.pages.get_mut(slot as usize)) else { return };
        if let Some(r) = find_ref(&mut page.refs, mapping, chunk) {
            r.owned &= !touched;
        }
    }

    /// The bytes of a range whose dirty bytes an invalidation drops.
    fn is_dropped(&self, chunk: &Chunk, at: usize) -> bool {
        let first = at / self.line * self.line;
        let whole = chunk.start <= first && first + self.line <= chunk.end;
        whole || (self.edges == Edges::Line && matches!(self.machine.edge, Some((Edge::Dropped, _))))
    }

    /// The lines of a chunk are invalidated before the transfer: what the CPU changed in them is rolled back.
    fn drop_dirty(&mut self, chunk: &Chunk) -> (Option<(usize, usize, Evidence)>, Option<Beside>) {
        let (first, last) = self.reach(chunk.start, chunk.end);
        let Some(slot) = self.slot(chunk.page) else { return (None, None) };
        self.read_both(slot, chunk.page, first, last);
        if !self.is_dirty(slot, first, last) {
            return (None, None);
        }
        let mut dropped = Bits::EMPTY;
        let Some(page) = self.pages.get(slot as usize) else { return (None, None) };
        for at in first..last {
            let dirty = page.fresh.get(at) && byte(&self.scratch.cpu, at) != byte(&page.baseline, at);
            if dirty && self.is_dropped(chunk, at) {
                dropped.set(at, at + 1);
            }
        }
        let Some(page) = self.pages.get_mut(slot as usize) else { return (None, None) };
        let scratch = &mut *self.scratch;
        scratch.changed = dropped.clone();
        scratch.moved = dropped.clone();
        store(&self.ram, chunk.page, scratch);
        for (from, to) in dropped.runs() {
            if let (Some(device), Some(baseline)) = (scratch.device.bytes().get(from..to), page.baseline.bytes_mut().get_mut(from..to)) {
                baseline.copy_from_slice(device);
            }
        }
        let mut beside = dropped.clone();
        beside.clear(chunk.start, chunk.end);
        dropped.clear(0, chunk.start);
        dropped.clear(chunk.end, crate::bits::PAGE);
        let inside = dropped.hull().map(|(start, end)| (start, end, evidence(chunk, start, &scratch.cpu, &scratch.device)));
        (inside, beside.hull())
    }

    /// Bytes of whole lines that come back as poison unless a side writes them.
    fn await_device(&mut self, chunk: &Chunk, mapping: u32) {
        let line = self.line;
        let (first, last) = (chunk.start.next_multiple_of(line), chunk.end / line * line);
        let Some(page) = self.slot(chunk.page).and_then(|slot| self.pages.get_mut(slot as usize)) else { return };
        let Some(extra) = &mut page.extra else { return };
        extra.awaited.set(first.min(last), last);
        for other in page.refs.iter().filter(|r| r.mapping != mapping || r.segment != chunk.segment) {
            let (start, end) = (other.start as usize / line * line, (other.end as usize).next_multiple_of(line));
            extra.awaited.clear(start.max(first).min(last), end.min(last).max(first.min(last)));
        }
    }

    /// What the CPU changed is not awaited from the device any more.
    fn no_longer_awaited(&mut self, reach: &Chunk) {
        if !self.machine.poisons {
            return;
        }
        let Some(slot) = self.slot(reach.page) else { return };
        self.read_both(slot, reach.page, reach.start, reach.end);
        let Some(page) = self.pages.get_mut(slot as usize) else { return };
        let Some(extra) = &mut page.extra else { return };
        for at in reach.start..reach.end {
            if byte(&self.scratch.cpu, at) != byte(&page.baseline, at) {
                extra.awaited.clear(at, at + 1);
            }
        }
    }

    /// Copies a chunk into the bounce buffer. At the map of bytes another mapping has, what its device wrote stays: the buffer is
    /// the page's here, and each mapping's own there.
    fn copy_in(&mut self, chunk: &Chunk, mapping: u32, at_map: bool) -> u64 {
        let Some(slot) = self.slot(chunk.page) else { return 0 };
        self.read_both(slot, chunk.page, chunk.start, chunk.end);
        let scratch = &mut *self.scratch;
        let mut moved = Bits::EMPTY;
        moved.set(chunk.start, chunk.end);
        if at_map {
            for (bits, written) in moved.0.iter_mut().zip(&scratch.written.0) {
                *bits &= !written;
            }
        }
        let Some(page) = self.pages.get_mut(slot as usize) else { return 0 };
        for (from, to) in moved.runs() {
            page.write_back(&self.arena, slot, &scratch.cpu, from, to);
        }
        self.handed(chunk, mapping);
        moved.count(chunk.start, chunk.end)
    }

    /// A for_device that copies nothing: the driver gave the bytes back, and is not told off when the next transfer overwrites
    /// what the CPU made of them.
    fn settle_bounced(&mut self, chunk: &Chunk, mapping: u32) {
        let Some(page) = self.slot(chunk.page).and_then(|slot| self.pages.get_mut(slot as usize)) else { return };
        if let Some(baseline) = page.baseline.bytes_mut().get_mut(chunk.start..chunk.end) {
            self.ram.read(chunk.page, chunk.start, baseline);
        }
        self.handed(chunk, mapping);
    }

    fn handed(&mut self, chunk: &Chunk, mapping: u32) {
        let touched = self.lines(chunk.start, chunk.end);
        let Some(slot) = self.slot(chunk.page) else { return };
        let untaken = self.written_lines(slot, chunk.start, chunk.end);
        let Some(page) = self.pages.get_mut(slot as usize) else { return };
        if let Some(r) = find_ref(&mut page.refs, mapping, chunk) {
            r.handed_over(touched, untaken);
        }
    }

    /// Whether the adversary takes an opportunity; asked once for each, in the order docs/profiles.md gives.
    pub(super) fn strikes(&mut self, mode: Cache) -> bool {
        if self.cache != Cache::Random {
            return self.cache == mode;
        }
        self.dice.next() & 1 != 0
    }
}
