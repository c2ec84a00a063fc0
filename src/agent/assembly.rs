//! Long scatterlists: chunks put together, and handles fetched in pieces.

use crate::abi;
use crate::decode::{DecodeError, DmaChunk, DmaHead};
use std::collections::HashMap;

/// Most ranges kept for all slots together: unfinished calls and handles not fetched yet (16 bytes each).
const MAX_HELD: usize = 4 * abi::MAX_RANGES as usize;

/// A call whose last chunk is still to come.
#[derive(Debug)]
struct Unfinished {
    head: DmaHead,
    chunks: u32,
    ranges: Vec<(u64, u64)>,
}

/// What is kept between doorbells, by slot.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    unfinished: HashMap<u32, Unfinished>,
    handles: HashMap<u32, Vec<(u64, u64)>>,
    held: usize,
}

impl Assembly {
    /// Takes one chunk from `slot`. Gives all ranges of the call when it was the last one, `None` when more must come.
    ///
    /// # Errors
    /// The chunk does not continue what the slot began, or too much is unfinished. What the slot began is dropped then.
    pub(crate) fn push(&mut self, slot: u32, chunk: DmaChunk) -> Result<Option<Vec<(u64, u64)>>, DecodeError> {
        let whole = chunk.ranges.len() == chunk.head.total as usize;
        if chunk.begins {
            self.forget(slot);
            if whole && chunk.ends && chunk.first == 0 {
                return Ok(Some(chunk.ranges));
            }
        }
        let bad = DecodeError::Chunk { chunk: chunk.chunk, first: chunk.first };
        let mut call = match self.take(slot) {
            None if chunk.begins => Unfinished { head: chunk.head, chunks: 0, ranges: Vec::new() },
            None => return Err(bad),
            Some(call) => call,
        };
        if call.head != chunk.head || call.chunks != chunk.chunk || call.ranges.len() != chunk.first as usize {
            return Err(bad);
        }
        call.chunks += 1;
        call.ranges.extend_from_slice(&chunk.ranges);
        let complete = call.ranges.len() == call.head.total as usize;
        match (complete, chunk.ends) {
            (true, true) => Ok(Some(call.ranges)),
            (false, false) => {
                let held = self.held + call.ranges.len();
                if held > MAX_HELD {
                    return Err(DecodeError::TooMuch(held));
                }
                self.held = held;
                self.unfinished.insert(slot, call);
                Ok(None)
            }
            _ => Err(bad),
        }
    }

    /// Keeps the handles of a map call that do not fit into one slot until they are fetched or the slot is used again.
    ///
    /// # Errors
    /// Too much is held already.
    pub(crate) fn keep(&mut self, slot: u32, handles: Vec<(u64, u64)>) -> Result<(), DecodeError> {
        self.forget(slot);
        let held = self.held + handles.len();
        if held > MAX_HELD {
            return Err(DecodeError::TooMuch(held));
        }
        self.held = held;
        self.handles.insert(slot, handles);
        Ok(())
    }

    /// The handles from index `first` on, at most a slot full.
    ///
    /// # Errors
    /// Nothing is kept for the slot, or not that much.
    pub(crate) fn fetch(&self, slot: u32, first: u32) -> Result<&[(u64, u64)], DecodeError> {
        let rest = self.handles.get(&slot).and_then(|h| h.get(first as usize..)).filter(|rest| !rest.is_empty());
        let rest = rest.ok_or(DecodeError::Chunk { chunk: 0, first })?;
        Ok(rest.get(..abi::RANGES_PER_SLOT).unwrap_or(rest))
    }

    /// Drops what is kept for `slot`.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.take(slot);
        if let Some(handles) = self.handles.remove(&slot) {
            self.held -= handles.len();
        }
    }

    fn take(&mut self, slot: u32) -> Option<Unfinished> {
        let call = self.unfinished.remove(&slot)?;
        self.held -= call.ranges.len();
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::DmaOp;
    use dmavet_coherence::call::Limits;
    use dmavet_coherence::ids::{Attrs, Bdf, Direction, Family, PageKind, Requester};

    fn chunk(number: u32, ranges: usize, total: u32) -> DmaChunk {
        let head = DmaHead {
            op: DmaOp::Map,
            requester: Requester::Pci(Bdf(16)),
            site: 0,
            family: Family::Sg,
            direction: Direction::ToDevice,
            kind: PageKind::Other,
            object: (0, 0),
            attrs: Attrs::empty(),
            limits: Limits::default(),
            cpu_addr: 0,
            total,
        };
        let first = number * 248;
        DmaChunk { head, chunk: number, first, begins: number == 0, ends: first + 248 >= total, ranges: vec![(0, 1); ranges] }
    }

    #[test]
    fn what_is_held_is_counted_right() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.push(0, chunk(0, 248, 300)), Ok(None));
        assert_eq!(assembly.held, 248);
        assert_eq!(assembly.push(0, chunk(1, 52, 300)).unwrap().unwrap().len(), 300);
        assert_eq!(assembly.held, 0);
        assembly.keep(0, vec![(1, 1); 300]).unwrap();
        assembly.keep(0, vec![(1, 1); 400]).unwrap();
        assert_eq!((assembly.held, assembly.fetch(0, 248).unwrap().len()), (400, 152));
        assert_eq!(assembly.push(0, chunk(0, 1, 1)).unwrap().unwrap().len(), 1);
        assert_eq!(assembly.held, 0);
    }

    #[test]
    fn unfinished_calls_cannot_eat_the_hosts_memory() {
        let mut assembly = Assembly::default();
        let mut refused = 0;
        for slot in 0..10 {
            for number in 0..264 {
                refused += u32::from(assembly.push(slot, chunk(number, 248, abi::MAX_RANGES)).is_err());
                assert!(assembly.held <= MAX_HELD);
                let really: usize = assembly.unfinished.values().map(|call| call.ranges.len()).sum();
                assert_eq!(assembly.held, really);
            }
        }
        assert!(refused > 0);
    }
}
