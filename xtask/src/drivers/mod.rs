//! `cargo xtask mutants [drivers]`: whether dmavet notices a mistake in a driver of the kernel's own.
//!
//! The drivers come from the distribution's source package; nothing of them is kept here. What is done to them follows from rules, not
//! from a list of places.

mod api;
mod build;
mod judge;
mod report;
mod rules;
mod run;
mod scan;
mod table;

use build::{Form, Prepared};
use dmavet_images::cache::Cache;
use judge::Result as Run;
use report::{Fate, Outcome, Score, Verdict};
use rules::{Class, Mutant};
use run::Wanted;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub const HELP: &str = "\
cargo xtask mutants [drivers]  change the DMA calls of in-tree drivers, one at a time, and see whether dmavet notices
    --driver NAME    only this driver
    --list           only list the changes
    --only N[-M]     only these, by their number in the list
    --missed         only what earlier runs missed or did not come to
    --build          build the modules and run nothing
    --labs N         labs that share the runs, where they go to the lab (default 1)
    --equivalence    make 20 runs with --profile worst --cache random for each miss, to see whether a byte ever differs
    --write          then write docs/driver-mutants.md, keeping the notes in it
";

const DOCUMENT: &str = "docs/driver-mutants.md";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    driver: Option<String>,
    list: bool,
    only: Option<RangeInclusive<usize>>,
    missed: bool,
    build: bool,
    labs: Option<usize>,
    equivalence: bool,
    write: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n\n{HELP}"));
            match arg.as_str() {
                "--list" => options.list = true,
                "--missed" => options.missed = true,
                "--build" => options.build = true,
                "--equivalence" => options.equivalence = true,
                "--write" => options.write = true,
                "--driver" => options.driver = Some(value()?.clone()),
                "--labs" => options.labs = Some(crate::mutants::number(arg, value()?)?),
                "--only" => {
                    let text = value()?;
                    let (first, last) = text.split_once('-').unwrap_or((text, text));
                    options.only = Some(crate::mutants::number(arg, first)?..=crate::mutants::number(arg, last)?);
                }
                other => return Err(format!("mutants drivers has no option {other:?}\n\n{HELP}")),
            }
        }
        if let Some(name) = &options.driver
            && !table::DRIVERS.iter().any(|driver| driver.name == name)
        {
            let known: Vec<&str> = table::DRIVERS.iter().map(|driver| driver.name).collect();
            return Err(format!("--driver {name}: there are {}", known.join(", ")));
        }
        Ok(options)
    }

    fn wants(&self, number: usize, mutant: &Mutant, outcome: &Outcome) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&number))
            && (!self.missed || outcome.fates.get(&mutant.key()).is_none_or(|fate| fate.verdict == Verdict::Missed))
    }
}

/// A mutant that is wanted, with its driver and, once built, its module.
struct Trial<'a> {
    prepared: &'a Prepared,
    mutant: &'a Mutant,
    module: Option<PathBuf>,
}

/// The task. `root` is the workspace, `target` cargo's target folder, `binary` gives dmavet's program.
pub fn task(root: &Path, target: &Path, args: &[String], binary: impl FnOnce() -> Result<PathBuf, String>) -> Result<(), String> {
    let options = Options::parse(args)?;
    let work = target.join("driver-mutants");
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let cache = Cache::open(None).map_err(|e| e.to_string())?;
    let chosen = table::DRIVERS.iter().filter(|driver| options.driver.as_ref().is_none_or(|name| driver.name == name));
    let prepared = chosen.map(|driver| Prepared::new(driver, &cache)).collect::<Result<Vec<_>, _>>()?;
    let file = work.join("outcome.json");
    let mut outcome = Outcome::read(&file);
    let all = prepared.iter().flat_map(|p| p.mutants.iter().map(move |mutant| (p, mutant)));
    let mut trials = Vec::new();
    for (n, (prepared, mutant)) in all.enumerate() {
        if options.wants(n + 1, mutant, &outcome) {
            if options.list {
                println!(
                    "{:>4}  {:<12} {:<24} {}:{}: {}",
                    n + 1,
                    prepared.driver.name,
                    mutant.class.name(),
                    mutant.file,
                    mutant.line,
                    mutant.change
                );
            }
            trials.push(Trial { prepared, mutant, module: None });
        }
    }
    if options.list {
        println!("{} changes", trials.len());
        prepared.iter().flat_map(|p| &p.left_out).for_each(|(why, count)| println!("{count} more left out: {why}"));
        return Ok(());
    }
    let binary = if options.build { None } else { Some(binary()?) };
    if let Some(binary) = &binary {
        let absent = absent(&prepared, &run::models(binary)?);
        if let (Some((_, why)), Some(_)) = (absent.first(), &options.driver) {
            return Err(why.clone());
        }
        absent.iter().for_each(|(_, why)| eprintln!("xtask: {why}"));
        trials.retain(|trial| !absent.iter().any(|(name, _)| *name == trial.prepared.driver.name));
    }
    let kept = build::kept(&work)?;
    let broken = build_all(&mut trials, &kept)?;
    for (key, why) in broken {
        outcome.fates.insert(key, Fate { verdict: Verdict::Unviable, instead: why, ..Fate::default() });
    }
    outcome.write(&file)?;
    if let Some(binary) = binary {
        trials.retain(|trial| trial.module.is_some());
        if !options.missed && options.only.is_none() {
            // With only some of them, what earlier runs said of the drivers as they are still holds.
            outcome.controls.clear();
        }
        let bench = Bench { work: &work, binary: &binary, labs: options.labs.unwrap_or(1), kept: &kept };
        // Kept as it grows: whoever stops the task goes on with --missed.
        for some in trials.chunks(BATCH) {
            let tried = bench.try_all(some, &mut outcome);
            outcome.write(&file)?;
            tried?;
        }
        if options.equivalence {
            bench.equivalence(&trials, &mut outcome)?;
            outcome.write(&file)?;
        }
    }
    let document = root.join(DOCUMENT);
    if options.write {
        let old = fs::read_to_string(&document).unwrap_or_default();
        fs::write(&document, report::document(&prepared, &outcome, &old)).map_err(|e| format!("{DOCUMENT}: {e}"))?;
    }
    let tried = report::tried(&prepared, &outcome);
    for (mutant, fate) in tried.iter().filter(|(_, fate)| fate.verdict != Verdict::Caught) {
        println!("{:<16} {} ({})", fate.verdict.name(), mutant.key(), fate.instead);
    }
    println!("{}", Score::of(tried.iter().map(|(_, fate)| *fate)).said());
    Ok(())
}

/// The drivers whose device this dmavet lacks, with a sentence that says so.
fn absent(prepared: &[Prepared], models: &[String]) -> Vec<(&'static str, String)> {
    let lacking = |prepared: &Prepared| {
        let driver = prepared.driver;
        let mut names = driver.devices.iter().map(|device| device.split(',').next().unwrap_or(device));
        let device = names.find(|name| !models.iter().any(|model| model == name))?;
        Some((driver.name, format!("{} is not tried: this dmavet has no device {device}", driver.name)))
    };
    prepared.iter().filter_map(lacking).collect()
}

/// Builds every trial's module, as many at a time as there are CPUs; gives those that do not compile.
fn build_all(trials: &mut [Trial<'_>], kept: &Cache) -> Result<Vec<(String, String)>, String> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let list: &[Trial<'_>] = trials;
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(trial) = list.get(next.fetch_add(1, Relaxed)) {
                    let built = trial.prepared.build(Form::Mutant(trial.mutant), kept);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((trial.mutant.key(), built));
                }
            });
        }
    });
    let mut broken = Vec::new();
    for (key, built) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        match built {
            Ok(path) => trials.iter_mut().filter(|t| t.mutant.key() == key).for_each(|t| t.module = Some(path.clone())),
            Err(why) => {
                eprintln!("xtask: {key}: {why}");
                broken.push((key, why.lines().nth(1).unwrap_or(&why).trim().to_owned()));
            }
        }
    }
    if !trials.is_empty() && broken.len() == trials.len() {
        return Err("none of the mutants compiles".into());
    }
    Ok(broken)
}

/// Where the runs are made.
struct Bench<'a> {
    work: &'a Path,
    binary: &'a Path,
    labs: usize,
    kept: &'a Cache,
}

/// The longest the workload of a mutant may take, in seconds: one that breaks the transfers waits for ever, with the finding made long ago.
const PATIENCE: u32 = 100;

/// Mutants of one `dmavet batch`.
const BATCH: usize = 24;

/// Runs of one driver that are no mutant's.
const CONTROLS: usize = 2;

impl Bench<'_> {
    /// Two rounds: every mutant as it is, then with failing calls what the first did not catch. With them the driver as it is, which has to
    /// be silent, and one that tells which calls it comes to.
    fn try_all(&self, trials: &[Trial<'_>], outcome: &mut Outcome) -> Result<(), String> {
        let mut drivers: Vec<&Prepared> = Vec::new();
        for trial in trials {
            if !drivers.iter().any(|known| std::ptr::eq(*known, trial.prepared)) {
                drivers.push(trial.prepared);
            }
        }
        let mut wanted = Vec::new();
        let fresh: Vec<&Prepared> = drivers.into_iter().filter(|p| !outcome.controls.contains_key(p.driver.name)).collect();
        for prepared in &fresh {
            // What is announced is the same driver, so it may stand for it where calls fail.
            for (form, faults) in [(Form::AsIs, false), (Form::Announcing, true)] {
                let module = prepared.build(form, self.kept)?;
                wanted.push(Wanted { driver: prepared.driver, module, faults, seconds: 400, more: Vec::new() });
            }
        }
        let first: Vec<&Trial<'_>> = trials.iter().filter(|trial| trial.mutant.class != Class::Unchecked).collect();
        wanted.extend(first.iter().filter_map(|trial| plain(trial, false)));
        let results = run::all(&wanted, self.work, self.binary, self.labs)?;
        let (controls, runs) = results.split_at(fresh.len() * CONTROLS);
        let mut alarms = Vec::new();
        for (prepared, runs) in fresh.iter().zip(controls.chunks(CONTROLS)) {
            match silent(prepared, runs) {
                Ok(()) => {
                    let mut reached: Vec<(String, u32)> = runs.iter().flat_map(|run| run.reached.clone()).collect();
                    reached.sort();
                    reached.dedup();
                    outcome.controls.insert(prepared.driver.name.to_owned(), reached);
                }
                Err(alarm) => alarms.push(alarm),
            }
        }
        let reached: Vec<(String, u32)> = outcome.controls.values().flatten().cloned().collect();
        for (trial, run) in first.iter().zip(runs) {
            outcome.fates.insert(trial.mutant.key(), fate(trial, run, false, &reached));
        }
        if !alarms.is_empty() {
            // What the mutants showed is worth little then, but it is kept.
            return Err(alarms.join("\n"));
        }
        let missed = |trial: &&Trial<'_>| {
            trial.mutant.class == Class::Unchecked
                || outcome.fates.get(&trial.mutant.key()).is_some_and(|fate| fate.verdict == Verdict::Missed)
        };
        let second: Vec<&Trial<'_>> = trials.iter().filter(missed).collect();
        let wanted: Vec<Wanted> = second.iter().filter_map(|trial| plain(trial, true)).collect();
        for (trial, run) in second.iter().zip(run::all(&wanted, self.work, self.binary, self.labs)?) {
            let key = trial.mutant.key();
            let fate = fate(trial, &run, true, &reached);
            if fate.verdict == Verdict::Caught || trial.mutant.class == Class::Unchecked {
                outcome.fates.insert(key, fate);
            }
        }
        Ok(())
    }

    /// Twenty runs for each miss with the machine that loses most and a cache that does what it likes.
    fn equivalence(&self, trials: &[Trial<'_>], outcome: &mut Outcome) -> Result<(), String> {
        const RUNS: usize = 20;
        let missed = |trial: &&Trial<'_>| outcome.fates.get(&trial.mutant.key()).is_some_and(|fate| fate.verdict == Verdict::Missed);
        let missed: Vec<&Trial<'_>> = trials.iter().filter(missed).collect();
        for trial in missed {
            let runs: Vec<Wanted> = (0..RUNS)
                .filter_map(|seed| {
                    let more = ["--profile", "worst", "--cache", "random", "--seed"].map(str::to_owned);
                    let more = more.into_iter().chain([seed.to_string()]).collect();
                    Some(Wanted { more, ..plain(trial, false)? })
                })
                .collect();
            let results = run::all(&runs, self.work, self.binary, self.labs)?;
            let differs = results.iter().find(|run| run.verdict != "clean" || run.seen.iter().any(judge::Seen::counts));
            if let Some(fate) = outcome.fates.get_mut(&trial.mutant.key()) {
                match differs {
                    None => fate.verdict = Verdict::Equivalent,
                    Some(run) => fate.instead = format!("not equivalent: {}", instead(run)),
                }
            }
        }
        Ok(())
    }
}

fn plain(trial: &Trial<'_>, faults: bool) -> Option<Wanted> {
    Some(Wanted { driver: trial.prepared.driver, module: trial.module.clone()?, faults, seconds: PATIENCE, more: Vec::new() })
}

/// The driver as it is has to be silent; without failing calls its workload has to be content, too.
fn silent(prepared: &Prepared, runs: &[Run]) -> Result<(), String> {
    for (n, run) in runs.iter().enumerate() {
        let faults = n % 2 == 1;
        if let Some(seen) = run.seen.iter().find(|seen| seen.counts()) {
            let places: Vec<String> = seen.places.iter().take(3).map(|(file, line)| format!("{file}:{line}")).collect();
            return Err(format!("the driver {} as it is: {} {} at {}", prepared.driver.name, seen.severity, seen.code, places.join(", ")));
        }
        if run.verdict == "none" || (!faults && run.verdict != "clean") {
            return Err(format!("the driver {} as it is: the run ended with {:?}", prepared.driver.name, run.verdict));
        }
    }
    Ok(())
}

fn fate(trial: &Trial<'_>, run: &Run, faults: bool, reached: &[(String, u32)]) -> Fate {
    let mutant = trial.mutant;
    let reached = Some(reached.iter().any(|(file, line)| *file == mutant.file && *line == mutant.line));
    match judge::catching(mutant, &trial.prepared.calls, &run.seen) {
        Some((seen, (file, line))) => {
            let place = format!("`{}:{line}`", file.rsplit('/').next().unwrap_or_default());
            Fate { verdict: Verdict::Caught, code: seen.code.clone(), place, faults, reached, instead: String::new() }
        }
        None => Fate { verdict: Verdict::Missed, faults, reached, instead: instead(run), ..Fate::default() },
    }
}

/// The codes there were, and how the run ended.
fn instead(run: &Run) -> String {
    let mut codes: Vec<&str> = run.seen.iter().filter(|seen| seen.counts()).map(|seen| seen.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    if codes.is_empty() { format!("run: {}", run.verdict) } else { format!("run: {}, {}", run.verdict, codes.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(parse("").unwrap(), Options::default());
        let options = parse("--driver virtio_net --only 3-7 --labs 2").unwrap();
        assert_eq!((options.driver.as_deref(), options.only, options.labs), (Some("virtio_net"), Some(3..=7), Some(2)));
        assert_eq!(parse("--only 4").unwrap().only, Some(4..=4));
        assert!(parse("--driver nosuch").unwrap_err().contains("there are virtio_ring"));
        assert!(parse("--only 0").is_err());
        assert!(parse("--file x").is_err());
    }
}
