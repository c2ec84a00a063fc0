//! Memory with one copy that is watched all the same: allocations without a kernel mapping (DV405), and on request coherent memory
//! that is fetched twice (DV503).

use super::Engine;
use crate::bits::PAGE_U64;
use crate::chunk::chunks;
use crate::finding::{AccessInfo, ByteRange};
use crate::ids::{Attrs, Family};
use crate::rules;
use crate::watch::{CpuAccess, Guard};
use std::collections::HashMap;

/// Fetches remembered; the table starts anew when it is full.
const MAX_FETCHES: usize = 4096;

/// A word of coherent memory as it was last read.
#[derive(Clone, Debug)]
struct Fetch {
    rip: u64,
    cpu: u32,
    function: String,
    callers: Vec<u64>,
}

/// Pages with one copy that are watched.
#[derive(Debug, Default)]
pub(crate) struct Solo {
    /// The allocation each page belongs to: the allocators give whole pages.
    pages: HashMap<u64, u32>,
    fetches: HashMap<(u32, u64), Fetch>,
    innocent: HashMap<u64, u32>,
}

impl Engine {
    /// Watches a new allocation if it is one of those.
    pub(super) fn watch_solo(&mut self, id: u32) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let no_kernel_mapping = mapping.attrs.contains(Attrs::NO_KERNEL_MAPPING);
        if !self.cpu.watches() || mapping.family != Family::Coherent || !(no_kernel_mapping || self.config.pedantic) {
            return;
        }
        let pages: Vec<u64> = chunks(&mapping.segments, mapping.whole()).map(|chunk| chunk.page).collect();
        for page in pages {
            self.cpu.solo.pages.insert(page, id);
            self.guard_solo(page, Guard::Closed);
        }
    }

    /// The allocation ends.
    pub(super) fn unwatch_solo(&mut self, id: u32) {
        let Some(mapping) = self.mappings.get(id) else { return };
        if self.cpu.solo.pages.is_empty() {
            return;
        }
        let pages: Vec<u64> = chunks(&mapping.segments, mapping.whole()).map(|chunk| chunk.page).collect();
        for page in pages {
            if self.cpu.solo.pages.remove(&page).is_some() {
                self.cpu.solo.innocent.remove(&page);
                self.guard_solo(page, Guard::Open);
            }
        }
        self.cpu.solo.fetches.retain(|(mapping, _), _| *mapping != id);
    }

    pub(super) fn solo_give_up(&mut self, page: u64) -> bool {
        let known = self.cpu.solo.pages.remove(&page).is_some();
        if known {
            self.guard_solo(page, Guard::Open);
        }
        known
    }

    /// An access to such memory, if it is one.
    pub(super) fn touch_solo(&mut self, page: u64, access: &CpuAccess, scene: &mut super::cpu::Scene<'_, '_>) -> bool {
        let Some(id) = self.cpu.solo.pages.get(&page).copied() else { return true };
        let Some(mapping) = self.mappings.get(id) else { return true };
        let device = mapping.device;
        let Some(segment) = mapping.segments.iter().find(|s| (s.gpa..s.gpa + s.len).contains(&access.gpa.0)) else { return true };
        let start = segment.offset + (access.gpa.0 - segment.gpa);
        let bytes = ByteRange { start, end: (start + u64::from(access.len)).min(mapping.size) };
        if mapping.attrs.contains(Attrs::NO_KERNEL_MAPPING) {
            let info = AccessInfo { write: access.write, ..scene.info(access) };
            let verdict = rules::cpu::no_kernel_mapping(mapping, access.write, bytes).access(info);
            let site = self.site_of(scene);
            let what = if access.write { "CPU write" } else { "CPU read" };
            self.report(Some(device), Some(id), site, what, verdict, None);
            return false;
        }
        let words = bytes.start / 8..bytes.end.div_ceil(8);
        if access.write {
            words.for_each(|word| _ = self.cpu.solo.fetches.remove(&(id, word)));
        } else if words.end - words.start <= 8 {
            self.fetch(device, id, bytes, words, access, scene);
        }
        let count = self.cpu.solo.innocent.entry(page).or_default();
        *count += 1;
        if *count > self.config.innocent_budget.saturating_mul(50) {
            self.give_up(access.gpa.0 & !(PAGE_U64 - 1));
        }
        true
    }

    /// The device wrote: who fetches the bytes again after that wants to know the news.
    pub(super) fn forget_fetches(&mut self, id: u32, range: ByteRange) {
        if !self.cpu.solo.fetches.is_empty() {
            self.cpu.solo.fetches.retain(|(mapping, word), _| *mapping != id || word * 8 >= range.end || word * 8 + 8 <= range.start);
        }
    }

    /// Remembers a fetch, and reports one that was made before by the same call of the same function. A fetch at a lower address of
    /// the function is the next call's, or the next lap's of a loop.
    fn fetch(
        &mut self,
        device: u32,
        id: u32,
        bytes: ByteRange,
        words: std::ops::Range<u64>,
        access: &CpuAccess,
        scene: &mut super::cpu::Scene<'_, '_>,
    ) {
        let site = self.site_of(scene);
        let frames = self.sites.frames(site);
        let function = frames.first().map(|f| f.symbol.split('+').next().unwrap_or_default().to_owned()).unwrap_or_default();
        if function.is_empty() {
            return;
        }
        let callers: Vec<u64> = frames.iter().skip(1).filter(|f| f.reliable).map(|f| f.address).take(3).collect();
        let fetch = Fetch { rip: scene.op.rip, cpu: scene.op.cpu, function, callers };
        if self.cpu.solo.fetches.len() >= MAX_FETCHES {
            self.cpu.solo.fetches.clear();
        }
        let mut twice = false;
        for word in words {
            let before = self.cpu.solo.fetches.insert((id, word), fetch.clone());
            twice |= before
                .is_some_and(|b| b.rip < fetch.rip && (b.cpu, &b.function, &b.callers) == (fetch.cpu, &fetch.function, &fetch.callers));
        }
        if twice && let Some(mapping) = self.mappings.get(id) {
            let info = scene.info(access);
            let verdict = rules::cpu::double_fetch(mapping, bytes).access(info);
            self.report(Some(device), Some(id), site, "CPU read", verdict, None);
        }
    }
}
