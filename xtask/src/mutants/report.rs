//! What is kept of runs, and the document that lists what no test notices.

use super::run::Fate;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The last fate of every change, by its key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub fates: BTreeMap<String, Fate>,
    pub unviable: usize,
}

impl Outcome {
    /// Reads what earlier runs left; nothing when there is none.
    pub fn read(path: &Path) -> Self {
        let saved: Map<String, Value> = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let fate = |value: &Value| match value.as_str()? {
            "caught" => Some(Fate::Caught),
            "hung" => Some(Fate::Hung),
            "missed" => Some(Fate::Missed),
            _ => None,
        };
        Self { fates: saved.iter().filter_map(|(key, value)| Some((key.clone(), fate(value)?))).collect(), unviable: 0 }
    }

    pub fn write(&self, path: &Path) -> Result<(), String> {
        let name = |fate: &Fate| match fate {
            Fate::Caught => "caught",
            Fate::Hung => "hung",
            Fate::Missed => "missed",
        };
        let map: Map<String, Value> = self.fates.iter().map(|(key, fate)| (key.clone(), name(fate).into())).collect();
        fs::write(path, Value::Object(map).to_string()).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn missed(&self) -> BTreeSet<&str> {
        self.fates.iter().filter(|(_, fate)| **fate == Fate::Missed).map(|(key, _)| key.as_str()).collect()
    }

    fn caught(&self) -> f64 {
        percent(self.fates.len() - self.missed().len(), self.fates.len())
    }
}

/// A share of nothing is everything.
pub fn percent(part: usize, whole: usize) -> f64 {
    let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    if whole == 0 { 100.0 } else { 100.0 * number(part) / number(whole) }
}

/// The reasons a document gives, by key.
fn reasons(text: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let (key, reason) = line.strip_prefix("| `")?.split_once("` | ")?;
        let reason = reason.strip_suffix('|')?.trim();
        Some((key.replace("\\|", "|"), reason.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

/// The document for an outcome, with the reasons of the old one.
pub fn document(outcome: &Outcome, old: &str) -> String {
    let reasons = reasons(old);
    let hung = outcome.fates.values().filter(|fate| **fate == Fate::Hung).count();
    let missed = outcome.missed();
    let mut text = format!(
        "# Changes of the coherence core its tests do not notice\n\n\
         `cargo xtask mutants core --write` changes the code of `src/coherence` in every way cargo-mutants would and that compiles, one\n\
         change at a time, and runs the tests that reach it. It writes this list and keeps the reasons; `--check` compares. Tests,\n\
         benchmarks, `Debug` and `Display`, constants and the catalogue's text are not changed, nor bodies that return `impl Trait`.\n\n\
         {} changes, {} caught ({hung} of them because the tests did not end): {:.1} %. {} more do not compile.\n\n\
         | change | why no test notices |\n|---|---|\n",
        outcome.fates.len(),
        outcome.fates.len() - missed.len(),
        outcome.caught(),
        outcome.unviable,
    );
    for key in missed {
        let reason = reasons.get(key).map_or("", String::as_str);
        text += &format!("| `{}` | {reason} |\n", key.replace('|', "\\|"));
    }
    text
}

/// Compares an outcome of all `changes` with the document.
pub fn check(outcome: &Outcome, changes: usize, text: &str, enough: f64) -> Result<(), String> {
    let listed = reasons(text);
    let missed = outcome.missed();
    let mut wrong = Vec::new();
    if outcome.fates.len() < changes {
        wrong.push(format!("{} of {changes} changes were never tried", changes - outcome.fates.len()));
    }
    if outcome.caught() < enough {
        wrong.push(format!("{:.1} % are caught, not {enough} %", outcome.caught()));
    }
    wrong.extend(missed.iter().filter(|key| !listed.contains_key(**key)).map(|key| format!("not in the document: {key}")));
    for (key, reason) in &listed {
        if !missed.contains(key.as_str()) {
            wrong.push(format!("in the document, but caught or gone: {key}"));
        } else if reason.is_empty() {
            wrong.push(format!("without a reason: {key}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("docs/mutants.md:\n  {}", wrong.join("\n  "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(fates: &[(&str, Fate)]) -> Outcome {
        Outcome { fates: fates.iter().map(|(key, fate)| ((*key).to_owned(), *fate)).collect(), unviable: 3 }
    }

    #[test]
    fn reasons_outlive_the_document_they_are_in() {
        let key = "a.rs: f: replace || with && (2)";
        let first = outcome(&[(key, Fate::Missed), ("a.rs: f: delete !", Fate::Missed), ("a.rs: g: delete !", Fate::Caught)]);
        let text = document(&first, "").replace("\\|\\| with && (2)` |  |", "\\|\\| with && (2)` | both are true |");
        assert_eq!(reasons(&text).get(key).map(String::as_str), Some("both are true"));
        let second = document(&outcome(&[(key, Fate::Missed), ("a.rs: f: delete !", Fate::Hung)]), &text);
        assert!(second.contains("2 changes, 1 caught (1 of them because the tests did not end): 50.0 %"), "{second}");
        assert_eq!(reasons(&second), BTreeMap::from([(key.to_owned(), "both are true".to_owned())]));
    }

    #[test]
    fn the_check_names_what_is_wrong() {
        let fates = [("a", Fate::Missed), ("b", Fate::Caught), ("c", Fate::Hung), ("d", Fate::Caught)];
        let text = "| `a` | the same either way |\n";
        assert_eq!(check(&outcome(&fates), 4, text, 75.0), Ok(()));
        let wrong = |text: &str, changes, enough| check(&outcome(&fates), changes, text, enough).unwrap_err();
        assert!(wrong(text, 4, 90.0).contains("75.0 % are caught, not 90 %"));
        assert!(wrong(text, 5, 75.0).contains("1 of 5 changes were never tried"));
        assert!(wrong("", 4, 75.0).contains("not in the document: a"));
        assert!(wrong("| `a` |  |\n", 4, 75.0).contains("without a reason: a"));
        assert!(wrong("| `a` | x |\n| `b` | y |\n", 4, 75.0).contains("in the document, but caught or gone: b"));
    }
}
