//! `cargo xtask mutants core`: whether the tests of the coherence core notice when its code is changed.
//!
//! The kinds of changes are those of cargo-mutants, which builds the crate once for each. Here all of them are in one copy of
//! the crate below `target/mutants`, each behind a question to a switch the environment sets, so that the compiler runs a few
//! times and not a few thousand times, and a change meets only the tests that reach it. Left out, as a user of cargo-mutants
//! would: tests, benchmarks, `Debug` and `Display`, the catalogue's text. Left out because they cannot ask a switch: constants,
//! functions needed by constants, bodies of functions that return `impl Trait`, operators in a chain with `let`.

mod build;
mod find;
mod report;
mod run;
mod schema;
#[cfg(test)]
mod tests;
mod values;

use build::{Built, Mutant, Project};
use report::Outcome;
pub use report::percent;
use run::{Fate, Program, Test};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub const HELP: &str = "\
cargo xtask mutants core  change the core's code in every way that compiles, one at a time, and see whether its tests notice
    --list           only list the changes
    --file NAME      only files whose path holds NAME
    --shard I/N      only every Nth change, from the Ith (1 to N)
    --missed         only what earlier runs missed or did not come to
    --cases N        cases of each property test (default 16); a change they let pass meets as many as usual
    --jobs N         this many at a time (default: one for each CPU)
    --write          then write docs/mutants.md, keeping the reasons in it
    --check          then compare with docs/mutants.md: fails when it is out of date, lacks a reason, or under 90 % are caught
";

/// The share of changes that have to be caught, in percent.
const ENOUGH: f64 = 90.0;
const DOCUMENT: &str = "docs/mutants.md";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    list: bool,
    file: Option<String>,
    shard: Option<(usize, usize)>,
    missed: bool,
    jobs: Option<usize>,
    cases: Option<u32>,
    write: bool,
    check: bool,
}

/// A number from 1.
pub fn number<N: FromStr + PartialOrd + From<u8>>(name: &str, text: &str) -> Result<N, String> {
    let number = text.parse().ok().filter(|n| *n >= N::from(1));
    number.ok_or_else(|| format!("{name} {text}: a number from 1 is wanted"))
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
                "--write" => options.write = true,
                "--check" => options.check = true,
                "--file" => options.file = Some(value()?.clone()),
                "--jobs" => options.jobs = Some(number(arg, value()?)?),
                "--cases" => options.cases = Some(number(arg, value()?)?),
                "--shard" => {
                    let text = value()?;
                    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
                    let shard = parts.filter(|(i, n): &(usize, usize)| (1..=*n).contains(i));
                    options.shard = Some(shard.ok_or_else(|| format!("--shard {text}: something like 2/3 is wanted"))?);
                }
                other => return Err(format!("mutants has no option {other:?}\n\n{HELP}")),
            }
        }
        let part = options.file.is_some() || options.shard.is_some();
        if part && (options.write || options.check) {
            return Err("--write and --check are about all changes, not about some files or a shard".to_owned());
        }
        Ok(options)
    }

    fn wants(&self, position: usize, mutant: &Mutant, last: &Outcome) -> bool {
        self.file.as_ref().is_none_or(|part| mutant.file.contains(part.as_str()))
            && self.shard.is_none_or(|(i, n)| position % n == i - 1)
            && (!self.missed || last.fates.get(&mutant.key).is_none_or(|fate| *fate == Fate::Missed))
    }
}

/// The task. `root` is the workspace, `target` cargo's target folder.
pub fn task(root: &Path, target: &Path, args: &[String]) -> Result<(), String> {
    let options = Options::parse(args)?;
    let project = Project {
        root: root.to_owned(),
        folder: "src/coherence".to_owned(),
        // Text of the rules; `catalogue/mod.rs` looks them up.
        unchanged: ["attrs", "bus", "life", "lines", "sync"].map(|name| format!("catalogue/{name}.rs")).into(),
        work: target.join("mutants"),
    };
    fs::create_dir_all(&project.work).map_err(|e| format!("{}: {e}", project.work.display()))?;
    let built = project.build()?;
    let file = project.work.join("outcome.json");
    let mut outcome = Outcome::read(&file);
    let keys: Vec<&str> = built.mutants.iter().map(|mutant| mutant.key.as_str()).collect();
    outcome.fates.retain(|key, _| keys.contains(&key.as_str()));
    let wanted: Vec<&Mutant> =
        built.mutants.iter().enumerate().filter(|(i, mutant)| options.wants(*i, mutant, &outcome)).map(|(_, mutant)| mutant).collect();
    if options.list {
        for mutant in &wanted {
            println!("{}:{}: {}", mutant.file, mutant.line, said(mutant));
        }
        println!("{} changes; {} more do not compile", wanted.len(), built.unviable);
        return Ok(());
    }
    // Kept as it grows: whoever stops the run goes on with --missed.
    outcome.unviable = built.unviable;
    let outcome = Mutex::new(outcome);
    let keep = |key: &str, fate: Fate, done: usize| {
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.fates.insert(key.to_owned(), fate);
        if done.is_multiple_of(20) { outcome.write(&file) } else { Ok(()) }
    };
    let fates = attempt(&project, &built, &wanted, &options, &keep)?;
    let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.write(&file)?;
    print_result(&built, &wanted, &fates);
    let document = root.join(DOCUMENT);
    if options.write {
        let old = fs::read_to_string(&document).unwrap_or_default();
        fs::write(&document, report::document(&outcome, &old)).map_err(|e| format!("{DOCUMENT}: {e}"))?;
    }
    if options.check || options.write {
        let text = fs::read_to_string(&document).map_err(|e| format!("{DOCUMENT}: {e}; --write writes it"))?;
        report::check(&outcome, keys.len(), &text, ENOUGH)?;
    }
    Ok(())
}

/// Hears of a change's key, its fate, and how many are known.
type Keep<'a> = dyn Fn(&str, Fate, usize) -> Result<(), String> + Sync + 'a;

fn attempt(
    project: &Project,
    built: &Built,
    wanted: &[&Mutant],
    options: &Options,
    keep: &Keep<'_>,
) -> Result<BTreeMap<String, Fate>, String> {
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let folder = project.work.join("run");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let start = Instant::now();
    let program = Program { path: built.program.clone(), folder, cases: options.cases.unwrap_or(16) };
    let tests: Vec<Test> = program.trace()?;
    eprintln!(
        "xtask: {} tests pass without a change, {:.0} s one by one",
        tests.iter().filter(|test| test.cases.is_some()).count(),
        start.elapsed().as_secs_f64()
    );
    let numbers: Vec<u32> = wanted.iter().map(|mutant| mutant.number).collect();
    let done = AtomicUsize::new(0);
    let tell = |number: u32, fate: Fate| {
        let done = done.fetch_add(1, Relaxed) + 1;
        if done.is_multiple_of(100) {
            eprintln!("xtask: {done} of {} changes tried in {:.0} s", numbers.len(), start.elapsed().as_secs_f64());
        }
        let Some(mutant) = wanted.iter().find(|m| m.number == number) else { return Ok(()) };
        if fate == Fate::Missed {
            eprintln!("missed {}:{}: {}", mutant.file, mutant.line, said(mutant));
        }
        keep(&mutant.key, fate, done)
    };
    let fates = run::fates(&program, &tests, &numbers, jobs, &tell)?;
    Ok(wanted.iter().filter_map(|mutant| Some((mutant.key.clone(), *fates.get(&mutant.number)?))).collect())
}

/// The key without the file.
fn said(mutant: &Mutant) -> &str {
    mutant.key.strip_prefix(&mutant.file).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&mutant.key)
}

fn print_result(built: &Built, wanted: &[&Mutant], fates: &BTreeMap<String, Fate>) {
    let count = |fate: Fate| fates.values().filter(|f| **f == fate).count();
    let (caught, hung, missed) = (count(Fate::Caught), count(Fate::Hung), count(Fate::Missed));
    println!("\nmissed:");
    for mutant in wanted.iter().filter(|m| fates.get(&m.key) == Some(&Fate::Missed)) {
        println!("  {}:{}: {}", mutant.file, mutant.line, said(mutant));
    }
    println!(
        "{} changes: {caught} caught, {hung} hung (caught too), {missed} missed: {:.1} % caught; {} more do not compile",
        fates.len(),
        percent(caught + hung, fates.len()),
        built.unviable
    );
}
