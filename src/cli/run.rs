//! `dmavet run`.

use crate::cli::machine::MachineArgs;
use crate::cli::targets::{self, Target};
use crate::cli::watch::WatchArgs;
use crate::exit::{Exit, Failure};
use crate::progress;
use crate::report::Format;
use crate::run::{self, Host, Plan, RunResult, host};
use clap::{ArgAction, ArgMatches, Args};
use dmavet_coherence::{Severity, StopOn};
use std::path::{Path, PathBuf};

/// Arguments of `dmavet run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Guest kernel: debian:6.1 (also 6.12, 7.2; with /generic behind it the general-purpose kernel, which has drivers for old
    /// hardware), or one of your own: a build tree (`.`), which brings its modules and headers along, a bzImage or a vmlinux
    #[arg(long, value_name = "KERNEL", default_value = "debian:6.1")]
    pub kernel: String,

    /// Where a kernel of your own keeps its modules: lib/modules/RELEASE, or what modules_install was given as INSTALL_MOD_PATH
    #[arg(long, value_name = "DIR")]
    pub modules_dir: Option<PathBuf>,

    /// Build tree or headers of a kernel of your own, to build the agent against
    #[arg(long, value_name = "DIR")]
    pub headers: Option<PathBuf>,

    /// Module to load and check, in this order: a .ko file (also relative to a build tree), the name of one of the kernel's own
    /// modules, ref:ncdma for the reference driver or ref:ncdma/VARIANT for one of its buggy variants
    #[arg(long = "module", value_name = "MODULE")]
    pub modules: Vec<String>,

    /// Device to show the guest, as name,key=value,... (see dmavet list devices); repeatable. A device that the
    /// kernel has a driver of brings that and a workload
    #[arg(long = "device", value_name = "SPEC")]
    pub devices: Vec<String>,

    /// Fault to inject, as KIND,nth=N[,device=BDF] or KIND,probability=PERCENT with KIND map, alloc, irq-lost or irq-twice (see dmavet
    /// list faults); repeatable
    #[arg(long = "fault", value_name = "SPEC")]
    pub faults: Vec<String>,

    /// Shell script to run in the guest once the modules are loaded
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub script: Option<PathBuf>,

    /// Command to run in the guest once the modules are loaded
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,

    /// Where the guest runs: on this machine's KVM, in the nested lab, or whichever works
    #[arg(long, value_enum, default_value_t = Host::Auto)]
    pub host: Host,

    /// Guest CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub cpus: u8,

    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..=65536))]
    pub memory: u32,

    /// Whether dma_map_sg keeps the entries of a list apart or merges neighbours, as an IOMMU does
    #[arg(long, value_enum, default_value_t = SgPolicy::Split)]
    pub sg: SgPolicy,

    #[command(flatten)]
    pub machine: MachineArgs,

    #[command(flatten)]
    pub watch: WatchArgs,

    /// Words to add to the guest's kernel command line
    #[arg(long, value_name = "WORDS")]
    pub append: Vec<String>,

    /// Seconds until the guest must have booted (0: no limit)
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub boot_timeout: u64,

    /// Seconds the modules and the workload may take (0: no limit)
    #[arg(long, value_name = "S", default_value_t = 300)]
    pub timeout: u64,

    /// Seconds without a sign of life from the guest (0: no limit)
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub silence_timeout: u64,

    /// Lowest severity that fails the run
    #[arg(long, value_name = "SEVERITY", default_value = "error", value_parser = severity)]
    pub fail_on: Severity,

    /// End the run at the first finding with this code (DV201) or of this severity or a worse one; several may be given, with commas or
    /// by repeating the option. Later findings and leaks are not looked for then
    #[arg(long, value_name = "CODE|SEVERITY", value_delimiter = ',')]
    pub stop_on: Vec<StopOn>,

    /// Print notes too, and look for those that cost time to see: what is legal but wasteful or fragile
    #[arg(long)]
    pub pedantic: bool,

    /// Fail unless this percentage of the modules' DMA call sites was reached
    #[arg(long, value_name = "PCT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub require_coverage: Option<u8>,

    /// File of findings to accept: only new ones fail the run (docs/guide.md)
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// Write this run's findings to the baseline, which keeps its suppressions; they do not fail the run then
    #[arg(long)]
    pub baseline_write: bool,

    /// Directory for the run's results (default: dmavet-runs/DATE-TIME-PID)
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// What to print on standard output: the report for people, or one for programs (the workload's output is not shown then)
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Exit with 125 in place of 2 to 7, as `git bisect run` wants it of a revision that cannot be judged
    #[arg(long)]
    pub bisect: bool,

    /// Keep a trace in the run directory, to be judged again without a guest (dmavet replay)
    #[arg(long)]
    pub record: bool,

    /// Run this target of dmavet.toml; repeatable. Without a target, module, device, script or command all of them are run
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,

    /// File of targets in place of dmavet.toml in the current directory
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Say what would be run, and on what, without running it
    #[arg(long)]
    pub dry_run: bool,

    /// Print the report only; twice: nothing, the exit code tells
    #[arg(short, long, action = ArgAction::Count)]
    pub quiet: u8,

    /// Show the guest's console as it runs; twice: with all messages of its kernel
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
}

/// How scatterlists are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SgPolicy {
    /// A handle for each entry.
    Split,
    /// Neighbours that meet at a page boundary share a handle range.
    Merge,
}

/// Arguments of the hidden `dmavet execute`.
#[derive(Clone, Debug, Args)]
pub struct ExecuteArgs {
    /// The plan of a prepared run
    pub plan: PathBuf,
    /// Show the guest's console
    #[arg(long)]
    pub console: bool,
    /// No progress lines
    #[arg(long)]
    pub quiet: bool,
    /// Where the trace of a recorded run goes instead of its run directory
    #[arg(long)]
    pub trace: Option<PathBuf>,
}

pub(super) fn severity(text: &str) -> Result<Severity, String> {
    match text {
        "error" => Ok(Severity::Error),
        "warning" => Ok(Severity::Warning),
        "note" => Ok(Severity::Note),
        _ => Err("error, warning or note".into()),
    }
}

/// Prepares and executes the runs a command line asks for: one, or the targets of a file. `matches` are those of the command line.
///
/// # Errors
/// A [`Failure`] when a run could not be made; runs that were made have an [`Exit`], the worst of them.
pub fn run(args: &RunArgs, matches: &ArgMatches, cache: Option<&Path>) -> Result<Exit, Failure> {
    let mut selected = targets::select(args, matches)?;
    if args.dry_run {
        for target in &selected {
            print!("{}", run::describe(target.name.as_deref(), &target.args, &target.command, cache)?);
        }
        return Ok(Exit::Clean);
    }
    let several = selected.len() > 1;
    if several && args.format != Format::Text {
        return Err(Failure::usage(
            "--format is for one run: name it with --target, or use dmavet report on the run directories".to_owned(),
        ));
    }
    // What the workload says belongs to the report of one run; a machine format has standard output to itself.
    let workload = args.quiet == 0 && args.format == Format::Text && !several;
    let show = run::Show { quiet: args.quiet > 0, console: args.verbose > 0, workload };
    if several {
        let whole = args.run_dir.clone().unwrap_or_else(run::default_run_dir);
        // What is typed stands in every target, and what a target says is its own.
        for target in selected.iter_mut().filter(|target| args.run_dir.is_some() || target.args.run_dir.is_none()) {
            target.args.run_dir = target.name.as_ref().map(|name| whole.join(name));
        }
    }
    if !show.quiet && !show.console {
        progress::start();
    }
    let results = execute_all(&selected, cache, &show)?;
    if several {
        print_several(&selected, &results, args.quiet)?;
    } else if let (Some((_, result)), true) = (results.first(), args.quiet < 2) {
        run::print_result(result, args.format)?;
    }
    let written = if args.baseline_write { run::write_baselines(&selected, &results, show.quiet)? } else { false };
    let exits = results.iter().map(|(_, result)| match result.exit {
        Exit::Findings if written => Exit::Clean,
        exit => exit,
    });
    exits.max_by_key(|exit| exit.code()).ok_or_else(|| Failure::internal("the run left no result"))
}

/// Prepares the runs, then makes them where each can be made; those for the lab share one. Results come with the number of their target.
fn execute_all(targets: &[Target], cache: Option<&Path>, show: &run::Show) -> Result<Vec<(usize, RunResult)>, Failure> {
    let places = targets.iter().map(|target| host::choose(target.args.host)).collect::<Result<Vec<_>, _>>()?;
    if targets.len() > 1 {
        // A mistake in the last one is told before anything is fetched, built or made for the first.
        targets.iter().try_for_each(|target| run::describe(None, &target.args, &target.command, cache).map(|_| ()))?;
    }
    let mut plans = Vec::new();
    for target in targets {
        plans.push(run::prepare(&target.args, cache, target.command.clone(), show)?);
    }
    let mut results = Vec::new();
    for place in [host::Place::Here, host::Place::Lab] {
        let here: Vec<Plan> = plans.iter().zip(&places).filter(|(_, chosen)| **chosen == place).map(|(plan, _)| plan.clone()).collect();
        if !here.is_empty() {
            results.extend(run::execute_all(&here, place, 1, cache, show)?);
        }
    }
    let number = |result: &RunResult| plans.iter().position(|plan| plan.run_dir == result.run_dir);
    let mut results: Vec<_> = results.into_iter().filter_map(|result| Some((number(&result)?, result))).collect();
    results.sort_by_key(|(number, _)| *number);
    Ok(results)
}

/// Each target's report, then a line for each.
fn print_several(targets: &[Target], results: &[(usize, RunResult)], quiet: u8) -> Result<(), Failure> {
    if quiet > 1 {
        return Ok(());
    }
    let name = |number: usize| targets.get(number).and_then(|target| target.name.as_deref()).unwrap_or_default();
    for (number, result) in results {
        println!("\n--- {} ---\n", name(*number));
        run::print_result(result, Format::Text)?;
    }
    println!();
    for (number, result) in results {
        println!("{:>3}  {:<24} {}  {}", result.exit.code(), name(*number), result.headline, result.run_dir.display());
    }
    Ok(())
}

/// Prepares one run and leaves it in its run directory.
///
/// # Errors
/// A [`Failure`] when it cannot be prepared.
pub fn prepare(args: &RunArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    let command = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    run::prepare(args, cache, command, &run::Show { quiet: args.quiet > 0, console: false, workload: false })?;
    Ok(Exit::Clean)
}

/// Executes prepared runs on this machine's KVM.
///
/// # Errors
/// A [`Failure`] when the run could not be made.
pub fn execute(args: &ExecuteArgs) -> Result<Exit, Failure> {
    let show = run::Show { quiet: args.quiet, console: args.console, workload: true };
    run::execute_here(&Plan::load(&args.plan)?, &show, args.trace.as_deref())
}
