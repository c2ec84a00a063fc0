//! The rules: small functions from an event and the state before it to a verdict, a module per family.

pub(crate) mod bus;
pub(crate) mod cpu;
pub(crate) mod device;
pub(crate) mod fault;
pub(crate) mod life;
pub(crate) mod lines;
pub(crate) mod map;
pub(crate) mod ownership;
pub(crate) mod sync;

use crate::catalogue::Code;
use crate::finding::{AccessInfo, ByteRange, Offence, Severity};
use crate::ids::SiteId;

/// What a rule says about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) code: Code,
    pub(crate) severity: Severity,
    /// The primary code that `code` replaces.
    pub(crate) kind: Option<Code>,
    pub(crate) range: Option<ByteRange>,
    /// One sentence.
    pub(crate) message: String,
    /// One sentence; the rule's own fix when `None`.
    pub(crate) advice: Option<String>,
    /// Sequence number of the hand-over at fault, when that is not simply the last one of the bytes.
    pub(crate) at_fault: Option<u64>,
    /// Where it took effect.
    pub(crate) consequence: Option<Offence>,
    /// The CPU's access.
    pub(crate) access: Option<AccessInfo>,
}

impl Verdict {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.rule().severity,
            kind: None,
            range: None,
            message: message.into(),
            advice: None,
            at_fault: None,
            consequence: None,
            access: None,
        }
    }

    pub(crate) fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    pub(crate) fn kind(self, kind: Code) -> Self {
        // A primary code does not stand for itself.
        Self { kind: (kind != self.code).then_some(kind), ..self }
    }

    pub(crate) fn range(self, range: ByteRange) -> Self {
        Self { range: Some(range), ..self }
    }

    pub(crate) fn at_fault(self, seq: u64) -> Self {
        Self { at_fault: Some(seq), ..self }
    }

    pub(crate) fn consequence(self, what: &str, site: SiteId) -> Self {
        Self { consequence: Some(Offence { what: what.to_owned(), site }), ..self }
    }

    pub(crate) fn access(self, access: AccessInfo) -> Self {
        Self { access: Some(access), ..self }
    }

    /// The adversary's doing made the offence show: the message says so.
    pub(crate) fn made_visible_by(self, cache: &str) -> Self {
        Self { message: format!("{} (The cache did it on its own: --cache {cache}.)", self.message), ..self }
    }

    pub(crate) fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// `bytes 16..20 of 4096`.
pub(crate) fn bytes_of(range: ByteRange, size: u64) -> String {
    match range.len() {
        1 => format!("byte {} of {size}", range.start),
        _ => format!("bytes {}..{} of {size}", range.start, range.end),
    }
}
