//! DMA_ATTR_SKIP_CPU_SYNC at unmap: the device's bytes are kept for a while, only to be compared with what the CPU reads.
//!
//! The memory may belong to anybody by then. What the CPU writes is its own from then on; the record ends with the page's next
//! map, when nothing is left, or after 100 ms.

use super::Engine;
use crate::chunk::{Chunk, chunks};
use crate::finding::AccessInfo;
use crate::rules;
use crate::watch::CpuAccess;
use std::collections::VecDeque;

/// How long bytes are kept, in nanoseconds.
const KEPT_FOR: u64 = 100_000_000;
/// Pages kept at once.
const MAX_KEPT: usize = 1024;

/// One page of an ended mapping.
#[derive(Clone, Copy, Debug)]
struct Remain {
    chunk: Chunk,
    device: u32,
    mapping: u32,
    /// Tells the mapping's record from that of a later one.
    seq: u64,
    /// By the core's clock.
    since: u64,
}

/// The pages kept, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Remains(VecDeque<Remain>);

impl Engine {
    /// Takes the pages of a mapping that ends without a sync out, and keeps those that hold bytes of the device.
    pub(super) fn uncover_skipped(&mut self, device: u32, id: u32) {
        let Some(mapping) = self.mappings.get(id) else { return };
        let since = self.ram.feed.now();
        for chunk in chunks(&mapping.segments, mapping.whole()) {
            if mapping.device_writable() && self.copies.leave_remains(&chunk, id) {
                self.cpu.remains.0.push_back(Remain { chunk, device, mapping: id, seq: mapping.seq, since });
            } else {
                self.copies.leave(&chunk, id);
            }
        }
        while self.cpu.remains.0.len() > MAX_KEPT {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(old) = self.cpu.remains.0.pop_front() {
            self.copies.forget_remains(old.chunk.page);
        }
    }

    /// Forgets what is too old.
    #[inline]
    pub(super) fn expire_remains(&mut self) {
        if self.cpu.remains.0.is_empty() {
            return;
        }
        let now = self.ram.feed.now();
        while self.cpu.remains.0.front().is_some_and(|old| now.saturating_sub(old.since) > KEPT_FOR) {
            self.drop_oldest();
        }
    }

    /// An access to a page that is kept. Innocent unless it reads what the device wrote.
    pub(super) fn touch_remains(&mut self, page: u64, access: &CpuAccess, scene: &mut super::cpu::Scene<'_, '_>) -> bool {
        let Some(at) = self.cpu.remains.0.iter().rposition(|r| r.chunk.page == page) else {
            self.copies.forget_remains(page);
            return true;
        };
        let Some(remain) = self.cpu.remains.0.get(at).copied() else { return true };
        let (start, end) = super::cpu::in_page(access);
        let hit = (start.max(remain.chunk.start), end.min(remain.chunk.end));
        let mut innocent = true;
        if access.read && !scene.op.user && hit.0 < hit.1 && start >= remain.chunk.start {
            let read = Chunk { start: hit.0, end: hit.1, offset: remain.chunk.at(hit.0), ..remain.chunk };
            let known = self.mappings.get(remain.mapping).filter(|m| m.seq == remain.seq).map(|m| m.size);
            if let (Some((first, last, evidence)), Some(size)) = (self.copies.differing_remains(&read), known) {
                innocent = false;
                let driver = self.devices.get(remain.device as usize).map(|d| d.driver().to_owned()).unwrap_or_default();
                let by_driver = scene.witness.in_driver(&driver);
                let info = AccessInfo { write: false, ..scene.info(access) };
                let verdict = rules::cpu::read_after_skip(size, read.range(first, last), by_driver).access(info);
                let site = self.site_of(scene);
                self.report(Some(remain.device), Some(remain.mapping), site, "CPU read", verdict, Some(&evidence));
            }
        }
        if access.write && self.copies.overwrite_remains(page, start, end) {
            self.cpu.remains.0.remove(at);
            self.copies.forget_remains(page);
        }
        innocent
    }
}
