//! `dmavet doctor --watch`: the CPU watch's self-check, here or in the lab.

use crate::cli::doctor::{DoctorArgs, DoctorFormat};
use crate::exit::{Exit, Failure};
use crate::lab::{self, LabEvent, LabJob, LabOptions, Outer, Stream};
use crate::run::{Host, host};
use dmavet_images::cache::Cache;
use dmavet_vmm::selfcheck::{self, Counts, Report, Verdict};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Longest time the self-check may take in the lab.
const LIMIT: Duration = Duration::from_secs(1800);

/// Runs the self-check and prints what it found.
///
/// # Errors
/// When it cannot be run, or the watch does something wrong here.
pub fn selfcheck(args: &DoctorArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    let report = match args.host {
        Host::Lab => in_lab(args, cache)?,
        Host::Kvm | Host::Auto => {
            selfcheck::run(args.watch_backend.backend(), &|what| eprintln!("dmavet: {what}")).map_err(|e| host::explain(&e))?
        }
    };
    match args.format {
        DoctorFormat::Json => println!("{}", serde_json::to_string_pretty(&report).map_err(|e| Failure::internal(e.to_string()))?),
        DoctorFormat::Text => print!("{}", text(&report, args.host == Host::Lab)),
    }
    match report.failures().len() {
        0 => Ok(Exit::Clean),
        count => Err(Failure::internal(format!("the CPU watch does {count} things wrong on this KVM: please report them"))),
    }
}

/// Runs this command in the lab and reads what it prints.
fn in_lab(args: &DoctorArgs, cache: Option<&Path>) -> Result<Report, Failure> {
    let cache = Cache::open(cache).map_err(|e| Failure::cannot_run(e.to_string()))?;
    let cancel = host::cancel_on_signals()?;
    let mut options = LabOptions::new(&cache, &cancel.flag);
    let usual = Outer::from_environment();
    options.outer = Outer { qemu: args.lab_qemu.clone().unwrap_or(usual.qemu), cpus: args.lab_cpus.unwrap_or(usual.cpus) };
    options.job_limit = Some(LIMIT);
    let run_dir = std::env::temp_dir().join(format!("dmavet-selfcheck-{}", std::process::id()));
    let words = ["doctor", "--watch", "--host", "kvm", "--format", "json", "--watch-backend", args.watch_backend.name()];
    let job = LabJob { argv: words.map(OsString::from).into(), files: Vec::new(), run_dir: run_dir.clone(), trace: None };
    let mut output = Vec::new();
    let result = lab::run(&[job], &options, &mut |event| match event {
        LabEvent::Output { stream: Stream::Stdout, bytes, .. } => output.extend(bytes),
        LabEvent::Output { stream: Stream::Stderr, bytes, .. } => {
            let _ = std::io::stderr().write_all(&bytes);
        }
        LabEvent::Booted(after) => eprintln!("dmavet: lab: up after {:.1} s", after.as_secs_f64()),
        _ => {}
    });
    let _ = std::fs::remove_dir_all(&run_dir);
    result.map_err(|error| Failure::cannot_run(error.to_string()))?;
    serde_json::from_slice(&output).map_err(|error| Failure::internal(format!("the self-check left no result in the lab: {error}")))
}

fn text(report: &Report, lab: bool) -> String {
    let mut lines = Vec::new();
    let place = if lab { "the lab's KVM" } else { "this KVM" };
    lines.push(format!("CPU watch on {place}, pages guarded by {}, {:.1} s", report.backend, report.seconds));
    if let Some(why) = &report.not_native {
        lines.push(format!("  not run by the CPU itself: {why}"));
    }
    if let Some(why) = &report.no_single_step {
        lines.push(format!("  no single step: {why}"));
    }
    lines.push(format!(
        "  {:<34} {:>6} {:>6} {:>9} {:>8} {:>7} {:>7}",
        "instruction forms", "right", "wrong", "emulated", "stepped", "opened", "served"
    ));
    for (name, verdicts) in [
        ("emulated where possible", report.forms.iter().map(|f| &f.auto).collect::<Vec<_>>()),
        ("stepped", report.forms.iter().map(|f| &f.step).collect()),
    ] {
        let count = |way: fn(Counts) -> u64| verdicts.iter().filter(|v| v.right().is_some_and(|c| way(c) > 0)).count();
        lines.push(format!(
            "    {name:<32} {:>6} {:>6} {:>9} {:>8} {:>7} {:>7}",
            verdicts.iter().filter(|v| v.right().is_some()).count(),
            verdicts.iter().filter(|v| v.failed()).count(),
            count(|c| c.emulated),
            count(|c| c.stepped),
            count(|c| c.opened + c.injected),
            count(|c| c.served),
        ));
    }
    let out = report.forms.iter().filter(|f| matches!(f.auto, Verdict::CannotRun { .. })).count();
    let absent = report.forms.iter().filter(|f| f.auto == Verdict::NotThere).count();
    lines.push(format!("    {} forms; {out} cannot run on this KVM, {absent} not on this CPU", report.forms.len()));
    for hammer in &report.hammer {
        let result = format!("{} made, {} counted, {} told", hammer.made, hammer.counted, hammer.told);
        lines.push(format!("  {:<66} {result}", format!("{} ({} of the host's)", hammer.what, hammer.host_cpus)));
    }
    lines.extend(report.failures().into_iter().map(|failure| format!("WRONG  {failure}")));
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmavet_vmm::selfcheck::FormReport;

    #[test]
    fn a_report_survives_json_and_names_what_is_wrong() {
        let form = |form: &str, auto, step| FormReport { form: form.into(), auto, step };
        let right = Verdict::Right { ways: Counts { emulated: 1, ..Counts::default() } };
        let wrong = Verdict::Wrong { what: "rax 0x1 instead of 0x2".into(), ways: Counts { stepped: 1, ..Counts::default() } };
        let report = Report {
            not_native: None,
            no_single_step: None,
            backend: "mprotect".into(),
            forms: vec![
                form("a", right.clone(), wrong),
                form("b", Verdict::Unseen, right),
                form("c", Verdict::NotThere, Verdict::NotThere),
            ],
            hammer: Vec::new(),
            seconds: 0.5,
        };
        let json = serde_json::to_string(&report).unwrap();
        let report: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(report.failures(), ["a, stepped: rax 0x1 instead of 0x2", "b, emulated where possible: not noticed"]);
        let text = text(&report, false);
        assert!(text.contains("WRONG  a, stepped") && text.contains("1 not on this CPU"), "{text}");
    }
}
