//! The rule catalogue: every code, what the rule says, where it comes from, an example of the bug, and the fix.

mod attrs;
mod bus;
mod life;
mod lines;
mod origin;
mod sync;

pub use origin::{Events, KernelCheck};

use crate::finding::Severity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A rule's stable code (`DV201`). A code is never reused or renumbered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

macro_rules! codes {
    ($($name:ident = $number:literal),* $(,)?) => {
        impl Code {
            $(
                #[doc = concat!("Rule ", stringify!($number), "; see the catalogue.")]
                pub const $name: Self = Self($number);
            )*
            /// Every code, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

codes! {
    DV101 = 101, DV102 = 102, DV103 = 103, DV104 = 104, DV105 = 105, DV106 = 106, DV107 = 107, DV108 = 108, DV109 = 109,
    DV110 = 110, DV111 = 111, DV112 = 112, DV113 = 113, DV114 = 114, DV115 = 115, DV116 = 116, DV117 = 117,
    DV201 = 201, DV202 = 202, DV203 = 203, DV204 = 204, DV205 = 205, DV206 = 206, DV207 = 207, DV208 = 208, DV209 = 209,
    DV210 = 210, DV211 = 211, DV212 = 212, DV213 = 213, DV214 = 214, DV215 = 215, DV216 = 216, DV217 = 217, DV218 = 218,
    DV219 = 219, DV220 = 220, DV221 = 221, DV222 = 222,
    DV301 = 301, DV302 = 302, DV303 = 303, DV304 = 304,
    DV401 = 401, DV402 = 402, DV403 = 403, DV404 = 404, DV405 = 405,
    DV501 = 501, DV502 = 502, DV503 = 503,
    DV901 = 901,
}

impl Code {
    /// The number without the letters.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The rule.
    #[must_use]
    pub fn rule(self) -> &'static Rule {
        // Every constant above has an entry; a test makes sure of it.
        rules().find(|rule| rule.code == self).unwrap_or(&bus::BLIND_SPOT)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DV{}", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not the code of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the code or the name of a rule: DV201 and missing-sync-for-device are")]
pub struct UnknownCode(pub String);

impl FromStr for Code {
    type Err = UnknownCode;

    /// Reads `DV201`, `dv201`, `201` or the rule's short name.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        let number = lower.strip_prefix("dv").unwrap_or(&lower).parse().ok();
        let found = rules().find(|rule| Some(rule.code.0) == number || rule.slug == lower);
        found.map(|rule| rule.code).ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One rule of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its code.
    pub code: Code,
    /// Its short name.
    pub slug: &'static str,
    /// How bad breaking it is.
    pub severity: Severity,
    /// When it is milder, worse or not looked for, in words; empty when never.
    pub except: &'static str,
    /// What it says.
    pub rule: &'static str,
    /// Where it comes from: kernel documentation or a specification.
    pub source: &'static str,
    /// The bug, as code.
    pub example: &'static str,
    /// What to change.
    pub fix: &'static str,
    /// Whether this version checks it.
    pub checked: bool,
}

/// Every rule, in order of its code.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [life::RULES, sync::RULES, lines::RULES, attrs::RULES, bus::RULES].into_iter().flatten()
}

/// Sources, as they are abbreviated in the catalogue.
const API: &str = "Documentation/core-api/dma-api.rst";
const HOWTO: &str = "Documentation/core-api/dma-api-howto.rst";
const ATTRS: &str = "Documentation/core-api/dma-attributes.rst";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_rule_in_order_and_complete() {
        let listed: Vec<_> = rules().map(|rule| rule.code).collect();
        assert_eq!(listed, Code::ALL);
        let mut slugs: Vec<_> = rules().map(|rule| rule.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), listed.len(), "a short name is used twice");
        for rule in rules() {
            for text in [rule.slug, rule.rule, rule.source, rule.example, rule.fix] {
                assert!(!text.is_empty(), "{}", rule.code);
            }
            assert!(rule.fix.ends_with('.') && rule.rule.ends_with('.'), "{}: sentences end", rule.code);
        }
    }

    #[test]
    fn codes_read_and_print() {
        for text in ["DV201", "dv201", "201", "missing-sync-for-device", " DV201 "] {
            assert_eq!(text.parse(), Ok(Code::DV201));
        }
        assert!("DV999".parse::<Code>().is_err());
        assert_eq!(Code::DV201.to_string(), "DV201");
        assert_eq!(serde_json::to_string(&Code::DV101).unwrap(), "\"DV101\"");
        assert_eq!(serde_json::from_str::<Code>("\"DV101\"").unwrap(), Code::DV101);
        assert_eq!(Code::DV901.rule().slug, "blind-spot");
    }
}
