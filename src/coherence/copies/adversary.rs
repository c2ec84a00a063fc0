//! The cache on its own: lines that are written back, or fetched, when nobody asked for it.

use super::by_line::{Hidden, Why, byte};
use super::to_cpu::store;
use super::{Copies, evidence, find_ref};
use crate::bits::Bits;
use crate::chunk::Chunk;
use crate::profile::{Cache, Edges, Op};

impl Copies {
    /// Whether the cache may write lines back on its own.
    pub(crate) fn evicts(&self) -> bool {
        matches!(self.cache, Cache::Evict | Cache::Random)
    }

    /// Whether the cache may fetch lines on its own.
    pub(crate) fn prefetches(&self) -> bool {
        matches!(self.cache, Cache::Prefetch | Cache::Random)
    }

    /// Before a hand-over of a chunk: lines of it that are dirty although the device owns them, or that were never handed over,
    /// were written back after the device wrote them. What the device wrote there is lost.
    pub(crate) fn evict(&mut self, chunk: &Chunk, mapping: u32) -> Option<Hidden> {
        let slot = self.slot(chunk.page)?;
        let line = self.line;
        let (first, last) = self.reach(chunk.start, chunk.end);
        if !self.arena.any_written(slot, first, last) {
            return None;
        }
        self.read_both(slot, chunk.page, first, last);
        let mut found: Option<Hidden> = None;
        for at in (first.next_multiple_of(line)..last / line * line).step_by(line) {
            let (from, to) = (at, at + line);
            if !self.scratch.written.any(from, to) {
                continue;
            }
            let bit = self.lines(from, from + 1);
            let dirty = self.is_dirty(slot, from, to);
            let page = self.pages.get(slot as usize)?;
            let own = page.refs.iter().find(|r| r.mapping == mapping && r.segment == chunk.segment)?;
            let handed = page.refs.iter().any(|r| r.handed & bit != 0);
            let never = !handed && !page.fresh.any(from, to);
            if !(never || (dirty && own.owned & bit != 0)) || !self.strikes(Cache::Evict) {
                continue;
            }
            let inside = |at: &usize| (chunk.start..chunk.end).contains(at);
            let page = self.pages.get_mut(slot as usize)?;
            let scratch = &mut *self.scratch;
            let differ = |at: &usize| scratch.written.get(*at) && byte(&scratch.cpu, *at) != byte(&scratch.device, *at);
            let mut lost = (from..to).filter(inside).filter(differ);
            if let Some(start) = lost.next() {
                let end = lost.next_back().unwrap_or(start) + 1;
                let changed = |at: usize| page.fresh.get(at) && byte(&scratch.cpu, at) != byte(&page.baseline, at);
                let beside = (from..to).filter(inside).all(|at| !changed(at));
                let why = if never { Why::NeverHanded } else { Why::Overwritten { beside, evicted: true } };
                let evidence = evidence(chunk, start, &scratch.cpu, &scratch.device);
                // They had a consequence, all of them that the line held.
                page.watch.discard(from, to);
                let write = if never { None } else { page.watch.first_write_in(from, to) };
                found = Some(found.map_or(Hidden { start, end, evidence, why, write }, |all| Hidden { end, ..all.and(write) }));
            }
            page.write_back(&self.arena, slot, &scratch.cpu, from, to);
        }
        found
    }

    /// The device has written a chunk and goes on: the line it began in is fetched. Only where a for_cpu follows that drops what was
    /// fetched too early; other machines' CPUs do not fetch what nobody asked for.
    pub(crate) fn prefetch(&mut self, chunk: &Chunk, mapping: u32, op: Op) {
        if self.machine.keeps_lines || !matches!(op, Op::Invalidate | Op::CleanInvalidate) {
            return;
        }
        let Some(slot) = self.slot(chunk.page) else { return };
        let from = chunk.start / self.line * self.line;
        let to = from + self.line;
        let bit = self.lines(from, from + 1);
        let Some(page) = self.pages.get_mut(slot as usize) else { return };
        let Some(r) = find_ref(&mut page.refs, mapping, chunk) else { return };
        let whole = r.start as usize <= from && to <= r.end as usize;
        if r.owned & bit == 0 || !r.writable || !(whole || self.edges == Edges::Line) {
            return;
        }
        // What was never handed over may be dirty in the cache still, whatever the device wrote over it.
        if !page.fresh.all(from, to) {
            return;
        }
        self.read_both(slot, chunk.page, from, to);
        if self.is_dirty(slot, from, to) || !self.strikes(Cache::Prefetch) {
            return;
        }
        let Some(page) = self.pages.get_mut(slot as usize) else { return };
        let scratch = &mut *self.scratch;
        (scratch.changed, scratch.moved) = (Bits::EMPTY, Bits::EMPTY);
        scratch.moved.set(from, to);
        for at in (from..to).filter(|at| byte(&scratch.cpu, *at) != byte(&scratch.device, *at)) {
            scratch.changed.set(at, at + 1);
        }
        store(&self.ram, chunk.page, scratch);
        if let (Some(device), Some(baseline)) = (scratch.device.bytes().get(from..to), page.baseline.bytes_mut().get_mut(from..to)) {
            baseline.copy_from_slice(device);
        }
    }
}
