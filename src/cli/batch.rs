//! `dmavet batch`.

use crate::cli::run::RunArgs;
use crate::exit::{Exit, Failure};
use crate::progress;
use crate::report::Format;
use crate::run::{self, Host, host};
use clap::{Args, Parser};
use std::path::{Path, PathBuf};

/// Arguments of `dmavet batch`.
#[derive(Clone, Debug, Args)]
pub struct BatchArgs {
    /// File with the arguments of one run per line
    pub file: PathBuf,

    /// Where the guests run
    #[arg(long, value_enum, default_value_t = Host::Auto)]
    pub host: Host,

    /// Labs that share the runs, where they go to the lab: each takes one CPU and the memory of its largest guest and 1.2 GiB more
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub labs: u8,

    /// Directory that gets a run directory for each line, named 001, 002, ... (default: dmavet-runs/DATE-TIME-PID)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Print the summary only
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Parser)]
#[command(name = "dmavet run", no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: RunArgs,
}

/// Makes every run of the file.
///
/// # Errors
/// When the file cannot be read or a line is wrong, before anything runs; or when a run could not be made.
pub fn batch(args: &BatchArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    let text = std::fs::read_to_string(&args.file)
        .map_err(|e| Failure::usage(format!("cannot read the batch file {}: {e}", args.file.display())))?;
    let out = args.out.clone().unwrap_or_else(run::default_run_dir);
    let show = run::Show { quiet: args.quiet, console: false, workload: false };
    let place = host::choose(args.host)?;
    if !show.quiet {
        progress::start();
    }
    let mut plans = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words = words(line).map_err(|e| Failure::usage(format!("{}:{}: {e}", args.file.display(), number + 1)))?;
        let mut parsed = Line::try_parse_from(&words)
            .map_err(|e| Failure::usage(format!("{}:{}: {}", args.file.display(), number + 1, e.to_string().trim())))?
            .args;
        if !parsed.target.is_empty() || parsed.config.is_some() || parsed.dry_run || parsed.baseline_write {
            let what = "--target, --config, --dry-run and --baseline-write are for dmavet run";
            return Err(Failure::usage(format!("{}:{}: {what}", args.file.display(), number + 1)));
        }
        parsed.run_dir.get_or_insert_with(|| out.join(format!("{:03}", plans.len() + 1)));
        let command = ["dmavet".to_owned(), "run".to_owned()].into_iter().chain(words).collect();
        plans.push(run::prepare(&parsed, cache, command, &show)?);
    }
    if plans.is_empty() {
        return Err(Failure::usage(format!("{} holds no run", args.file.display())));
    }
    let results = run::execute_all(&plans, place, usize::from(args.labs), cache, &show)?;
    let mut worst = Exit::Clean;
    for (plan, result) in plans.iter().zip(&results) {
        if !args.quiet {
            run::print_result(result, Format::Text)?;
        }
        if result.exit.code() > worst.code() {
            worst = result.exit;
        }
        println!("{:>3}  {:<44} {}  {}", result.exit.code(), plan.title, result.headline, plan.run_dir.display());
    }
    println!("{} runs, {} clean", results.len(), results.iter().filter(|r| r.exit == Exit::Clean).count());
    Ok(worst)
}

/// Splits a line into words as a shell would, quotes and backslashes included.
fn words(line: &str) -> Result<Vec<String>, String> {
    shlex::split(line).ok_or_else(|| "a quote is not closed".to_owned())
}
