//! The two copies of a page, and how bytes move between them.
//!
//! `fresh` bytes of the device's copy hold the last hand-over; then, and for bytes the device did not write since, the device's
//! copy equals the baseline. A byte is dirty when the CPU's copy differs from the baseline or the byte is not fresh.

mod adversary;
mod by_line;
mod give;
mod judge;
mod to_cpu;
mod to_device;
mod watch;

pub(crate) use by_line::{Beside, Hidden, Why};
pub(crate) use judge::StaleRead;
pub(crate) use to_cpu::Lost;
pub(crate) use watch::{CpuWrite, Touched};

use crate::arena::Arena;
use crate::bits::{Bits, PAGE, PageBytes, index, narrow, words};
use crate::chunk::Chunk;
use crate::config::Config;
use crate::dice::SplitMix64;
use crate::ids::Gpa;
use crate::profile::{Cache, Edges, Machine};
use crate::ram::Ram;
use crate::watch::Guard;
use std::collections::VecDeque;
use std::sync::Arc;
use watch::PageWatch;

/// Mappings of one page.
const MAX_REFS: usize = 4096;
/// What an unwritten byte of the device's copy reads as.
pub(crate) const POISON: u8 = 0xdb;
static POISON_PAGE: [u8; PAGE] = [POISON; PAGE];

/// Bytes of both sides around an offence, for the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    /// Offset within the mapping.
    pub(crate) at: u64,
    pub(crate) len: usize,
    pub(crate) cpu: [u8; 64],
    pub(crate) device: [u8; 64],
}

/// What one mapping has to do with one page. Lines are bits, line 0 the page's first.
#[derive(Debug, Default)]
pub(crate) struct PageRef {
    mapping: u32,
    segment: u32,
    start: u32,
    end: u32,
    /// Lines the device owns through this mapping.
    owned: u128,
    /// Lines handed over through this mapping.
    handed: u128,
    /// Lines with dirty bytes at a for_cpu that did not move them.
    wrong_sync: u128,
    /// Lines the device read when they were clean.
    used: u128,
    /// Lines an offence was found on.
    offended: u128,
    /// Lines the device used stale after it had used them clean.
    reused: u128,
    /// Lines the device used stale and that were not handed over since: what follows from that is the same offence.
    stale: u128,
    /// The device may write through the mapping.
    writable: bool,
    /// Lines the CPU took the device's bytes of.
    taken: u128,
    /// Lines a for_device came for when the device had written them and nobody had taken that.
    given_back: u128,
    /// Lines the device wrote while they were the CPU's.
    late: u128,
    /// Lines the device wrote that a for_cpu did not bring: what the CPU reads there was said at that for_cpu.
    stuck: u128,
}

impl PageRef {
    /// Lines were handed over; `untaken`: those with bytes of the device that nobody took.
    fn handed_over(&mut self, lines: u128, untaken: u128) {
        self.owned |= lines;
        self.handed |= lines;
        self.wrong_sync &= !lines;
        self.stale &= !lines;
        self.late &= !lines;
        self.stuck &= !lines;
        self.given_back |= untaken;
    }

    /// Lines were given to the CPU, `whole` of them entirely. In those of `left` the CPU's changes stayed, in those of `stuck` the device's;
    /// from those of `lost` the CPU's are gone.
    fn given_to_cpu(&mut self, touched: u128, whole: u128, left: u128, stuck: u128, lost: u128) {
        self.owned &= !touched;
        self.late &= !touched;
        self.given_back &= !touched;
        // What the CPU had changed in whole lines is gone; what was found stale is not found a second time.
        self.wrong_sync = self.wrong_sync & !whole | left & !self.stale;
        self.stale &= !whole;
        self.stuck = self.stuck & !touched | stuck;
        self.offended |= lost;
    }
}

/// What only some machines keep of a page.
#[derive(Debug)]
struct Extra {
    /// Bytes the CPU may have in its cache.
    held: Bits,
    /// Bytes that come back as poison unless a side writes them.
    awaited: Bits,
}

/// A page with two copies.
#[derive(Debug)]
struct Page {
    gpa: u64,
    baseline: PageBytes,
    fresh: Bits,
    refs: Vec<PageRef>,
    watch: PageWatch,
    extra: Option<Box<Extra>>,
}

impl Page {
    /// Bytes of the CPU's copy go to the device's.
    fn write_back(&mut self, arena: &Arena, slot: u32, cpu: &PageBytes, from: usize, to: usize) {
        if let (Some(cpu), Some(baseline)) = (cpu.bytes().get(from..to), self.baseline.bytes_mut().get_mut(from..to)) {
            arena.store(slot, from, cpu);
            baseline.copy_from_slice(cpu);
            self.fresh.set(from, to);
        }
        if let Some(extra) = &mut self.extra {
            extra.awaited.clear(from, to);
        }
    }
}

/// Buffers used again by every operation.
#[derive(Debug)]
struct Scratch {
    cpu: PageBytes,
    device: PageBytes,
    changed: Bits,
    moved: Bits,
    written: Bits,
}

/// All pages with two copies.
#[derive(Debug)]
pub(crate) struct Copies {
    ram: Arc<Ram>,
    arena: Arc<Arena>,
    /// Slot of each page of RAM plus one; 0 when the page has one copy.
    frames: Vec<u32>,
    /// Boxed: growing the list must not move 5 KiB for each page.
    pages: Vec<Box<Page>>,
    /// Slots given back, the oldest in front: used again as late as possible.
    free: VecDeque<u32>,
    line: usize,
    refs: usize,
    scratch: Box<Scratch>,
    /// Guards that changed and were not passed on yet, see [`watch`].
    flips: Vec<(Gpa, Guard)>,
    watched: u64,
    machine: &'static Machine,
    edges: Edges,
    cache: Cache,
    /// The adversary's.
    dice: SplitMix64,
}

impl Copies {
    pub(crate) fn new(ram: Arc<Ram>, arena: Arc<Arena>, config: &Config) -> Self {
        let frames = vec![0; ram.pages()];
        let scratch =
            Scratch { cpu: PageBytes::ZERO, device: PageBytes::ZERO, changed: Bits::EMPTY, moved: Bits::EMPTY, written: Bits::EMPTY };
        Self {
            ram,
            arena,
            frames,
            pages: Vec::new(),
            free: VecDeque::new(),
            line: config.line_size as usize,
            refs: 0,
            scratch: Box::new(scratch),
            flips: Vec::new(),
            watched: 0,
            machine: config.profile.machine(),
            edges: config.edges,
            cache: config.cache,
            dice: SplitMix64::new(config.seed),
        }
    }

    /// Pages with two copies.
    pub(crate) fn tracked(&self) -> u64 {
        (self.pages.len() - self.free.len()) as u64
    }

    /// (mapping, page) pairs.
    pub(crate) fn refs(&self) -> usize {
        self.refs
    }

    /// Slot of the page at `gpa`.
    #[inline]
    pub(crate) fn slot(&self, gpa: u64) -> Option<u32> {
        self.frames.get(self.ram.frame(gpa)?)?.checked_sub(1)
    }

    /// The lines touched by `start..end` of a page.
    #[inline]
    fn lines(&self, start: usize, end: usize) -> u128 {
        lines(self.line, start, end)
    }

    /// The lines of `start..end` of a slot in which the device wrote bytes of it that nobody took.
    fn written_lines(&mut self, slot: u32, start: usize, end: usize) -> u128 {
        self.scratch.written = Bits::EMPTY;
        self.arena.written(slot, start, end, &mut self.scratch.written);
        let line = self.line;
        self.scratch.written.runs().fold(0, |all, (from, to)| all | lines(line, from, to))
    }

    /// Puts a chunk of a mapping under two copies; false when there is no room.
    pub(crate) fn enter(&mut self, chunk: &Chunk, mapping: u32, writable: bool) -> bool {
        let Some(entry) = self.ram.frame(chunk.page).and_then(|frame| self.frames.get_mut(frame)) else { return false };
        let slot = match entry.checked_sub(1) {
            Some(slot) => slot,
            None => {
                let slot = match self.free.pop_front() {
                    Some(slot) => slot,
                    None => {
                        let slot = narrow(self.pages.len());
                        if slot >= self.arena.slots() {
                            return false;
                        }
                        self.arena.prepare(slot);
                        self.pages.push(Box::new(Page {
                            gpa: 0,
                            baseline: PageBytes::ZERO,
                            fresh: Bits::EMPTY,
                            refs: Vec::new(),
                            watch: PageWatch::default(),
                            extra: None,
                        }));
                        slot
                    }
                };
                *entry = slot + 1;
                slot
            }
        };
        let Some(page) = self.pages.get_mut(slot as usize) else { return false };
        if page.refs.len() >= MAX_REFS {
            return false;
        }
        if page.refs.is_empty() {
            // What an unmap without a sync left there is of no interest any more.
            page.fresh = Bits::EMPTY;
            self.arena.forget(slot, 0, PAGE);
            if self.machine.keeps_lines {
                let extra = page.extra.get_or_insert_with(|| Box::new(Extra { held: Bits::EMPTY, awaited: Bits::EMPTY }));
                extra.held.set(0, PAGE);
                extra.awaited.clear(0, PAGE);
            }
        }
        page.gpa = chunk.page;
        page.refs.push(PageRef {
            mapping,
            segment: chunk.segment,
            start: narrow(chunk.start),
            end: narrow(chunk.end),
            writable,
            ..PageRef::default()
        });
        self.refs += 1;
        true
    }

    /// Takes a chunk of a mapping out again. Bytes under no other mapping are no longer fresh; a page under none has one copy.
    pub(crate) fn leave(&mut self, chunk: &Chunk, mapping: u32) {
        let Some(slot) = self.slot(chunk.page) else { return };
        let Some(page) = self.pages.get_mut(slot as usize) else { return };
        let Some(at) = page.refs.iter().position(|r| r.mapping == mapping && r.segment == chunk.segment) else { return };
        let gone = page.refs.swap_remove(at);
        self.refs -= 1;
        if page.refs.is_empty() {
            self.retire(chunk.page);
            return;
        }
        let alone = &mut self.scratch.changed;
        *alone = Bits::EMPTY;
        let (line, edges) = (self.line, self.edges);
        let reach = |r: &PageRef| match edges {
            Edges::Isolate => (r.start as usize, r.end as usize),
            Edges::Line => (r.start as usize / line * line, (r.end as usize).next_multiple_of(line)),
        };
        let (start, end) = reach(&gone);
        alone.set(start, end);
        for other in &page.refs {
            let (start, end) = reach(other);
            alone.clear(start, end);
        }
        for (start, end) in alone.runs() {
            page.fresh.clear(start, end);
            self.arena.forget(slot, start, end);
        }
        self.relax(chunk.page);
    }

    /// Takes a page under no mapping out: it has one copy again.
    fn retire(&mut self, page: u64) {
        let Some(slot) = self.slot(page) else { return };
        self.unwatch(slot);
        if let Some(record) = self.pages.get_mut(slot as usize) {
            record.fresh = Bits::EMPTY;
        }
        self.arena.forget(slot, 0, PAGE);
        if let Some(entry) = self.ram.frame(page).and_then(|frame| self.frames.get_mut(frame)) {
            *entry = 0;
        }
        self.free.push_back(slot);
    }

    /// Passes on the bytes of a chunk that the device wrote and nobody took, run by run.
    pub(crate) fn stored(&mut self, chunk: &Chunk, mut pass: impl FnMut(usize, &[u8])) {
        let Some(slot) = self.slot(chunk.page) else { return };
        let scratch = &mut *self.scratch;
        scratch.written = Bits::EMPTY;
        self.arena.written(slot, chunk.start, chunk.end, &mut scratch.written);
        for (from, to) in scratch.written.runs() {
            if let Some(bytes) = scratch.device.bytes_mut().get_mut(from..to) {
                self.arena.read(slot, from, bytes);
                pass(from, bytes);
            }
        }
    }

    /// Bytes the device wrote in the chunk that differ from the CPU's copy: how many, from where to where, and what they are.
    pub(crate) fn untaken(&mut self, chunk: &Chunk) -> Option<(u64, usize, usize, Evidence)> {
        let slot = self.slot(chunk.page)?;
        let (start, end) = (chunk.start, chunk.end);
        if !self.arena.any_written(slot, start, end) {
            return None;
        }
        let scratch = &mut *self.scratch;
        self.ram.read(chunk.page, start, scratch.cpu.bytes_mut().get_mut(start..end)?);
        self.arena.read(slot, start, scratch.device.bytes_mut().get_mut(start..end)?);
        scratch.written = Bits::EMPTY;
        self.arena.written(slot, start, end, &mut scratch.written);
        for word in words(start, end) {
            let differ = crate::bits::differing_word(&scratch.cpu, &scratch.device, word);
            if let Some(bits) = scratch.written.0.get_mut(word) {
                *bits &= differ;
            }
        }
        // What a for_cpu could not bring was told of there.
        let stuck = self.pages.get(slot as usize)?.refs.iter().fold(0, |all, r| all | r.stuck);
        if stuck != 0 {
            let lines = (0..PAGE / self.line).filter(|line| stuck >> line & 1 != 0);
            lines.for_each(|line| scratch.written.clear(line * self.line, (line + 1) * self.line));
        }
        let (first, last) = scratch.written.hull()?;
        let evidence = evidence(chunk, first, &scratch.cpu, &scratch.device);
        Some((scratch.written.count(start, end), first, last, evidence))
    }

    /// Other mappings that have bytes in a line the chunk covers in part, but in that line no byte of the chunk.
    pub(crate) fn sharing_lines(&self, chunk: &Chunk, mapping: u32) -> impl Iterator<Item = u32> + '_ {
        let (line, start, end) = (self.line, chunk.start, chunk.end);
        let in_part = move |at: usize| !at.is_multiple_of(line);
        let first = in_part(start).then(|| start / line * line);
        let last = in_part(end).then(|| end / line * line);
        // Pages that are mapped whole have no such line.
        let refs = if first.or(last).is_some() { self.refs_of(chunk.page) } else { &[] };
        let meets = move |r: &&PageRef, at: usize| {
            let (a, b) = (at.max(r.start as usize), (at + line).min(r.end as usize));
            a < b && (b <= start || end <= a)
        };
        let near = move |r: &&PageRef| r.mapping != mapping && [first, last].into_iter().flatten().any(|at| meets(r, at));
        refs.iter().filter(near).map(|r| r.mapping)
    }

    /// Other mappings of bytes of a chunk whose devices own them and may write them: they were handed over, not only mapped.
    pub(crate) fn owned_over(&self, chunk: &Chunk, mapping: u32) -> impl Iterator<Item = u32> + '_ {
        let (start, end) = (chunk.start, chunk.end);
        self.refs_of(chunk.page)
            .iter()
            .filter(move |r| {
                let both = (start.max(r.start as usize), end.min(r.end as usize));
                r.mapping != mapping && r.writable && r.owned & r.handed & self.lines(both.0, both.1) != 0
            })
            .map(|r| r.mapping)
    }

    /// Other mappings of the first byte of a chunk that do not own its line.
    pub(crate) fn others_at(&self, chunk: &Chunk, mapping: u32) -> impl Iterator<Item = u32> + '_ {
        let at = narrow(chunk.start);
        let line = self.lines(chunk.start, chunk.start + 1);
        let other = move |r: &&PageRef| r.mapping != mapping && (r.start..r.end).contains(&at) && r.owned & line == 0;
        self.refs_of(chunk.page).iter().filter(other).map(|r| r.mapping)
    }

    fn refs_of(&self, page: u64) -> &[PageRef] {
        let slot = self.slot(page);
        slot.and_then(|slot| self.pages.get(slot as usize)).map_or(&[][..], |page| page.refs.as_slice())
    }

    /// Whether a sync of a chunk would change nothing: the side has it, and both copies are as at the last hand-over.
    pub(crate) fn has_already(&mut self, chunk: &Chunk, mapping: u32, for_cpu: bool) -> bool {
        let touched = self.lines(chunk.start, chunk.end);
        let Some(slot) = self.slot(chunk.page) else { return false };
        let Some(page) = self.pages.get_mut(slot as usize) else { return false };
        let (start, end) = (chunk.start, chunk.end);
        let has = find_ref(&mut page.refs, mapping, chunk)
            .is_some_and(|r| if for_cpu { r.owned & touched == 0 } else { r.owned & r.handed & touched == touched });
        if !has || !page.fresh.all(start, end) || self.arena.any_written(slot, start, end) {
            return false;
        }
        let Some(cpu) = self.scratch.cpu.bytes_mut().get_mut(start..end) else { return false };
        self.ram.read(chunk.page, start, cpu);
        page.baseline.bytes().get(start..end).is_some_and(|baseline| *baseline == *cpu)
    }

    /// The oldest live mapping of the byte at the guest physical address `gpa`.
    pub(crate) fn mapping_at(&self, gpa: u64, mappings: &crate::mapping::Mappings) -> Option<u32> {
        let page = self.pages.get(self.slot(gpa)? as usize)?;
        let byte = narrow(index(gpa % crate::bits::PAGE_U64));
        let here = page.refs.iter().filter(|r| (r.start..r.end).contains(&byte));
        here.filter(|r| mappings.get(r.mapping).is_some_and(crate::mapping::Mapping::is_live))
            .map(|r| r.mapping)
            .min_by_key(|id| mappings.get(*id).map(|m| m.seq))
    }

    /// Whether a device owns any line of the chunk through `mapping`.
    #[cfg(test)]
    pub(crate) fn owns(&self, chunk: &Chunk, mapping: u32) -> bool {
        let lines = self.lines(chunk.start, chunk.end);
        self.slot(chunk.page)
            .and_then(|slot| self.pages.get(slot as usize))
            .is_some_and(|page| page.refs.iter().any(|r| r.mapping == mapping && r.segment == chunk.segment && r.owned & lines != 0))
    }
}

fn lines(line: usize, start: usize, end: usize) -> u128 {
    if start >= end {
        return 0;
    }
    // A line is a power of two of bytes: shifts, no divisions on the hot path.
    let shift = line.trailing_zeros();
    let (first, last) = (start >> shift, (end - 1) >> shift);
    (!0u128 >> (127 - (last - first).min(127))) << first.min(127)
}

/// The lines that lie wholly inside `start..end`.
fn whole_lines(line: usize, start: usize, end: usize) -> u128 {
    lines(line, start.next_multiple_of(line), end / line * line)
}

#[inline]
fn find_ref<'a>(refs: &'a mut [PageRef], mapping: u32, chunk: &Chunk) -> Option<&'a mut PageRef> {
    refs.iter_mut().find(|r| r.mapping == mapping && r.segment == chunk.segment)
}

/// Up to 64 bytes of both copies from `first` on, begun at a multiple of 16 if the chunk reaches that far.
fn evidence(chunk: &Chunk, first: usize, cpu: &PageBytes, device: &PageBytes) -> Evidence {
    let from = (first / 16 * 16).max(chunk.start);
    let to = chunk.end.min(from + 64);
    let mut evidence = Evidence { at: chunk.at(from), len: 0, cpu: [0; 64], device: [0; 64] };
    if let (Some(c), Some(d)) = (cpu.bytes().get(from..to), device.bytes().get(from..to)) {
        for ((out, byte), (out_d, byte_d)) in evidence.cpu.iter_mut().zip(c).zip(evidence.device.iter_mut().zip(d)) {
            *out = *byte;
            *out_d = *byte_d;
        }
        evidence.len = index((to - from) as u64);
    }
    evidence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::Feed;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    /// Lines 0 to 3 in every state there is.
    fn known() -> PageRef {
        let all = 0b1111;
        PageRef {
            wrong_sync: all,
            used: all,
            offended: all,
            stale: all,
            taken: all,
            given_back: all,
            late: all,
            stuck: all,
            ..PageRef::default()
        }
    }

    #[test]
    fn a_hand_over_ends_what_was_known_of_its_lines() {
        let mut r = PageRef { owned: 0b1000, given_back: 0b1000, ..known() };
        r.handed_over(0b0011, 0b0010);
        assert_eq!((r.owned, r.handed, r.given_back), (0b1011, 0b0011, 0b1010));
        assert_eq!([r.wrong_sync, r.stale, r.late, r.stuck], [0b1100; 4]);
        assert_eq!([r.used, r.offended, r.taken], [0b1111; 3], "what happened before is not undone");
        r.handed_over(0b0001, 0b0010);
        assert_eq!((r.owned, r.handed, r.given_back), (0b1011, 0b0011, 0b1010), "once more");
    }

    #[test]
    fn what_is_given_to_the_cpu_is_no_longer_the_devices() {
        let mut r = PageRef { owned: 0b1110, offended: 0b1000, ..known() };
        r.given_to_cpu(0b0111, 0b0011, 0, 0, 0b0001);
        assert_eq!((r.owned, r.late, r.given_back, r.stuck), (0b1000, 0b1000, 0b1000, 0b1000));
        assert_eq!((r.wrong_sync, r.stale, r.offended), (0b1100, 0b1100, 0b1001), "of whole lines only");
        // Changes that stayed where they were; lines 2 and 3 are stale.
        let mut r = PageRef { stale: 0b1100, wrong_sync: 0b0010, ..PageRef::default() };
        r.given_to_cpu(0b1111, 0, 0b0110, 0b0001, 0b1000);
        assert_eq!((r.wrong_sync, r.stale, r.stuck, r.offended), (0b0010, 0b1100, 0b0001, 0b1000));
        r.given_to_cpu(0b0001, 0b0001, 0b0001, 0b0001, 0b1000);
        assert_eq!((r.wrong_sync, r.stuck, r.offended), (0b0011, 0b0001, 0b1000), "again");
    }

    #[test]
    fn the_adversary_throws_splitmix64() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), PAGE)]).unwrap();
        let ram = Arc::new(Ram::new(&memory, Feed::new(None)).unwrap());
        let arena = Arc::new(Arena::new(1).unwrap());
        // Bit n is the lowest of the nth number that the reference implementation gives for the seed.
        for (seed, bits) in [(0, 0xd9b5_e8fe_c331_f555_u64), (1_234_567, 0xa6a0_a189_bdd2_b0df)] {
            let config = Config { cache: Cache::Random, seed, ..Config::for_ram(4096) };
            let mut copies = Copies::new(Arc::clone(&ram), Arc::clone(&arena), &config);
            for n in 0..64 {
                assert_eq!(copies.strikes(Cache::Evict), bits >> n & 1 != 0, "number {n} of seed {seed}");
            }
        }
    }

    #[test]
    fn whole_lines_are_those_covered() {
        assert_eq!(whole_lines(64, 0, 63), 0);
        assert_eq!(whole_lines(64, 0, 64), 0b1);
        assert_eq!(whole_lines(64, 65, 255), 0b100);
        assert_eq!(whole_lines(128, 128, 384), 0b110);
        assert_eq!(whole_lines(32, 0, PAGE), !0);
    }

    #[test]
    fn lines_are_those_touched() {
        assert_eq!(lines(64, 0, 0), 0);
        assert_eq!(lines(64, 0, 1), 1);
        assert_eq!(lines(64, 63, 65), 0b11);
        assert_eq!(lines(64, 128, 192), 0b100);
        assert_eq!(lines(64, 0, PAGE), u128::from(u64::MAX));
        assert_eq!(lines(32, 0, PAGE), !0);
        assert_eq!(lines(32, 4095, 4096), 1 << 127);
        assert_eq!(lines(128, 0, PAGE), u128::from(u32::MAX));
    }
}
