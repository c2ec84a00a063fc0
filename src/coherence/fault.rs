//! Map and alloc calls that fail on purpose: error paths are where a third of the mistakes are, and nobody walks them by himself.

use crate::call::{Caller, MapCall};
use std::collections::BTreeSet;
use std::fmt;

/// Chooses the calls that fail. Asked at every map and alloc call, with the core's lock held; must not call the core.
pub trait FaultPlan: Send + fmt::Debug {
    /// Whether this call is to fail: the driver gets `DMA_MAPPING_ERROR`, NULL or 0.
    fn fails(&mut self, caller: &Caller, call: &MapCall) -> bool;
}

/// Fails calls by their number: 1 is the first map or alloc call of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NthMaps {
    numbers: BTreeSet<u64>,
    seen: u64,
}

impl FromIterator<u64> for NthMaps {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        Self { numbers: numbers.into_iter().collect(), seen: 0 }
    }
}

impl FaultPlan for NthMaps {
    fn fails(&mut self, _caller: &Caller, _call: &MapCall) -> bool {
        self.seen += 1;
        self.numbers.contains(&self.seen)
    }
}
