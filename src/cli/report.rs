//! `dmavet report`.

use crate::exit::{Exit, Failure};
use crate::report::{Format, Report};
use crate::run;
use clap::Args;
use std::io::Write as _;
use std::path::PathBuf;

/// Arguments of `dmavet report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// A run directory, or a findings.json
    pub run: PathBuf,

    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Write it to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Print notes too (text), show them at first (html)
    #[arg(long)]
    pub pedantic: bool,
}

/// Prints the report of an earlier run once more. It ends well whatever the run's verdict was.
///
/// # Errors
/// When there is no such report, it cannot be read, or the output cannot be written.
pub fn report(args: &ReportArgs) -> Result<Exit, Failure> {
    let path = if args.run.is_dir() { args.run.join(Report::FILE) } else { args.run.clone() };
    // The trace lies beside the findings, wherever both were taken.
    let trace = path.with_file_name(run::TRACE);
    let document = run::render(&Report::load(&path)?, args.pedantic, args.format, Some(&trace))?;
    match &args.output {
        Some(file) => std::fs::write(file, document).map_err(|e| Failure::usage(format!("cannot write {}: {e}", file.display())))?,
        None => std::io::stdout().write_all(document.as_bytes()).map_err(|e| Failure::usage(format!("standard output: {e}")))?,
    }
    Ok(Exit::Clean)
}
