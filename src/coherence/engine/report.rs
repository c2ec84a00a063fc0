//! From a verdict to a finding.

use super::Engine;
use crate::catalogue::Code;
use crate::copies::Evidence;
use crate::finding::{Finding, Handover, Offence, Severity};
use crate::findings::Key;
use crate::ids::{PageKind, SiteId};
use crate::rules::Verdict;

impl Engine {
    /// Keeps, counts, or for a page that is not the driver's own only counts, what a rule found.
    pub(crate) fn report(
        &mut self,
        device: Option<u32>,
        mapping: Option<u32>,
        site: SiteId,
        what: &str,
        verdict: Verdict,
        evidence: Option<&Evidence>,
    ) {
        if self.wait.at().is_some() {
            return;
        }
        let record = mapping.and_then(|id| self.mappings.get(id));
        let by_content = |code: Code| code == Code::DV201 || code == Code::DV203;
        // An access of the CPU was asked about before; what only content tells may be anybody's.
        if record.is_some_and(|m| m.kind == PageKind::Foreign)
            && verdict.access.is_none()
            && (by_content(verdict.code) || verdict.kind.is_some_and(by_content))
        {
            self.stats.foreign_offences += 1;
            return;
        }
        let key = Key { code: verdict.code, device, map_site: record.map(|m| m.site).unwrap_or_default(), site };
        if self.findings.repeat(&key, self.seq(), verdict.range) {
            self.stats.repeated_offences += 1;
            return;
        }
        let finding = self.draft(device, mapping, site, what, verdict, evidence);
        self.keep(key, finding);
    }

    /// Keeps a finding that was drafted when it happened.
    pub(crate) fn keep(&mut self, key: Key, finding: Finding) {
        if self.wait.at().is_some() {
            return;
        }
        if self.findings.repeat(&key, finding.last_seq, finding.range) {
            self.stats.repeated_offences += 1;
            return;
        }
        let (code, severity) = (finding.code, finding.severity);
        if self.findings.add(key, finding) {
            self.wait.kept(code, severity);
        } else {
            self.stats.suppressed_findings += 1;
            self.blind_spot("too many different findings: later ones are only counted");
        }
    }

    /// What there is to say about an offence now.
    pub(crate) fn draft(
        &self,
        device: Option<u32>,
        mapping: Option<u32>,
        site: SiteId,
        what: &str,
        verdict: Verdict,
        evidence: Option<&Evidence>,
    ) -> Finding {
        let seq = self.seq();
        let record = mapping.and_then(|id| self.mappings.get(id));
        let owner = device.and_then(|id| self.devices.get(id as usize));
        let rule = verdict.code.rule();
        let handover = record.and_then(|m| {
            let at_fault = verdict.at_fault.and_then(|seq| m.history.newest_first().find(|entry| entry.seq == seq));
            at_fault.or_else(|| m.history.handover(verdict.range.unwrap_or_else(|| m.whole())))
        });
        Finding {
            code: verdict.code,
            slug: rule.slug.to_owned(),
            severity: verdict.severity,
            kind: verdict.kind,
            requester: owner.map(|d| d.requester),
            driver: owner.map(|d| d.driver().to_owned()).unwrap_or_default(),
            mapping: record.map(crate::mapping::Mapping::info),
            range: verdict.range,
            bytes_at: evidence.map_or(0, |e| e.at),
            cpu_bytes: evidence.map(|e| e.cpu.iter().take(e.len).copied().collect()).unwrap_or_default(),
            device_bytes: evidence.map(|e| e.device.iter().take(e.len).copied().collect()).unwrap_or_default(),
            handover: handover.map(|entry| Handover {
                operation: entry.event.text().to_owned(),
                site: entry.site,
                range: entry.range(),
                seq: entry.seq,
            }),
            offence: Offence { what: what.to_owned(), site },
            consequence: verdict.consequence,
            access: verdict.access,
            history: record.map(|m| m.history.public()).unwrap_or_default(),
            message: verdict.message,
            advice: verdict.advice.unwrap_or_else(|| rule.fix.to_owned()),
            count: 1,
            last_range: verdict.range,
            first_seq: seq,
            last_seq: seq,
        }
    }

    /// DV901. The same words make the same finding.
    pub(crate) fn blind_spot(&mut self, what: &str) {
        self.stats.blind_spots += 1;
        if self.wait.at().is_some() {
            return;
        }
        let seq = self.seq();
        if let Some(known) = self.findings.blind_spot(what) {
            known.count += 1;
            known.last_seq = seq;
            return;
        }
        if self.findings.blind_spots() >= 64 {
            return;
        }
        let rule = Code::DV901.rule();
        self.findings.add_blind_spot(Finding {
            code: Code::DV901,
            slug: rule.slug.to_owned(),
            severity: Severity::Warning,
            kind: None,
            requester: None,
            driver: String::new(),
            mapping: None,
            range: None,
            bytes_at: 0,
            cpu_bytes: Vec::new(),
            device_bytes: Vec::new(),
            handover: None,
            offence: Offence { what: what.chars().take(400).collect(), site: SiteId::default() },
            consequence: None,
            access: None,
            history: Vec::new(),
            message: format!("Not everything was checked: {}.", what.chars().take(400).collect::<String>()),
            advice: rule.fix.to_owned(),
            count: 1,
            last_range: None,
            first_seq: seq,
            last_seq: seq,
        });
        self.wait.kept(Code::DV901, Severity::Warning);
    }

    /// All findings, errors first, then by code, device and places. The order does not depend on the numbers of sites.
    pub(crate) fn sorted_findings(&self) -> Vec<Finding> {
        let mut list: Vec<Finding> = self.findings.all().cloned().collect();
        self.drop_shadowed(&mut list);
        let place = |site: SiteId| -> Vec<(&str, u64)> {
            self.sites.frames(site).iter().map(|f| (f.symbol.as_str(), if f.symbol.is_empty() { f.address } else { 0 })).collect()
        };
        list.sort_by_cached_key(|f| {
            let requester = f.requester.map(crate::ids::Requester::to_wire);
            let map_site = f.mapping.as_ref().map(|m| m.map_site).unwrap_or_default();
            let places: Vec<Vec<(String, u64)>> =
                [map_site, f.offence.site].map(|s| place(s).into_iter().map(|(n, a)| (n.to_owned(), a)).collect()).into();
            (f.severity, f.code, requester, places, f.range, f.offence.what.clone(), f.first_seq)
        });
        list
    }
}
