//! Executes prepared runs: on this machine's KVM or in the lab.

use crate::exit::{Exit, Failure};
use crate::progress;
use crate::report::baseline::Taken;
use crate::report::build::{self, Told};
use crate::report::{Format, Report, html, junit, ktap, perfetto, sarif, text, timeline};
use crate::run::host::Place;
use crate::run::watcher::Watcher;
use crate::run::{Plan, Stop, children, host, in_lab, record, rundir};
use dmavet_vmm::{End, Limit, ModuleImage, Outcome, Timeouts, VmConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is shown while a run goes on. Progress goes to standard error, the workload's output to standard output.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// No progress lines.
    pub quiet: bool,
    /// The guest's console on standard error.
    pub console: bool,
    /// The workload's output.
    pub workload: bool,
}

/// A run that was made.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// Its exit code.
    pub exit: Exit,
    /// Why, in one sentence.
    pub headline: String,
    /// Where its results are.
    pub run_dir: PathBuf,
    /// Whether notes are printed.
    pub pedantic: bool,
}

/// Executes `plans`: one after the other here, or in so many labs.
///
/// # Errors
/// When a run could not be made at all.
pub fn execute_all(plans: &[Plan], place: Place, labs: usize, cache: Option<&Path>, show: &Show) -> Result<Vec<RunResult>, Failure> {
    match place {
        Place::Here => {
            for plan in plans {
                if execute_here(plan, show, None)? == Exit::Interrupted {
                    break;
                }
            }
        }
        Place::Lab => in_lab::execute(plans, labs, cache, show, &|_| Ok(()))?,
    }
    progress::end();
    plans.iter().filter(|p| p.run_dir.join(Report::FILE).exists()).map(result_of).collect()
}

/// Executes `plans`, `jobs` at a time: in processes of their own here, or in so many labs. `done` is told of each as it ends, with its
/// results in its run directory; what it refuses ends the whole.
///
/// # Errors
/// When a run could not be made at all, or the user interrupts.
pub fn execute_each(
    plans: &[Plan],
    place: Place,
    jobs: usize,
    cache: Option<&Path>,
    show: &Show,
    done: &RunDone<'_>,
) -> Result<(), Failure> {
    match place {
        Place::Here => children::execute(plans, jobs, done),
        Place::Lab => in_lab::execute(plans, jobs, cache, show, done),
    }
}

/// Told of a run that ended.
pub type RunDone<'a> = dyn Fn(&Plan) -> Result<(), Failure> + Sync + 'a;

fn result_of(plan: &Plan) -> Result<RunResult, Failure> {
    let report = load_report(&plan.run_dir)?;
    Ok(RunResult {
        exit: report.verdict.result,
        headline: report.verdict.headline(),
        run_dir: plan.run_dir.clone(),
        pedantic: plan.policy.pedantic,
    })
}

fn load_report(run_dir: &Path) -> Result<Report, Failure> {
    Report::load(&run_dir.join(Report::FILE)).map_err(|e| Failure::internal(e.to_string()))
}

/// Prints the result of a run on standard output.
///
/// # Errors
/// When the run directory cannot be read back.
pub fn print_result(result: &RunResult, format: Format) -> Result<(), Failure> {
    print_report(&load_report(&result.run_dir)?, result.pedantic, format, Some(&result.run_dir.join(record::TRACE)))
}

/// Prints a report on standard output; see [`render`].
///
/// # Errors
/// When it cannot be written so.
pub fn print_report(report: &Report, pedantic: bool, format: Format, trace: Option<&Path>) -> Result<(), Failure> {
    print!("{}", render(report, pedantic, format, trace)?);
    Ok(())
}

/// A report in a format, with a newline at its end; `pedantic` with the notes, which only people want left out. The formats that show
/// every mapping take them from the run's trace, if there is one at that place.
///
/// # Errors
/// When it cannot be written so.
pub fn render(report: &Report, pedantic: bool, format: Format, trace: Option<&Path>) -> Result<String, Failure> {
    let json = |result: serde_json::Result<String>| result.map(|text| text + "\n").map_err(|e| Failure::internal(e.to_string()));
    match format {
        Format::Text => Ok(text::report(report, pedantic)),
        Format::Json => json(serde_json::to_string_pretty(report)),
        Format::Junit => junit::document(report).map_err(|e| Failure::internal(e.to_string())),
        Format::Sarif => json(serde_json::to_string_pretty(&sarif::document(report, std::env::current_dir().ok().as_deref()))),
        Format::Ktap => Ok(ktap::document(report)),
        Format::Html => html::document(report, &timeline::of(report, trace), pedantic).map_err(|e| Failure::internal(e.to_string())),
        Format::Perfetto => json(perfetto::document(report, &timeline::of(report, trace))),
        Format::Baseline => {
            let taken = Taken::from([report], std::env::current_dir().ok().as_deref());
            taken.document(None).map_err(|e| Failure::internal(e.to_string()))
        }
    }
}

/// Executes one plan on this machine's KVM and writes its run directory. The trace of a recorded run goes to `trace`, or there.
///
/// # Errors
/// When the virtual machine cannot be made or the run directory cannot be written.
pub fn execute_here(plan: &Plan, show: &Show, trace: Option<&Path>) -> Result<Exit, Failure> {
    let devices = plan.devices.iter().map(|d| d.parse()).collect::<Result<Vec<_>, _>>().map_err(|e| Failure::usage(format!("{e}")))?;
    let mut coherence = dmavet_coherence::Config::for_ram(plan.memory);
    plan.machine.configure(&mut coherence);
    coherence.sg_merge = plan.sg_merge;
    coherence.pedantic = plan.policy.pedantic;
    coherence.stop_on.clone_from(&plan.stop_on);
    let seconds = |s: u64| (s != 0).then(|| Duration::from_secs(s));
    let recorder = if plan.record { Some(record::start(plan, trace)?) } else { None };
    let config = VmConfig {
        kernel: plan.kernel.clone(),
        initrd: Some(plan.initrd.clone()),
        cmdline: command_line(plan),
        memory: plan.memory,
        cpus: plan.cpus,
        devices,
        agent: plan.agent,
        timeouts: Timeouts {
            boot: seconds(plan.limits.boot),
            command: seconds(plan.limits.command),
            silence: seconds(plan.limits.silence),
            total: None,
        },
        coherence,
        modules: modules(plan)?,
        watch: plan.watch.config(),
        faults: plan.faults()?,
        tap: recorder.clone().map(|recorder| recorder as Arc<dyn dmavet_coherence::Tap>),
    };
    let watcher = Arc::new(Watcher::create(plan, *show)?);
    let cancel = host::cancel_on_signals()?;
    let outcome = dmavet_vmm::run(config, watcher, &cancel.fd).map_err(|e| host::explain(&e))?;
    if let Some(trouble) = outcome.stats.stacks.trouble.as_ref().filter(|_| !show.quiet) {
        progress::note(&trouble.to_string());
    }
    let (summary, told) = (outcome.coherence.finish(), told(plan, &outcome));
    if let Some(recorder) = recorder {
        record::end(&recorder, &told, show.quiet);
    }
    let report = build::report(plan, &summary, &told)?;
    let json = serde_json::to_vec_pretty(&report).map_err(|e| Failure::internal(e.to_string()))?;
    rundir::write(&plan.run_dir, "report.txt", text::report(&report, plan.policy.pedantic).as_bytes())?;
    rundir::write(&plan.run_dir, Report::FILE, &json)?;
    Ok(report.verdict.result)
}

/// The code of the modules the guest has, to name addresses and walk stacks in it.
fn modules(plan: &Plan) -> Result<Vec<ModuleImage>, Failure> {
    plan.modules
        .iter()
        .map(|module| {
            let bytes = dmavet_images::modtree::read_module(&module.debug).map_err(|e| Failure::internal(e.to_string()))?;
            ModuleImage::parse(&module.name, &bytes).map_err(|e| Failure::internal(format!("{}: {e}", module.debug.display())))
        })
        .collect()
}

/// The machine's outcome in the words of the verdict.
fn told(plan: &Plan, outcome: &Outcome) -> Told {
    let seconds = |d: &Duration| d.as_secs();
    let doing: String = outcome.last_seen.iter().map(|cpu| format!("; {cpu}")).collect();
    let stop = match &outcome.end {
        End::Complete | End::PowerOff => Stop::PowerOff,
        End::Reset(_) if outcome.exit.is_none() => Stop::Guest(
            "the guest reset itself before its workload ended (a panic before the agent was there ends so, too; see console.log)".into(),
        ),
        End::Reset(_) => Stop::Guest("the guest reset itself".into()),
        End::Panic(message) => Stop::Guest(format!("the guest kernel panicked: {message}")),
        End::TripleFault { cpu, rip } => Stop::Guest(format!("CPU {cpu} of the guest shut down (triple fault) at {rip:#x}")),
        End::Silence(limit) => Stop::Timeout(format!("the guest gave no sign of life for {} s (--silence-timeout){doing}", seconds(limit))),
        End::Timeout(Limit::Boot, limit) => {
            Stop::Timeout(format!("the guest did not boot within {} s (--boot-timeout){doing}", seconds(limit)))
        }
        End::Timeout(Limit::Command | Limit::Total, limit) => {
            Stop::Timeout(format!("modules and workload took longer than {} s (--timeout){doing}", seconds(limit)))
        }
        End::Finding => Stop::Finding,
        End::Cancelled => Stop::Interrupted,
        End::Internal(what) => Stop::Internal(what.clone()),
    };
    let mut counters: BTreeMap<String, u64> = outcome.stats.exits.iter().map(|(k, v)| (format!("exits_{k}"), *v)).collect();
    counters.insert("console_bytes".into(), outcome.stats.console_bytes);
    counters.insert("guest_memory".into(), plan.memory);
    let stacks = &outcome.stats.stacks;
    for (name, value) in [("stacks_walked", stacks.stacks), ("stack_frames", stacks.frames), ("stack_guesses", stacks.guesses)] {
        counters.insert(name.into(), value);
    }
    if let Some(bytes) = outcome.stats.memory_beyond {
        counters.insert("memory_beyond_guest".into(), bytes);
    }
    Told {
        stop,
        workload: outcome.exit,
        setup_failed: outcome.setup_failed.clone(),
        phases: outcome.phases.clone(),
        counters,
        watch: outcome.stats.watch.clone(),
    }
}

/// The kernel command line: a console, and a panic that ends the run at once. All else is discovered through ACPI.
fn command_line(plan: &Plan) -> String {
    let mut words = vec!["console=ttyS0".to_owned(), "panic=-1".to_owned(), "quiet".to_owned()];
    words.extend(plan.append.iter().cloned());
    words.join(" ")
}
