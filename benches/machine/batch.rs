//! Runs of dmavet as a user makes them.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs these lines of `run` arguments below `dir`: their run directories. Every run must end clean.
pub fn run(binary: &Path, dir: &Path, lines: &[String]) -> Vec<PathBuf> {
    std::fs::create_dir_all(dir).expect("directory");
    let file = dir.join("batch");
    std::fs::write(&file, lines.join("\n")).expect("batch file");
    let out = dir.join("out");
    let output = Command::new(binary)
        .args(["batch", "--quiet", "--out"])
        .args([&out, &file])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("dmavet starts");
    assert!(output.status.success(), "dmavet batch: {}\n{}", output.status, String::from_utf8_lossy(&output.stdout));
    (1..=lines.len()).map(|n| out.join(format!("{n:03}"))).collect()
}

/// The report of a run.
pub fn report(run_dir: &Path) -> Value {
    let path = run_dir.join("findings.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// When a phase of a run began, in seconds after power-on.
pub fn phase(report: &Value, name: &str) -> f64 {
    let phases = report["volatile"]["phases"].as_array().expect("phases");
    let at = phases.iter().find(|phase| phase[0] == name).and_then(|phase| phase[1].as_f64());
    at.unwrap_or_else(|| panic!("no phase {name} in {phases:?}")) / 1e3
}
