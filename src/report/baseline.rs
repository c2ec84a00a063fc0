//! What is accepted: findings known since a baseline was taken, and suppressions with a reason.
//!
//! A finding is recognised by what stays when source moves: code, driver, function and file. Not by lines, devices or addresses.

use crate::exit::Failure;
use crate::place;
use crate::report::{Report, ReportFinding, ReportSite};
use dmavet_coherence::{Code, Severity};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::value::Datetime;

/// What is accepted in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The file it comes from.
    pub file: PathBuf,
    /// What it accepts.
    pub entries: Vec<Entry>,
}

/// One thing that is accepted. What is not given matches anything; an empty text matches what is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rule code.
    pub code: String,
    /// Driver bound to the device.
    pub driver: Option<String>,
    /// Function named in the finding's first line.
    pub function: Option<String>,
    /// Its source file, or the last parts of its path.
    pub file: Option<String>,
    /// Why, for a suppression; nothing for what is merely known.
    pub reason: Option<String>,
    /// Last day on which it is accepted (YYYY-MM-DD, UTC).
    pub expires: Option<String>,
    /// Whether that day was over when the run was prepared.
    #[serde(default)]
    pub expired: bool,
}

/// What is told of a finding that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Whether a suppression does it, or the finding was known.
    pub by: AcceptedBy,
    /// Why, for a suppression.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// By what a finding is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceptedBy {
    /// It was there when the baseline was taken.
    Known,
    /// Somebody gave a reason.
    Suppression,
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "suppressed: {reason}"),
            None => f.write_str("known"),
        }
    }
}

/// What became of a baseline in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineReport {
    /// The file.
    pub file: String,
    /// How many findings it accepts.
    pub accepted: usize,
    /// Entries whose time is over: what they matched counts again.
    pub expired: Vec<String>,
    /// Entries that matched nothing, though the driver was there and the run came to its end.
    pub unmatched: Vec<String>,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Spanned<u32>,
    #[serde(default)]
    known: Vec<Known>,
    #[serde(default)]
    suppress: Vec<Suppress>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    code: Spanned<String>,
    driver: String,
    function: String,
    file: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suppress {
    code: Spanned<String>,
    driver: Option<String>,
    function: Option<String>,
    file: Option<String>,
    reason: Spanned<String>,
    expires: Option<Spanned<toml::Value>>,
}

impl Baseline {
    /// The version of the file that is written and read.
    const VERSION: u32 = 1;

    /// Reads a baseline; `today` is YYYY-MM-DD.
    ///
    /// # Errors
    /// When there is none, or something in it is wrong.
    pub fn load(path: &Path, today: &str) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let hint = if e.kind() == ErrorKind::NotFound { " (--baseline-write makes one)" } else { "" };
            Failure::usage(format!("cannot read the baseline {}: {e}{hint}", path.display()))
        })?;
        Self::parse(path, &text, today)
    }

    /// The same, and an empty one where there is none.
    ///
    /// # Errors
    /// When something in it is wrong.
    pub fn load_or_empty(path: &Path, today: &str) -> Result<Self, Failure> {
        if path.exists() { Self::load(path, today) } else { Ok(Self { file: path.into(), entries: Vec::new() }) }
    }

    fn parse(path: &Path, text: &str, today: &str) -> Result<Self, Failure> {
        let document: Document = toml::from_str(text).map_err(|e| place::not_toml(path, text, &e))?;
        if *document.version.get_ref() != Self::VERSION {
            let what = format!("version {}; this dmavet reads version {}", document.version.get_ref(), Self::VERSION);
            return Err(place::wrong(path, text, document.version.span(), what));
        }
        let code = |code: Spanned<String>| match code.get_ref().parse::<Code>() {
            Ok(known) => Ok(known.to_string()),
            Err(_) => Err(place::wrong(path, text, code.span(), format!("there is no rule {:?}; see dmavet list rules", code.get_ref()))),
        };
        let mut entries = Vec::new();
        for known in document.known {
            entries.push(Entry {
                code: code(known.code)?,
                driver: Some(known.driver),
                function: Some(known.function),
                file: Some(known.file),
                reason: None,
                expires: None,
                expired: false,
            });
        }
        for suppress in document.suppress {
            if suppress.reason.get_ref().trim().is_empty() {
                return Err(place::wrong(path, text, suppress.reason.span(), "a suppression needs a reason"));
            }
            let expires = suppress.expires.map(|value| {
                let wrong = || place::wrong(path, text, value.span(), "expires is a date, YYYY-MM-DD");
                date(value.get_ref()).ok_or_else(wrong)
            });
            let expires = expires.transpose()?;
            entries.push(Entry {
                code: code(suppress.code)?,
                driver: suppress.driver,
                function: suppress.function,
                file: suppress.file,
                reason: Some(suppress.reason.into_inner()),
                // Dates of this form are in order as texts are.
                expired: expires.as_deref().is_some_and(|last| last < today),
                expires,
            });
        }
        Ok(Self { file: path.into(), entries })
    }

    /// Marks the findings that are accepted. `drivers` were there; in a run that is not `whole`, what did not show may still be there.
    pub fn apply(&self, findings: &mut [ReportFinding], drivers: &[String], whole: bool) -> BaselineReport {
        let mut matched = vec![false; self.entries.len()];
        let mut report = BaselineReport { file: self.file.display().to_string(), ..BaselineReport::default() };
        for finding in findings {
            let key = Key::of(finding);
            let mut by = None;
            for (entry, matched) in self.entries.iter().zip(&mut matched).filter(|(entry, _)| entry.matches(&key)) {
                *matched = true;
                by = by.or_else(|| Some(entry).filter(|entry| !entry.expired));
            }
            finding.accepted = by.map(|entry| Accepted {
                by: if entry.reason.is_some() { AcceptedBy::Suppression } else { AcceptedBy::Known },
                reason: entry.reason.clone(),
            });
            report.accepted += usize::from(finding.accepted.is_some());
        }
        for (entry, matched) in self.entries.iter().zip(matched) {
            if entry.expired {
                report.expired.push(entry.to_string());
            } else if !matched && whole && entry.driver.as_ref().is_none_or(|driver| drivers.contains(driver)) {
                report.unmatched.push(entry.to_string());
            }
        }
        report
    }
}

impl Entry {
    fn matches(&self, key: &Key<'_>) -> bool {
        let equal = |wanted: &Option<String>, there: &str| wanted.as_ref().is_none_or(|wanted| wanted == there);
        self.code == key.code
            && equal(&self.driver, key.driver)
            && equal(&self.function, key.function)
            && self.file.as_ref().is_none_or(|wanted| wanted == key.file || (!wanted.is_empty() && Path::new(key.file).ends_with(wanted)))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        for (word, value) in [("driver", &self.driver), ("function", &self.function), ("file", &self.file)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                write!(f, " {word} {value}")?;
            }
        }
        match (&self.reason, &self.expires) {
            (Some(reason), Some(expires)) => write!(f, ": {reason} (until {expires})"),
            (Some(reason), None) => write!(f, ": {reason}"),
            _ => Ok(()),
        }
    }
}

/// The day of a TOML date or a text that is one.
fn date(value: &toml::Value) -> Option<String> {
    let date = match value {
        toml::Value::Datetime(value) => *value,
        toml::Value::String(text) => text.parse::<Datetime>().ok()?,
        _ => return None,
    };
    match date {
        Datetime { date: Some(date), time: None, offset: None } => Some(date.to_string()),
        _ => None,
    }
}

/// What a finding is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key<'a> {
    /// Rule code.
    pub code: &'a str,
    /// Driver.
    pub driver: &'a str,
    /// Function: where the offence was, or else what the finding can name.
    pub function: &'a str,
    /// Its source file.
    pub file: &'a str,
}

impl<'a> Key<'a> {
    /// The key of a finding.
    #[must_use]
    pub fn of(finding: &'a ReportFinding) -> Self {
        let made = finding.mapping.as_ref().map(|mapping| &mapping.made);
        let sites = [finding.offence.as_ref(), finding.consequence.as_ref(), finding.handover.as_ref(), made];
        let frame = sites.into_iter().flatten().find_map(ReportSite::top);
        let (function, file) = frame.map_or(("", ""), |frame| (frame.function.as_str(), frame.file.as_str()));
        Self { code: &finding.code, driver: &finding.driver, function, file }
    }

    /// The file as it is kept: relative to `root` where it is below it; of other absolute paths, which differ from machine to machine,
    /// the name only.
    fn kept_file(&self, root: Option<&Path>) -> String {
        let path = Path::new(self.file.trim_start_matches("./"));
        let path = root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(path);
        let path = if path.is_absolute() { path.file_name().map_or(path, Path::new) } else { path };
        path.display().to_string()
    }
}

/// Findings to accept from now on: those of `reports` that no suppression accepts already.
#[derive(Debug)]
pub struct Taken(Vec<[String; 4]>);

impl Taken {
    /// Takes them; `root` is where sources are.
    #[must_use]
    pub fn from<'a>(reports: impl IntoIterator<Item = &'a Report>, root: Option<&Path>) -> Self {
        let findings = reports.into_iter().flat_map(|report| &report.findings);
        let counted = findings.filter(|finding| finding.severity != Severity::Note);
        let open = counted.filter(|finding| finding.accepted.as_ref().is_none_or(|accepted| accepted.by == AcceptedBy::Known));
        let mut keys: Vec<[String; 4]> = open
            .map(|finding| {
                let key = Key::of(finding);
                [key.code.into(), key.driver.into(), key.function.into(), key.kept_file(root)]
            })
            .collect();
        keys.sort();
        keys.dedup();
        Self(keys)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The file that accepts them: a new one, or `old` with its suppressions and comments.
    ///
    /// # Errors
    /// When `old` is not TOML.
    pub fn document(&self, old: Option<&str>) -> Result<String, toml_edit::TomlError> {
        const NEW: &str = "# What dmavet run --baseline accepts. [[known]] is written by dmavet; [[suppress]] is yours: a code, the driver,\n\
                           # function and file it is for (any that is left out), a reason, and the last day it holds (expires = YYYY-MM-DD).\n\
                           version = 1\n";
        let mut document: toml_edit::DocumentMut = old.unwrap_or(NEW).parse()?;
        let known = self.0.iter().map(|key| {
            let fields = ["code", "driver", "function", "file"].into_iter().zip(key);
            fields.map(|(name, value)| (name, toml_edit::value(value))).collect::<toml_edit::Table>()
        });
        let known: toml_edit::ArrayOfTables = known.collect();
        document.remove("known");
        if !known.is_empty() {
            document.insert("known", toml_edit::Item::ArrayOfTables(known));
        }
        Ok(document.to_string())
    }
}

#[cfg(test)]
mod tests;
