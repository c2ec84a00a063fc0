//! The host memory buffer (sections 5.21.1.13 and 8.9): memory of the host that only the controller uses.
//!
//! A controller without memory of its own keeps its tables there. This one keeps a record of the last write to each of as many places of
//! its disk as the buffer has pages, one record at the beginning of each page, and looks at it whenever that place is read: what it put
//! there must still be there.

use super::super::spec::{Command, HOST_DESCRIPTOR, LEAST_HOST_PAGES, MOST_HOST_DESCRIPTORS, PAGE, Status, dword, qword};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// Sectors that share a record.
const PLACE: u64 = 8;
const RECORD: usize = 16;
/// Set Features, dword 11: the buffer is enabled, and it is the one from before.
const ENABLE: u32 = 1;
const RETURN: u32 = 1 << 1;

/// The buffer as the driver described it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Buffer {
    /// HSIZE, HMDLLA, HMDLUA and HMDLEC, as Get Features gives them back.
    words: [u32; 4],
    /// First address and number of pages of each piece, at most [`MOST_HOST_DESCRIPTORS`].
    pieces: Vec<(u64, u32)>,
}

impl Buffer {
    /// Where page `index` lies.
    fn page(&self, index: u64) -> Option<u64> {
        let mut before = 0;
        for (address, pages) in &self.pieces {
            if let Some(here) = index.checked_sub(before).filter(|here| *here < u64::from(*pages)) {
                return address.checked_add(here * PAGE);
            }
            before += u64::from(*pages);
        }
        None
    }
}

/// The buffer and what is in it.
#[derive(Debug)]
pub(super) struct HostMemory {
    /// HMPRE in pages: the most that is used.
    preferred: u32,
    buffer: Option<Buffer>,
    enabled: bool,
    /// What was written to each page, by its number.
    records: Vec<Option<[u8; RECORD]>>,
    writes: u64,
}

impl HostMemory {
    pub(super) const fn new(preferred: u32) -> Self {
        Self { preferred, buffer: None, enabled: false, records: Vec::new(), writes: 0 }
    }

    /// HMPRE and HMMIN, in pages.
    pub(super) const fn wanted(&self) -> (u32, u32) {
        let least = if self.preferred < LEAST_HOST_PAGES { self.preferred } else { LEAST_HOST_PAGES };
        (self.preferred, least)
    }

    pub(super) const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// HSIZE, HMDLLA, HMDLUA, HMDLEC.
    pub(super) fn words(&self) -> [u32; 4] {
        self.buffer.as_ref().map(|buffer| buffer.words).unwrap_or_default()
    }

    /// A controller reset: the memory is the host's again, which may give it back as it is.
    pub(super) const fn disable(&mut self) {
        self.enabled = false;
    }

    /// Power-on.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.preferred);
    }

    /// Set Features.
    pub(super) fn set<M: GuestMemory>(&mut self, memory: &M, command: &Command) -> Result<(), Status> {
        if command.dw11 & ENABLE == 0 {
            self.enabled = false;
            return Ok(());
        }
        if self.enabled {
            return Err(Status::CommandSequence);
        }
        let words = [command.dw12, command.dw13, command.dw14, command.dw15];
        let [size, low, high, count] = words;
        let (preferred, least) = self.wanted();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if preferred == 0 || size < least || count == 0 || count > usize::from(MOST_HOST_DESCRIPTORS) || low & 0xf != 0 {
            return Err(Status::InvalidField);
        }
        let list = u64::from(low) | u64::from(high) << 32;
        let mut bytes = vec![0; count * HOST_DESCRIPTOR];
        memory.read_slice(&mut bytes, GuestAddress(list)).map_err(|_| Status::DataTransfer)?;
        let pieces: Vec<(u64, u32)> = bytes.chunks_exact(HOST_DESCRIPTOR).map(|piece| (qword(piece, 0), dword(piece, 8))).collect();
        let fine = |(address, pages): &(u64, u32)| address.is_multiple_of(PAGE) && *pages != 0;
        let pages: u64 = pieces.iter().map(|(_, pages)| u64::from(*pages)).sum();
        if !pieces.iter().all(fine) || pages < u64::from(size) {
            return Err(Status::InvalidField);
        }
        let buffer = Buffer { words, pieces };
        if command.dw11 & RETURN == 0 || self.buffer.as_ref() != Some(&buffer) {
            self.records = vec![None; usize::try_from(size.min(preferred)).unwrap_or_default()];
        }
        self.buffer = Some(buffer);
        self.enabled = true;
        Ok(())
    }

    /// The page that has the record of `sector`, and its address.
    fn page(&self, sector: u64) -> Option<(usize, GuestAddress)> {
        let index = (sector / PLACE).checked_rem(self.records.len() as u64).filter(|_| self.enabled)?;
        Some((usize::try_from(index).ok()?, GuestAddress(self.buffer.as_ref()?.page(index)?)))
    }

    /// Puts down that the disk was written at `sector`.
    pub(super) fn record<M: GuestMemory>(&mut self, memory: &M, sector: u64) {
        let Some((index, address)) = self.page(sector) else { return };
        self.writes = self.writes.wrapping_add(1);
        let mut record = [0; RECORD];
        record.iter_mut().zip(sector.to_le_bytes().into_iter().chain(self.writes.to_le_bytes())).for_each(|(to, from)| *to = from);
        if memory.write_slice(&record, address).is_err() {
            self.enabled = false;
        } else if let Some(known) = self.records.get_mut(index) {
            *known = Some(record);
        }
    }

    /// Looks at the record of `sector`.
    ///
    /// # Errors
    /// It is not what the controller put there: the tables cannot be relied on.
    pub(super) fn check<M: GuestMemory>(&mut self, memory: &M, sector: u64) -> Result<(), Status> {
        let Some((index, address)) = self.page(sector) else { return Ok(()) };
        let Some(Some(known)) = self.records.get(index) else { return Ok(()) };
        let mut record = [0; RECORD];
        if memory.read_slice(&mut record, address).is_err() {
            // Taken away without a word: the bus told. What is on the disk does not depend on it.
            self.enabled = false;
            return Ok(());
        }
        if record == *known { Ok(()) } else { Err(Status::Internal) }
    }
}
