//! The trace of a run.

use crate::exit::Failure;
use crate::progress;
use crate::report::build::Told;
use crate::run::{Plan, rundir};
use dmavet_trace::Recorder;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

/// File name of the trace in the run directory.
pub const TRACE: &str = "trace";
/// The note of a trace that holds the run's plan.
pub const NOTE_PLAN: &str = "plan";
/// The note of a trace that holds what the guest told beside what the core saw.
pub const NOTE_TOLD: &str = "told";

/// Starts the trace of a run in its run directory, or elsewhere.
pub fn start(plan: &Plan, path: Option<&Path>) -> Result<Arc<Recorder>, Failure> {
    let path = path.map_or_else(|| plan.run_dir.join(TRACE), Path::to_path_buf);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(|e| rundir::explain(&path, &e))?;
    let recorder = Recorder::new(Box::new(file));
    recorder.note(NOTE_PLAN, &serde_json::to_vec(plan).map_err(|e| Failure::internal(e.to_string()))?);
    Ok(Arc::new(recorder))
}

/// Ends it. What went wrong with it is no fault of the run: the verdict stands.
pub fn end(recorder: &Recorder, told: &Told, quiet: bool) {
    if let Ok(json) = serde_json::to_vec(told) {
        recorder.note(NOTE_TOLD, &json);
    }
    match recorder.finish() {
        Ok(figures) if !quiet => progress::note(&format!(
            "trace: {} inputs in {} bytes ({:.1} bytes each)",
            figures.inputs,
            figures.written,
            ratio(figures.written, figures.inputs)
        )),
        Ok(_) => {}
        Err(error) => progress::note(&format!("warning: the trace is not whole: {error}")),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}
