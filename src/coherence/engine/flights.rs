//! Transfers a device says it is working on.

use super::Engine;
use crate::finding::ByteRange;
use crate::ids::SiteId;
use crate::mapping::State;
use std::collections::HashMap;

/// Transfers in flight at once, of all devices.
const MAX_FLIGHTS: usize = 1 << 16;

/// Bytes of a mapping.
#[derive(Clone, Copy, Debug)]
struct Flight {
    mapping: u32,
    /// Tells the mapping's record from that of a later one.
    seq: u64,
    range: ByteRange,
}

/// All transfers in flight, by number.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    list: HashMap<u64, Flight>,
    last: u64,
}

impl Engine {
    /// A device begins to work on `len` bytes; the number is for [`end_flight`](Self::end_flight). What is not mapped is told by the
    /// accesses.
    pub(crate) fn begin_flight(&mut self, device: u32, iova: u64, len: u64) -> u64 {
        let Ok(access) = self.resolve(device, iova, len) else { return 0 };
        if self.flights.list.len() >= MAX_FLIGHTS {
            self.blind_spot("too many transfers in flight: an unmap under one of them is not told from one before it");
            return 0;
        }
        let Some(mapping) = self.mappings.get(access.mapping) else { return 0 };
        self.flights.last += 1;
        self.flights.list.insert(self.flights.last, Flight { mapping: access.mapping, seq: mapping.seq, range: access.range });
        self.flights.last
    }

    /// The device is done with it.
    pub(crate) fn end_flight(&mut self, number: u64) {
        self.flights.list.remove(&number);
    }

    /// Where a mapping that has ended was unmapped, if the device was, and is, at work on bytes of `range`.
    pub(super) fn unmapped_in_flight(&self, id: u32, range: ByteRange) -> Option<SiteId> {
        let mapping = self.mappings.get(id)?;
        // What dmavet dropped when the driver went was not unmapped by anybody.
        let State::Dead { site } = mapping.state else { return None };
        let hit = |f: &Flight| f.mapping == id && f.seq == mapping.seq && f.range.overlaps(range);
        (site != SiteId::default() && self.flights.list.values().any(hit)).then_some(site)
    }
}
