//! `dmavet compare`.

use crate::exit::{Exit, Failure};
use crate::report::Report;
use crate::report::compare::{Comparison, Data, Payloads};
use crate::run::TRACE;
use clap::Args;
use dmavet_trace::Reader;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Arguments of `dmavet compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Run directory (or findings.json) from before the change
    pub old: PathBuf,

    /// Run directory (or findings.json) from after it
    pub new: PathBuf,

    /// What to print
    #[arg(long, value_enum, default_value_t = CompareFormat::Text)]
    pub format: CompareFormat,
}

/// How a comparison is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CompareFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Compares two runs.
///
/// # Errors
/// When one of them is not there, cannot be read, or the new one did not come to its end.
pub fn compare(args: &CompareArgs) -> Result<Exit, Failure> {
    let old = Report::load(&findings(&args.old))?;
    let new = Report::load(&findings(&args.new))?;
    if !matches!(new.verdict.result, Exit::Clean | Exit::Findings | Exit::Workload) {
        let what =
            format!("{}: the run did not come to its end ({}): nothing can be said to be gone", args.new.display(), new.verdict.reason);
        return Err(Failure::usage(what));
    }
    let data = match (payloads(&args.old), payloads(&args.new)) {
        (Ok(old), Ok(new)) => Data::of(&old, &new),
        (Err(why), _) | (_, Err(why)) => Data::Unknown(why),
    };
    let comparison = Comparison::new((&args.old, &old), (&args.new, &new), data);
    match args.format {
        CompareFormat::Text => print!("{}", comparison.text()),
        CompareFormat::Json => println!("{}", serde_json::to_string_pretty(&comparison).map_err(|e| Failure::internal(e.to_string()))?),
    }
    Ok(if comparison.is_worse() { Exit::Findings } else { Exit::Clean })
}

fn findings(run: &Path) -> PathBuf {
    if run.is_dir() { run.join(Report::FILE) } else { run.into() }
}

/// What the devices of a recorded run moved, or why that is not known.
fn payloads(run: &Path) -> Result<Payloads, String> {
    let path = run.join(TRACE);
    if !path.is_file() {
        return Err(format!("{} was not recorded (dmavet run --record)", run.display()));
    }
    let mut payloads = Payloads::default();
    let file = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let reader = Reader::new(BufReader::with_capacity(256 << 10, file));
    let replay = reader.and_then(|reader| dmavet_trace::replay_watched(reader, &mut |moved| payloads.add(moved.wrote, moved.bytes)));
    let replay = replay.map_err(|e| format!("{}: {e}", path.display()))?;
    match replay.divergence {
        Some(_) => Err(format!("{} was recorded by another version of dmavet", path.display())),
        None => Ok(payloads),
    }
}
