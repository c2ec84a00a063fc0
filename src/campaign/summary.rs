//! What a campaign found: each finding once, with the first case that shows it.

use crate::campaign::space::Case;
use crate::campaign::store::{Campaign, Done, Store, Trouble};
use crate::exit::{Exit, Failure};
use crate::report::build::{Identity, identity};
use crate::report::coverage::{ModuleCoverage, Reached};
use crate::report::{Report, text};
use crate::run::Verdict;
use dmavet_coherence::Severity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A finding of a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// What it is.
    pub identity: Identity,
    /// The first case that shows it; with the fewest faults once that was tried.
    pub case: Case,
    /// In how many cases it was.
    pub cases: u64,
}

/// What became of a campaign.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The findings, each once, the first found first.
    pub findings: Vec<Unique>,
    /// Guests that did not come to their end, each way once, with the first such case and how many there were.
    pub troubles: Vec<(Trouble, u64, u64)>,
    /// Cases done.
    pub done: usize,
    /// Cases planned, of this part.
    pub planned: usize,
    /// Cases whose fault came about.
    pub hit: usize,
    /// Cases in which the workload failed without a finding: the driver gave up in good order.
    pub gave_up: usize,
}

impl Summary {
    /// Sums up the cases that are done; `shrunk`: the least faults known for a finding.
    #[must_use]
    pub fn of(campaign: &Campaign, done: &BTreeMap<u64, Done>, shrunk: &[(Identity, Case)]) -> Self {
        let mut summary = Self { planned: campaign.own().count(), ..Self::default() };
        let control = Case { index: 0, seed: campaign.space.seeds.0, faults: Vec::new() };
        let cases: BTreeMap<u64, &Case> = std::iter::once(&control).chain(&campaign.cases).map(|case| (case.index, case)).collect();
        let mut known: BTreeMap<&Identity, usize> = BTreeMap::new();
        for (index, one) in done {
            let Some(case) = cases.get(index) else { continue };
            summary.done += usize::from(*index != 0);
            summary.hit += usize::from(one.injected != 0);
            summary.gave_up += usize::from(one.exit == Exit::Workload);
            for found in &one.findings {
                let at = *known.entry(found).or_insert_with(|| {
                    let least = shrunk.iter().find(|(identity, least)| identity == found && least.index == *index);
                    let case = least.map_or_else(|| Case::clone(case), |(_, least)| least.clone());
                    summary.findings.push(Unique { identity: found.clone(), case, cases: 0 });
                    summary.findings.len() - 1
                });
                if let Some(unique) = summary.findings.get_mut(at) {
                    unique.cases += 1;
                }
            }
            if let Some(trouble) = one.trouble() {
                match summary.troubles.iter_mut().find(|(known, ..)| *known == trouble) {
                    Some((.., cases)) => *cases += 1,
                    None => summary.troubles.push((trouble, *index, 1)),
                }
            }
        }
        summary
    }

    /// The exit code of the campaign.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if !self.findings.is_empty() {
            Exit::Findings
        } else if let Some((trouble, ..)) = self.troubles.first() {
            trouble.exit
        } else if self.done < self.planned {
            Exit::Workload
        } else {
            Exit::Clean
        }
    }

    /// The exit code's reason, in one sentence.
    #[must_use]
    pub fn reason(&self) -> String {
        let cases = format!("{} of {} cases", self.done, self.planned);
        match self.exit() {
            Exit::Clean => format!("clean: no findings in {} cases", self.done),
            Exit::Workload => format!("only {cases} are done"),
            _ if self.findings.is_empty() => format!("no findings, but the guest did not come to its end in some of {cases}"),
            _ => format!("{} in {cases}", plural(self.findings.len(), "finding")),
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self, campaign: &Campaign, store: &Store, report: &Report) -> String {
        let mut out = text::report(report, false);
        let line = |out: &mut String, text: String| {
            let _ = writeln!(out, "{text}");
        };
        line(
            &mut out,
            format!(
                "\ncampaign: {} of {} cases, {} fault points; the fault of a map or alloc call came about in {}, the driver gave up in {}",
                self.done, self.planned, campaign.points, self.hit, self.gave_up
            ),
        );
        for (unique, finding) in self.findings.iter().zip(&report.findings) {
            line(&mut out, format!("{}: in {}, to see it again:", text::title(finding), plural(unique.cases, "case")));
            line(&mut out, format!("    {}", words(&campaign.repeat(&unique.case))));
        }
        for (trouble, index, cases) in &self.troubles {
            line(
                &mut out,
                format!(
                    "{}: in {}, the first in {}; to see it again:",
                    trouble.reason,
                    plural(*cases, "case"),
                    store.case(*index).display()
                ),
            );
            if let Some(case) = campaign.cases.iter().find(|case| case.index == *index) {
                line(&mut out, format!("    {}", words(&campaign.repeat(case))));
            }
        }
        line(&mut out, format!("{} ({})", self.reason(), store.dir().display()));
        out
    }

    /// The findings of all cases as those of one run, for every format there is.
    ///
    /// # Errors
    /// When the run directory of a finding cannot be read.
    pub fn report(&self, campaign: &Campaign, store: &Store, done: &BTreeMap<u64, Done>) -> Result<Report, Failure> {
        let mut whole = Report::load(&store.control().join(Report::FILE))?;
        whole.run.command = campaign.command.clone();
        whole.findings.clear();
        whole.untaken.clear();
        done.values().for_each(|one| cover(&mut whole.coverage, &one.reached));
        for unique in &self.findings {
            let report = Report::load(&store.case(unique.case.index).join(Report::FILE))?;
            let found = report.findings.into_iter().find(|f| identity(f) == unique.identity);
            let mut found = found.ok_or_else(|| {
                let dir = store.case(unique.case.index);
                Failure::internal(format!("{} does not hold the {} that was found there", dir.display(), unique.identity.code))
            })?;
            let again = words(&campaign.repeat(&unique.case));
            found.volatile.message = format!("{} Seen in {}; {again}", found.volatile.message, plural(unique.cases, "case"));
            whole.findings.push(found);
        }
        let count = |severity: Severity| whole.findings.iter().filter(|f| f.severity == severity).count();
        whole.verdict = Verdict {
            result: self.exit(),
            exit_code: self.exit().code(),
            reason: self.reason(),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            ..whole.verdict
        };
        Ok(whole)
    }
}

/// A call site was reached when any of the runs reached it.
fn cover(modules: &mut [ModuleCoverage], reached: &BTreeMap<String, Vec<usize>>) {
    for module in modules {
        for at in reached.get(&module.module).into_iter().flatten() {
            if let Some(site) = module.sites.get_mut(*at) {
                site.reached = Reached::Yes;
            }
        }
    }
}

/// A command line as one would type it.
fn words(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

fn plural(n: impl TryInto<u64>, what: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
