//! Offences that wait: what comes next decides.
//!
//! A device that used old bytes (DV201) is DV211 when the for_device of the same bytes follows: the sync is there, but after the
//! doorbell. The CPU's bytes must still be the same then; a buffer that was filled again was synced for its next use.
//!
//! A CPU that read bytes the device wrote after the for_cpu (DV212) may have been peeking, which is legal: a driver that peeks
//! looks again after its next for_cpu. One that does not has used what it read.

use super::Engine;
use crate::catalogue::Code;
use crate::chunk::chunks;
use crate::copies::Evidence;
use crate::finding::{ByteRange, Finding, Offence};
use crate::findings::Key;
use crate::held::{Held, MAX_HELD, Waits};
use crate::ids::SiteId;
use crate::rules::{self, Verdict};

/// Times in a row that new bytes came before the second look before that is no coincidence: a driver that watches a counter misses
/// a value now and then.
const STRIKES: u32 = 3;

impl Engine {
    fn key(&self, code: Code, device: u32, id: u32, site: SiteId) -> Key {
        let map_site = self.mappings.get(id).map(|m| m.site).unwrap_or_default();
        Key { code, device: Some(device), map_site, site }
    }

    fn hold(&mut self, id: u32, held: Held) {
        let Some(mapping) = self.mappings.get_mut(id) else { return };
        if mapping.held.len() < MAX_HELD {
            mapping.held.push(held);
            return;
        }
        // No room: it stands as it is, unless it needs what comes next.
        if held.waits == Waits::ForDevice {
            self.keep(held.key, *held.finding);
        }
    }

    /// The device used old bytes.
    pub(super) fn hold_stale_read(&mut self, device: u32, id: u32, site: SiteId, verdict: Verdict, evidence: &Evidence) {
        let key = self.key(verdict.code, device, id, site);
        let range = verdict.range.unwrap_or_default();
        // A use before that nobody synced after.
        self.settle(id, |held| held.waits == Waits::ForDevice && held.range.overlaps(range));
        let finding = Box::new(self.draft(Some(device), Some(id), site, "device read", verdict, Some(evidence)));
        if self.is_foreign(id) {
            self.stats.foreign_offences += 1;
            return;
        }
        self.hold(id, Held { waits: Waits::ForDevice, range, key, finding });
    }

    /// The CPU read what the device wrote after the for_cpu.
    pub(super) fn hold_peek(&mut self, id: u32, waits: Waits, range: ByteRange, finding: Finding) {
        let same = |held: &Held| held.waits == waits && held.finding.offence.site == finding.offence.site;
        let Some(mapping) = self.mappings.get_mut(id) else { return };
        mapping.peeked = true;
        if mapping.held.len() >= MAX_HELD || mapping.held.iter().any(same) {
            return;
        }
        let key = Key { code: finding.code, device: Some(mapping.device), map_site: mapping.site, site: finding.offence.site };
        if let Waits::SecondLook { page, .. } = waits {
            self.copies.wait(page, true);
        }
        self.hold(id, Held { waits, range, key, finding: Box::new(finding) });
    }

    /// The device writes bytes of a DMA_FROM_DEVICE mapping that may be the CPU's. Waits for what comes next: a for_device shows that
    /// the driver was looking at what it had given, a for_cpu or the unmap that it relies on the first one.
    pub(super) fn hold_rearmed(&mut self, device: u32, access: super::Access) {
        let id = access.mapping;
        let Some(mapping) = self.mappings.get(id) else { return };
        let site = self.devices.get(device as usize).map(|d| d.kick).unwrap_or_default();
        let key = self.key(Code::DV222, device, id, site);
        // A driver that never gives its buffers back does this at every transfer: once is enough.
        if mapping.held.iter().any(|held| held.waits == Waits::GiveBack) || self.findings.knows(&key) {
            return;
        }
        let Some(verdict) = rules::sync::rearmed(mapping, access.range, self.config.profile) else { return };
        let range = verdict.range.unwrap_or_default();
        let finding = Box::new(self.draft(Some(device), Some(id), site, "device write", verdict, None));
        self.hold(id, Held { waits: Waits::GiveBack, range, key, finding });
    }

    /// Nobody looks at the bytes of a mapping any more.
    pub(super) fn forgive_rearmed(&mut self, id: u32) {
        self.take_held(id, |held| held.waits == Waits::GiveBack);
    }

    /// Takes the held offences that `which` names out.
    fn take_held(&mut self, id: u32, which: impl Fn(&Held) -> bool) -> Vec<Held> {
        let Some(mapping) = self.mappings.get_mut(id) else { return Vec::new() };
        if mapping.held.is_empty() {
            return Vec::new();
        }
        let taken: Vec<Held> = mapping.held.extract_if(.., |held| which(held)).collect();
        for held in &taken {
            if let Waits::SecondLook { page, .. } = held.waits {
                self.copies.wait(page, false);
            }
        }
        taken
    }

    /// Keeps the held offences that `which` names as they are.
    fn settle(&mut self, id: u32, which: impl Fn(&Held) -> bool) {
        for held in self.take_held(id, which) {
            self.keep(held.key, *held.finding);
        }
    }

    /// A sync of `range` is about to be carried out.
    pub(super) fn settle_held(&mut self, id: u32, range: ByteRange, for_cpu: bool, what: &str, site: SiteId) {
        for held in self.take_held(id, |held| held.waits == Waits::ForDevice && held.range.overlaps(range)) {
            if for_cpu || !self.still_has(id, &held.finding) {
                self.keep(held.key, *held.finding);
                continue;
            }
            let rule = Code::DV211.rule();
            let mut finding = *held.finding;
            finding.code = Code::DV211;
            rule.slug.clone_into(&mut finding.slug);
            finding.kind = Some(Code::DV201);
            finding.severity = rule.severity;
            rule.fix.clone_into(&mut finding.advice);
            finding.message = format!("{} It came after the device had been started.", finding.message);
            finding.consequence = Some(Offence { what: what.to_owned(), site });
            self.keep(Key { code: Code::DV211, ..held.key }, finding);
        }
        for held in self.take_held(id, |held| held.waits == Waits::GiveBack && held.range.overlaps(range)) {
            if for_cpu {
                self.keep(held.key, *held.finding);
            }
        }
        if for_cpu && let Some(mapping) = self.mappings.get_mut(id) {
            for held in mapping.held.iter_mut().filter(|held| held.range.overlaps(range)) {
                if let Waits::SecondLook { retaken, .. } = &mut held.waits {
                    *retaken = true;
                }
            }
        }
    }

    /// Whether the CPU's bytes are those of the finding's evidence still.
    fn still_has(&self, id: u32, finding: &Finding) -> bool {
        let Some(mapping) = self.mappings.get(id) else { return false };
        let shown = ByteRange { start: finding.bytes_at, end: finding.bytes_at + finding.cpu_bytes.len() as u64 };
        let chunk = chunks(&mapping.segments, shown).next();
        chunk.is_some_and(|chunk| self.copies.cpu_has(chunk.page, chunk.start, &finding.cpu_bytes))
    }

    /// The device writes `range` once more: whoever was to look at the bytes again cannot.
    pub(super) fn overwrite_held(&mut self, id: u32, range: ByteRange) {
        let overwritten = self.take_held(id, |held| matches!(held.waits, Waits::SecondLook { .. }) && held.range.overlaps(range));
        for held in overwritten {
            let strikes = self.cpu.strikes.entry((held.key.map_site, held.key.site)).or_default();
            *strikes += 1;
            if *strikes >= STRIKES {
                self.keep(held.key, *held.finding);
            }
        }
    }

    /// A for_cpu took what the device wrote: when nothing was suspected since the one before, there is no row of strikes.
    pub(super) fn clean_lap(&mut self, id: u32) {
        let Some(mapping) = self.mappings.get_mut(id) else { return };
        let (peeked, map_site) = (std::mem::take(&mut mapping.peeked), mapping.site);
        if !peeked && !self.cpu.strikes.is_empty() {
            self.cpu.strikes.retain(|(site, _), _| *site != map_site);
        }
    }

    /// The CPU looks at bytes of a page it took: what it was suspected of there was a peek.
    pub(super) fn look_again(&mut self, id: u32, at: u64, from: usize, to: usize) {
        let looked = self.take_held(
            id,
            |held| matches!(held.waits, Waits::SecondLook { page, start, end, retaken: true } if page == at && from < end && start < to),
        );
        for held in looked {
            self.stats.peeks += 1;
            self.cpu.strikes.remove(&(held.key.map_site, held.key.site));
        }
    }

    /// The mapping ends.
    pub(super) fn release_held(&mut self, id: u32) {
        for held in self.take_held(id, |_| true) {
            match held.waits {
                Waits::SecondLook { retaken: true, .. } => {}
                _ => self.keep(held.key, *held.finding),
            }
        }
    }
}
