//! Which mapping an address belongs to while a trace is read.

use dmavet_coherence::{Family, Iova, MapCall};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Ended mappings whose handles are still known: what a device does to them afterwards belongs to their picture.
const DEAD_KEPT: usize = 4096;
/// Pieces of memory up to this size are found by where they begin.
const SMALL: u64 = 1 << 20;

/// A mapping that is alive.
#[derive(Debug)]
pub(super) struct Life {
    device: usize,
    /// Pages of a page_pool outlive their driver.
    pool: bool,
    family: Family,
    /// Bytes, all entries together.
    pub(super) size: u64,
    /// First handle, bytes, offset of each run of handles.
    handles: Vec<(u64, u64, u64)>,
    /// Guest physical address, bytes, offset of each piece of memory.
    extents: Vec<(u64, u64, u64)>,
}

impl Life {
    pub(super) fn new(device: usize, pool: bool, call: &MapCall, handles: &[(Iova, u64)]) -> Self {
        let with_offsets = |pieces: &mut dyn Iterator<Item = (u64, u64)>| {
            let mut at = 0u64;
            let place = |(start, len)| {
                let offset = at;
                at = at.saturating_add(len);
                (start, len, offset)
            };
            pieces.map(place).collect::<Vec<_>>()
        };
        let extents = with_offsets(&mut call.extents.iter().map(|extent| (extent.gpa.0, extent.len)));
        let size = extents.last().map_or(0, |(_, len, offset)| offset.saturating_add(*len));
        Self {
            device,
            pool,
            family: call.family,
            size,
            handles: with_offsets(&mut handles.iter().map(|(iova, len)| (iova.0, *len))),
            extents,
        }
    }
}

/// A run of handles.
#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u64,
    offset: u64,
    mapping: usize,
}

/// The mappings by handle and by memory.
#[derive(Debug, Default)]
pub(super) struct Lives {
    live: HashMap<usize, Life>,
    handles: BTreeMap<u64, Piece>,
    /// Ended mappings and their handles, oldest first.
    dead: VecDeque<(usize, Vec<u64>)>,
    /// Small pieces of memory by where they begin and by mapping: bytes, offset.
    small: BTreeMap<(u64, usize), (u64, u64)>,
    /// The others.
    large: Vec<(u64, u64, u64, usize)>,
}

impl Lives {
    /// Mappings that are alive.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// A new mapping; the ended ones that had one of its handles before.
    pub(super) fn begin(&mut self, id: usize, life: Life) -> Vec<usize> {
        let mut older = Vec::new();
        for &(start, len, offset) in &life.handles {
            let end = start.saturating_add(len.max(1));
            while let Some((&at, piece)) = self.handles.range(..end).next_back().filter(|(_, piece)| piece.end > start) {
                older.push(piece.mapping);
                self.handles.remove(&at);
            }
            self.handles.insert(start, Piece { end, offset, mapping: id });
        }
        if life.family != Family::Resource {
            for &(gpa, len, offset) in &life.extents {
                if len <= SMALL {
                    self.small.insert((gpa, id), (len, offset));
                } else {
                    self.large.push((gpa, len, offset, id));
                }
            }
        }
        self.live.insert(id, life);
        older
    }

    /// Ends a mapping; its size if it was alive.
    pub(super) fn end(&mut self, id: usize) -> Option<u64> {
        let life = self.live.remove(&id)?;
        for (gpa, ..) in &life.extents {
            self.small.remove(&(*gpa, id));
        }
        self.large.retain(|(.., mapping)| *mapping != id);
        self.dead.push_back((id, life.handles.iter().map(|(start, ..)| *start).collect()));
        if self.dead.len() > DEAD_KEPT
            && let Some((old, starts)) = self.dead.pop_front()
        {
            for start in starts {
                if self.handles.get(&start).is_some_and(|piece| piece.mapping == old) {
                    self.handles.remove(&start);
                }
            }
        }
        Some(life.size)
    }

    /// The mapping a handle belongs or belonged to, the offset in it, and the bytes from there to the end of the mapping.
    pub(super) fn at(&self, iova: u64) -> Option<(usize, u64, u64)> {
        let (start, piece) = self.handles.range(..=iova).next_back().filter(|(_, piece)| iova < piece.end)?;
        let offset = piece.offset.saturating_add(iova - start);
        let size = self.live.get(&piece.mapping).map_or(u64::MAX, |life| life.size);
        Some((piece.mapping, offset, size.saturating_sub(offset)))
    }

    /// The live mapping of the device a handle belongs to.
    pub(super) fn live_at(&self, iova: u64, device: usize) -> Option<usize> {
        let (id, ..) = self.at(iova)?;
        self.live.get(&id).filter(|life| life.device == device).map(|_| id)
    }

    /// The scatterlist that begins with a handle, and the bytes of its first `entries` entries.
    pub(super) fn list_at(&self, iova: u64, device: usize, entries: usize) -> Option<(usize, u64)> {
        let id = self.live_at(iova, device)?;
        let life = self.live.get(&id).filter(|life| life.family == Family::Sg)?;
        let first = life.handles.first().is_some_and(|(start, ..)| *start == iova);
        first.then(|| (id, life.extents.get(entries).map_or(life.size, |(_, _, offset)| *offset)))
    }

    /// The live mappings of a device that do not outlive its driver.
    pub(super) fn left_by(&self, device: usize) -> Vec<usize> {
        let mut left: Vec<usize> = self.live.iter().filter(|(_, life)| life.device == device && !life.pool).map(|(id, _)| *id).collect();
        left.sort_unstable();
        left
    }

    /// The live mappings of memory: mapping, offset, bytes.
    pub(super) fn over(&self, gpa: u64, len: u64) -> Vec<(usize, u64, u64)> {
        let end = gpa.saturating_add(len);
        let small =
            self.small.range((gpa.saturating_sub(SMALL), 0)..(end, 0)).map(|(&(start, id), &(len, offset))| (start, len, offset, id));
        let hit = |(start, len, offset, id): (u64, u64, u64, usize)| {
            let (from, to) = (start.max(gpa), start.saturating_add(len).min(end));
            (from < to).then(|| (id, offset.saturating_add(from - start), to - from))
        };
        small.chain(self.large.iter().copied()).filter_map(hit).collect()
    }
}
