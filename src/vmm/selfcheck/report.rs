//! What the self-check found.

use super::conductor::Came;
use super::form::Form;
use crate::watch::Ways;
use serde::{Deserialize, Serialize};

/// How a form did in one trapped pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Verdict {
    /// The same as untrapped.
    Right {
        /// What was done about its traps.
        #[serde(flatten)]
        ways: Counts,
    },
    /// Not the same.
    Wrong {
        /// What is different.
        what: String,
        /// What was done about its traps.
        #[serde(flatten)]
        ways: Counts,
    },
    /// It touched guarded memory and nobody noticed.
    Unseen,
    /// The machine ended in the middle.
    Broke {
        /// How.
        how: String,
    },
    /// The guest's CPU has no such instruction.
    NotThere,
    /// This KVM cannot run it.
    CannotRun {
        /// Why.
        why: String,
    },
}

/// Traps by what was done about them; see [`Ways`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Tier 1.
    pub emulated: u64,
    /// Tier 2.
    pub stepped: u64,
    /// Opened without a step.
    pub opened: u64,
    /// Brought by KVM's own emulator.
    pub served: u64,
    /// Exceptions injected.
    pub injected: u64,
    /// Steps made once more.
    #[serde(default)]
    pub repeated: u64,
}

impl From<Ways> for Counts {
    fn from(ways: Ways) -> Self {
        Self {
            emulated: ways.emulated,
            stepped: ways.stepped,
            opened: ways.opened,
            served: ways.served,
            injected: ways.injected,
            repeated: ways.repeated,
        }
    }
}

impl Verdict {
    /// What `came` out of `form`, beside what came out untrapped. With `emulator`, KVM's instruction emulator runs the guest: what it cannot do or
    /// does wrong by itself is not the watch's.
    pub(super) fn judge(form: &Form, undefined: u64, untrapped: &Came, came: &Came, emulator: bool) -> Self {
        let (expected, state, ways) = match (untrapped, came) {
            (Came::NotThere, _) | (_, Came::NotThere) => return Self::NotThere,
            (Came::Broke(why), _) | (_, Came::Broke(why)) if emulator => return Self::CannotRun { why: why.clone() },
            (Came::Broke(why), _) => return Self::Broke { how: format!("untrapped: {why}") },
            (_, Came::Broke(how)) => return Self::Broke { how: how.clone() },
            (Came::Ran(expected, _), Came::Ran(state, ways)) => (expected, state, *ways),
        };
        let unexpected = match (expected.exception(), form.faults) {
            (Some(exception), false) => Some(format!("untrapped it ends in exception {exception}")),
            (None, true) => Some("untrapped it ends in no exception".to_owned()),
            _ => None,
        };
        let ours = ways.emulated + ways.stepped + ways.injected != 0;
        match unexpected.or_else(|| expected.differences(state, undefined)) {
            Some(what) if emulator && !ours => Self::CannotRun { why: format!("KVM's instruction emulator: {what}") },
            Some(what) => Self::Wrong { what, ways: ways.into() },
            None if ways.total() == 0 && !form.quiet => Self::Unseen,
            None => Self::Right { ways: ways.into() },
        }
    }

    /// It contradicts what is expected of the watch.
    #[must_use]
    pub fn failed(&self) -> bool {
        matches!(self, Self::Wrong { .. } | Self::Unseen | Self::Broke { .. })
    }

    /// It ran and was right.
    #[must_use]
    pub fn right(&self) -> Option<Counts> {
        match self {
            Self::Right { ways } => Some(*ways),
            _ => None,
        }
    }
}

/// One form.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FormReport {
    /// Its name.
    pub form: String,
    /// Emulated where the emulator knows it.
    pub auto: Verdict,
    /// Always stepped.
    pub step: Verdict,
}

/// CPUs at one page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HammerReport {
    /// What they did.
    pub what: String,
    /// CPUs of the guest.
    pub cpus: u8,
    /// CPUs of this machine that the guest's can run on.
    pub host_cpus: usize,
    /// Increments made.
    pub made: u64,
    /// What the memory says.
    pub counted: u64,
    /// Accesses the core was told of.
    pub told: u64,
    /// Traps by what was done about them.
    pub ways: Counts,
    /// What is wrong, if anything.
    pub failure: Option<String>,
}

/// Everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Why the CPU does not run the guest's instructions itself here, if so. Then some forms cannot be run.
    pub not_native: Option<String>,
    /// Why this KVM cannot single-step, if so.
    pub no_single_step: Option<String>,
    /// How pages were guarded.
    pub backend: String,
    /// By form.
    pub forms: Vec<FormReport>,
    /// Several CPUs at one page.
    pub hammer: Vec<HammerReport>,
    /// Seconds it took.
    pub seconds: f64,
}

impl Report {
    /// What went wrong, a line for each.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for form in &self.forms {
            for (tier, verdict) in [("emulated where possible", &form.auto), ("stepped", &form.step)] {
                let what = match verdict {
                    Verdict::Wrong { what, .. } => what.clone(),
                    Verdict::Unseen => "not noticed".into(),
                    Verdict::Broke { how } => how.clone(),
                    _ => continue,
                };
                lines.push(format!("{}, {tier}: {what}", form.form));
            }
        }
        lines.extend(self.hammer.iter().filter_map(|hammer| Some(format!("{}: {}", hammer.what, hammer.failure.as_ref()?))));
        lines
    }

    /// How many forms ran rightly both ways or in the one way that can run here.
    #[must_use]
    pub fn right(&self) -> usize {
        self.forms.iter().filter(|form| form.auto.right().is_some() || form.step.right().is_some()).count()
    }

    /// Forms for which `way` counts something, in the pass that `pass` picks.
    #[must_use]
    pub fn ran(&self, pass: fn(&FormReport) -> &Verdict, way: fn(Counts) -> u64) -> usize {
        self.forms.iter().filter(|form| pass(form).right().is_some_and(|counts| way(counts) > 0)).count()
    }

    /// Forms that this KVM, or the guest's CPU, cannot run.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.forms.iter().filter(|form| matches!(form.auto, Verdict::NotThere | Verdict::CannotRun { .. })).count()
    }
}
