//! `cargo xtask mutants [drivers]`: whether dmavet notices a mistake in a driver of the kernel's own.
//!
//! The drivers come from the distribution's source package; nothing of them is kept here. What is done to them follows from rules, not
//! from a list of places.

mod api;
mod bench;
mod build;
mod judge;
mod plain;
mod report;
mod rules;
mod run;
mod scan;
mod table;
mod turns;

use bench::{BATCH, Bench};
use build::{Form, Prepared};
use dmavet_images::cache::Cache;
use report::{Fate, Outcome, Score, Verdict};
use rules::Mutant;
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
    --first N        only the first N of these in turn: one of each class of each driver, then the second of each, and so on
    --build          build the modules and run nothing
    --labs N         labs that share the runs, where they go to the lab (default 1)
    --dmavet FILE    a dmavet that is built already
    --equivalence    make 20 runs with --profile worst --cache random for each miss, to see whether a byte ever differs
    --swiotlb        run what was tried in plain QEMU with swiotlb=force, to see whether the workload notices; nothing else
    --write          then write docs/driver-mutants.md, keeping the notes in it
";

const DOCUMENT: &str = "docs/driver-mutants.md";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    driver: Option<String>,
    list: bool,
    only: Option<RangeInclusive<usize>>,
    missed: bool,
    first: Option<usize>,
    build: bool,
    labs: Option<usize>,
    dmavet: Option<PathBuf>,
    equivalence: bool,
    swiotlb: bool,
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
                "--swiotlb" => options.swiotlb = true,
                "--write" => options.write = true,
                "--driver" => options.driver = Some(value()?.clone()),
                "--dmavet" => options.dmavet = Some(value()?.into()),
                "--first" => options.first = Some(crate::mutants::number(arg, value()?)?),
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
    let mut wanted: Vec<(usize, Trial<'_>)> = (1..)
        .zip(all)
        .filter(|(n, (_, mutant))| options.wants(*n, mutant, &outcome))
        .map(|(n, (prepared, mutant))| (n, Trial { prepared, mutant, module: None }))
        .collect();
    if let Some(first) = options.first {
        wanted = in_turn(&prepared, wanted).into_iter().take(first).collect();
    }
    if options.list {
        list(&prepared, &wanted);
        return Ok(());
    }
    let mut trials: Vec<Trial<'_>> = wanted.into_iter().map(|(_, trial)| trial).collect();
    let kept = build::kept(&work)?;
    let bench = |binary| Bench { work: &work, binary, labs: options.labs.unwrap_or(1), kept: &kept, cache: &cache };
    if options.swiotlb {
        trials.retain(|trial| outcome.lacks_plain(&trial.mutant.key()));
        build_all(&mut trials, &kept)?;
        for some in trials.chunks(BATCH) {
            bench(PathBuf::new()).plain(some, &mut outcome)?;
            outcome.write(&file)?;
        }
    } else if options.build {
        build_all(&mut trials, &kept)?;
    } else {
        let binary = options.dmavet.clone().map_or_else(binary, Ok)?;
        leave_out_absent(&mut trials, &prepared, &binary, options.driver.is_some())?;
        for (key, why) in build_all(&mut trials, &kept)? {
            outcome.fates.insert(key, Fate { verdict: Verdict::Unviable, instead: why, ..Fate::default() });
        }
        outcome.write(&file)?;
        trials.retain(|trial| trial.module.is_some());
        if !options.missed && options.only.is_none() && options.first.is_none() {
            // With only some of them, what earlier runs said of the drivers as they are still holds.
            outcome.controls.clear();
        }
        let bench = bench(binary);
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

/// The drivers in their order, the classes of each in turn.
fn in_turn<'a>(prepared: &[Prepared], wanted: Vec<(usize, Trial<'a>)>) -> Vec<(usize, Trial<'a>)> {
    let driver = |trial: &Trial<'_>| prepared.iter().position(|p| std::ptr::eq(p, trial.prepared));
    let order = turns::in_turn(wanted.iter().map(|(_, trial)| (driver(trial), trial.mutant.class)));
    let mut wanted: Vec<_> = wanted.into_iter().map(Some).collect();
    order.into_iter().filter_map(|place| wanted.get_mut(place).and_then(Option::take)).collect()
}

fn list(prepared: &[Prepared], wanted: &[(usize, Trial<'_>)]) {
    for (n, Trial { prepared, mutant, .. }) in wanted {
        let (driver, class) = (prepared.driver.name, mutant.class.name());
        println!("{n:>4}  {driver:<12} {class:<24} {}:{}: {}", mutant.file, mutant.line, mutant.change);
    }
    println!("{} changes", wanted.len());
    prepared.iter().flat_map(|p| &p.left_out).for_each(|(why, count)| println!("{count} more left out: {why}"));
}

/// Drops the trials of drivers whose device this dmavet lacks; when the driver was asked for by name, that is an error.
fn leave_out_absent(trials: &mut Vec<Trial<'_>>, prepared: &[Prepared], binary: &Path, by_name: bool) -> Result<(), String> {
    let absent = absent(prepared, &run::models(binary)?);
    if let (Some((_, why)), true) = (absent.first(), by_name) {
        return Err(why.clone());
    }
    absent.iter().for_each(|(_, why)| eprintln!("xtask: {why}"));
    trials.retain(|trial| !absent.iter().any(|(name, _)| *name == trial.prepared.driver.name));
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
        let options = parse("--missed --first 30 --dmavet /bin/dmavet").unwrap();
        assert_eq!((options.missed, options.first, options.dmavet), (true, Some(30), Some("/bin/dmavet".into())));
        assert!(parse("--driver nosuch").unwrap_err().contains("there are virtio_ring"));
        assert!(parse("--only 0").is_err());
        assert!(parse("--file x").is_err());
    }
}
