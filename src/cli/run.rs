//! `dmavet run`.

use crate::cli::machine::MachineArgs;
use crate::cli::watch::WatchArgs;
use crate::exit::{Exit, Failure};
use crate::report::Format;
use crate::run::{self, Host, Plan, host};
use clap::Args;
use dmavet_coherence::{Severity, StopOn};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Arguments of `dmavet run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Guest kernel: debian:6.1 (also 6.12, 7.2; with /generic behind it the general-purpose kernel, which has drivers for old
    /// hardware), or a bzImage or vmlinux of your own
    #[arg(long, value_name = "KERNEL", default_value = "debian:6.1")]
    pub kernel: String,

    /// Where a kernel of your own keeps its modules (lib/modules/RELEASE)
    #[arg(long, value_name = "DIR")]
    pub modules_dir: Option<PathBuf>,

    /// Build tree or headers of a kernel of your own, to build the agent against
    #[arg(long, value_name = "DIR")]
    pub headers: Option<PathBuf>,

    /// Module to load and check, in this order: a .ko file, the name of an in-tree module, ref:ncdma for the reference
    /// driver or ref:ncdma/VARIANT for one of its buggy variants
    #[arg(long = "module", value_name = "MODULE")]
    pub modules: Vec<String>,

    /// Device to show the guest, as name,key=value,... (see dmavet list devices); repeatable. A device that the
    /// kernel has a driver of brings that and a workload
    #[arg(long = "device", value_name = "SPEC")]
    pub devices: Vec<String>,

    /// Make a map or alloc call fail, as KIND,nth=N[,device=BDF] with KIND map or alloc (see dmavet list faults); repeatable
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

    /// Print the report only
    #[arg(short, long)]
    pub quiet: bool,

    /// Show the guest's console as it runs
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
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

/// Prepares and executes one run.
///
/// # Errors
/// A [`Failure`] when the run could not be made; a run that was made has an [`Exit`].
pub fn run(args: &RunArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    let command: Vec<String> = std::env::args_os().map(|a: OsString| a.to_string_lossy().into_owned()).collect();
    let mut show = run::Show { quiet: args.quiet, console: args.verbose, workload: !args.quiet };
    if args.format != Format::Text {
        // Standard output belongs to the machine format.
        show.workload = false;
    }
    let place = host::choose(args.host)?;
    let plan = run::prepare(args, cache, command, &show)?;
    let mut results = run::execute_all(std::slice::from_ref(&plan), place, 1, cache, &show)?;
    let result = results.pop().ok_or_else(|| Failure::internal("the run left no result"))?;
    run::print_result(&result, args.format)?;
    Ok(result.exit)
}

/// Executes prepared runs on this machine's KVM.
///
/// # Errors
/// A [`Failure`] when the run could not be made.
pub fn execute(args: &ExecuteArgs) -> Result<Exit, Failure> {
    let show = run::Show { quiet: args.quiet, console: args.console, workload: true };
    run::execute_here(&Plan::load(&args.plan)?, &show, args.trace.as_deref())
}
