//! A thread that looks after what has a deadline: loans of pages, steps that do not come back, and the stress mode's rounds.

use super::Watch;
use std::sync::Arc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a step may take. In software emulation on a busy machine a step is some milliseconds.
const STEP_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    /// The CPU that steps and when it is late. Only one steps at a time.
    step: Option<(usize, Instant)>,
    /// That CPU was kicked.
    late: bool,
    /// There are loans, the earliest due then.
    loans: Option<Instant>,
    /// When the stress mode picks pages again.
    stress: Option<Instant>,
    stop: bool,
}

/// The keeper's mailbox.
#[derive(Debug, Default)]
pub struct Keeper {
    state: Mutex<State>,
    news: Condvar,
}

impl Keeper {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kicks CPU `cpu` unless the result is dropped in time.
    pub fn watch_step(&self, cpu: usize) -> StepWatch<'_> {
        let mut state = self.lock();
        state.step = Some((cpu, Instant::now() + STEP_LIMIT));
        state.late = false;
        drop(state);
        self.news.notify_one();
        StepWatch(self)
    }

    /// A page was lent until `until`.
    pub fn watch_loan(&self, until: Instant) {
        let mut state = self.lock();
        state.loans = Some(state.loans.map_or(until, |loan| loan.min(until)));
        drop(state);
        self.news.notify_one();
    }

    /// The stress mode begins.
    pub fn begin_stress(&self) {
        self.lock().stress = Some(Instant::now());
        self.news.notify_one();
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has none.
    pub fn start(watch: &Arc<Watch>) -> std::io::Result<KeeperThread> {
        let mine = watch.clone();
        let thread = thread::Builder::new().name("watch".into()).spawn(move || mine.keeper.work(&mine))?;
        Ok(KeeperThread { watch: watch.clone(), thread: Some(thread) })
    }

    fn work(&self, watch: &Watch) {
        let mut state = self.lock();
        while !state.stop {
            let now = Instant::now();
            if let Some((cpu, _)) = state.step.filter(|(_, at)| *at <= now) {
                state.late = true;
                state.step = Some((cpu, now + STEP_LIMIT));
                watch.world.kick(cpu);
            }
            let loans_due = state.loans.is_some_and(|at| at <= now);
            let stress_due = state.stress.is_some_and(|at| at <= now);
            if loans_due || stress_due {
                // Neither the gate nor the stress mode is called with this lock held: they may wait for a step.
                state.loans = None;
                drop(state);
                let next_loan = watch.gate.take_back_due(now);
                let next_round = if stress_due { watch.stress_round() } else { None };
                state = self.lock();
                if let Some(at) = next_loan {
                    state.loans = Some(state.loans.map_or(at, |loan| loan.min(at)));
                }
                if stress_due {
                    state.stress = next_round;
                }
                continue;
            }
            let next = [state.step.map(|(_, at)| at), state.loans, state.stress].into_iter().flatten().min();
            let idle = next.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(now));
            state = self.news.wait_timeout(state, idle).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A step that is watched.
#[derive(Debug)]
pub struct StepWatch<'a>(&'a Keeper);

impl StepWatch<'_> {
    /// The CPU was kicked because it took too long.
    pub fn fired(&mut self) -> bool {
        self.0.lock().late
    }
}

impl Drop for StepWatch<'_> {
    fn drop(&mut self) {
        self.0.lock().step = None;
    }
}

/// The running thread; stops when dropped.
#[derive(Debug)]
pub struct KeeperThread {
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for KeeperThread {
    fn drop(&mut self) {
        self.watch.keeper.lock().stop = true;
        self.watch.keeper.news.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; pages stay as they are.
            let _ = thread.join();
        }
    }
}
