//! Baselines of runs: read before, written after.

use crate::cli::{RunArgs, Target};
use crate::exit::{Exit, Failure};
use crate::progress;
use crate::report::Report;
use crate::report::baseline::{Baseline, Taken};
use crate::run::{RunResult, today};
use std::collections::BTreeMap;
use std::path::Path;

/// The baseline of a run.
pub fn baseline(args: &RunArgs) -> Result<Option<Baseline>, Failure> {
    match (&args.baseline, args.baseline_write) {
        (None, true) => Err(Failure::usage("--baseline-write writes the file --baseline FILE names")),
        (None, false) => Ok(None),
        (Some(file), true) => Baseline::load_or_empty(file, &today()).map(Some),
        (Some(file), false) => Baseline::load(file, &today()).map(Some),
    }
}

/// Writes what the runs found to their baselines; runs that share one add up. False when a run did not come to its end: what it would
/// have found is not known, and nothing is written.
///
/// # Errors
/// When a report cannot be read back or a baseline cannot be written.
pub fn write_baselines(targets: &[Target], results: &[(usize, RunResult)], quiet: bool) -> Result<bool, Failure> {
    if let Some((_, broken)) = results.iter().find(|(_, result)| !matches!(result.exit, Exit::Clean | Exit::Findings | Exit::Workload)) {
        progress::note(&format!("no baseline is written: {}", broken.headline));
        return Ok(false);
    }
    let mut files: BTreeMap<&Path, Vec<Report>> = BTreeMap::new();
    for (number, result) in results {
        if let Some(file) = targets.get(*number).and_then(|target| target.args.baseline.as_deref()) {
            files.entry(file).or_default().push(Report::load(&result.run_dir.join(Report::FILE))?);
        }
    }
    for (file, reports) in files {
        let taken = Taken::from(&reports, std::env::current_dir().ok().as_deref());
        let old = if file.exists() { Some(std::fs::read_to_string(file)) } else { None };
        let failed = |e: std::io::Error| Failure::usage(format!("cannot write the baseline {}: {e}", file.display()));
        let document = taken.document(old.transpose().map_err(failed)?.as_deref());
        let document = document.map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
        std::fs::write(file, document).map_err(failed)?;
        if !quiet {
            progress::note(&format!("{} known findings: {}", file.display(), taken.len()));
        }
    }
    Ok(true)
}
