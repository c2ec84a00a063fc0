//! Ends a run at the first finding somebody waits for.

use crate::catalogue::{Code, UnknownCode};
use crate::finding::Severity;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Which findings end a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StopOn {
    /// Those of a rule.
    Code(Code),
    /// Those that are so bad or worse.
    Severity(Severity),
}

impl StopOn {
    /// Whether this finding does.
    #[must_use]
    pub fn matches(self, code: Code, severity: Severity) -> bool {
        match self {
            Self::Code(wanted) => wanted == code,
            Self::Severity(mildest) => severity <= mildest,
        }
    }
}

impl fmt::Display for StopOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => code.fmt(f),
            Self::Severity(severity) => f.write_str(severity.name()),
        }
    }
}

/// The text is neither a severity nor the code of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; so is a severity: error, warning or note")]
pub struct UnknownStop(#[from] UnknownCode);

impl FromStr for StopOn {
    type Err = UnknownStop;

    /// Reads a severity's word or what [`Code`] reads.
    fn from_str(text: &str) -> Result<Self, UnknownStop> {
        let severity = [Severity::Error, Severity::Warning, Severity::Note].into_iter().find(|severity| severity.name() == text);
        severity.map_or_else(|| Ok(Self::Code(text.parse()?)), |severity| Ok(Self::Severity(severity)))
    }
}

impl TryFrom<String> for StopOn {
    type Error = UnknownStop;

    fn try_from(text: String) -> Result<Self, UnknownStop> {
        text.parse()
    }
}

impl From<StopOn> for String {
    fn from(stop: StopOn) -> Self {
        stop.to_string()
    }
}

/// Who ends the machine.
///
/// Called once, with the core's lock held: an implementation takes only locks that are never held while the core is called.
pub trait Stopper: Send + Sync + fmt::Debug {
    /// The finding that was waited for was made.
    fn stop(&self);
}

/// What the core waits for. After the finding nothing is reported any more: what a guest does while its CPUs come to a halt is chance.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    on: Vec<StopOn>,
    stopper: Option<Arc<dyn Stopper>>,
    /// The finding's code, once it was made.
    at: Option<Code>,
}

impl Wait {
    pub(crate) fn new(on: &[StopOn]) -> Self {
        Self { on: on.to_vec(), ..Self::default() }
    }

    pub(crate) fn set_stopper(&mut self, stopper: Arc<dyn Stopper>) {
        self.stopper = Some(stopper);
    }

    /// The code of the finding that ended the run.
    pub(crate) fn at(&self) -> Option<Code> {
        self.at
    }

    /// A finding was kept.
    pub(crate) fn kept(&mut self, code: Code, severity: Severity) {
        if self.at.is_none() && self.on.iter().any(|on| on.matches(code, severity)) {
            self.at = Some(code);
            if let Some(stopper) = &self.stopper {
                stopper.stop();
            }
        }
    }

    /// The run has come to its end: what is found now ends nothing.
    pub(crate) fn over(&mut self) {
        self.on.clear();
    }
}
