//! A run as test cases, for the formats that know nothing else: JUnit and KTAP.

use crate::exit::Exit;
use crate::report::{Report, ReportFinding, text};

/// One test case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What was tested; the same in every run of the same thing.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// Everything there is to say about it, lines.
    pub detail: String,
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Passed,
    /// Not well, but that is accepted: why.
    Accepted(String),
    /// The driver or the workload did something wrong: what, in one sentence.
    Failed(String),
    /// It could not be found out: why, in one sentence.
    Broken(String),
}

/// The cases of a run: the guest and its workload, then the rules of the DMA API: a case for each finding, and one more for all the other
/// rules, which nothing failed.
#[must_use]
pub fn of(report: &Report) -> Vec<Case> {
    let verdict = &report.verdict;
    let reason = verdict.reason.clone();
    let outcome = match verdict.result {
        Exit::Clean | Exit::Findings if verdict.stopped_at.is_none() => Outcome::Passed,
        Exit::Workload => Outcome::Failed(reason),
        _ => Outcome::Broken(reason),
    };
    let mut cases = vec![Case { name: "guest and workload".into(), outcome, detail: String::new() }];
    cases.extend(report.findings.iter().map(|finding| of_finding(report, finding)));
    let complete = matches!(verdict.result, Exit::Clean | Exit::Findings | Exit::Workload) && verdict.stopped_at.is_none();
    let outcome = if complete { Outcome::Passed } else { Outcome::Broken("the run did not come to its end".into()) };
    cases.push(Case { name: "all other rules of the DMA API".into(), outcome, detail: String::new() });
    cases
}

fn of_finding(report: &Report, finding: &ReportFinding) -> Case {
    let verdict = &report.verdict;
    let fails = finding.severity <= verdict.fail_on || verdict.stopped_at.is_some_and(|code| finding.code == code.to_string());
    let outcome = match &finding.accepted {
        Some(accepted) => Outcome::Accepted(accepted.to_string()),
        None if fails => Outcome::Failed(finding.volatile.message.clone()),
        None => Outcome::Passed,
    };
    Case { name: text::title(finding), outcome, detail: text::finding(finding) }
}
