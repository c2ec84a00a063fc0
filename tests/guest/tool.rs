//! Runs whole command lines of dmavet, as a user would.

use dmavet_images::cache::Cache;
use dmavet_images::kernel::{KernelSpec, kernel};
use dmavet_images::module::{self, BuiltModule, ModuleSource};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The result of a command line.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Everything printed, for the message of a failed assertion.
    pub fn all(&self) -> String {
        format!("exit {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// One user of labs at a time: each lab takes a core of its own, and guests that starve miss their own time limits.
pub fn lab() -> MutexGuard<'static, ()> {
    static LAB: Mutex<()> = Mutex::new(());
    LAB.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The binary under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_dmavet")
}

/// A command of it without standard input.
pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn dmavet<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Ran {
    command(args).output().expect("dmavet starts").into()
}

/// Makes several runs in one batch, in as many labs as there are cores (two at most); their run directories, by the order of the lines.
pub fn batch(dir: &Path, lines: &[String]) -> Vec<PathBuf> {
    let file = dir.join("batch");
    std::fs::write(&file, lines.join("\n")).expect("batch file");
    let out = dir.join("out");
    let labs = std::thread::available_parallelism().map_or(1, usize::from).min(2).to_string();
    let ran = dmavet(["batch".as_ref(), "--labs".as_ref(), labs.as_ref(), "--out".as_ref(), out.as_os_str(), file.as_os_str()]);
    assert!(ran.stdout.contains(&format!("{} runs", lines.len())), "{}", ran.all());
    (1..=lines.len()).map(|n| out.join(format!("{n:03}"))).collect()
}

/// Whether there is time for what takes too long for every day (`cargo xtask nightly`).
pub fn nightly() -> bool {
    std::env::var_os("DMAVET_NIGHTLY").is_some()
}

/// findings.json of a run directory, checked against the schema.
pub fn findings(run_dir: &Path) -> Value {
    let path = run_dir.join("findings.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let value: Value = serde_json::from_str(&text).expect("findings.json is JSON");
    let schema: Value = serde_json::from_str(include_str!("../../resources/findings.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    let errors: Vec<String> = validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{} breaks its schema:\n{}", path.display(), errors.join("\n"));
    value
}

/// Findings of `value` that are errors or warnings.
pub fn alarms(value: &Value) -> Vec<&Value> {
    value["findings"].as_array().expect("findings").iter().filter(|f| f["severity"] != "note").collect()
}

/// Builds a module for the stock kernel the tests run.
pub fn build(source: &ModuleSource) -> BuiltModule {
    let cache = Cache::open(None).expect("cache");
    let kernel = kernel(&cache, &KernelSpec::default(), false, &|_| ()).expect("debian:6.1");
    module::build(&cache, &kernel, source, &|_| ()).unwrap_or_else(|e| panic!("{e}"))
}
