//! Executes prepared runs in the lab: one outer machine for all of them, or several that share them.

use crate::exit::{Exit, Failure};
use crate::lab::{self, LabError, LabEvent, LabJob, LabOptions, LabResult, Stream};
use crate::progress;
use crate::run::{Plan, RunDone, Show, host};
use dmavet_images::cache::Cache;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Room of the outer machine beyond the memory of its guest, in MiB: the outer kernel, the packed files, this program.
const OVERHEAD_MIB: u64 = 1200;

/// How much longer than its own limits a run may take before the lab ends it.
const GRACE: Duration = Duration::from_secs(60);

/// Runs `plans` in at most `labs` outer machines; each leaves its results in its run directory on this machine, and `done` is told then.
///
/// # Errors
/// When a lab cannot be had, breaks down, a job ends without results, or `done` has enough.
pub fn execute(plans: &[Plan], labs: usize, cache: Option<&Path>, show: &Show, done: &RunDone<'_>) -> Result<(), Failure> {
    let labs = labs.clamp(1, plans.len().max(1));
    if !show.quiet {
        let machines = if labs == 1 { "a software-emulated machine".to_owned() } else { format!("{labs} software-emulated machines") };
        progress::note(&format!("KVM here cannot run Linux, or the lab was asked for: running in {machines}"));
    }
    if labs == 1 {
        return in_one(&plans.iter().collect::<Vec<_>>(), cache, show, done);
    }
    // Dealt out like cards: neighbours in a file tend to take equally long.
    let hands = (0..labs).map(|lab| plans.iter().skip(lab).step_by(labs).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        let labs: Vec<_> = hands.map(|hand| scope.spawn(move || in_one(&hand, cache, show, done))).collect();
        // The scope waits for the others if one fails.
        labs.into_iter().try_for_each(|lab| lab.join().unwrap_or_else(|_| Err(Failure::internal("a lab's thread panicked".to_owned()))))
    })
}

/// Runs `plans` in order in one outer machine.
fn in_one(plans: &[&Plan], cache: Option<&Path>, show: &Show, done: &RunDone<'_>) -> Result<(), Failure> {
    let cache = Cache::open(cache).map_err(|e| Failure::cannot_run(e.to_string()))?;
    let cancel = host::cancel_on_signals()?;
    let largest = plans.iter().map(|p| p.memory >> 20).max().unwrap_or(0);
    let mut options = LabOptions::new(&cache, &cancel.flag);
    options.memory_mb = u32::try_from(largest + OVERHEAD_MIB).unwrap_or(u32::MAX).max(options.memory_mb);
    options.job_limit = job_limit(plans);
    options.console_log = plans.first().map(|p| p.run_dir.join("lab-console.log"));
    let jobs: Vec<LabJob> = plans.iter().map(|plan| job(plan, show)).collect();
    let mut ended = Ok(());
    let mut observe = |event: LabEvent| {
        if let (LabEvent::JobEnded(job, result), Ok(())) = (&event, &ended)
            && let Some(plan) = plans.get(*job)
        {
            ended = has_result(plan, *result).and_then(|()| done(plan));
        }
        tell(&event, show);
    };
    lab::run(&jobs, &options, &mut observe).map_err(failure)?;
    ended
}

/// Whether a job left the results of its run.
fn has_result(plan: &Plan, result: LabResult) -> Result<(), Failure> {
    if plan.run_dir.join(crate::report::Report::FILE).exists() {
        return Ok(());
    }
    let how = match (result.exit_code, result.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".into(),
    };
    Err(Failure::new(
        result.exit_code.and_then(Exit::from_code).filter(|e| *e != Exit::Clean).unwrap_or(Exit::Internal),
        format!("{} left no result in the lab ({how}); its messages are above, {} holds what it wrote", plan.title, plan.run_dir.display()),
    ))
}

fn job(plan: &Plan, show: &Show) -> LabJob {
    let mut argv = vec!["execute".into(), plan.path().into_os_string()];
    if show.console {
        argv.push("--console".into());
    }
    if show.quiet {
        argv.push("--quiet".into());
    }
    if plan.record {
        argv.extend(["--trace".into(), lab::TRACE_PORT.into()]);
    }
    let trace = plan.record.then(|| plan.run_dir.join(super::TRACE));
    LabJob { trace, argv, files: plan.files(), run_dir: plan.run_dir.clone() }
}

/// The longest any of the runs may take by its own limits.
fn job_limit(plans: &[&Plan]) -> Option<Duration> {
    let limits = plans.iter().map(|p| (p.limits.boot != 0 && p.limits.command != 0).then_some(p.limits.boot + p.limits.command));
    let longest = limits.collect::<Option<Vec<u64>>>()?.into_iter().max()?;
    Some(Duration::from_secs(longest) + GRACE)
}

fn tell(event: &LabEvent, show: &Show) {
    let text = match event {
        LabEvent::Output { stream: Stream::Stdout, bytes, .. } => {
            if show.workload {
                progress::aside(|| {
                    let mut out = std::io::stdout().lock();
                    let _ = out.write_all(bytes).and_then(|()| out.flush());
                });
            }
            return;
        }
        LabEvent::Output { stream: Stream::Stderr, bytes, .. } => {
            progress::relay(bytes);
            return;
        }
        LabEvent::Preparing(step) => format!("lab: {step}"),
        LabEvent::Booting => "lab: booting".into(),
        LabEvent::Rebooting => "lab: did not come up, booting once more".into(),
        LabEvent::Booted(after) => format!("lab: up after {:.1} s", after.as_secs_f64()),
        _ => return,
    };
    if !show.quiet {
        progress::step(&text);
    }
}

fn failure(error: LabError) -> Failure {
    let exit = if matches!(error, LabError::Cancelled) { Exit::Interrupted } else { Exit::CannotRun };
    Failure::new(exit, error.to_string())
}
