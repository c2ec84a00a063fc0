//! Runs of the changed test program: which tests reach a change, and which of them notice it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a test does without a change.
#[derive(Clone, Debug)]
pub struct Test {
    pub name: String,
    pub time: Duration,
    /// Numbers of the changes it reaches.
    pub reaches: BTreeSet<u32>,
    /// Cases of its property; none: as many as in the ordinary tests.
    pub cases: Option<u32>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A test failed.
    Caught,
    /// The tests did not end.
    Hung,
    /// Every test passed, or none came by it.
    Missed,
}

/// Tests up to this long run together in one process.
const QUICK: Duration = Duration::from_millis(150);
/// What a hang is given on top of several times the usual.
const PATIENCE: Duration = Duration::from_secs(5);
/// Address space of one run, in KiB: a change may ask for all the memory there is.
const MEMORY: u64 = 4 << 20;

/// Tests that caught something not long ago are tried first, this many in one process.
const SUSPECTS: usize = 8;

/// Names of tests, those that caught something last first.
type Killers = Mutex<Vec<String>>;

/// The test program in a folder it may write to.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub folder: PathBuf,
    /// Cases of a property test when it is run first. One that lets a change pass is run with its own number.
    pub cases: u32,
}

impl Program {
    fn command(&self, mutant: &str, cases: Option<u32>, args: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -v {MEMORY}; ulimit -c 0; exec \"$0\" \"$@\"")])
            .arg(&self.path)
            .args(args)
            .current_dir(&self.folder)
            .env("MUTANT", mutant)
            .env("RUST_BACKTRACE", "0")
            // The same histories in every run; no search for the smallest one that fails; nothing kept for the next run.
            .env("PROPTEST_RNG_SEED", "1")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            // The exhaustive histories with an event less take a tenth of the time.
            .env("DMAVET_MODEL_DEPTH", "-1")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        match cases {
            Some(cases) => command.env("PROPTEST_CASES", cases.to_string()),
            None => command.env_remove("PROPTEST_CASES"),
        };
        command
    }

    /// Runs each test by itself without a change; fails when one of them does. Property tests come twice.
    pub fn trace(&self) -> Result<Vec<Test>, String> {
        let listed = self.command("0", None, &["--list", "--format", "terse"]).output().map_err(|e| self.failed(&e))?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let mut tests = Vec::new();
        for name in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
            let test = self.trace_one(name, Some(self.cases))?;
            // Without cases a property test does nothing.
            if self.trace_one(name, Some(0))?.reaches.len() < test.reaches.len() {
                tests.push(self.trace_one(name, None)?);
            }
            tests.push(test);
        }
        if tests.is_empty() { Err(format!("{} holds no tests", self.path.display())) } else { Ok(tests) }
    }

    fn trace_one(&self, name: &str, cases: Option<u32>) -> Result<Test, String> {
        let trace = self.folder.join("trace");
        let _ = fs::remove_file(&trace);
        let start = Instant::now();
        let mut command = self.command("trace", cases, &["--exact", name, "--test-threads", "1"]);
        let output = command.env("MUTANT_TRACE", &trace).output().map_err(|e| self.failed(&e))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(format!("{name} fails without any change:\n{said}"));
        }
        let reached = fs::read_to_string(&trace).unwrap_or_default();
        let reaches = reached.lines().filter_map(|line| line.parse().ok()).collect();
        Ok(Test { name: name.to_owned(), time: start.elapsed(), reaches, cases })
    }

    /// Turns one change on and runs the tests that reach it until one fails: first what caught others, then the short ones.
    pub fn fate(&self, number: u32, tests: &[Test], killers: &Killers) -> Result<Fate, String> {
        let mut reaching: Vec<&Test> = tests.iter().filter(|test| test.reaches.contains(&number)).collect();
        reaching.sort_by_key(|test| test.time);
        let known = killers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rank = |test: &Test| known.iter().position(|name| *name == test.name);
        let quick = |test: &Test| test.time <= QUICK && test.cases.is_some();
        let mut first: Vec<&Test> = reaching.iter().copied().filter(|test| quick(test) && rank(test).is_some()).collect();
        first.sort_by_key(|test| rank(test));
        first.truncate(SUSPECTS);
        reaching.retain(|test| !first.iter().any(|other| (&other.name, other.cases) == (&test.name, test.cases)));
        let (together, alone): (Vec<&Test>, Vec<&Test>) = reaching.into_iter().partition(|test| quick(test));
        let groups = first.chunks(SUSPECTS).chain(together.chunks(40)).chain(alone.chunks(1));
        for group in groups {
            let (fate, failed) = self.run(number, group)?;
            if let Some(name) = failed {
                let mut killers = killers.lock().unwrap_or_else(PoisonError::into_inner);
                killers.retain(|other| *other != name);
                killers.insert(0, name);
            }
            if fate != Fate::Missed {
                return Ok(fate);
            }
        }
        Ok(Fate::Missed)
    }

    /// Runs tests with a change, and names the one that failed.
    fn run(&self, number: u32, group: &[&Test]) -> Result<(Fate, Option<String>), String> {
        let usual: Duration = group.iter().map(|test| test.time).sum();
        let mut args = vec!["--test-threads", "1", "--exact"];
        args.extend(group.iter().map(|test| test.name.as_str()));
        let cases = group.first().and_then(|test| test.cases);
        let mut command = self.command(&number.to_string(), cases, &args);
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| self.failed(&e))?;
        let end = watch(&mut child, Instant::now() + PATIENCE + usual * 8);
        if !matches!(end, Ended::Itself) {
            stop(&child);
        }
        let status = child.wait().map_err(|e| self.failed(&e))?;
        Ok(match end {
            Ended::Failed(name) => (Fate::Caught, Some(name)),
            Ended::Late => (Fate::Hung, None),
            Ended::Itself if status.success() => (Fate::Missed, None),
            Ended::Itself => (Fate::Caught, None),
        })
    }

    fn failed(&self, error: &std::io::Error) -> String {
        format!("cannot run {}: {error}", self.path.display())
    }
}

/// How a run of the program came to its end.
enum Ended {
    /// By itself: its status has the last word.
    Itself,
    /// This test failed.
    Failed(String),
    /// Not in time.
    Late,
}

fn watch(child: &mut Child, until: Instant) -> Ended {
    let Some(output) = child.stdout.take() else { return Ended::Late };
    let (said, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                break;
            }
        }
    });
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) if line.ends_with("... FAILED") => {
                return Ended::Failed(line.trim_start_matches("test ").trim_end_matches(" ... FAILED").to_owned());
            }
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return Ended::Late,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // Its output is closed, and yet it may go on.
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return Ended::Itself;
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ended::Late
}

/// Ends the program and all it started.
fn stop(child: &Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
}

/// The fates of changes, found by `jobs` at a time, each in a folder of its own below the program's. `said` hears of each as it is
/// known.
pub fn fates(
    program: &Program,
    tests: &[Test],
    numbers: &[u32],
    jobs: usize,
    said: &(impl Fn(u32, Fate) -> Result<(), String> + Sync),
) -> Result<BTreeMap<u32, Fate>, String> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let killers = Killers::default();
    let results: Vec<Result<Vec<(u32, Fate)>, String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|job| {
                let (next, killers) = (&next, &killers);
                scope.spawn(move || {
                    let folder = program.folder.join(format!("job{job}"));
                    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
                    let program = Program { folder, ..program.clone() };
                    let mut mine = Vec::new();
                    while let Some(number) = numbers.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                        let fate = program.fate(*number, tests, killers)?;
                        said(*number, fate)?;
                        mine.push((*number, fate));
                    }
                    Ok(mine)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".to_owned()))).collect()
    });
    let mut all = BTreeMap::new();
    for result in results {
        all.extend(result?);
    }
    Ok(all)
}
