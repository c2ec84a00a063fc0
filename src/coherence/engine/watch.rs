//! Guards: which pages are watched, and when they close and open.
//!
//! A page is closed before a hand-over reads the CPU's copy, and opened after one wrote it: a CPU that runs meanwhile either made
//! its access before the copy, or is stopped.

use super::Engine;
use crate::bits::PAGE;
use crate::chunk::{Chunk, chunks};
use crate::finding::ByteRange;
use crate::ids::{Family, Gpa, PageKind, SiteId};
use crate::mapping::Mapping;
use crate::watch::{Gate, Guard, WatchPolicy};
use std::collections::HashMap;
use std::sync::Arc;

use super::remains::Remains;
use super::solo::Solo;

/// What the engine keeps for the CPU's side.
#[derive(Debug, Default)]
pub(crate) struct CpuWatch {
    gate: Option<Arc<dyn Gate>>,
    /// Pages kept for comparison after an unmap without a sync.
    pub(super) remains: Remains,
    /// Pages with one copy that are watched.
    pub(super) solo: Solo,
    /// How often in a row a read came before a second look could, by place of the map call and of the read.
    pub(super) strikes: HashMap<(SiteId, SiteId), u32>,
}

impl CpuWatch {
    /// Whether anything can be watched at all.
    #[inline]
    pub(crate) fn watches(&self) -> bool {
        self.gate.is_some()
    }
}

/// Whether the page of a chunk holds nothing but memory for DMA: what the allocators of the DMA API gave, a page_pool's page, a
/// page that is mapped whole.
fn is_exclusive(mapping: &Mapping, chunk: &Chunk) -> bool {
    mapping.family == Family::Pages || mapping.kind == PageKind::PagePool || (chunk.start == 0 && chunk.end == PAGE)
}

impl Engine {
    pub(super) fn set_gate(&mut self, gate: Arc<dyn Gate>) {
        if self.config.watch != WatchPolicy::Off {
            self.cpu.gate = Some(gate);
        }
    }

    /// Puts the pages of a new mapping under the policy.
    pub(super) fn watch_mapping(&mut self, id: u32) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let policy = if self.cpu.watches() { self.config.watch } else { WatchPolicy::Off };
        for chunk in chunks(&mapping.segments, mapping.whole()) {
            let exclusive = is_exclusive(mapping, &chunk);
            let covered = match policy {
                WatchPolicy::Off => false,
                WatchPolicy::Auto => exclusive,
                WatchPolicy::All => true,
            };
            self.copies.watch(chunk.page, covered, exclusive);
            let bytes = if self.copies.is_watched(chunk.page) { &mut self.stats.watched_bytes } else { &mut self.stats.content_bytes };
            *bytes += (chunk.end - chunk.start) as u64;
        }
    }

    /// Closes the pages of a range before it goes to the device.
    pub(super) fn close_for_device(&mut self, id: u32, range: ByteRange) {
        if !self.cpu.watches() {
            return;
        }
        let Some(mapping) = self.mappings.get(id) else { return };
        let writable = mapping.device_writable();
        for chunk in chunks(&mapping.segments, range) {
            if self.config.pedantic {
                self.copies.forget_unwritten(chunk.page, chunk.start, chunk.end);
            }
            self.copies.close(chunk.page, writable);
        }
        self.pass_on_guards();
    }

    /// Opens the pages of a range as far as nothing keeps them closed; passed on at the end of the call.
    pub(super) fn relax_mapping(&mut self, id: u32, range: ByteRange) {
        if !self.cpu.watches() {
            return;
        }
        let Some(mapping) = self.mappings.get(id) else { return };
        for chunk in chunks(&mapping.segments, ByteRange { start: range.start, end: range.end.min(mapping.size) }) {
            self.copies.relax(chunk.page);
        }
    }

    /// A device is about to write: the CPU must not read its own copy unseen any more.
    pub(super) fn device_writes(&mut self, access: super::Access) {
        // Before the pages close: nothing waits there any more, which opens them.
        self.overwrite_held(access.mapping, access.range);
        let Some(mapping) = self.mappings.get(access.mapping) else { return };
        for chunk in chunks(&mapping.segments, access.range) {
            self.copies.device_writes(&chunk, access.mapping);
        }
        self.pass_on_guards();
    }

    /// Makes the gate do what was decided. Pages it cannot guard are checked by content from now on.
    pub(super) fn pass_on_guards(&mut self) {
        while self.copies.has_flips() {
            let flips = self.copies.take_flips();
            let Some(gate) = self.cpu.gate.clone() else { return };
            let mut refused = Vec::new();
            gate.apply(&flips, &mut refused);
            for page in refused {
                self.abandon_page(page, "a page could not be guarded: it is checked by content only");
            }
        }
    }

    /// See [`Coherence::abandon_page`](crate::Coherence::abandon_page).
    pub(super) fn abandon_page(&mut self, page: Gpa, why: &str) {
        if self.give_up(page.0) {
            self.blind_spot(why);
        }
        self.pass_on_guards();
    }

    /// Stops watching a page. False when it was not watched.
    pub(super) fn give_up(&mut self, page: u64) -> bool {
        if self.copies.is_remains(page) {
            self.copies.forget_remains(page);
            return false;
        }
        if self.solo_give_up(page) {
            self.stats.abandoned_pages += 1;
            return true;
        }
        let Some(bytes) = self.copies.abandon(page) else { return false };
        self.stats.abandoned_pages += 1;
        self.stats.watched_bytes = self.stats.watched_bytes.saturating_sub(bytes);
        self.stats.content_bytes += bytes;
        true
    }

    /// Puts guards of pages with one copy beside those of the others.
    pub(super) fn guard_solo(&mut self, page: u64, guard: Guard) {
        let Some(gate) = self.cpu.gate.clone() else { return };
        let mut refused = Vec::new();
        gate.apply(&[(Gpa(page), guard)], &mut refused);
        if !refused.is_empty() {
            self.solo_give_up(page);
            self.blind_spot("a page of coherent memory could not be guarded");
        }
    }
}
