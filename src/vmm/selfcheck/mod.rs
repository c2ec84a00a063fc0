//! The conformance self-check of the CPU watch: on this KVM, is a trapped instruction the same as one that is not?
//!
//! A guest of a few pages runs each form of instruction several times from the same state: untrapped; with the memory it touches guarded
//! and carried out by emulation where the emulator knows it (tier 1); and carried out by a single step whatever it is (tier 2).
//! Registers, defined flags, exceptions and memory must come out the same, and each must have trapped. Then CPUs hammer one guarded
//! page with `lock inc`: no increment may be lost, and the core must hear of each.

mod conductor;
mod form;
mod forms;
mod guest;
mod hammer;
mod layout;
mod outcome;
mod pass;
mod report;

pub use report::{Counts, FormReport, HammerReport, Report, Verdict};

use crate::error::VmmError;
use crate::host::{HostKvm, probe};
use crate::trial;
use crate::watch::{Backend, TierChoice, WatchConfig};
use conductor::{Came, Program};
use dmavet_coherence::WatchPolicy;
use guest::Driver;
use hammer::Plan;
use std::sync::Arc;
use std::time::Instant;

/// Runs it; `tell` hears of what goes on.
///
/// # Errors
/// When KVM cannot be used at all, or the watch's backend is not to be had.
pub fn run(backend: Backend, tell: &dyn Fn(&str)) -> Result<Report, VmmError> {
    let start = Instant::now();
    let not_native = match probe() {
        HostKvm::CanRunLinux => None,
        HostKvm::CannotRunLinux(why) => Some(why),
        HostKvm::Unusable(error) => return Err(error),
    };
    let no_single_step = trial::single_step()?;
    let driver = Driver::new().map_err(|error| VmmError::SelfCheck(error.to_string()))?;
    let program = Arc::new(Program::new(forms::all(), driver.save).map_err(|error| VmmError::SelfCheck(error.to_string()))?);
    let on = WatchConfig { policy: WatchPolicy::All, backend, ..WatchConfig::OFF };
    let in_pass = |pass: &'static str| {
        tell(&format!("{pass}: {} forms", program.forms.len()));
        move |what: &str| tell(&format!("{pass}: a machine ended at {what}"))
    };
    let untrapped = pass::run(&program, &driver, WatchConfig::OFF, &[], &in_pass("untrapped"))?;
    let auto = pass::run(&program, &driver, on, &untrapped, &in_pass("emulated where possible"))?;
    let step = match &no_single_step {
        None => pass::run(&program, &driver, WatchConfig { tier: TierChoice::StepOnly, ..on }, &untrapped, &in_pass("stepped"))?,
        Some(_) => Vec::new(),
    };
    let judge = |index: usize, came: Option<&Came>| match (untrapped.get(index), came, program.forms.get(index), program.code.get(index)) {
        (Some(untrapped), Some(came), Some(form), Some(code)) => {
            Verdict::judge(form, code.undefined, untrapped, came, not_native.is_some())
        }
        _ => Verdict::CannotRun { why: no_single_step.clone().unwrap_or_default() },
    };
    let forms = program.forms.iter().enumerate().map(|(index, form)| FormReport {
        form: form.name.to_owned(),
        auto: judge(index, auto.get(index)),
        step: judge(index, step.get(index)),
    });
    let forms = forms.collect();
    let mut plans = vec![
        Plan { cpus: 2, each: 2000, step: false, changing: false },
        Plan { cpus: 4, each: 500, step: false, changing: false },
        Plan { cpus: 2, each: 0, step: false, changing: true },
    ];
    // What KVM's instruction emulator steps is not the CPU.
    if no_single_step.is_none() && not_native.is_none() {
        plans.push(Plan { cpus: 2, each: 500, step: true, changing: false });
        plans.push(Plan { cpus: 2, each: 0, step: true, changing: true });
    }
    let run = |plan: Plan| {
        tell(&plan.name());
        hammer::run(plan, on, not_native.is_some())
    };
    let hammer = plans.into_iter().map(run).collect::<Result<_, VmmError>>()?;
    Ok(Report {
        forms,
        hammer,
        backend: format!("{backend:?}").to_lowercase(),
        seconds: start.elapsed().as_secs_f64(),
        not_native,
        no_single_step,
    })
}

#[cfg(test)]
mod tests;
