//! Which address belongs to which BAR.

use dmavet_devices::bus::{BarSpace, DecodedRange};

/// A BAR an address was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Index of the function on its bus.
    pub function: usize,
    /// BAR index.
    pub bar: usize,
    /// Offset in the BAR.
    pub offset: u64,
}

/// All decoded ranges. Where two overlap, the function added first answers.
#[derive(Debug, Default)]
pub struct Decode {
    ranges: Vec<(usize, DecodedRange)>,
}

impl Decode {
    /// Sets the ranges of `function`.
    pub fn replace(&mut self, function: usize, ranges: &[DecodedRange]) {
        self.ranges.retain(|(owner, _)| *owner != function);
        self.ranges.extend(ranges.iter().filter(|range| range.size != 0).map(|range| (function, *range)));
        self.ranges.sort_by_key(|(owner, range)| (*owner, range.bar));
    }

    /// The BAR that decodes all of `len` bytes at `address`.
    pub fn find(&self, space: BarSpace, address: u64, len: usize) -> Option<Hit> {
        self.ranges.iter().find_map(|(function, range)| {
            let offset = address.checked_sub(range.base)?;
            let end = offset.checked_add(len as u64)?;
            (range.space == space && end <= range.size).then_some(Hit { function: *function, bar: range.bar, offset })
        })
    }
}
