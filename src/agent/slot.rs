//! A slot in guest RAM: copied out once, answered in place.

use crate::abi;
use crate::decode::DecodeError;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

/// Size of the header, and with it the offset of the payload.
pub(crate) const HEADER_SIZE: usize = size_of::<abi::SlotHeader>();
/// Offset of the answer in the header.
const ANSWER_OFFSET: usize = std::mem::offset_of!(abi::SlotHeader, status);
/// Offset of the first range in a slot.
const RANGES_OFFSET: usize = HEADER_SIZE + size_of::<abi::Dma>();

/// The host's copy of a slot. The guest may change its own meanwhile; nobody looks there again.
#[derive(Debug)]
pub(crate) struct SlotCopy {
    /// The header.
    pub header: abi::SlotHeader,
    bytes: [u8; abi::PAYLOAD_SIZE],
    length: usize,
}

impl SlotCopy {
    /// Copies the slot at `gpa`: the header, and as much payload as the header says.
    ///
    /// # Errors
    /// The slot is not in RAM, or its payload would be longer than a slot.
    pub(crate) fn read(ram: &GuestMemoryMmap, gpa: u64) -> Result<Self, DecodeError> {
        let mut header = abi::SlotHeader::default();
        ram.read_slice(header.as_mut_bytes(), GuestAddress(gpa)).map_err(|_| DecodeError::Memory { gpa })?;
        let length = header.length.get() as usize;
        let mut bytes = [0; abi::PAYLOAD_SIZE];
        let payload = bytes.get_mut(..length).ok_or_else(|| DecodeError::Length { call: header.call.get(), length })?;
        ram.read_slice(payload, GuestAddress(gpa + HEADER_SIZE as u64)).map_err(|_| DecodeError::Memory { gpa })?;
        Ok(Self { header, bytes, length })
    }

    /// The payload.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The payload as exactly one `T`.
    pub(crate) fn exactly<T: FromBytes>(&self) -> Result<T, DecodeError> {
        T::read_from_bytes(self.payload()).map_err(|_| self.bad_length())
    }

    /// The error for a payload of the wrong length.
    pub(crate) fn bad_length(&self) -> DecodeError {
        DecodeError::Length { call: self.header.call.get(), length: self.length }
    }
}

/// The answer to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    /// `STATUS_*`.
    pub status: u32,
    /// Handles in all, or in this slot for FETCH.
    pub count: u32,
    /// Value asked for.
    pub value: u64,
    /// Handles and lengths to put in the slot; what does not fit stays out.
    pub ranges: &'a [(u64, u64)],
}

impl Reply<'_> {
    /// An answer of nothing but a status.
    pub(crate) const fn status(status: u32) -> Self {
        Self { status, count: 0, value: 0, ranges: &[] }
    }

    /// An answer with a value.
    pub(crate) const fn value(value: u64) -> Self {
        Self { status: abi::STATUS_OK, count: 0, value, ranges: &[] }
    }

    /// Writes the answer into the slot at `gpa`.
    ///
    /// # Errors
    /// The slot is not in RAM.
    pub(crate) fn write(&self, ram: &GuestMemoryMmap, gpa: u64) -> Result<(), DecodeError> {
        let memory = |_| DecodeError::Memory { gpa };
        let mut at = gpa + RANGES_OFFSET as u64;
        for (addr, len) in self.ranges.iter().take(abi::RANGES_PER_SLOT) {
            let range = abi::Range { addr: (*addr).into(), len: (*len).into() };
            ram.write_slice(range.as_bytes(), GuestAddress(at)).map_err(memory)?;
            at += size_of::<abi::Range>() as u64;
        }
        let mut answer = [0; 16];
        let (status, rest) = answer.split_at_mut(4);
        let (count, value) = rest.split_at_mut(4);
        status.copy_from_slice(&self.status.to_le_bytes());
        count.copy_from_slice(&self.count.to_le_bytes());
        value.copy_from_slice(&self.value.to_le_bytes());
        ram.write_slice(&answer, GuestAddress(gpa + ANSWER_OFFSET as u64)).map_err(memory)
    }
}
