//! Fewer faults for the same finding.
//!
//! Greedy, one fault at a time: every set with one fault less is run, all findings' sets in one go; the first that still shows its finding
//! is where the next round begins. What is left then needs each of its faults.

use crate::campaign::space::Case;
use crate::campaign::store::{Campaign, Done, Store};
use crate::campaign::summary::{Summary, Unique};
use crate::exit::Failure;
use crate::report::build::Identity;
use std::collections::BTreeMap;

/// Runs cases and says of each, in order, how it went; the number of the attempt names its run directory.
pub type Try<'a> = dyn FnMut(&[(usize, Case)]) -> Result<Vec<Done>, Failure> + 'a;

/// Finds the least faults for each finding whose first case had several.
///
/// # Errors
/// Those of `attempt`, or when what was found cannot be kept.
pub fn shrink(
    campaign: &Campaign,
    done: &BTreeMap<u64, Done>,
    store: &Store,
    attempt: &mut Try<'_>,
) -> Result<Vec<(Identity, Case)>, Failure> {
    let mut least = store.shrunk()?;
    let summary = Summary::of(campaign, done, &least);
    let known = |unique: &Unique, least: &[(Identity, Case)]| least.iter().any(|(identity, _)| *identity == unique.identity);
    let mut open: Vec<Unique> = summary.findings.into_iter().filter(|u| u.case.faults.len() > 1 && !known(u, &least)).collect();
    let mut number = 0;
    while !open.is_empty() {
        let mut tries = Vec::new();
        for unique in &open {
            for gone in 0..unique.case.faults.len() {
                let mut case = unique.case.clone();
                case.faults.remove(gone);
                number += 1;
                tries.push((number, case));
            }
        }
        let mut results = attempt(&tries)?.into_iter();
        let mut tries = tries.into_iter().map(|(_, case)| case);
        let mut smaller = Vec::new();
        for unique in open {
            let sets = unique.case.faults.len();
            let mut tried = tries.by_ref().take(sets).zip(results.by_ref().take(sets)).collect::<Vec<_>>().into_iter();
            match tried.find(|(_, done)| done.findings.contains(&unique.identity)) {
                Some((case, _)) if case.faults.len() > 1 => smaller.push(Unique { case, ..unique }),
                Some((case, _)) => least.push((unique.identity, case)),
                None => least.push((unique.identity, unique.case)),
            }
        }
        open = smaller;
        store.save_shrunk(&least)?;
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::space::{Shard, Space};
    use crate::exit::Exit;
    use dmavet_coherence::Severity;

    fn identity(code: &str) -> Identity {
        Identity { severity: Severity::Error, code: code.into(), device: "0000:00:02.0".into(), made: Vec::new(), offence: Vec::new() }
    }

    /// A driver with one mistake that needs fault `b` and one that needs `a` and `c`.
    fn found(faults: &[String]) -> Vec<Identity> {
        let has = |name: &str| faults.iter().any(|fault| fault == name);
        let first = has("b").then(|| identity("DV109"));
        first.into_iter().chain((has("a") && has("c")).then(|| identity("DV106"))).collect()
    }

    fn done(case: &Case) -> Done {
        Done {
            index: case.index,
            exit: Exit::Findings,
            reason: String::new(),
            injected: 1,
            findings: found(&case.faults),
            reached: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_not_needed_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_path_buf());
        let case = Case { index: 1, seed: 9, faults: ["a", "b", "c", "d"].map(str::to_owned).into() };
        let campaign = Campaign {
            format: Campaign::FORMAT.into(),
            version: Campaign::VERSION,
            command: Vec::new(),
            repeat: Vec::new(),
            space: Space { faults: Vec::new(), seeds: (9, 9), limit: 1, together: 4 },
            shard: Shard::WHOLE,
            points: 4,
            cases: vec![case.clone()],
        };
        let all = BTreeMap::from([(1, done(&case))]);
        let mut rounds = 0;
        let mut attempt = |tries: &[(usize, Case)]| {
            rounds += 1;
            Ok(tries.iter().map(|(_, case)| done(case)).collect())
        };
        let least = shrink(&campaign, &all, &store, &mut attempt).unwrap();
        let of = |code: &str| least.iter().find(|(id, _)| id.code == code).map(|(_, case)| case.faults.join(" "));
        assert_eq!((of("DV109").as_deref(), of("DV106").as_deref()), (Some("b"), Some("a c")));
        assert_eq!(rounds, 3);
        assert_eq!(shrink(&campaign, &all, &store, &mut |_: &[(usize, Case)]| unreachable!()).unwrap(), least, "it is kept");
    }
}
