//! Watches a run: writes its logs and shows what the user asked for.

use crate::exit::Failure;
use crate::progress;
use crate::run::{Plan, Show, rundir};
use dmavet_vmm::{AgentEvent, Observer};
use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes of each log that are kept: a guest may print without end.
const LOG_LIMIT: u64 = 64 << 20;

/// A log file of the run directory, bounded.
#[derive(Debug)]
struct Log {
    file: File,
    left: u64,
}

impl Log {
    fn create(plan: &Plan, name: &str) -> Result<Self, Failure> {
        rundir::write(&plan.run_dir, name, b"")?;
        let path = plan.run_dir.join(name);
        let file = File::create(&path).map_err(|e| Failure::cannot_run(format!("cannot write {}: {e}", path.display())))?;
        Ok(Self { file, left: LOG_LIMIT })
    }

    /// Appends; a full disk loses log, never the run.
    fn append(&mut self, bytes: &[u8]) {
        let take = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(part) = bytes.get(..take) else { return };
        let _ = self.file.write_all(part);
        self.left -= take as u64;
        if take < bytes.len() {
            let _ = self.file.write_all(b"\n[log limit reached]\n");
            self.left = 0;
        }
    }
}

#[derive(Debug)]
struct State {
    console: Log,
    workload: Log,
}

/// The observer of one run.
#[derive(Debug)]
pub struct Watcher {
    title: String,
    show: Show,
    state: Mutex<State>,
}

impl Watcher {
    /// An observer that writes into the plan's run directory.
    pub fn create(plan: &Plan, show: Show) -> Result<Self, Failure> {
        let state = State { console: Log::create(plan, "console.log")?, workload: Log::create(plan, "workload.log")? };
        Ok(Self { title: plan.title.clone(), show, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Watcher {
    fn console(&self, bytes: &[u8]) {
        self.state().console.append(bytes);
        if self.show.console {
            progress::aside(|| _ = std::io::stderr().write_all(bytes));
        }
    }

    fn agent(&self, event: &AgentEvent) {
        if let AgentEvent::Output(bytes) = event {
            self.state().workload.append(bytes);
            if self.show.workload {
                progress::aside(|| {
                    let mut out = std::io::stdout().lock();
                    let _ = out.write_all(bytes).and_then(|()| out.flush());
                });
            }
        }
    }

    fn phase(&self, name: &str, since_start: Duration) {
        if !self.show.quiet {
            progress::step(&progress::phase(&self.title, name, since_start));
        }
    }
}
