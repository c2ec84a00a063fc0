//! `dmavet campaign` and `dmavet merge`.

use crate::campaign::{self, Campaign, Means, Shard, Space, Store};
use crate::cli::run::RunArgs;
use crate::exit::{Exit, Failure};
use crate::report::Format;
use crate::run::{self, host};
use clap::Args;
use std::path::{Path, PathBuf};

/// Memory one lab needs beside its guest's, in MiB.
const LAB_MIB: u64 = 1300;

/// Arguments of `dmavet campaign`.
#[derive(Clone, Debug, Args)]
pub struct CampaignArgs {
    /// First and last seed, as A..B; each fault is tried with each (default: the one of --seed)
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    pub seeds: Option<(u64, u64)>,

    /// Cases at most. Where there are more fault points, the first of each device and then some from everywhere are taken
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub cases: u64,

    /// Faults that strike in one run at most: cases that are left once every fault was tried alone draw from 2 to N faults
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub together: u8,

    /// Run the Ith of N parts only; dmavet merge brings the parts together
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub shard: Shard,

    /// Runs at a time (default: one per CPU, as far as memory allows)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub jobs: Option<u8>,

    /// Go on with the campaign in this directory, which was interrupted or killed; other arguments are as they were
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,

    /// Keep the run directories of cases with nothing to tell, too
    #[arg(long)]
    pub keep: bool,

    #[command(flatten)]
    pub run: RunArgs,
}

/// Arguments of `dmavet merge`.
#[derive(Clone, Debug, Args)]
pub struct MergeArgs {
    /// Directories of the parts
    #[arg(required = true)]
    pub parts: Vec<PathBuf>,

    /// Directory for the whole
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// What to print on standard output: the report for people, or one for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Makes a campaign, or goes on with one.
///
/// # Errors
/// When a run could not be made at all, the run without faults fails, or the user interrupts.
pub fn campaign(args: &CampaignArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    let place = host::choose(args.run.host)?;
    let memory = u64::from(args.run.memory) + if place == host::Place::Lab { LAB_MIB } else { 64 };
    let jobs = args.jobs.map_or_else(|| jobs_for(memory), usize::from);
    let means = Means { place, jobs, cache, quiet: args.run.quiet > 0, keep: args.keep };
    let (store, begun) = match &args.resume {
        Some(dir) => {
            let store = Store::new(absolute(dir)?);
            let begun = store.load()?;
            (store, begun)
        }
        None => begin(args, cache, &means)?,
    };
    let result = campaign::go_on(&store, &begun, &means, args.run.format);
    result.map_err(|failure| {
        let resume = format!("{}; what is done is kept: dmavet campaign --resume {}", failure.message, store.dir().display());
        Failure { message: resume, ..failure }
    })
}

fn begin(args: &CampaignArgs, cache: Option<&Path>, means: &Means<'_>) -> Result<(Store, Campaign), Failure> {
    let command: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let dir = absolute(&args.run.run_dir.clone().unwrap_or_else(run::default_run_dir))?;
    let store = Store::new(dir);
    if store.dir().join(Campaign::FILE).exists() {
        return Err(Failure::usage(format!(
            "{0} holds a campaign already; go on with it: dmavet campaign --resume {0}, or name another directory",
            store.dir().display()
        )));
    }
    let seed = args.run.machine.seed;
    let space =
        Space { faults: args.run.faults.clone(), seeds: args.seeds.unwrap_or((seed, seed)), limit: args.cases, together: args.together };
    space.templates()?;
    refuse(&args.run)?;
    let mut control = args.run.clone();
    control.faults.clear();
    control.machine.seed = space.seeds.0;
    control.run_dir = Some(store.control());
    let repeat = repeat(&command);
    let show = run::Show { quiet: args.run.quiet > 0, console: false, workload: false };
    if store.control().exists() {
        // Left by a campaign that was killed before its first run came to its end.
        std::fs::remove_dir_all(store.control()).map_err(|e| run::explain_write(&store.control(), &e))?;
    }
    let plan = run::prepare(&control, cache, repeat.clone(), &show)?;
    let campaign = Campaign {
        format: Campaign::FORMAT.into(),
        version: Campaign::VERSION,
        command,
        repeat,
        space,
        shard: args.shard,
        points: 0,
        cases: Vec::new(),
    };
    let campaign = campaign::begin(&store, &plan, campaign, means)?;
    Ok((store, campaign))
}

/// Refuses what means something for a run only.
fn refuse(run: &RunArgs) -> Result<(), Failure> {
    let meaningless = [
        ("--target", !run.target.is_empty()),
        ("--config", run.config.is_some()),
        ("--dry-run", run.dry_run),
        ("--baseline-write", run.baseline_write),
    ];
    match meaningless.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Failure::usage(format!("{name} goes with dmavet run, not with a campaign"))),
        None => Ok(()),
    }
}

/// Brings the parts of a campaign together.
///
/// # Errors
/// When they do not belong together.
pub fn merge(args: &MergeArgs) -> Result<Exit, Failure> {
    let parts = args.parts.iter().map(|dir| absolute(dir)).collect::<Result<Vec<_>, _>>()?;
    campaign::merge::merge(&parts, &absolute(&args.out)?, args.format)
}

fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(dir).map_err(|e| Failure::usage(format!("{}: {e}", dir.display())))
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let numbers = text.split_once("..").and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    numbers.filter(|(first, last)| first <= last).ok_or_else(|| "FIRST..LAST, both included".into())
}

/// The options of a campaign that `dmavet run` does not have or that a case has its own of, and whether a value follows.
const NOT_REPEATED: [(&str, bool); 12] = [
    ("--seeds", true),
    ("--cases", true),
    ("--together", true),
    ("--shard", true),
    ("--jobs", true),
    ("--resume", true),
    ("--fault", true),
    ("--seed", true),
    ("--run-dir", true),
    ("--format", true),
    ("--keep", false),
    ("--bisect", false),
];

/// The `dmavet run` that makes the campaign's run without faults, from the campaign's own command line.
fn repeat(command: &[String]) -> Vec<String> {
    let mut words = vec!["dmavet".to_owned(), "run".to_owned()];
    let mut rest = command.iter().skip(1).skip_while(|word| *word != "campaign").skip(1);
    while let Some(word) = rest.next() {
        if word == "--" {
            words.push(word.clone());
            words.extend(rest.cloned());
            break;
        }
        let name = word.split('=').next().unwrap_or(word);
        match NOT_REPEATED.iter().find(|(known, _)| *known == name) {
            Some((_, true)) if !word.contains('=') => _ = rest.next(),
            Some(_) => {}
            None => words.push(word.clone()),
        }
    }
    words
}

/// Runs of `memory` MiB each that this machine can make at a time.
fn jobs_for(memory: u64) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let room = available.map_or(1, |kib| usize::try_from(kib / 1024 / memory.max(1)).unwrap_or(1));
    cpus.min(room).clamp(1, 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_repeated_without_what_makes_the_campaign() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let command = words(
            "/usr/bin/dmavet --cache-dir /c campaign --fault map --module a.ko --seeds 1..4 --cases=9 --keep --watch all --seed=5 -q -- sh -c --fault",
        );
        assert_eq!(repeat(&command), words("dmavet run --module a.ko --watch all -q -- sh -c --fault"));
    }

    #[test]
    fn seeds_are_a_range_with_both_ends() {
        assert_eq!(seeds("3..3"), Ok((3, 3)));
        for text in ["3", "4..3", "a..b", ""] {
            assert!(seeds(text).is_err(), "{text}");
        }
    }
}
