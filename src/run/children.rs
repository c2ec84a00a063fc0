//! Executes prepared runs on this machine's KVM, several at a time, each in a process of its own.

use crate::exit::{Exit, Failure};
use crate::report::Report;
use crate::run::{Plan, RunDone, host};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often a child and the user's wish to stop are looked at.
const TICK: Duration = Duration::from_millis(20);

/// Runs `plans`, `jobs` at a time.
///
/// # Errors
/// When a process cannot be started or leaves no results, the user interrupts, or `done` has enough.
pub fn execute(plans: &[Plan], jobs: usize, done: &RunDone<'_>) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let failed_already = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let work = || {
        while !failed_already()
            && let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(failure) = one(plan).and_then(|()| done(plan)) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, plans.len().max(1)) {
            scope.spawn(work);
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn one(plan: &Plan) -> Result<(), Failure> {
    let cancel = host::cancel_on_signals()?;
    let program = std::env::current_exe().map_err(|e| Failure::internal(format!("cannot find this program: {e}")))?;
    let mut command = Command::new(program);
    command.arg("execute").arg(plan.path()).arg("--quiet").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|e| Failure::cannot_run(format!("cannot start a process for {}: {e}", plan.title)))?;
    let status = loop {
        if cancel.flag.load(Ordering::Relaxed) {
            end(&mut child);
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(TICK),
            Err(e) => return Err(Failure::internal(format!("cannot wait for {}: {e}", plan.title))),
        }
    };
    if plan.run_dir.join(Report::FILE).exists() {
        return Ok(());
    }
    let known = status.code().and_then(Exit::from_code).filter(|exit| *exit != Exit::Clean);
    Err(Failure::new(known.unwrap_or(Exit::Internal), format!("{} left no result ({status}); its messages are above", plan.title)))
}

/// Ends a child that has a guest: nothing of it is left behind.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
