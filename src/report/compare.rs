//! Two runs of a driver side by side: what a conversion changed.

use crate::exit::Exit;
use crate::report::baseline::Key;
use crate::report::{Report, ReportFinding, text};
use dmavet_coherence::Severity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;

/// What two runs have in common, and what not.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Always `dmavet-comparison`.
    pub format: &'static str,
    /// Version of this format.
    pub version: u32,
    /// The earlier run.
    pub old: Side,
    /// The later run.
    pub new: Side,
    /// Findings of the earlier run only.
    pub gone: Vec<Found>,
    /// Findings of the later run only.
    pub appeared: Vec<Found>,
    /// Findings of both.
    pub same: Vec<Found>,
    /// Figures of both, in the order they are told.
    pub figures: Vec<Figure>,
    /// The data the devices moved.
    pub data: Data,
    /// Differences between the runs that make figures and findings hard to compare.
    pub unlike: Vec<String>,
}

/// One of the runs.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// What was named on the command line.
    pub path: String,
    /// Name of the run.
    pub title: String,
    /// Release of the guest kernel.
    pub kernel: String,
    /// Its verdict.
    pub result: Exit,
    /// Why.
    pub reason: String,
}

/// A finding, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Rule code.
    pub code: String,
    /// error, warning or note.
    pub severity: Severity,
    /// What it is and where.
    pub title: String,
    /// Whether a baseline accepts it.
    pub accepted: bool,
}

/// A figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it counts.
    pub name: &'static str,
    /// In the earlier run; nothing when it is not known.
    pub old: Option<f64>,
    /// In the later run.
    pub new: Option<f64>,
}

/// The bytes devices moved through streaming mappings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// It cannot be compared: why.
    Unknown(String),
    /// Accesses with the same bytes in both runs, and those of one run only; by what the devices did.
    Compared {
        /// What they read.
        read: Shared,
        /// What they wrote.
        written: Shared,
    },
}

/// Accesses by whether the other run has one with the same bytes. Order does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Of both runs.
    pub both: u64,
    /// Of the earlier only.
    pub old_only: u64,
    /// Of the later only.
    pub new_only: u64,
}

/// What the devices of a run moved: how often each payload was read and written.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    read: BTreeMap<u64, u64>,
    written: BTreeMap<u64, u64>,
}

impl Payloads {
    /// Takes the bytes of an access in.
    pub fn add(&mut self, wrote: bool, bytes: &[u8]) {
        // Fixed keys: both runs are hashed by one process, and nobody gains from a collision.
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let side = if wrote { &mut self.written } else { &mut self.read };
        *side.entry(hasher.finish()).or_default() += 1;
    }
}

impl Data {
    /// Compares what two runs moved.
    #[must_use]
    pub fn of(old: &Payloads, new: &Payloads) -> Self {
        Self::Compared { read: Shared::of(&old.read, &new.read), written: Shared::of(&old.written, &new.written) }
    }
}

impl Shared {
    fn of(old: &BTreeMap<u64, u64>, new: &BTreeMap<u64, u64>) -> Self {
        let both = old.iter().map(|(payload, times)| (*times).min(new.get(payload).copied().unwrap_or(0))).sum();
        Self { both, old_only: old.values().sum::<u64>() - both, new_only: new.values().sum::<u64>() - both }
    }

    fn text(self) -> String {
        match (self.old_only, self.new_only) {
            (0, 0) => format!("equal ({} accesses)", self.both),
            (old, new) => format!("different: {} accesses with the same bytes in both, {old} in OLD only, {new} in NEW only", self.both),
        }
    }
}

impl Comparison {
    const FORMAT: &'static str = "dmavet-comparison";
    const VERSION: u32 = 1;

    /// Compares two reports.
    #[must_use]
    pub fn new((old_path, old): (&Path, &Report), (new_path, new): (&Path, &Report), data: Data) -> Self {
        let (mut gone, mut appeared, mut same) = (Vec::new(), Vec::new(), Vec::new());
        let mut left: BTreeMap<_, usize> = BTreeMap::new();
        for finding in &old.findings {
            *left.entry(key(finding)).or_default() += 1;
        }
        let mut take = |finding| left.get_mut(&key(finding)).and_then(|left| left.checked_sub(1).map(|less| *left = less)).is_some();
        for finding in &new.findings {
            if take(finding) { &mut same } else { &mut appeared }.push(Found::of(finding));
        }
        for finding in &old.findings {
            if take(finding) {
                gone.push(Found::of(finding));
            }
        }
        Self {
            format: Self::FORMAT,
            version: Self::VERSION,
            old: Side::of(old_path, old),
            new: Side::of(new_path, new),
            gone,
            appeared,
            same,
            figures: figures(old, new),
            data,
            unlike: unlike(old, new),
        }
    }

    /// Whether the later run has an error or a warning the earlier had not, and no baseline accepts it.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.appeared.iter().any(|found| found.severity != Severity::Note && !found.accepted)
    }

    /// The comparison for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, side) in [("OLD", &self.old), ("NEW", &self.new)] {
            let _ = writeln!(out, "{name}  {}: {} on Linux {}: {}", side.path, side.title, side.kernel, side.reason);
        }
        for unlike in &self.unlike {
            let _ = writeln!(out, "note: {unlike}");
        }
        let _ = writeln!(out, "\nFindings: {} gone, {} new, {} same", self.gone.len(), self.appeared.len(), self.same.len());
        for (word, list) in [("gone", &self.gone), ("new", &self.appeared), ("same", &self.same)] {
            for found in list {
                let accepted = if found.accepted { " (accepted)" } else { "" };
                let _ = writeln!(out, "  {word:<5} {}: {}{accepted}", found.severity.name(), found.title);
            }
        }
        let _ = writeln!(out, "\n{:<40} {:>14} {:>14}", "", "OLD", "NEW");
        for figure in &self.figures {
            let _ = writeln!(out, "{:<40} {:>14} {:>14}", figure.name, number(figure.old), number(figure.new));
        }
        match &self.data {
            Data::Unknown(why) => _ = writeln!(out, "\nData the devices moved: not compared: {why}"),
            Data::Compared { read, written } => {
                let _ = writeln!(out, "\nData the devices read from streaming mappings:  {}", read.text());
                let _ = writeln!(out, "Data the devices wrote to streaming mappings:   {}", written.text());
            }
        }
        out
    }
}

impl Side {
    fn of(path: &Path, report: &Report) -> Self {
        Self {
            path: path.display().to_string(),
            title: report.run.title.clone(),
            kernel: report.run.kernel.clone(),
            result: report.verdict.result,
            reason: report.verdict.reason.clone(),
        }
    }
}

impl Found {
    fn of(finding: &ReportFinding) -> Self {
        Self { code: finding.code.clone(), severity: finding.severity, title: text::title(finding), accepted: finding.accepted.is_some() }
    }
}

/// What a finding is recognised by: as in a baseline, the file by its name only, for the two may come from two trees.
fn key(finding: &ReportFinding) -> (&str, &str, &str, &str) {
    let Key { code, driver, function, file } = Key::of(finding);
    (code, driver, function, file.rsplit('/').next().unwrap_or_default())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(old: &Report, new: &Report) -> Vec<Figure> {
    let both = |name, of: &dyn Fn(&Report) -> Option<f64>| Figure { name, old: of(old), new: of(new) };
    let count = |report: &Report, name: &str| report.volatile.counters.get(name).map(|value| *value as f64);
    let counter = |name, counter: &'static str| both(name, &|report: &Report| count(report, counter));
    // A polling device asks a different number of times in every run; what it moved is what it asked for and got.
    let accesses = |report: &Report| Some(count(report, "device_reads")? + count(report, "device_writes")?).filter(|n| *n > 0.0);
    let moved = |report: &Report| Some(count(report, "device_bytes_read")? + count(report, "device_bytes_written")?).filter(|n| *n > 0.0);
    let watch = |report: &Report| report.volatile.watch.as_ref().map(|watch| watch.traps.values().sum::<u64>() as f64);
    let sites = |report: &Report| report.coverage.iter().map(|module| module.reached().0).sum::<usize>() as f64;
    vec![
        counter("mappings and allocations", "mappings"),
        counter("hand-overs", "handovers"),
        both("hand-overs per device access", &|report| Some(count(report, "handovers")? / accesses(report)?)),
        both("hand-overs per KiB the devices moved", &|report| Some(count(report, "handovers")? * 1024.0 / moved(report)?)),
        counter("syncs for the CPU", "syncs_for_cpu"),
        counter("syncs for the device", "syncs_for_device"),
        counter("bytes synced to the device", "bytes_to_device"),
        counter("bytes synced to the CPU", "bytes_to_cpu"),
        counter("device reads", "device_reads"),
        counter("device writes", "device_writes"),
        counter("bytes the devices read", "device_bytes_read"),
        counter("bytes the devices wrote", "device_bytes_written"),
        both("CPU accesses stopped (traps)", &watch),
        both("DMA call sites reached", &|report| Some(sites(report)).filter(|_| !report.coverage.is_empty())),
    ]
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// What was not the same for both runs though it decides what they find.
fn unlike(old: &Report, new: &Report) -> Vec<String> {
    let (a, b) = (&old.run, &new.run);
    let mut unlike: Vec<String> = [
        ("profile", &a.profile, &b.profile),
        ("edges", &a.edges, &b.edges),
        ("cache", &a.cache, &b.cache),
        ("watch", &a.watch.policy, &b.watch.policy),
        ("kernel", &a.kernel, &b.kernel),
    ]
    .into_iter()
    .filter(|(_, a, b)| a != b)
    .map(|(what, a, b)| format!("{what} was {a} and is {b}"))
    .collect();
    let models = |report: &Report| report.run.devices.iter().map(|device| device.model.clone()).collect::<Vec<_>>();
    if models(old) != models(new) {
        unlike.push(format!("the devices were {} and are {}", models(old).join(", "), models(new).join(", ")));
    }
    for (name, report) in [("OLD", old), ("NEW", new)] {
        if !matches!(report.verdict.result, Exit::Clean | Exit::Findings) {
            unlike.push(format!("{name} did not go well: {}", report.verdict.reason));
        }
    }
    unlike
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Operation;
    use crate::report::baseline::{Accepted, AcceptedBy};
    use crate::report::tests::{finding, report};

    fn at(code: &str, function: &str, line: u32) -> ReportFinding {
        let mut finding = ReportFinding { code: code.into(), ..finding(Operation::Write) };
        for frame in finding.offence.iter_mut().flat_map(|site| &mut site.frames) {
            (frame.function, frame.line, frame.file) = (function.into(), line, format!("/home/{line}/drv.c"));
        }
        finding
    }

    fn compare(old: Vec<ReportFinding>, new: Vec<ReportFinding>) -> Comparison {
        let path = Path::new("run");
        Comparison::new((path, &report(old, None)), (path, &report(new, None)), Data::Unknown("x".into()))
    }

    fn codes(found: &[Found]) -> Vec<&str> {
        found.iter().map(|f| f.code.as_str()).collect()
    }

    #[test]
    fn findings_are_recognised_where_lines_and_trees_moved() {
        let old = vec![at("DV201", "tx", 10), at("DV201", "tx", 12), at("DV203", "rx", 40)];
        let seen = compare(old.clone(), vec![at("DV201", "tx", 31), at("DV202", "rx", 44)]);
        assert_eq!((codes(&seen.gone), codes(&seen.appeared), codes(&seen.same)), (vec!["DV201", "DV203"], vec!["DV202"], vec!["DV201"]));
        assert!(seen.is_worse());
        let better = compare(old, vec![at("DV203", "rx", 41)]);
        assert!(!better.is_worse() && better.appeared.is_empty() && better.gone.len() == 2);
        let text = better.text();
        assert!(text.contains("\nFindings: 2 gone, 0 new, 1 same\n  gone  error: DV201 "), "{text}");
        assert!(text.contains("not compared: x\n"), "{text}");
    }

    #[test]
    fn notes_and_what_is_accepted_make_nothing_worse() {
        let note = ReportFinding { severity: Severity::Note, ..at("DV218", "tx", 1) };
        let accepted = ReportFinding { accepted: Some(Accepted { by: AcceptedBy::Known, reason: None }), ..at("DV203", "tx", 1) };
        let seen = compare(Vec::new(), vec![note, accepted]);
        assert_eq!((seen.appeared.len(), seen.is_worse()), (2, false));
    }

    #[test]
    fn figures_are_those_of_the_reports_and_nothing_is_made_up() {
        let (mut old, mut new) = (report(Vec::new(), None), report(Vec::new(), None));
        for (report, reads, handovers) in [(&mut old, 40, 80), (&mut new, 40, 41)] {
            let counters = [("device_reads", reads), ("device_writes", 0), ("handovers", handovers)];
            report.volatile.counters = counters.map(|(name, value)| (name.to_owned(), value)).into();
        }
        new.run.profile = "mips".into();
        let path = Path::new("run");
        let seen = Comparison::new((path, &old), (path, &new), Data::Unknown(String::new()));
        let figure = |name: &str| seen.figures.iter().find(|f| f.name == name).map(|f| (f.old, f.new)).unwrap();
        assert_eq!(figure("hand-overs per device access"), (Some(2.0), Some(1.025)));
        assert_eq!(figure("hand-overs per KiB the devices moved"), (None, None));
        assert_eq!(figure("CPU accesses stopped (traps)"), (None, None));
        assert_eq!(seen.unlike, ["profile was arm64 and is mips"]);
        assert!(seen.text().contains("hand-overs per device access                          2           1.02"), "{}", seen.text());
    }

    #[test]
    fn data_is_compared_whatever_its_order() {
        let payloads = |read: &[&str], written: &[&str]| {
            let mut payloads = Payloads::default();
            read.iter().for_each(|bytes| payloads.add(false, bytes.as_bytes()));
            written.iter().for_each(|bytes| payloads.add(true, bytes.as_bytes()));
            payloads
        };
        let data = Data::of(&payloads(&["a", "b", "a"], &["w"]), &payloads(&["b", "a", "a"], &["w", "v"]));
        let Data::Compared { read, written } = data else { panic!("{data:?}") };
        assert_eq!(read.text(), "equal (3 accesses)");
        assert_eq!(written, Shared { both: 1, old_only: 0, new_only: 1 });
        assert_eq!(
            Shared::of(&payloads(&["a", "a"], &[]).read, &payloads(&["a", "c"], &[]).read),
            Shared { both: 1, old_only: 1, new_only: 1 }
        );
    }
}
