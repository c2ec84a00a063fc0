//! What is known about a run while it is going on: its phases, how far the guest got, its verdict.

use crate::observer::Observer;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far the guest got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The agent has not been heard of.
    Booting,
    /// The agent said hello at this time after the start.
    Working(Duration),
    /// The workload's exit status is known, or will not come.
    Finished,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    phases: Vec<(String, Duration)>,
    exit: Option<i32>,
    setup_failed: Option<String>,
}

/// The journal of one run.
pub struct Journal {
    start: Instant,
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Journal {
    /// The most phases kept: their names come from the guest.
    const MAX_PHASES: usize = 256;

    /// Starts the clock.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        let state = State { stage: Stage::Booting, phases: Vec::new(), exit: None, setup_failed: None };
        Self { start: Instant::now(), observer, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A phase was reached.
    pub fn phase(&self, name: &str) {
        let now = self.elapsed();
        let mut state = self.state();
        if state.phases.len() < Self::MAX_PHASES {
            state.phases.push((name.to_owned(), now));
        }
        drop(state);
        self.observer.phase(name, now);
    }

    /// The agent said hello.
    pub fn hello(&self) {
        let stage = Stage::Working(self.elapsed());
        self.state().stage = stage;
        self.phase("hello");
    }

    /// The workload ended with `status`.
    pub fn exit(&self, status: i32) {
        let mut state = self.state();
        state.stage = Stage::Finished;
        state.exit.get_or_insert(status);
    }

    /// The guest could not set the run up.
    pub fn setup_failed(&self, text: String) {
        let mut state = self.state();
        state.stage = Stage::Finished;
        state.setup_failed.get_or_insert(text);
    }

    /// How far the guest got.
    pub fn stage(&self) -> Stage {
        self.state().stage
    }

    /// Phases, exit status and set-up failure, at the end.
    pub fn close(&self) -> (Vec<(String, Duration)>, Option<i32>, Option<String>) {
        let mut state = self.state();
        (std::mem::take(&mut state.phases), state.exit, state.setup_failed.take())
    }
}
