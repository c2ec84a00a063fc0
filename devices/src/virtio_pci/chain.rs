//! A descriptor chain whose shape was checked: device-readable bytes, then device-writable ones (virtio 1.2 section 2.7.4.2).

use crate::bus::DeviceMemory;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// A part of a chain lies outside the chain or cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {offset} of a descriptor chain cannot be reached")]
pub struct DmaFault {
    /// Offset in the readable or writable part.
    pub offset: u64,
    /// Bytes wanted.
    pub len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    len: u32,
}

/// A chain the driver made available. Memory is touched when it is read or written, and no byte more than asked for.
#[derive(Clone, Debug, Default)]
#[must_use = "the driver waits for every chain to be given back"]
pub struct Chain {
    pub(super) head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Chain {
    pub(super) fn new(head: u16) -> Self {
        Self { head, ..Self::default() }
    }

    /// Adds the next descriptor; false if no chain has it there.
    pub(super) fn push(&mut self, descriptor: &Descriptor) -> bool {
        let segment = Segment { address: descriptor.addr().0, len: descriptor.len() };
        if descriptor.is_write_only() {
            self.writable.push(segment);
            return true;
        }
        self.readable.push(segment);
        self.writable.is_empty()
    }

    /// How many bytes the device may read.
    #[must_use]
    pub fn readable(&self) -> u64 {
        total(&self.readable)
    }

    /// How many bytes the device may write.
    #[must_use]
    pub fn writable(&self) -> u64 {
        total(&self.writable)
    }

    /// Reads `data.len()` bytes at `offset` of the readable part, for use now.
    ///
    /// # Errors
    /// Some of them do not exist or cannot be reached; those before are in `data`.
    pub fn read<M: GuestMemory>(&self, memory: &DeviceMemory<M>, offset: u64, data: &mut [u8]) -> Result<(), DmaFault> {
        let fault = DmaFault { offset, len: data.len() };
        let mut left = data;
        for (address, len) in pieces(&self.readable, offset, left.len()) {
            let (piece, rest) = left.split_at_mut_checked(len).ok_or(fault)?;
            memory.used.read_slice(piece, GuestAddress(address)).map_err(|_| fault)?;
            left = rest;
        }
        if left.is_empty() { Ok(()) } else { Err(fault) }
    }

    /// Writes `data` at `offset` of the writable part.
    ///
    /// # Errors
    /// Some of the bytes do not exist or cannot be reached; those before were written.
    pub fn write<M: GuestMemory>(&self, memory: &DeviceMemory<M>, offset: u64, data: &[u8]) -> Result<(), DmaFault> {
        let fault = DmaFault { offset, len: data.len() };
        let mut left = data;
        for (address, len) in pieces(&self.writable, offset, left.len()) {
            let (piece, rest) = left.split_at_checked(len).ok_or(fault)?;
            memory.used.write_slice(piece, GuestAddress(address)).map_err(|_| fault)?;
            left = rest;
        }
        if left.is_empty() { Ok(()) } else { Err(fault) }
    }
}

fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// Address and length of what `len` bytes at `offset` are made of, as far as they exist. Zero-length descriptors are legal.
fn pieces(segments: &[Segment], offset: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let (mut skip, mut left) = (offset, len);
    segments
        .iter()
        .map_while(move |segment| {
            if left == 0 {
                return None;
            }
            let skipped = skip.min(u64::from(segment.len));
            skip -= skipped;
            let here = usize::try_from(u64::from(segment.len) - skipped).unwrap_or(usize::MAX).min(left);
            left -= here;
            // An address past the end of the address space is as unreachable as its last byte.
            Some((segment.address.saturating_add(skipped), here))
        })
        .filter(|(_, len)| *len != 0)
}
