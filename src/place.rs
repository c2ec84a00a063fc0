//! Places in text files a user wrote.

use crate::exit::Failure;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

/// A mistake in a file, with line and column (counted from 1, in characters) of the bytes `at`.
pub fn wrong(path: &Path, text: &str, at: Range<usize>, what: impl Display) -> Failure {
    let before = text.get(..at.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Failure::usage(format!("{}:{line}:{column}: {what}", path.display()))
}

/// A text that a reader of TOML does not take.
pub fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    wrong(path, text, error.span().unwrap_or_default(), error.message())
}
