//! Base address registers (PCI Local Bus 3.0, section 6.2.5.1).

use crate::bus::BarSpace;

/// The kind of address a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes this BAR and the next.
    Memory64,
    /// I/O ports.
    Io,
}

/// A BAR as a model asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarSpec {
    /// BAR index, 0 to 5 (0 to 4 for [`BarKind::Memory64`]).
    pub index: usize,
    /// What it decodes.
    pub kind: BarKind,
    /// Size in bytes: a power of two, at least 16 for memory and 4 (at most 256) for ports.
    pub size: u64,
    /// Whether reads have no side effects and writes may be merged.
    pub prefetchable: bool,
}

impl BarSpec {
    /// A 32-bit, non-prefetchable memory BAR.
    #[must_use]
    pub const fn memory32(index: usize, size: u64) -> Self {
        Self { index, kind: BarKind::Memory32, size, prefetchable: false }
    }

    /// A 64-bit, prefetchable memory BAR.
    #[must_use]
    pub const fn memory64(index: usize, size: u64) -> Self {
        Self { index, kind: BarKind::Memory64, size, prefetchable: true }
    }

    /// A BAR of I/O ports.
    #[must_use]
    pub const fn io(index: usize, size: u64) -> Self {
        Self { index, kind: BarKind::Io, size, prefetchable: false }
    }

    /// Its address space.
    #[must_use]
    pub const fn space(&self) -> BarSpace {
        match self.kind {
            BarKind::Memory32 | BarKind::Memory64 => BarSpace::Memory,
            BarKind::Io => BarSpace::Io,
        }
    }

    /// How many of the six BAR registers it takes.
    pub(super) const fn registers(&self) -> usize {
        if matches!(self.kind, BarKind::Memory64) { 2 } else { 1 }
    }

    /// Offset of its first register in configuration space.
    pub(super) const fn register_offset(&self) -> usize {
        0x10 + 4 * self.index
    }

    /// The read-only low bits of the register (table 6-4 and figure 6-6 of the specification).
    pub(super) const fn flags(&self) -> u64 {
        let prefetchable = if self.prefetchable { 8 } else { 0 };
        match self.kind {
            BarKind::Memory32 => prefetchable,
            BarKind::Memory64 => 4 | prefetchable,
            BarKind::Io => 1,
        }
    }

    /// The bits an address can have, which is also what reads back after writing all-ones.
    pub(super) const fn address_bits(&self) -> u64 {
        let width = if matches!(self.kind, BarKind::Memory64) { u64::MAX } else { 0xffff_ffff };
        width & !(self.size - 1)
    }

    /// Whether a function can have this BAR at all.
    pub(super) const fn is_valid(&self) -> bool {
        let size_ok = match self.kind {
            BarKind::Memory32 => self.size >= 16 && self.size <= 1 << 31,
            BarKind::Memory64 => self.size >= 16 && self.size <= 1 << 62,
            BarKind::Io => self.size >= 4 && self.size <= 256,
        };
        size_ok && self.size.is_power_of_two() && self.index + self.registers() <= 6
    }
}

/// A BAR at run time: the address in configuration space lives in [`ConfigSpace`](super::ConfigSpace), here is the one that is decoded.
///
/// They differ while software writes the two halves of a 64-bit BAR with decoding on: half an address is never decoded. A half takes
/// effect when the other one is written too, or when decoding is switched on. All-ones is the sizing probe and never decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    pub(super) spec: BarSpec,
    decoded: u64,
    /// Bit 0: the low half differs since the last coherent address, bit 1: the high half.
    torn: u8,
}

impl Bar {
    pub(super) const fn new(spec: BarSpec) -> Self {
        Self { spec, decoded: 0, torn: 0 }
    }

    /// Tells the BAR that software wrote its registers: `touched` bit 0 the low, bit 1 the high one; they now hold `address`.
    pub(super) const fn written(&mut self, touched: u8, address: u64, decoding: bool) {
        if !decoding || address == self.decoded {
            self.decode(address);
            return;
        }
        self.torn |= touched;
        let whole = self.spec.registers() == 1 || self.torn == 3;
        if address == self.spec.address_bits() {
            self.torn = 0;
        } else if whole {
            self.decode(address);
        }
    }

    /// Decodes `address` from now on.
    pub(super) const fn decode(&mut self, address: u64) {
        self.decoded = address;
        self.torn = 0;
    }

    /// The address it decodes if decoding is on; `None` while it has none (0, the sizing value, a range that does not fit its space).
    pub(super) fn base(&self) -> Option<u64> {
        let limit = match self.spec.kind {
            BarKind::Memory32 => 1 << 32,
            BarKind::Memory64 => u64::MAX,
            BarKind::Io => 1 << 16,
        };
        let end = self.decoded.checked_add(self.spec.size)?;
        (self.decoded != 0 && self.decoded != self.spec.address_bits() && end <= limit).then_some(self.decoded)
    }
}
