//! Which finding belongs to which mapping.

use super::track::{Mark, Track};
use crate::report::{Report, ReportFinding};
use std::collections::HashMap;

/// The findings of a report by device and handle.
#[derive(Debug, Default)]
pub(super) struct Offences {
    by_handle: HashMap<(String, u64), Vec<Mark>>,
}

/// The first handle of the mapping a finding is about.
pub(super) fn handle(finding: &ReportFinding) -> Option<u64> {
    let (first, _) = finding.volatile.handles.as_ref()?;
    u64::from_str_radix(first.strip_prefix("0x")?, 16).ok()
}

/// The place of a finding: its first time. The others may well have been in other mappings.
pub(super) fn mark(index: usize, finding: &ReportFinding) -> Mark {
    Mark { finding: index, seq: finding.volatile.first_seq }
}

impl Offences {
    pub(super) fn new(report: &Report) -> Self {
        let mut offences = Self::default();
        for (index, finding) in report.findings.iter().enumerate() {
            let key = (finding.device.clone(), handle(finding).unwrap_or(0));
            offences.by_handle.entry(key).or_default().push(mark(index, finding));
        }
        offences
    }

    /// Those of a mapping that had its handle until `until`.
    pub(super) fn of(&self, device: &str, track: &Track, until: Option<u64>) -> Vec<Mark> {
        let Some(marks) = self.by_handle.get(&(device.to_owned(), track.handle)) else { return Vec::new() };
        let its = |mark: &&Mark| !track.is_mapping() || (track.start <= mark.seq && until.is_none_or(|until| mark.seq < until));
        marks.iter().filter(its).copied().collect()
    }
}
