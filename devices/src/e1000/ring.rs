//! A descriptor ring (SDM sections 3.2.6 and 3.4): the device owns the descriptors from head up to, not including, tail.

use super::spec::RingRegister;

/// The registers of one ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ring {
    base: u64,
    /// In bytes, a multiple of 128.
    len: u32,
    head: u32,
    tail: u32,
}

/// Bytes of a descriptor.
const SIZE: u32 = 16;
/// Writable bits of the length, head and tail registers.
const LEN: u32 = 0xf_ff80;
const INDEX: u32 = 0xffff;
/// The low bits of a base address that are ignored.
const BASE_LOW: u64 = 0xffff_fff0;
const HIGH: u64 = 0xffff_ffff_0000_0000;

impl Ring {
    pub(super) fn read(&self, register: RingRegister) -> u32 {
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default();
        match register {
            RingRegister::BaseLow => half(self.base),
            RingRegister::BaseHigh => half(self.base >> 32),
            RingRegister::Len => self.len,
            RingRegister::Head => self.head,
            RingRegister::Tail => self.tail,
        }
    }

    pub(super) fn write(&mut self, register: RingRegister, value: u32) {
        match register {
            RingRegister::BaseLow => self.base = self.base & HIGH | u64::from(value) & BASE_LOW,
            RingRegister::BaseHigh => self.base = self.base & !HIGH | u64::from(value) << 32,
            RingRegister::Len => self.len = value & LEN,
            RingRegister::Head => self.head = value & INDEX,
            RingRegister::Tail => self.tail = value & INDEX,
        }
    }

    /// Number of descriptors.
    pub(super) const fn size(&self) -> u32 {
        self.len / SIZE
    }

    /// How many descriptors the device owns; none when head or tail lie outside the ring, which no driver writes.
    pub(super) const fn owned(&self) -> u32 {
        let size = self.size();
        if self.head >= size || self.tail >= size {
            return 0;
        }
        if self.tail >= self.head { self.tail - self.head } else { size - self.head + self.tail }
    }

    /// The address of the descriptor at head, if the device owns it.
    pub(super) fn next(&self) -> Option<u64> {
        let offset = u64::from(self.head * SIZE);
        // A ring across the end of the address space is as unreachable as its last byte.
        (self.owned() != 0).then(|| self.base.saturating_add(offset))
    }

    /// Gives the descriptor at head back.
    pub(super) const fn advance(&mut self) {
        self.head = if self.head + 1 >= self.size() { 0 } else { self.head + 1 };
    }
}
