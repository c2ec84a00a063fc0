//! Physical region pages: where the data of a command lies (section 4.3).

use super::super::spec::{PAGE, Status};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// Bytes of an entry of a PRP list.
const ENTRY: u64 = 8;
/// A transfer is made in pieces no longer than this.
pub(super) const PIECE: usize = 64 * 1024;

/// A part of the data: address and length, at most [`PIECE`].
pub(super) type Part = (u64, usize);

/// The parts of `len` bytes of data that the two entries of a command describe, after reading the lists that belong to them. Pages next
/// to each other make one part. `len` bounds the work, however the lists are chained: every list but the first holds at least 511 pages.
pub(super) fn parts<M: GuestMemory>(memory: &M, prp1: u64, prp2: u64, len: u64) -> Result<Vec<Part>, Status> {
    // The first entry may begin anywhere in its page, at a multiple of 4 (figure 108).
    if !prp1.is_multiple_of(4) {
        return Err(Status::InvalidOffset);
    }
    let mut parts = Parts { list: Vec::new(), left: len };
    if len == 0 {
        return Ok(parts.list);
    }
    parts.push(prp1, PAGE - prp1 % PAGE)?;
    if parts.left == 0 {
        return Ok(parts.list);
    }
    if parts.left <= PAGE {
        parts.push(page(prp2)?, PAGE)?;
        return Ok(parts.list);
    }
    // The first list may begin anywhere in its page, at a multiple of 8; each ends with its page.
    let mut list = prp2;
    if !list.is_multiple_of(ENTRY) {
        return Err(Status::InvalidOffset);
    }
    while parts.left != 0 {
        let room = (PAGE - list % PAGE) / ENTRY;
        let pages = parts.left.div_ceil(PAGE);
        // The last entry of a list that is too short is the next list.
        let more = pages > room;
        let count = if more { room } else { pages };
        let mut bytes = vec![0; usize::try_from(count * ENTRY).unwrap_or_default()];
        memory.read_slice(&mut bytes, GuestAddress(list)).map_err(|_| Status::DataTransfer)?;
        let mut entries = bytes.chunks_exact(8).map(|entry| entry.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)));
        let here = if more { room - 1 } else { pages };
        for entry in entries.by_ref().take(usize::try_from(here).unwrap_or_default()) {
            parts.push(page(entry)?, PAGE)?;
        }
        list = page(entries.next().unwrap_or_default())?;
    }
    Ok(parts.list)
}

/// A page an entry other than the first names: it begins at its beginning.
const fn page(entry: u64) -> Result<u64, Status> {
    if entry.is_multiple_of(PAGE) { Ok(entry) } else { Err(Status::InvalidOffset) }
}

struct Parts {
    list: Vec<Part>,
    left: u64,
}

impl Parts {
    /// Adds the next at most `len` bytes of the data.
    fn push(&mut self, address: u64, len: u64) -> Result<(), Status> {
        let here = len.min(self.left);
        address.checked_add(here).ok_or(Status::DataTransfer)?;
        self.left -= here;
        let here = usize::try_from(here).unwrap_or_default();
        match self.list.last_mut() {
            Some((last, len)) if last.checked_add(*len as u64) == Some(address) && *len + here <= PIECE => *len += here,
            _ => self.list.push((address, here)),
        }
        Ok(())
    }
}

/// Writes `data` to where a command wants it.
pub(super) fn write<M: GuestMemory>(memory: &M, prp1: u64, prp2: u64, data: &[u8]) -> Result<(), Status> {
    let mut left = data;
    for (address, len) in parts(memory, prp1, prp2, data.len() as u64)? {
        let (piece, rest) = left.split_at_checked(len).unwrap_or((left, &[]));
        memory.write_slice(piece, GuestAddress(address)).map_err(|_| Status::DataTransfer)?;
        left = rest;
    }
    Ok(())
}
