//! The CPU watch in the report: what it covered, what it saw, what it cost.

use crate::run::PlanWatch;
use dmavet_coherence::{Stats, WatchPolicy};
use dmavet_vmm::WatchStats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How the CPUs were watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunWatch {
    /// off, auto or all.
    pub policy: String,
    /// mprotect or userfaultfd.
    pub backend: String,
}

impl RunWatch {
    /// The plan's choice.
    #[must_use]
    pub fn of(plan: &PlanWatch) -> Self {
        Self { policy: plan.policy_name().into(), backend: plan.backend.name().into() }
    }
}

/// Figures of the CPU watch. All may differ between two runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReport {
    /// The figures in one line.
    pub summary: String,
    /// Bytes mapped with two copies whose accesses were stopped and looked at.
    pub watched_bytes: u64,
    /// Bytes mapped with two copies whose content was compared at hand-overs.
    pub content_bytes: u64,
    /// Most pages watched at one time.
    pub pages_peak: u64,
    /// Pages that were busy with other things and are compared by content since.
    pub abandoned_pages: u64,
    /// Pages the system would not protect.
    pub refused_pages: u64,
    /// Traps by class.
    pub traps: BTreeMap<String, u64>,
    /// Accesses the core looked at.
    pub accesses: u64,
    /// Those of them that touched nothing a device owns.
    pub innocent: u64,
    /// Time spent in traps, all CPUs, in microseconds.
    pub time_us: u64,
    /// The same in percent of the run.
    pub time_percent: u64,
    /// Instructions emulated, by form.
    pub emulated: BTreeMap<String, u64>,
    /// Instructions single-stepped, by form.
    pub stepped: BTreeMap<String, u64>,
    /// Instructions (and deliveries of events) that ran with their page open, by form: what they did there was not seen.
    pub opened_for: BTreeMap<String, u64>,
    /// Other events of the machinery, by name.
    pub events: BTreeMap<String, u64>,
}

impl WatchReport {
    /// The figures of a run that took `run`; nothing for one without a watch.
    #[must_use]
    pub fn new(plan: &PlanWatch, machine: &WatchStats, core: &Stats, run: Duration) -> Option<Self> {
        if !plan.config().is_on() {
            return None;
        }
        let time = Duration::from_nanos(machine.trap_ns);
        let traps = &machine.traps;
        let mut report = Self {
            summary: String::new(),
            watched_bytes: core.watched_bytes,
            content_bytes: core.content_bytes,
            pages_peak: core.watched_pages_peak,
            abandoned_pages: core.abandoned_pages,
            refused_pages: machine.refused,
            traps: named([
                ("data", traps.data),
                ("fetch", traps.fetch),
                ("event_delivery", traps.event_delivery),
                ("page_walk", traps.page_walk),
                ("raced", traps.raced),
                ("emulator", traps.emulator),
            ]),
            accesses: core.cpu_accesses,
            innocent: core.innocent_accesses,
            time_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            time_percent: percent(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), u64::try_from(run.as_micros()).unwrap_or(u64::MAX)),
            emulated: machine.tier1.clone(),
            stepped: machine.tier2.clone(),
            opened_for: machine.opened_for.clone(),
            events: named([
                ("flips", machine.flips),
                ("flip_calls", machine.flip_calls),
                ("stops", machine.stops),
                ("opened", machine.opened),
                ("watchdog", machine.watchdog),
                ("guarded_peak", machine.guarded_peak),
                ("stress_pages", machine.stress_pages),
            ]),
        };
        report.summary = report.line(plan.policy);
        Some(report)
    }

    /// "CPU watch (auto): 93 % of 1.2 MiB mapped watched exactly, 7 % by content; 1234 traps, 88 % innocent, 0.2 s (3 %)".
    fn line(&self, policy: WatchPolicy) -> String {
        let name = match policy {
            WatchPolicy::Off => "off",
            WatchPolicy::Auto => "auto",
            WatchPolicy::All => "all",
        };
        let mapped = self.watched_bytes.saturating_add(self.content_bytes);
        let exact = percent(self.watched_bytes, mapped);
        let covered = if mapped == 0 {
            "nothing mapped that could be watched".to_owned()
        } else {
            format!("{exact} % of {} mapped watched exactly, {} % by content", size(mapped), 100 - exact)
        };
        let traps: u64 = self.traps.values().sum();
        let innocent = percent(self.innocent, self.accesses);
        #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
        let seconds = self.time_us as f64 / 1e6;
        format!("CPU watch ({name}): {covered}; {traps} traps, {innocent} % innocent, {seconds:.1} s ({} % of the run)", self.time_percent)
    }
}

fn named<const N: usize>(values: [(&str, u64); N]) -> BTreeMap<String, u64> {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `part` of `whole` in percent: 100 and 0 only for all and nothing.
fn percent(part: u64, whole: u64) -> u64 {
    match (part, whole) {
        (0, _) | (_, 0) => 0,
        (part, whole) if part >= whole => 100,
        (part, whole) => {
            let share = u128::from(part) * 100 / u128::from(whole);
            u64::try_from(share).unwrap_or(100).clamp(1, 99)
        }
    }
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let value = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..0x10_0000 => format!("{:.1} KiB", value / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", value / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", value / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::WatchBackend;
    use dmavet_vmm::Traps;

    const AUTO: PlanWatch = PlanWatch { policy: WatchPolicy::Auto, backend: WatchBackend::Mprotect, stress: None, step: false };

    #[test]
    fn the_line_says_what_was_covered_and_what_it_cost() {
        let machine =
            WatchStats { traps: Traps { data: 1200, fetch: 34, ..Traps::default() }, trap_ns: 200_000_000, ..WatchStats::default() };
        let core = Stats {
            watched_bytes: 1_170_000,
            content_bytes: 88_000,
            cpu_accesses: 1200,
            innocent_accesses: 1057,
            watched_pages_peak: 290,
            ..Stats::default()
        };
        let report = WatchReport::new(&AUTO, &machine, &core, Duration::from_secs(5)).unwrap();
        assert_eq!(
            report.summary,
            "CPU watch (auto): 93 % of 1.2 MiB mapped watched exactly, 7 % by content; 1234 traps, 88 % innocent, 0.2 s (4 % of the run)"
        );
        assert_eq!((report.pages_peak, report.traps["fetch"], report.time_us), (290, 34, 200_000));
    }

    #[test]
    fn all_and_nothing_are_not_claimed_lightly() {
        assert_eq!([percent(0, 5), percent(1, 1000), percent(999, 1000), percent(1000, 1000), percent(3, 0)], [0, 1, 99, 100, 0]);
        assert_eq!([size(5), size(2048), size(3 << 20), size(5 << 30)], ["5 bytes", "2.0 KiB", "3.0 MiB", "5.0 GiB"]);
    }

    #[test]
    fn a_run_without_a_watch_has_no_figures() {
        let off = PlanWatch { policy: WatchPolicy::Off, ..AUTO };
        assert_eq!(WatchReport::new(&off, &WatchStats::default(), &Stats::default(), Duration::ZERO), None);
        let idle = WatchReport::new(&AUTO, &WatchStats::default(), &Stats::default(), Duration::ZERO).unwrap();
        assert!(idle.summary.starts_with("CPU watch (auto): nothing mapped"), "{}", idle.summary);
    }
}
