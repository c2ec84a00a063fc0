//! Hands out handles.
//!
//! A handle space is cut into zones at powers of two, so that a device's mask allows a zone or does not. A block is a power of
//! two of pages, naturally aligned, and larger than what it is for: the rest is a guard. A zone grows by bumping a pointer;
//! freed blocks wait in a queue and are used again only when many wait or the zone has no fresh space, oldest first.

use crate::bits::{PAGE_U64, index};
use crate::config::Config;
use std::collections::VecDeque;
use std::ops::Range;

/// Freed blocks of one size that wait before the oldest is used again.
const QUARANTINE: usize = 16384;
/// Largest block: 2^ORDERS-1 pages.
const ORDERS: usize = 24;

/// A block of handle space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Block {
    /// First address.
    pub(crate) base: u64,
    /// Log2 of its pages.
    pub(crate) order: u8,
    zone: u8,
}

impl Block {
    pub(crate) fn range(&self) -> Range<u64> {
        self.base..self.base + (PAGE_U64 << self.order)
    }

    pub(crate) fn contains(&self, iova: u64) -> bool {
        iova.wrapping_sub(self.base) < (PAGE_U64 << self.order)
    }
}

#[derive(Debug)]
struct Zone {
    /// Page numbers.
    start: u64,
    end: u64,
    next: u64,
    /// Whether guest RAM has these addresses, too.
    in_ram: bool,
    /// Freed blocks by order, oldest first, as page numbers from `start`.
    free: Vec<VecDeque<u32>>,
    waiting: u64,
    freed_since_merge: u64,
}

impl Zone {
    fn new(range: &Range<u64>, in_ram: bool) -> Self {
        let (start, end) = (range.start.div_ceil(PAGE_U64), range.end / PAGE_U64);
        Self { start, end, next: start, in_ram, free: vec![VecDeque::new(); ORDERS], waiting: 0, freed_since_merge: 0 }
    }

    fn push(&mut self, order: usize, page: u64) {
        let relative = u32::try_from(page - self.start).unwrap_or(u32::MAX);
        if let Some(queue) = self.free.get_mut(order) {
            queue.push_back(relative);
            self.waiting += 1 << order;
        }
    }

    fn pop(&mut self, order: usize) -> Option<u64> {
        let page = self.free.get_mut(order)?.pop_front()?;
        self.waiting = self.waiting.saturating_sub(1 << order);
        Some(self.start + u64::from(page))
    }

    /// Fresh space; what the alignment skips becomes blocks of its own.
    fn bump(&mut self, order: usize) -> Option<u64> {
        let size = 1u64 << order;
        let base = self.next.checked_next_multiple_of(size)?;
        if base.checked_add(size)? > self.end {
            return None;
        }
        let mut gap = self.next;
        self.next = base + size;
        while gap < base {
            let order = gap.trailing_zeros().min((base - gap).ilog2()) as usize;
            self.push(order, gap);
            gap += 1 << order;
        }
        Some(base)
    }

    fn split(&mut self, order: usize) -> Option<u64> {
        let from = (order + 1..ORDERS).find(|o| self.free.get(*o).is_some_and(|queue| !queue.is_empty()))?;
        let base = self.pop(from)?;
        for order in order..from {
            self.push(order, base + (1 << order));
        }
        Some(base)
    }

    /// Joins free buddies. Costs a sort, so it waits until enough was freed to be worth it.
    fn merge(&mut self) -> bool {
        let blocks: usize = self.free.iter().map(VecDeque::len).sum();
        if blocks < 2 || self.freed_since_merge * 16 < blocks as u64 {
            return false;
        }
        self.freed_since_merge = 0;
        let mut joined = false;
        for order in 0..ORDERS - 1 {
            let Some(queue) = self.free.get_mut(order) else { break };
            let mut pages: Vec<u32> = queue.drain(..).collect();
            let count = pages.len() as u64;
            self.waiting = self.waiting.saturating_sub(count << order);
            pages.sort_unstable();
            let mut rest = pages.into_iter().map(|page| self.start + u64::from(page)).peekable();
            let mut larger = Vec::new();
            let mut same = Vec::new();
            while let Some(page) = rest.next() {
                if page.is_multiple_of(2 << order) && rest.next_if_eq(&(page + (1 << order))).is_some() {
                    larger.push(page);
                } else {
                    same.push(page);
                }
            }
            joined |= !larger.is_empty();
            larger.into_iter().for_each(|page| self.push(order + 1, page));
            same.into_iter().for_each(|page| self.push(order, page));
        }
        joined
    }

    fn alloc(&mut self, order: usize) -> Option<u64> {
        let crowded = self.waiting > (self.end - self.start) / 4 || self.free.get(order)?.len() >= QUARANTINE;
        let reused = if crowded { self.pop(order) } else { None };
        reused.or_else(|| self.bump(order)).or_else(|| self.pop(order)).or_else(|| self.split(order))
    }
}

/// All zones of a machine. One space for all devices: a handle is never another device's, too.
#[derive(Debug)]
pub(crate) struct Handles {
    /// The one to try first comes first.
    zones: Vec<Zone>,
}

impl Handles {
    pub(crate) fn new(config: &Config) -> Self {
        let mut zones = Vec::new();
        let ram = 1 << 20..config.low_window.start.min(Config::LOW_END);
        for (area, in_ram) in [(ram, true), (config.low_window.clone(), false), (config.high_window.clone(), false)] {
            for bit in 20..48u32 {
                let cut = area.start.max(1 << bit)..area.end.min(2 << bit);
                let mut pieces = vec![cut];
                for reserved in &config.reserved {
                    pieces = pieces.into_iter().flat_map(|p| without(&p, reserved)).collect();
                }
                zones.extend(pieces.iter().filter(|p| p.start + 4 * PAGE_U64 <= p.end).map(|p| Zone::new(p, in_ram)));
            }
        }
        zones.sort_by_key(|zone| (zone.in_ram, std::cmp::Reverse(zone.end)));
        zones.truncate(usize::from(u8::MAX));
        Self { zones }
    }

    /// Spans for the table that finds a mapping by its handle.
    pub(crate) fn spans(config: &Config) -> Vec<Range<u64>> {
        vec![0..config.low_window.end.max(1 << 30), config.high_window.clone()]
    }

    /// A block of at least `pages` pages below `mask`, aligned to at least 2^`min_order` pages, that `usable` accepts.
    pub(crate) fn alloc(&mut self, pages: u64, mask: u64, min_order: u32, usable: impl Fn(&Block) -> bool) -> Option<Block> {
        let order = pages.checked_next_power_of_two()?.ilog2().max(min_order);
        if order as usize >= ORDERS {
            return None;
        }
        let order_small = u8::try_from(order).ok()?;
        for (number, zone) in self.zones.iter_mut().enumerate() {
            if zone.end * PAGE_U64 - 1 > mask {
                continue;
            }
            let mut refused = Vec::new();
            let mut found = None;
            for _ in 0..8 {
                let page = zone.alloc(order as usize).or_else(|| if zone.merge() { zone.alloc(order as usize) } else { None });
                let Some(page) = page else { break };
                let block = Block { base: page * PAGE_U64, order: order_small, zone: u8::try_from(number).ok()? };
                if usable(&block) {
                    found = Some(block);
                    break;
                }
                refused.push(page);
            }
            refused.into_iter().for_each(|page| zone.push(order as usize, page));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Gives a block back; it is not used again at once.
    pub(crate) fn free(&mut self, block: Block) {
        if let Some(zone) = self.zones.get_mut(usize::from(block.zone)) {
            zone.push(usize::from(block.order), block.base / PAGE_U64);
            zone.freed_since_merge += 1;
        }
    }

    /// Whether a device with `mask` can be given handles: one zone of more than a few pages, at least 24 bits.
    pub(crate) fn reaches(&self, mask: u64) -> bool {
        mask >= 0xff_ffff && self.zones.iter().any(|zone| zone.end * PAGE_U64 - 1 <= mask && zone.end - zone.start >= 16)
    }

    /// The mask that covers every handle.
    pub(crate) fn required_mask(&self) -> u64 {
        let last = self.zones.iter().map(|zone| zone.end * PAGE_U64 - 1).max().unwrap_or(0xffff_ffff);
        last.checked_next_power_of_two().map_or(u64::MAX, |p| if p == last { last } else { p - 1 })
    }
}

/// What is left of `range` without `hole`.
fn without(range: &Range<u64>, hole: &Range<u64>) -> Vec<Range<u64>> {
    let before = range.start..range.end.min(hole.start.max(range.start));
    let after = range.start.max(hole.end.min(range.end))..range.end;
    if hole.start >= range.end || hole.end <= range.start || hole.is_empty() {
        return vec![range.clone()];
    }
    [before, after].into_iter().filter(|r| r.start < r.end).collect()
}

/// Pages a piece of `len` bytes at page offset `offset` takes.
pub(crate) fn pages_of(offset: u64, len: u64) -> u64 {
    (offset % PAGE_U64).saturating_add(len).div_ceil(PAGE_U64).max(1)
}

/// An order as a shift of pages, for alignments a device asked for.
pub(crate) fn order_of_mask(mask: u64) -> u32 {
    index(mask.saturating_add(1) / PAGE_U64).max(1).ilog2()
}

#[cfg(test)]
mod tests;
