//! `dmavet replay`.

use crate::exit::{Exit, Failure};
use crate::report::build::{self, Told};
use crate::report::{Format, Report};
use crate::run::{self, NOTE_PLAN, NOTE_TOLD, Plan, Stop, TRACE};
use clap::Args;
use dmavet_coherence::Severity;
use dmavet_trace::{End, Error, Reader, Replay};
use dmavet_vmm::WatchStats;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

/// Arguments of `dmavet replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// A run directory with a trace (dmavet run --record), or a trace
    pub path: PathBuf,

    /// Lowest severity that fails the run (default: as in the run)
    #[arg(long, value_name = "SEVERITY", value_parser = super::run::severity)]
    pub fail_on: Option<Severity>,

    /// Print notes too
    #[arg(long)]
    pub pedantic: bool,

    /// What to print on standard output: the report for people, or one for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Judges a recorded run again, without a guest.
///
/// # Errors
/// When there is no trace or it cannot be used; when the core took another course than in the run.
pub fn replay(args: &ReplayArgs) -> Result<Exit, Failure> {
    let in_run = args.path.is_dir();
    let trace = if in_run { args.path.join(TRACE) } else { args.path.clone() };
    let replay = read(&trace, in_run)?;
    if let End::Cut(offset) = replay.end {
        eprintln!(
            "dmavet: warning: {} has no end: what follows offset {offset} was never written or is lost (was the run killed?); the {} inputs before were replayed",
            trace.display(),
            replay.inputs
        );
    }
    let mut plan = if in_run { Plan::load(&args.path.join(Plan::FILE))? } else { bare_plan(&replay.notes, &trace)? };
    if let Some(severity) = args.fail_on {
        plan.policy.fail_on = severity;
    }
    let report = report(&plan, &replay)?;
    run::print_report(&report, args.pedantic || plan.policy.pedantic, args.format, Some(&trace))?;
    if let Some(other) = &replay.divergence {
        return Err(Failure::internal(format!(
            "from input {} on the replay is not what the run was ({}): another version of dmavet recorded {}",
            other.input,
            other.what,
            trace.display()
        )));
    }
    Ok(report.verdict.result)
}

fn read(trace: &Path, in_run: bool) -> Result<Replay, Failure> {
    let file = File::open(trace).map_err(|e| {
        let hint = match e.kind() {
            ErrorKind::NotFound if in_run => "; the run was not recorded (dmavet run --record)",
            _ => "",
        };
        Failure::usage(format!("cannot open the trace {}: {e}{hint}", trace.display()))
    })?;
    let replay = Reader::new(BufReader::with_capacity(256 << 10, file)).and_then(dmavet_trace::replay);
    replay.map_err(|error| {
        let message = format!("{}: {error}", trace.display());
        match error {
            Error::Memory { .. } | Error::Io(_) => Failure::cannot_run(message),
            _ => Failure::usage(message),
        }
    })
}

/// The plan a trace holds, without what is only on the machine of the run: names come from the guest then.
fn bare_plan(notes: &BTreeMap<String, Vec<u8>>, trace: &Path) -> Result<Plan, Failure> {
    let unusable = |what: String| Failure::usage(format!("{}: {what}", trace.display()));
    let json = notes.get(NOTE_PLAN).ok_or_else(|| unusable("the trace does not say what was run".into()))?;
    let mut plan: Plan = serde_json::from_slice(json).map_err(|e| unusable(format!("the plan in the trace cannot be read: {e}")))?;
    if plan.version != Plan::VERSION {
        return Err(unusable(format!("the plan in the trace has version {}, this dmavet reads version {}", plan.version, Plan::VERSION)));
    }
    plan.modules.retain(|module| module.debug.is_file());
    if plan.modules.iter().all(|module| !module.under_test) {
        plan.policy.require_coverage = None;
    }
    Ok(plan)
}

fn report(plan: &Plan, replay: &Replay) -> Result<Report, Failure> {
    let told = replay.notes.get(NOTE_TOLD).and_then(|json| serde_json::from_slice(json).ok());
    let unknown = || Told {
        stop: Stop::Unknown,
        workload: None,
        setup_failed: None,
        phases: Vec::new(),
        counters: BTreeMap::new(),
        watch: WatchStats::default(),
    };
    build::report(plan, &replay.summary, &told.unwrap_or_else(unknown))
}
