//! What a run found, as people and programs read it.
//!
//! [`Report`] is the one model behind every format. What two runs of the same thing may differ in (counts, times, handles,
//! guest addresses) is kept apart in members named `volatile`; all else is the same in both.

pub mod baseline;
pub mod build;
pub mod cases;
pub mod compare;
pub mod coverage;
pub mod html;
pub mod junit;
pub mod ktap;
pub mod perfetto;
pub mod sarif;
pub mod source;
pub mod symbols;
pub mod text;
pub mod timeline;
pub mod watch;

#[cfg(test)]
pub(crate) mod tests;

use crate::exit::Failure;
use crate::run::Verdict;
use baseline::{Accepted, BaselineReport};
use coverage::ModuleCoverage;
use dmavet_coherence::Severity;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;
use symbols::SourceFrame;
use watch::{RunWatch, WatchReport};

/// What is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// The contents of findings.json
    Json,
    /// JUnit XML: a test case for each finding
    Junit,
    /// SARIF 2.1.0, for code-scanning pages
    Sarif,
    /// KTAP, the kernel's own test protocol
    Ktap,
    /// One HTML page: the findings with source lines, and a picture of every mapping
    Html,
    /// Trace Event Format JSON, for ui.perfetto.dev and chrome://tracing
    Perfetto,
    /// A baseline that accepts these findings (--baseline)
    Baseline,
}

/// Everything a run has to say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Always `dmavet-findings`.
    pub format: String,
    /// Version of the format; a reader refuses what it does not know.
    pub version: u32,
    /// How the run ended and why.
    pub verdict: Verdict,
    /// What was run.
    pub run: RunInfo,
    /// The findings, errors first.
    pub findings: Vec<ReportFinding>,
    /// Bytes devices wrote that the CPU never took.
    pub untaken: Vec<Untaken>,
    /// What became of the baseline, if there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub baseline: Option<BaselineReport>,
    /// The DMA call sites of the modules under test.
    pub coverage: Vec<ModuleCoverage>,
    /// What may differ between two runs of the same thing.
    #[serde(rename = "volatile")]
    pub volatile: RunVolatile,
}

impl Report {
    /// What `format` holds.
    pub const FORMAT: &'static str = "dmavet-findings";
    /// The version this program writes.
    pub const VERSION: u32 = 5;
    /// The oldest version it reads: what came since may be missing.
    const OLDEST: u32 = 4;
    /// File name in the run directory.
    pub const FILE: &'static str = "findings.json";

    /// Reads a `findings.json`.
    ///
    /// # Errors
    /// When there is none at `path`, or it is damaged or of another version.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        /// What is read first: another version may look different otherwise.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let wrong = |what: String| Failure::usage(format!("{}: {what}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => wrong("there is no such file: is it the directory of a run that came to its end?".into()),
            _ => wrong(e.to_string()),
        })?;
        let head: Head = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("not the findings of a run: {e}")))?;
        if head.format != Self::FORMAT {
            return Err(wrong(format!("not the findings of a run: its format is {:?}", head.format)));
        }
        if !(Self::OLDEST..=Self::VERSION).contains(&head.version) {
            let versions = format!("version {} to {}", Self::OLDEST, Self::VERSION);
            return Err(wrong(format!("version {}; this dmavet reads {versions}", head.version)));
        }
        serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))
    }
}

/// What was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunInfo {
    /// Name of the run: the modules it checks.
    pub title: String,
    /// The command line that made it.
    pub command: Vec<String>,
    /// Release of the guest kernel.
    pub kernel: String,
    /// Guest CPUs.
    pub cpus: u8,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Cache line size in bytes.
    pub line_size: u32,
    /// Machine whose cache operations were performed.
    pub profile: String,
    /// What happened to cache lines covered in part.
    pub edges: String,
    /// What the cache did on its own.
    pub cache: String,
    /// Seed of everything drawn at random.
    pub seed: u64,
    /// The CPU watch.
    pub watch: RunWatch,
    /// Devices and the drivers they were bound to.
    pub devices: Vec<RunDevice>,
}

/// A device of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunDevice {
    /// PCI address or platform node.
    pub device: String,
    /// Device model.
    pub model: String,
    /// Drivers that were bound to it.
    pub drivers: Vec<String>,
}

/// One finding.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportFinding {
    /// Rule code.
    pub code: String,
    /// Rule slug.
    pub slug: String,
    /// error, warning or note.
    pub severity: Severity,
    /// The primary code this one is the finer name of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// PCI address or platform node.
    pub device: String,
    /// Driver bound to it.
    pub driver: String,
    /// One sentence: what to change.
    pub advice: String,
    /// The mapping, where the finding is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mapping: Option<ReportMapping>,
    /// The bytes concerned, within the mapping.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub range: Option<ByteRange>,
    /// Where ownership last changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub handover: Option<ReportSite>,
    /// Where the offence happened.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offence: Option<ReportSite>,
    /// The CPU's access that is the offence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<ReportAccess>,
    /// The second instant, where the offence had its consequence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consequence: Option<ReportSite>,
    /// Why it does not count, if so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accepted: Option<Accepted>,
    /// What may differ between two runs.
    #[serde(rename = "volatile")]
    pub volatile: FindingVolatile,
}

/// What may differ between two runs in a finding.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FindingVolatile {
    /// One sentence: what happened, with the numbers of this run.
    pub message: String,
    /// What the two sides saw.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<TwoSides>,
    /// Where and how the CPU made its access.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<AccessDetail>,
    /// How often it happened.
    pub count: u64,
    /// Sequence number of the first time.
    pub first_seq: u64,
    /// Sequence number of the last time.
    pub last_seq: u64,
    /// Handles of the mapping, first and last byte (IOVA).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub handles: Option<(String, String)>,
    /// What led there, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub history: Vec<ReportEvent>,
}

/// An access of a guest CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAccess {
    /// Reading or writing.
    pub operation: Operation,
    /// Whether it was made in user mode.
    pub user: bool,
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// What may differ between two runs in an access of a guest CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessDetail {
    /// Bytes; of a repeated string instruction, those of one run of it.
    pub len: u64,
    /// The CPU.
    pub cpu: u32,
    /// Guest virtual address of the instruction.
    pub rip: String,
    /// The same as the kernel prints it: `function+0x1a/0x80 [module]`.
    pub at: String,
}

/// One entry of the history of a mapping.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportEvent {
    /// Sequence number in the run.
    pub seq: u64,
    /// What happened.
    pub what: String,
    /// Where, as `function (file:line)`.
    pub place: String,
    /// What happened, without the numbers.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub event: String,
    /// The bytes concerned, within the mapping.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub range: Option<ByteRange>,
    /// How many times in a row.
    #[serde(default)]
    pub count: u32,
}

/// A mapping or allocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportMapping {
    /// Family of the call.
    pub family: String,
    /// Size in bytes.
    pub size: u64,
    /// Direction.
    pub direction: String,
    /// Where it was made.
    pub made: ReportSite,
}

/// Bytes within a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByteRange {
    /// Offset from the mapping's first byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The same bytes as the CPU and the device see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwoSides {
    /// Offset of the first byte shown, from the mapping's first byte.
    pub offset: u64,
    /// The CPU's copy, in hex.
    pub cpu: String,
    /// The device's copy, in hex.
    pub device: String,
}

/// A call stack with a word on what happened there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportSite {
    /// What happened there.
    pub what: String,
    /// Frames, innermost first, inlined ones included.
    pub frames: Vec<SourceFrame>,
    /// What else on the stack looks like a return address but was not found by unwinding.
    #[serde(rename = "volatile", skip_serializing_if = "Vec::is_empty", default)]
    pub guesses: Vec<Guess>,
}

/// A word of a stack that looks like a return address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guess {
    /// How many of the site's frames come before it.
    pub after: usize,
    /// What it would be.
    pub frame: SourceFrame,
}

impl ReportSite {
    /// The frame to name: the innermost one in a driver's own source, else with a source line, else at all. Inlined helpers
    /// of the kernel's headers (`writel`, `dma_map_single_attrs`) are not what a reader looks for.
    #[must_use]
    pub fn top(&self) -> Option<&SourceFrame> {
        symbols::top(&self.frames)
    }
}

/// Bytes a device wrote into a mapping that the CPU never took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Untaken {
    /// PCI address or platform node.
    pub device: String,
    /// The mapping.
    pub mapping: ReportMapping,
    /// The bytes of the example, within the mapping.
    pub range: ByteRange,
    /// What the two sides hold there; may differ between two runs.
    #[serde(rename = "volatile")]
    pub bytes: TwoSides,
    /// Where the chance to take them passed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub passed: Option<ReportSite>,
}

/// What may differ between two runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunVolatile {
    /// Phases of the run with the milliseconds since power-on at which they began.
    pub phases: Vec<(String, u64)>,
    /// Counters.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// The CPU watch, if there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub watch: Option<WatchReport>,
}
