//! Where the runs are made: what is tried with every mutant, and what the driver as it is has to do.

use super::Trial;
use super::build::{Form, Prepared};
use super::judge::{self, Result as Run};
use super::plain::{self, Noticed, Plain};
use super::report::{Fate, Outcome, Verdict};
use super::rules::Class;
use super::run::{self, Wanted};
use dmavet_images::cache::Cache;
use std::path::{Path, PathBuf};

/// The longest the workload of a mutant may take, in seconds: one that breaks the transfers may wait for ever without a finding.
const PATIENCE: u32 = 100;

/// Mutants of one `dmavet batch`.
pub const BATCH: usize = 12;

/// Runs of one driver that are no mutant's.
const CONTROLS: usize = 2;

/// Where the runs are made.
pub struct Bench<'a> {
    pub work: &'a Path,
    pub binary: PathBuf,
    pub labs: usize,
    pub kept: &'a Cache,
    pub cache: &'a Cache,
}

/// One try at a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempt {
    /// Whether calls of the DMA API fail.
    faults: bool,
    /// Whether the run ends with the first finding of the class.
    stop: bool,
}

impl Attempt {
    /// What is tried first.
    fn first(class: Class) -> Self {
        Self { faults: class == Class::Unchecked, stop: true }
    }

    /// What is tried when that did not catch it. A finding that ended the run and named another line is no reason to give up.
    fn next(self, stopped: bool) -> Option<Self> {
        match self {
            Self { stop: true, .. } if stopped => Some(Self { stop: false, ..self }),
            Self { faults: false, .. } => Some(Self { faults: true, stop: true }),
            _ => None,
        }
    }
}

impl Bench<'_> {
    /// Every mutant as it is, then with failing calls what that did not catch. With them the driver as it is, which has to
    /// be silent, and one that tells which calls it comes to.
    pub fn try_all(&self, trials: &[Trial<'_>], outcome: &mut Outcome) -> Result<(), String> {
        let mut open: Vec<(&Trial<'_>, Attempt)> = trials.iter().map(|trial| (trial, Attempt::first(trial.mutant.class))).collect();
        let mut fresh = drivers(trials);
        fresh.retain(|p| !outcome.controls.contains_key(p.driver.name));
        while !open.is_empty() {
            let mut wanted = Vec::new();
            for prepared in &fresh {
                // What is announced is the same driver, so it may stand for it where calls fail.
                for (form, faults) in [(Form::AsIs, false), (Form::Announcing, true)] {
                    let module = prepared.build(form, self.kept)?;
                    wanted.push(Wanted { driver: prepared.driver, module, faults, seconds: 400, more: Vec::new() });
                }
            }
            wanted.extend(open.iter().filter_map(|(trial, attempt)| of(trial, *attempt)));
            let results = run::all(&wanted, self.work, &self.binary, self.labs)?;
            let (controls, runs) = results.split_at(fresh.len() * CONTROLS);
            let alarms = controlled(&fresh, controls, outcome);
            let reached: Vec<(String, u32)> = outcome.controls.values().flatten().cloned().collect();
            let mut left = Vec::new();
            for ((trial, attempt), run) in open.into_iter().zip(runs) {
                let fate = fate(trial, run, attempt.faults, &reached);
                let next = if fate.verdict == Verdict::Caught { None } else { attempt.next(run.stopped) };
                left.extend(next.map(|next| (trial, next)));
                // Without failing calls a miss says more.
                let key = trial.mutant.key();
                if fate.verdict == Verdict::Caught || attempt == Attempt::first(trial.mutant.class) || !attempt.faults {
                    outcome.fates.insert(key, fate);
                }
            }
            if !alarms.is_empty() {
                // What the mutants showed is worth little then, but it is kept.
                return Err(alarms.join("\n"));
            }
            fresh.clear();
            open = left;
        }
        Ok(())
    }

    /// Twenty runs for each miss with the machine that loses most and a cache that does what it likes. In every other one calls fail: some
    /// of the driver's code is reached only so.
    pub fn equivalence(&self, trials: &[Trial<'_>], outcome: &mut Outcome) -> Result<(), String> {
        const RUNS: usize = 20;
        // One run that differs is enough, so they are not all made at once.
        const AT_ONCE: usize = 10;
        let missed = |trial: &&Trial<'_>| outcome.fates.get(&trial.mutant.key()).is_some_and(|fate| fate.verdict == Verdict::Missed);
        let missed: Vec<&Trial<'_>> = trials.iter().filter(missed).collect();
        for trial in missed {
            let runs: Vec<Wanted> = (0..RUNS)
                .filter_map(|seed| {
                    let more = ["--profile", "worst", "--cache", "random", "--seed"].map(str::to_owned);
                    let more = more.into_iter().chain([seed.to_string()]).collect();
                    Some(Wanted { more, ..of(trial, Attempt { faults: seed % 2 == 1, stop: false })? })
                })
                .collect();
            let mut differs: Option<Run> = None;
            for some in runs.chunks(AT_ONCE) {
                let results = run::all(some, self.work, &self.binary, self.labs)?;
                differs = some.iter().zip(results).find(|(wanted, run)| differs_in(wanted, run)).map(|(_, run)| run);
                if differs.is_some() {
                    break;
                }
            }
            if let Some(fate) = outcome.fates.get_mut(&trial.mutant.key()) {
                match differs {
                    None => fate.verdict = Verdict::Equivalent,
                    Some(run) => fate.instead = format!("not equivalent: {}", instead(&run)),
                }
            }
        }
        Ok(())
    }

    /// The same modules without dmavet; the driver as it is has to do its work there, too.
    pub fn plain(&self, trials: &[Trial<'_>], outcome: &mut Outcome) -> Result<(), String> {
        let fresh: Vec<&Prepared> = drivers(trials).into_iter().filter(|p| !outcome.plain.contains_key(p.driver.name)).collect();
        let modules = fresh.iter().map(|p| p.build(Form::AsIs, self.kept)).collect::<Result<Vec<_>, _>>()?;
        let mut wanted: Vec<Plain<'_>> = fresh.iter().zip(&modules).map(|(prepared, module)| Plain { prepared, module }).collect();
        let built: Vec<(&Trial<'_>, &Path)> = trials.iter().filter_map(|trial| Some((trial, trial.module.as_deref()?))).collect();
        wanted.extend(built.iter().map(|(trial, module)| Plain { prepared: trial.prepared, module }));
        let results = plain::all(&wanted, self.work, self.cache, self.labs)?;
        let (controls, runs) = results.split_at(fresh.len());
        for (prepared, noticed) in fresh.iter().zip(controls) {
            let name = prepared.driver.name;
            if *noticed != Noticed::No {
                return Err(format!("the driver {name} as it is, in plain QEMU: {}", noticed.name()));
            }
            outcome.plain.insert(name.to_owned(), *noticed);
        }
        outcome.plain.extend(built.iter().zip(runs).map(|((trial, _), noticed)| (trial.mutant.key(), *noticed)));
        Ok(())
    }
}

/// The drivers of some trials, each once.
fn drivers<'a>(trials: &[Trial<'a>]) -> Vec<&'a Prepared> {
    let mut drivers: Vec<&Prepared> = Vec::new();
    for trial in trials {
        if !drivers.iter().any(|known| std::ptr::eq(*known, trial.prepared)) {
            drivers.push(trial.prepared);
        }
    }
    drivers
}

fn of(trial: &Trial<'_>, attempt: Attempt) -> Option<Wanted> {
    let stop = ["--stop-on".to_owned(), trial.mutant.class.codes().join(",")];
    let more = if attempt.stop { stop.to_vec() } else { Vec::new() };
    Some(Wanted { driver: trial.prepared.driver, module: trial.module.clone()?, faults: attempt.faults, seconds: PATIENCE, more })
}

/// Keeps what the drivers as they are come to; what is wrong with the others.
fn controlled(fresh: &[&Prepared], runs: &[Run], outcome: &mut Outcome) -> Vec<String> {
    let mut alarms = Vec::new();
    for (prepared, runs) in fresh.iter().zip(runs.chunks(CONTROLS)) {
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
    alarms
}

/// Whether a byte differed in a run of a mutant: somebody used it, or the workload noticed. Where calls fail, the workload may fail by that.
fn differs_in(wanted: &Wanted, run: &Run) -> bool {
    let well = run.verdict == "clean" || (wanted.faults && run.verdict == "workload");
    !well || run.seen.iter().any(judge::Seen::counts)
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

    fn attempts(class: Class, stopped: &[bool]) -> Vec<(bool, bool)> {
        let mut attempt = Some(Attempt::first(class));
        let mut all = Vec::new();
        for stopped in stopped {
            let Some(this) = attempt else { break };
            all.push((this.faults, this.stop));
            attempt = this.next(*stopped);
        }
        all
    }

    #[test]
    fn a_run_that_another_finding_ended_is_made_again() {
        assert_eq!(attempts(Class::Size, &[false, false, false]), [(false, true), (true, true)]);
        assert_eq!(attempts(Class::Size, &[true, false, true, false, false]), [(false, true), (false, false), (true, true), (true, false)]);
        assert_eq!(attempts(Class::Unchecked, &[true, false, false]), [(true, true), (true, false)]);
    }
}
