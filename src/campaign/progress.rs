//! How far a campaign is.

use crate::campaign::store::Done;
use crate::report::build::Identity;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Lines come no more often than this.
const EVERY: Duration = Duration::from_secs(5);

/// Counts cases and says so on standard error.
#[derive(Debug)]
pub struct Progress {
    planned: usize,
    before: usize,
    now: usize,
    findings: BTreeSet<Identity>,
    began: Instant,
    told: Option<Instant>,
    quiet: bool,
}

impl Progress {
    /// `done`: the cases of an earlier part, the run without faults included.
    pub fn new(planned: usize, done: &BTreeMap<u64, Done>, quiet: bool) -> Self {
        let findings = done.values().flat_map(|one| one.findings.iter().cloned()).collect();
        let before = done.keys().filter(|index| **index != 0).count();
        Self { planned, before, now: 0, findings, began: Instant::now(), told: None, quiet }
    }

    /// A case is done.
    pub fn done(&mut self, one: &Done) {
        self.now += 1;
        self.findings.extend(one.findings.iter().cloned());
        let last = self.before + self.now == self.planned;
        if self.quiet || (!last && self.told.is_some_and(|told| told.elapsed() < EVERY)) {
            return;
        }
        self.told = Some(Instant::now());
        eprintln!("dmavet: campaign: {}", self.line(self.began.elapsed()));
    }

    fn line(&self, elapsed: Duration) -> String {
        let done = self.before + self.now;
        let rate = self.now as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = self.planned.saturating_sub(done) as f64 / rate.max(1e-9);
        let findings = self.findings.len();
        format!("{done}/{} cases, {findings} findings, {:.0} cases a minute, {:.0} s left", self.planned, rate * 60.0, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_this_part() {
        let mut progress = Progress::new(100, &BTreeMap::new(), true);
        (progress.before, progress.now) = (40, 20);
        assert_eq!(progress.line(Duration::from_secs(60)), "60/100 cases, 0 findings, 20 cases a minute, 120 s left");
    }
}
