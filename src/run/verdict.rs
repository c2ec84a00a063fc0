//! From the facts of a run to its verdict.

use crate::exit::Exit;
use crate::run::Policy;
use dmavet_coherence::{Code, Severity};
use serde::{Deserialize, Serialize};

/// How a run ended and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The exit code's name.
    pub result: Exit,
    /// The exit code.
    pub exit_code: u8,
    /// Why, in one sentence.
    pub reason: String,
    /// Errors.
    pub errors: usize,
    /// Warnings.
    pub warnings: usize,
    /// Notes.
    pub notes: usize,
    /// Findings that a baseline accepts, of any severity; they are in none of the other figures.
    #[serde(default)]
    pub accepted: usize,
    /// The lowest severity that fails the run.
    pub fail_on: Severity,
    /// The workload's own exit status, if it ended.
    pub workload: Option<i32>,
    /// Code of the finding that ended the run (`--stop-on`): nothing was looked for after it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stopped_at: Option<Code>,
}

impl Verdict {
    /// One line for a summary.
    #[must_use]
    pub fn headline(&self) -> String {
        self.reason.clone()
    }
}

/// How the guest stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// It powered off in good order.
    PowerOff,
    /// It went away or stuck: what happened.
    Guest(String),
    /// A limit ended it: which one.
    Timeout(String),
    /// A finding ended it, as the user wanted.
    Finding,
    /// The user interrupted it.
    Interrupted,
    /// dmavet failed: how.
    Internal(String),
    /// The trace that is replayed does not say.
    Unknown,
}

/// What a run did, as far as the verdict depends on it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How the guest stopped.
    pub stop: Stop,
    /// The workload's exit status.
    pub workload: Option<i32>,
    /// What kept the guest's init from setting the run up.
    pub setup_failed: Option<String>,
    /// The finding after which nothing was reported any more.
    pub stopped_at: Option<Code>,
    /// Severities of the findings that count.
    pub findings: Vec<Severity>,
    /// How many others a baseline accepts.
    pub accepted: usize,
    /// Drivers bound to a device under test.
    pub drivers_bound: usize,
    /// Mappings made by those drivers.
    pub mappings: u64,
    /// Accesses of the devices under test.
    pub device_accesses: u64,
    /// Devices in the run.
    pub devices: usize,
    /// DMA call sites reached and known, over the modules under test.
    pub coverage: (usize, usize),
}

/// Judges a run. Findings count even in a run that went wrong otherwise, but a run without a whole verdict is never clean.
#[must_use]
pub fn judge(facts: &Facts, policy: &Policy) -> Verdict {
    let count = |severity: Severity| facts.findings.iter().filter(|s| **s == severity).count();
    let failing = facts.findings.iter().filter(|s| **s <= policy.fail_on).count();
    let (result, reason) = decide(facts, policy, failing);
    Verdict {
        result,
        exit_code: result.code(),
        reason,
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        notes: count(Severity::Note),
        accepted: facts.accepted,
        fail_on: policy.fail_on,
        workload: facts.workload,
        stopped_at: facts.stopped_at,
    }
}

fn decide(facts: &Facts, policy: &Policy, failing: usize) -> (Exit, String) {
    let accepted = if facts.accepted > 0 { format!(", {} accepted", facts.accepted) } else { String::new() };
    let also = if failing > 0 { format!("; {}", plural(failing, "finding")) } else { String::new() };
    match &facts.stop {
        Stop::Interrupted => return (Exit::Interrupted, format!("interrupted{also}")),
        Stop::Internal(what) => return (Exit::Internal, format!("internal error: {what}{also}")),
        Stop::Guest(what) => return (Exit::Guest, format!("{what}{also}")),
        Stop::Timeout(what) => return (Exit::Timeout, format!("{what}{also}")),
        Stop::Unknown if failing == 0 => return (Exit::Guest, "the trace ends before the run did, without a verdict of the guest".into()),
        Stop::Unknown => return (Exit::Findings, format!("{}; the trace ends before the run did", plural(failing, "finding"))),
        Stop::PowerOff | Stop::Finding => {}
    }
    if let Some(code) = facts.stopped_at {
        let found = plural(facts.findings.len(), "finding");
        return (
            Exit::Findings,
            format!("{found}; the run was stopped at {code} (--stop-on), what comes later and leaks were not looked for"),
        );
    }
    if let Some(what) = &facts.setup_failed {
        return (Exit::Workload, format!("the guest could not be set up: {what}{also}"));
    }
    if failing > 0 {
        return (Exit::Findings, plural(failing, "finding") + &accepted);
    }
    match facts.workload {
        None => return (Exit::Guest, "the guest powered off without a verdict of its workload".into()),
        Some(0) => {}
        Some(status) => return (Exit::Workload, format!("the workload failed with exit status {status}")),
    }
    if let Some(why) = vacuous(facts) {
        return (Exit::Workload, format!("nothing was checked: {why}"));
    }
    let (reached, known) = facts.coverage;
    if let Some(wanted) = policy.require_coverage
        && reached * 100 < known * usize::from(wanted)
    {
        return (Exit::Workload, format!("{reached} of {known} DMA call sites were reached, --require-coverage asks for {wanted} %"));
    }
    // Errors fail a run whatever `--fail-on` says, so what is left here are warnings and notes.
    match facts.findings.iter().filter(|s| **s == Severity::Warning).count() {
        0 if facts.accepted > 0 => (Exit::Clean, format!("clean: no new findings{accepted}")),
        0 => (Exit::Clean, "clean: no findings".into()),
        warnings => (Exit::Clean, format!("clean: no errors, {}{accepted}", plural(warnings, "warning"))),
    }
}

/// Why a run without findings proves nothing, if so.
fn vacuous(facts: &Facts) -> Option<&'static str> {
    if facts.devices == 0 {
        Some("the guest was shown no device (--device)")
    } else if facts.drivers_bound == 0 {
        Some("no driver bound to a device under test")
    } else if facts.mappings == 0 {
        Some("the driver mapped and allocated nothing")
    } else if facts.device_accesses == 0 {
        Some("no device accessed memory")
    } else {
        None
    }
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            stop: Stop::PowerOff,
            workload: Some(0),
            setup_failed: None,
            stopped_at: None,
            findings: Vec::new(),
            accepted: 0,
            drivers_bound: 1,
            mappings: 5,
            device_accesses: 9,
            devices: 1,
            coverage: (5, 10),
        }
    }

    fn policy() -> Policy {
        Policy { fail_on: Severity::Error, pedantic: false, require_coverage: None }
    }

    #[test]
    fn a_checked_run_without_findings_is_clean() {
        let verdict = judge(&facts(), &policy());
        assert_eq!((verdict.result, verdict.reason.as_str()), (Exit::Clean, "clean: no findings"));
        let noted = Facts { findings: vec![Severity::Note], ..facts() };
        assert_eq!(judge(&noted, &policy()).reason, "clean: no findings");
    }

    #[test]
    fn a_vacuous_run_is_no_pass() {
        for (change, word) in [
            (Facts { devices: 0, ..facts() }, "no device"),
            (Facts { drivers_bound: 0, ..facts() }, "no driver"),
            (Facts { mappings: 0, ..facts() }, "mapped"),
            (Facts { device_accesses: 0, ..facts() }, "no device accessed"),
        ] {
            let verdict = judge(&change, &policy());
            assert_eq!(verdict.result, Exit::Workload);
            assert!(verdict.reason.starts_with("nothing was checked") && verdict.reason.contains(word), "{}", verdict.reason);
        }
    }

    #[test]
    fn no_verdict_from_the_guest_is_never_clean() {
        assert_eq!(judge(&Facts { workload: None, ..facts() }, &policy()).result, Exit::Guest);
        assert_eq!(judge(&Facts { stop: Stop::Guest("panic".into()), ..facts() }, &policy()).result, Exit::Guest);
        assert_eq!(judge(&Facts { stop: Stop::Timeout("boot".into()), ..facts() }, &policy()).result, Exit::Timeout);
        assert_eq!(judge(&Facts { stop: Stop::Unknown, ..facts() }, &policy()).result, Exit::Guest);
        let cut = Facts { stop: Stop::Unknown, findings: vec![Severity::Error], ..facts() };
        assert_eq!(judge(&cut, &policy()).result, Exit::Findings);
        assert_eq!(judge(&Facts { workload: Some(3), ..facts() }, &policy()).result, Exit::Workload);
        assert_eq!(judge(&Facts { setup_failed: Some("x".into()), ..facts() }, &policy()).result, Exit::Workload);
    }

    #[test]
    fn a_run_that_was_stopped_says_so_and_fails() {
        let stopped =
            Facts { stop: Stop::Finding, workload: None, stopped_at: Some(Code::DV202), findings: vec![Severity::Warning], ..facts() };
        let verdict = judge(&stopped, &policy());
        assert_eq!((verdict.result, verdict.exit_code, verdict.stopped_at), (Exit::Findings, 1, Some(Code::DV202)));
        assert!(verdict.reason.starts_with("1 finding; the run was stopped at DV202 (--stop-on)"), "{}", verdict.reason);
        // The finding came, but the time was up before the machine was.
        assert_eq!(judge(&Facts { stop: Stop::Timeout("late".into()), ..stopped }, &policy()).result, Exit::Timeout);
    }

    #[test]
    fn severities_fail_a_run_by_policy() {
        let warned = Facts { findings: vec![Severity::Warning], ..facts() };
        let verdict = judge(&warned, &policy());
        assert_eq!((verdict.result, verdict.reason.as_str()), (Exit::Clean, "clean: no errors, 1 warning"));
        assert_eq!(judge(&warned, &Policy { fail_on: Severity::Warning, ..policy() }).result, Exit::Findings);
        let failed = Facts { findings: vec![Severity::Error], workload: Some(1), ..facts() };
        assert_eq!(judge(&failed, &policy()).result, Exit::Findings);
    }

    #[test]
    fn what_is_accepted_fails_nothing_and_is_told() {
        let accepted = Facts { accepted: 2, ..facts() };
        let verdict = judge(&accepted, &policy());
        assert_eq!((verdict.result, verdict.reason.as_str(), verdict.accepted), (Exit::Clean, "clean: no new findings, 2 accepted", 2));
        let new = Facts { findings: vec![Severity::Error], ..accepted.clone() };
        assert_eq!(judge(&new, &policy()).reason, "1 finding, 2 accepted");
        let failed = Facts { workload: Some(1), ..accepted };
        assert_eq!(judge(&failed, &policy()).result, Exit::Workload, "only findings are accepted");
    }

    #[test]
    fn coverage_can_be_required() {
        let policy = Policy { require_coverage: Some(60), ..policy() };
        assert_eq!(judge(&facts(), &policy).result, Exit::Workload);
        assert_eq!(judge(&facts(), &Policy { require_coverage: Some(50), ..policy }).result, Exit::Clean);
    }
}
