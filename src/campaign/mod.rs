//! Many runs of one thing: with each fault at each place, with several, with other seeds.
//!
//! The run without faults comes first; it says how many calls there are to make fail. Every case is a run like any other, made from the
//! same plan, and one command repeats it.

pub mod merge;
mod progress;
mod shrink;
mod space;
mod store;
mod summary;

pub use space::{Shard, Space};
pub use store::{Campaign, Store};

use crate::exit::{Exit, Failure};
use crate::report::{Format, Report};
use crate::run::host::Place;
use crate::run::{self, Plan, Show, execute_each};
use progress::Progress;
use space::Case;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use store::Done;
use summary::Summary;

/// Cases handed over together: a lab holds the plans of all in memory, and has a boot of its own to pay for.
const AT_ONCE: usize = 400;

/// How the cases of a campaign are run.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// On this machine's KVM or in the lab.
    pub place: Place,
    /// At a time.
    pub jobs: usize,
    /// Where kernels and modules are kept.
    pub cache: Option<&'a Path>,
    /// No progress.
    pub quiet: bool,
    /// Keep the run directories of all cases.
    pub keep: bool,
}

impl Means<'_> {
    fn run(&self, plans: &[Plan], done: &run::RunDone<'_>) -> Result<(), Failure> {
        let show = Show { quiet: self.quiet, console: false, workload: false };
        // The progress of the campaign says enough: what each guest does would drown it.
        execute_each(plans, self.place, self.jobs, self.cache, &Show { quiet: true, ..show }, done)
    }
}

/// Runs the control and plans the cases. `control`: the plan of the run without faults, in the store's place for it.
///
/// # Errors
/// When the control does not come to a verdict, or the campaign cannot be kept.
pub fn begin(store: &Store, control: &Plan, campaign: Campaign, means: &Means<'_>) -> Result<Campaign, Failure> {
    // What cannot work is said before anything runs.
    campaign.space.templates()?;
    if !means.quiet {
        eprintln!("dmavet: campaign: the run without faults");
    }
    means.run(std::slice::from_ref(control), &|_| Ok(()))?;
    let report = Report::load(&store.control().join(Report::FILE))?;
    if !matches!(report.verdict.result, Exit::Clean | Exit::Findings) {
        let (result, reason) = (report.verdict.result, &report.verdict.reason);
        return Err(Failure::new(
            result,
            format!("the run without faults is no base for others: {reason}; {} holds what it wrote", store.control().display()),
        ));
    }
    let (cases, points) = campaign.space.cases(&report)?;
    let campaign = Campaign { cases, points, ..campaign };
    store.save(&campaign)?;
    store.appender()?.append(&Done::of(0, &report))?;
    Ok(campaign)
}

/// Runs the cases that are not done yet, looks for fewer faults, and writes and prints the report.
///
/// # Errors
/// When a run could not be made at all, or the user interrupts: what is done is kept.
pub fn go_on(store: &Store, campaign: &Campaign, means: &Means<'_>, format: Format) -> Result<Exit, Failure> {
    let base = Plan::load(&store.control().join(Plan::FILE))?;
    let done = store.done()?;
    let open: Vec<&Case> = campaign.own().filter(|case| !done.contains_key(&case.index)).collect();
    let progress = Mutex::new(Progress::new(campaign.own().count(), &done, means.quiet));
    let appender = Mutex::new(store.appender()?);
    let by_dir: BTreeMap<PathBuf, u64> = open.iter().map(|case| (store.case(case.index), case.index)).collect();
    let told = |plan: &Plan| {
        let report = Report::load(&plan.run_dir.join(Report::FILE))?;
        let Some(index) = by_dir.get(&plan.run_dir) else { return Ok(()) };
        if report.verdict.result == Exit::Interrupted {
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
        let one = Done::of(*index, &report);
        appender.lock().unwrap_or_else(PoisonError::into_inner).append(&one)?;
        if !means.keep && one.findings.is_empty() && one.trouble().is_none() {
            // What went well is told by its line; nothing is lost when the directory stays.
            let _ = std::fs::remove_dir_all(&plan.run_dir);
        }
        progress.lock().unwrap_or_else(PoisonError::into_inner).done(&one);
        Ok(())
    };
    for open in open.chunks(AT_ONCE) {
        let plans = open.iter().map(|case| plan(&base, campaign, case, store.case(case.index))).collect::<Result<Vec<_>, _>>()?;
        means.run(&plans, &told)?;
    }
    let done = store.done()?;
    let mut attempt = |tries: &[(usize, Case)]| attempts(store, campaign, &base, tries, means);
    let shrunk = shrink::shrink(campaign, &done, store, &mut attempt)?;
    finish(store, campaign, &Summary::of(campaign, &done, &shrunk), &done, format)
}

/// The plan of a case.
fn plan(base: &Plan, campaign: &Campaign, case: &Case, run_dir: PathBuf) -> Result<Plan, Failure> {
    // An earlier attempt that was cut off is begun anew.
    if run_dir.exists() {
        std::fs::remove_dir_all(&run_dir).map_err(|e| run::explain_write(&run_dir, &e))?;
    }
    std::fs::create_dir_all(&run_dir).map_err(|e| run::explain_write(&run_dir, &e))?;
    let mut plan = Plan { command: campaign.repeat(case), faults: case.faults.clone(), run_dir, ..base.clone() };
    plan.machine.seed = case.seed;
    plan.title = format!("{} case {}", base.title, case.index);
    plan.save()?;
    Ok(plan)
}

/// Runs cases with fewer faults.
fn attempts(store: &Store, campaign: &Campaign, base: &Plan, tries: &[(usize, Case)], means: &Means<'_>) -> Result<Vec<Done>, Failure> {
    if !means.quiet {
        eprintln!("dmavet: campaign: {} runs with fewer faults", tries.len());
    }
    let plans =
        tries.iter().map(|(number, case)| plan(base, campaign, case, store.attempt(case.index, *number))).collect::<Result<Vec<_>, _>>()?;
    means.run(&plans, &|_| Ok(()))?;
    plans.iter().zip(tries).map(|(plan, (_, case))| Ok(Done::of(case.index, &Report::load(&plan.run_dir.join(Report::FILE))?))).collect()
}

/// Writes and prints what a campaign found.
fn finish(store: &Store, campaign: &Campaign, summary: &Summary, done: &BTreeMap<u64, Done>, format: Format) -> Result<Exit, Failure> {
    let report = summary.report(campaign, store, done)?;
    let json = serde_json::to_vec_pretty(&report).map_err(|e| Failure::internal(e.to_string()))?;
    store.write(Report::FILE, &json)?;
    let text = summary.text(campaign, store, &report);
    store.write("report.txt", text.as_bytes())?;
    match format {
        Format::Text => print!("{text}"),
        other => run::print_report(&report, false, other, None)?,
    }
    Ok(summary.exit())
}
