//! Keeps findings: one for each (code, device, map site, offence site).

use crate::catalogue::Code;
use crate::finding::{ByteRange, Finding};
use crate::ids::SiteId;
use std::collections::HashMap;

/// What makes two offences the same finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) code: Code,
    pub(crate) device: Option<u32>,
    pub(crate) map_site: SiteId,
    pub(crate) site: SiteId,
}

/// The findings of a run.
#[derive(Debug)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    index: HashMap<Key, usize>,
    /// About the checker itself; they have room of their own.
    blind: Vec<Finding>,
    max: usize,
}

impl Findings {
    pub(crate) fn new(max: usize) -> Self {
        Self { list: Vec::new(), index: HashMap::new(), blind: Vec::new(), max }
    }

    /// Counts an offence that repeats a finding; false if it is a new one.
    pub(crate) fn repeat(&mut self, key: &Key, seq: u64, range: Option<ByteRange>) -> bool {
        let Some(finding) = self.index.get(key).and_then(|at| self.list.get_mut(*at)) else { return false };
        finding.count += 1;
        finding.last_seq = seq;
        finding.last_range = range;
        true
    }

    /// Whether there is such a finding.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.index.contains_key(key)
    }

    /// Keeps a new finding; false when there is no room.
    pub(crate) fn add(&mut self, key: Key, finding: Finding) -> bool {
        if self.list.len() >= self.max {
            return false;
        }
        self.index.insert(key, self.list.len());
        self.list.push(finding);
        true
    }

    /// The blind spot described by those words.
    pub(crate) fn blind_spot(&mut self, what: &str) -> Option<&mut Finding> {
        self.blind.iter_mut().find(|finding| finding.offence.what == what)
    }

    pub(crate) fn blind_spots(&self) -> usize {
        self.blind.len()
    }

    pub(crate) fn add_blind_spot(&mut self, finding: Finding) {
        self.blind.push(finding);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter().chain(&self.blind)
    }
}
