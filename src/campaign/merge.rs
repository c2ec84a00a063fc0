//! The parts of a campaign from several machines as one.

use crate::campaign::space::Shard;
use crate::campaign::store::{Campaign, Done, Store};
use crate::campaign::summary::Summary;
use crate::exit::{Exit, Failure};
use crate::report::Format;
use crate::run::explain_write;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Brings the parts in `dirs` together in `out` and prints the report.
///
/// # Errors
/// When they are not parts of one campaign, or `out` cannot be written.
pub fn merge(dirs: &[PathBuf], out: &Path, format: Format) -> Result<Exit, Failure> {
    let store = Store::new(out.to_path_buf());
    if out.join(Campaign::FILE).exists() {
        return Err(Failure::usage(format!("{} holds a campaign already; name another directory", out.display())));
    }
    let parts: Vec<Store> = dirs.iter().map(|dir| Store::new(dir.clone())).collect();
    let mut whole: Option<Campaign> = None;
    let mut done: BTreeMap<u64, (Done, &Store)> = BTreeMap::new();
    let mut shrunk = Vec::new();
    for part in &parts {
        let campaign = part.load()?;
        if let Some(first) = &whole
            && !first.is_part_with(&campaign)
        {
            return Err(Failure::usage(format!(
                "{} is no part of the campaign of {}: the arguments differ, or the run without faults had other calls (name them: --fault map,nth=1..100)",
                part.dir().display(),
                dirs.first().map(|dir| dir.display().to_string()).unwrap_or_default()
            )));
        }
        whole.get_or_insert(campaign);
        for (index, one) in part.done()? {
            done.entry(index).or_insert((one, part));
        }
        shrunk.extend(part.shrunk()?);
    }
    let Some(campaign) = whole else { return Err(Failure::usage("merge what? Name the directories of the parts")) };
    let campaign = Campaign { shard: Shard::WHOLE, ..campaign };
    store.save(&campaign)?;
    let mut appender = store.appender()?;
    for (index, (one, part)) in &done {
        appender.append(one)?;
        let from = part.case(*index);
        if from.is_dir() {
            copy(&from, &store.case(*index))?;
        }
    }
    store.save_shrunk(&shrunk)?;
    let done: BTreeMap<u64, Done> = done.into_iter().map(|(index, (one, _))| (index, one)).collect();
    super::finish(&store, &campaign, &Summary::of(&campaign, &done, &shrunk), &done, format)
}

/// Copies the files of a run directory; there are no directories in one.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to).map_err(|e| explain_write(to, &e))?;
    let entries = std::fs::read_dir(from).map_err(|e| Failure::usage(format!("{}: {e}", from.display())))?;
    for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
        let target = to.join(entry.file_name());
        std::fs::copy(entry.path(), &target).map_err(|e| explain_write(&target, &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::space::{Case, Space};
    use crate::report::Report;
    use crate::report::build::identity;
    use crate::report::tests::{finding, report};
    use crate::report::{Operation, ReportFinding};

    /// A part in which the case with number `bad` has a finding.
    fn part(dir: &Path, index: u64, bad: u64, fault: &str) -> PathBuf {
        let store = Store::new(dir.join(index.to_string()));
        let case = |index: u64| Case { index, seed: 7, faults: vec![format!("{fault},nth={index}")] };
        let campaign = Campaign {
            format: Campaign::FORMAT.into(),
            version: Campaign::VERSION,
            command: vec![format!("dmavet campaign --shard {index}/2")],
            repeat: vec!["dmavet".into(), "run".into()],
            space: Space { faults: vec![fault.into()], seeds: (7, 7), limit: 4, together: 1 },
            shard: Shard { index, count: 2 },
            points: 4,
            cases: (1..=4).map(case).collect(),
        };
        store.save(&campaign).unwrap();
        let mut appender = store.appender().unwrap();
        for number in std::iter::once(0).chain(campaign.own().map(|case| case.index)) {
            let found: Vec<ReportFinding> = (number == bad).then(|| finding(Operation::Write)).into_iter().collect();
            let mut one = report(found, None);
            one.verdict.result = if number == bad { Exit::Findings } else { Exit::Clean };
            std::fs::create_dir_all(store.case(number)).unwrap();
            std::fs::write(store.case(number).join(Report::FILE), serde_json::to_vec(&one).unwrap()).unwrap();
            appender.append(&Done::of(number, &one)).unwrap();
        }
        store.dir().to_path_buf()
    }

    #[test]
    fn parts_become_a_whole_with_the_first_case_of_each_finding() {
        let dir = tempfile::tempdir().unwrap();
        let parts = [part(dir.path(), 1, 3, "map"), part(dir.path(), 2, 2, "map")];
        let out = dir.path().join("whole");
        assert_eq!(merge(&parts, &out, Format::Text).unwrap(), Exit::Findings);
        let whole = Report::load(&out.join(Report::FILE)).unwrap();
        assert_eq!(whole.findings.iter().map(identity).collect::<Vec<_>>(), [identity(&finding(Operation::Write))]);
        let text = std::fs::read_to_string(out.join("report.txt")).unwrap();
        assert!(text.contains("4 of 4 cases") && text.contains("in 2 cases") && text.contains("--seed 7 --fault 'map,nth=2'"), "{text}");
        let again = merge(&parts, &out, Format::Text).unwrap_err();
        assert!(again.message.contains("holds a campaign already"), "{again}");
    }

    #[test]
    fn what_is_missing_or_strange_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (part(&dir.path().join("a"), 1, 9, "map"), part(&dir.path().join("b"), 2, 9, "alloc"));
        assert_eq!(merge(std::slice::from_ref(&one), &dir.path().join("half"), Format::Text).unwrap(), Exit::Workload);
        let strange = merge(&[one, two], &dir.path().join("mixed"), Format::Text).unwrap_err();
        assert!(strange.exit == Exit::Usage && strange.message.contains("no part of the campaign"), "{strange}");
    }
}
