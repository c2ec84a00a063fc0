//! The command line.

mod batch;
mod campaign;
mod compare;
mod demo;
mod doctor;
mod explain;
mod generate;
mod list;
mod machine;
mod replay;
mod report;
mod run;
mod selfcheck;
mod targets;
mod watch;

pub use run::{RunArgs, SgPolicy};
pub use targets::Target;

use crate::exit::{Exit, Failure};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::path::PathBuf;

/// Boots a stock x86-64 Linux kernel on devices whose DMA is not cache-coherent and names the driver, function and source
/// line that broke a rule of the DMA API.
#[derive(Debug, Parser)]
#[command(name = "dmavet", version, max_term_width = 120, after_long_help = Exit::table(), after_help = "dmavet --help shows the exit codes.")]
pub struct Cli {
    /// Where kernels and built modules are kept (default: $DMAVET_CACHE, else ~/.cache/dmavet)
    #[arg(long, global = true, value_name = "DIR")]
    cache_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The guided first run: the correct reference driver, then a buggy one, and what was seen
    Demo(demo::DemoArgs),
    /// One guest run, one verdict; or the runs dmavet.toml names
    Run(Box<RunArgs>),
    /// Several runs, one after the other, each with its own verdict
    ///
    /// FILE holds the arguments of one `dmavet run` per line; empty lines and lines that start with # are skipped. Where the
    /// nested lab is needed it is booted once for all of them.
    Batch(batch::BatchArgs),
    /// Many runs of one thing: each map and alloc call made to fail, interrupts lost, other seeds
    ///
    /// Takes the arguments of `dmavet run`; --fault may also be a kind alone (every call the run without faults had) or have a
    /// range, nth=A..B. Each finding is told once, with the command that shows it again. Findings end it with 1, a guest that panics
    /// with 4 or hangs with 5; a workload that fails because of a fault is what a good driver does.
    Campaign(Box<campaign::CampaignArgs>),
    /// Bring the parts of a campaign (--shard) together
    Merge(campaign::MergeArgs),
    /// Judge a recorded run again, without a guest
    Replay(replay::ReplayArgs),
    /// Print the report of an earlier run, for people or in a format programs read
    Report(report::ReportArgs),
    /// Compare two runs of a driver, before and after a change
    ///
    /// Exits with 0 when the second has no new error or warning, with 1 when it has.
    Compare(compare::CompareArgs),
    /// Print the rule behind a code: its source, an example of the bug, and the fix
    Explain(explain::ExplainArgs),
    /// Check whether this machine can run dmavet, and say what is missing
    Doctor(doctor::DoctorArgs),
    /// List devices, rules, machine profiles or the reference driver's variants
    List(list::ListArgs),
    /// Print completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write the manual pages
    Man(generate::ManArgs),
    /// Prepare a run in its run directory without executing it (used by the benchmarks)
    #[command(hide = true)]
    Prepare(Box<RunArgs>),
    /// Execute prepared runs on this machine's KVM (used inside the lab)
    #[command(hide = true)]
    Execute(run::ExecuteArgs),
}

/// Runs the command line of this process.
///
/// # Errors
/// A [`Failure`] carries the one message for the user and the exit code.
pub fn main() -> Result<Exit, Failure> {
    // What was typed is told from what an option is by itself.
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let typed = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    let cache = cli.cache_dir.as_deref();
    match cli.command {
        Command::Demo(args) => demo::demo(&args, cache),
        Command::Run(args) if args.bisect => match run::run(&args, typed, cache) {
            Ok(exit) => Ok(exit.for_bisect()),
            Err(failure) => Err(Failure { exit: failure.exit.for_bisect(), ..failure }),
        },
        Command::Run(args) => run::run(&args, typed, cache),
        Command::Batch(args) => batch::batch(&args, cache),
        Command::Campaign(args) => campaign::campaign(&args, cache),
        Command::Merge(args) => campaign::merge(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Report(args) => report::report(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Doctor(args) => doctor::doctor(&args, cache),
        Command::List(args) => list::list(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
        Command::Prepare(args) => run::prepare(&args, cache),
        Command::Execute(args) => run::execute(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
