//! What is kept of earlier runs, the table and the document.

use super::build::Prepared;
use super::plain::Noticed;
use super::rules::{Class, Mutant};
use crate::mutants::percent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What became of a mutant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    pub verdict: Verdict,
    /// The finding that caught it and the line it names.
    pub code: String,
    pub place: String,
    /// Whether calls had to fail for that.
    pub faults: bool,
    /// Whether the driver came to the call at all.
    pub reached: Option<bool>,
    /// For what is not caught: the errors and warnings there were, and how the run ended.
    pub instead: String,
}

/// The verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Caught,
    #[default]
    Missed,
    /// No byte differed on either side in many runs.
    Equivalent,
    /// It does not compile.
    Unviable,
}

impl Verdict {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::Missed => "MISSED",
            Self::Equivalent => "equivalent",
            Self::Unviable => "does not compile",
        }
    }
}

/// The last fate of every mutant, by its key.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub fates: BTreeMap<String, Fate>,
    /// For each driver that was silent as it is, the calls its workload comes to.
    #[serde(default)]
    pub controls: BTreeMap<String, Vec<(String, u32)>>,
    /// What came of plain QEMU, by the key of a mutant or the name of a driver as it is.
    #[serde(default)]
    pub plain: BTreeMap<String, Noticed>,
}

impl Outcome {
    /// What earlier runs left; nothing when there is none.
    pub fn read(path: &Path) -> Self {
        fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Whether the mutant was tried, but not in plain QEMU.
    pub fn lacks_plain(&self, key: &str) -> bool {
        self.fates.get(key).is_some_and(|fate| fate.verdict != Verdict::Unviable) && !self.plain.contains_key(key)
    }

    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| e.to_string())?;
        fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// Counts of verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    pub caught: usize,
    pub judged: usize,
    pub equivalent: usize,
    pub unreached: usize,
}

impl Score {
    pub fn of<'a>(fates: impl Iterator<Item = &'a Fate>) -> Self {
        let mut score = Self::default();
        for fate in fates {
            match fate.verdict {
                Verdict::Unviable => continue,
                Verdict::Equivalent => score.equivalent += 1,
                Verdict::Caught => score.caught += 1,
                Verdict::Missed => {}
            }
            score.judged += usize::from(fate.verdict != Verdict::Equivalent);
            score.unreached += usize::from(fate.verdict == Verdict::Missed && fate.reached == Some(false));
        }
        score
    }

    /// The sentence the task ends with.
    pub fn said(&self) -> String {
        if self.judged + self.equivalent == 0 {
            return "none tried yet".into();
        }
        let mut text = format!("{} of {} caught ({:.1} %)", self.caught, self.judged, percent(self.caught, self.judged));
        if self.unreached > 0 {
            let reached = self.judged - self.unreached;
            text += &format!("; {} of the missed are at calls no run came to: {} of {reached} of the others", self.unreached, self.caught);
            text += &format!(" ({:.1} %)", percent(self.caught, reached));
        }
        if self.equivalent > 0 {
            text += &format!("; {} equivalent", self.equivalent);
        }
        text
    }
}

/// The mutants with their fates, those never tried left out.
pub fn tried<'a>(prepared: &'a [Prepared], outcome: &'a Outcome) -> Vec<(&'a Mutant, &'a Fate)> {
    let all = prepared.iter().flat_map(|p| &p.mutants);
    all.filter_map(|mutant| Some((mutant, outcome.fates.get(&mutant.key())?))).collect()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn row(mutant: &Mutant, fate: &Fate, plain: Option<&Noticed>) -> String {
    let verdict = match fate.verdict {
        Verdict::Caught if fate.faults => format!("caught, {}, with failing calls", fate.code),
        Verdict::Caught => format!("caught, {}", fate.code),
        Verdict::Missed if fate.reached == Some(false) => "MISSED, never reached".to_owned(),
        other => other.name().to_owned(),
    };
    let place = if fate.verdict == Verdict::Caught { &fate.place } else { &fate.instead };
    format!(
        "| `{}:{}` | `{}` | {} | {} | {verdict} | {} | {} |\n",
        mutant.file.rsplit('/').next().unwrap_or_default(),
        mutant.line,
        mutant.function,
        mutant.class.name(),
        cell(&mutant.change),
        cell(place),
        plain.map_or("-", |noticed| noticed.name()),
    )
}

/// How many of them the workload notices in plain QEMU, and how many were tried there. As for the score, what is equivalent does not count.
fn noticed(tried: &[(&Mutant, &Fate)], outcome: &Outcome) -> (usize, usize) {
    let counts = tried.iter().filter(|(_, fate)| matches!(fate.verdict, Verdict::Caught | Verdict::Missed));
    let plain: Vec<&Noticed> = counts.filter_map(|(mutant, _)| outcome.plain.get(&mutant.key())).collect();
    (plain.iter().filter(|noticed| ***noticed != Noticed::No).count(), plain.len())
}

fn plain_said(tried: &[(&Mutant, &Fate)], outcome: &Outcome) -> String {
    match noticed(tried, outcome) {
        (_, 0) => String::new(),
        (noticed, plain) => {
            let share = percent(noticed, plain);
            format!(
                " With `swiotlb=force` and without dmavet the workload notices **{noticed} of {plain}** ({share:.1} %), and names no line."
            )
        }
    }
}

/// The document for what has been tried; `notes` of the old one (everything below its last rule) is kept.
pub fn document(prepared: &[Prepared], outcome: &Outcome, old: &str) -> String {
    let tried = tried(prepared, outcome);
    let score = Score::of(tried.iter().map(|(_, fate)| *fate));
    let all: usize = prepared.iter().map(|p| p.mutants.len()).sum();
    let untried = if tried.len() < all { format!(" {} more have not been tried yet.", all - tried.len()) } else { String::new() };
    let mut text = format!(
        "# Mutants of in-tree drivers\n\n\
         `cargo xtask mutants --write` takes drivers from the distribution's own kernel source package, changes one DMA call at a time,\n\
         builds the module, runs it in place of the kernel's and writes this table. The changes follow from rules (`xtask/src/drivers/rules.rs`),\n\
         applied to every call of the DMA API and of the driver's own functions that stand for one. The unchanged driver, built the\n\
         same way, has to be silent in the same batch, also with failing calls.\n\n\
         Caught means: an error or warning with a code of the class, which names a line of the function that was changed or, where a call\n\
         is missing that would have a place, one of the driver's own DMA calls, such as the one that made the mapping. Everything else\n\
         is a miss, calls that no run comes to included. A miss is called equivalent only after 20 runs with `--profile worst --cache\n\
         random` in which no byte differed (`--equivalence`).\n\n\
         Mutants are tried in turn (`--first`): one of each class of each driver, then the second of each, and so on.\n\n\
         The last column is what can be had without dmavet: the same module on the same kernel in plain QEMU, with all DMA through bounce\n\
         buffers (`swiotlb=force`), and whether the workload notices anything (`--swiotlb`).\n\n\
         **{}.**{}{}\n\n| class | codes that name it | caught | noticed with `swiotlb=force` |\n|---|---|---|---|\n",
        score.said(),
        untried,
        plain_said(&tried, outcome),
    );
    for class in Class::ALL {
        let of_class: Vec<_> = tried.iter().filter(|(mutant, _)| mutant.class == class).copied().collect();
        let score = Score::of(of_class.iter().map(|(_, fate)| *fate));
        let (noticed, plain) = noticed(&of_class, outcome);
        if score.judged > 0 {
            let codes = class.codes().join(" ");
            text += &format!("| {} | {codes} | {} of {} | {noticed} of {plain} |\n", class.name(), score.caught, score.judged);
        }
    }
    for prepared in prepared {
        let of_driver: Vec<_> = prepared.mutants.iter().filter_map(|m| Some((m, outcome.fates.get(&m.key())?))).collect();
        if of_driver.is_empty() {
            continue;
        }
        let score = Score::of(of_driver.iter().map(|(_, fate)| *fate));
        text += &format!("\n## {}\n\n{} {}: {}.", prepared.driver.name, prepared.driver.kernel, prepared.release(), score.said());
        let untried = prepared.mutants.len() - of_driver.len();
        if untried > 0 {
            text += &format!(" {untried} more have not been tried yet.");
        }
        for (why, count) in &prepared.left_out {
            text += &format!(" {count} left out: {why}.");
        }
        text += "\n\n| line | function | class | change | verdict | line named, or what there was instead | `swiotlb=force` |\n|---|---|---|---|---|---|---|\n";
        for (mutant, fate) in of_driver.iter().filter(|(_, fate)| fate.verdict != Verdict::Unviable) {
            text += &row(mutant, fate, outcome.plain.get(&mutant.key()));
        }
    }
    let notes = old.split_once(NOTES).map_or("\n", |(_, notes)| notes);
    text + "\n" + NOTES + notes
}

/// What follows is written by people and kept.
const NOTES: &str = "## Why the others were missed\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_counts_what_was_never_reached_as_missed() {
        let fate = |verdict, reached| Fate { verdict, reached, ..Fate::default() };
        let fates = [
            fate(Verdict::Caught, Some(true)),
            fate(Verdict::Caught, None),
            fate(Verdict::Missed, Some(false)),
            fate(Verdict::Missed, Some(true)),
            fate(Verdict::Equivalent, None),
            fate(Verdict::Unviable, None),
        ];
        let score = Score::of(fates.iter());
        assert_eq!((score.caught, score.judged, score.equivalent, score.unreached), (2, 4, 1, 1));
        let said = "2 of 4 caught (50.0 %); 1 of the missed are at calls no run came to: 2 of 3 of the others (66.7 %); 1 equivalent";
        assert_eq!(score.said(), said);
    }

    #[test]
    fn notes_outlive_the_document_they_are_in() {
        let text = document(&[], &Outcome::default(), "# Old\n## Why the others were missed\n\nBecause.\n");
        assert!(
            text.starts_with("# Mutants of in-tree drivers\n") && text.ends_with("## Why the others were missed\n\nBecause.\n"),
            "{text}"
        );
    }
}
