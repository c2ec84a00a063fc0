//! Registers as a table, with partial and straddling accesses solved once.

use std::ops::Range;

/// What software may do with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read-only: writes are swallowed.
    Ro,
    /// Readable and writable.
    Rw,
    /// Reads the state, writing one clears a bit.
    W1c,
    /// Write-only: reads as 0.
    Wo,
}

/// One row of a register table.
#[derive(Clone, Copy, Debug)]
pub struct Register<R> {
    /// The register's name.
    pub reg: R,
    /// Offset of its first byte in the BAR.
    pub offset: u64,
    /// Its width in bytes: 1, 2, 4 or 8.
    pub width: u64,
    /// What software may do with it.
    pub access: Access,
}

impl<R> Register<R> {
    /// A row of the table.
    pub const fn new(reg: R, offset: u64, width: u64, access: Access) -> Self {
        Self { reg, offset, width, access }
    }
}

/// Which accesses reach the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widths {
    /// Only an access of exactly one register; everything else reads as all-ones and is swallowed.
    Exact,
    /// Any: bytes of a register, several registers, holes between them.
    Any,
}

/// A table of registers in one BAR.
#[derive(Clone, Copy, Debug)]
pub struct RegisterMap<R: 'static> {
    table: &'static [Register<R>],
    widths: Widths,
    hole: u8,
}

impl<R: Copy> RegisterMap<R> {
    /// A map of `table`, whose rows must not overlap.
    pub const fn new(table: &'static [Register<R>], widths: Widths) -> Self {
        Self { table, widths, hole: 0xff }
    }

    /// The same with `hole` as the value of every byte where there is no register; all-ones if not told.
    pub const fn with_holes(self, hole: u8) -> Self {
        Self { hole, ..self }
    }

    /// Reads `data.len()` bytes at `offset`; `get` gives the value of a register.
    pub fn read(&self, offset: u64, data: &mut [u8], mut get: impl FnMut(R) -> u64) {
        data.fill(self.hole);
        for (row, piece) in self.pieces(offset, data.len()) {
            let value = if row.access == Access::Wo { 0 } else { get(row.reg) };
            piece.put(value, data);
        }
    }

    /// Writes `data` at `offset`; `put` gets each register concerned, the value, and the mask of the bits that were written. Registers
    /// come in table order.
    pub fn write(&self, offset: u64, data: &[u8], mut put: impl FnMut(R, u64, u64)) {
        for (row, piece) in self.pieces(offset, data.len()).filter(|(row, _)| row.access != Access::Ro) {
            let (value, mask) = piece.take(data);
            put(row.reg, value, mask);
        }
    }

    fn pieces(&self, offset: u64, len: usize) -> impl Iterator<Item = (&'static Register<R>, Piece)> + use<R> {
        let exact = self.widths == Widths::Exact;
        self.table.iter().filter_map(move |row| {
            let piece = Piece::of(offset, len, row.offset, row.width)?;
            (!exact || (row.offset == offset && piece.data.len() == len && row.width == len as u64)).then_some((row, piece))
        })
    }
}

/// The part of an access that falls on one register of up to 8 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The bytes of the access.
    data: Range<usize>,
    /// The first byte of the register.
    byte: u32,
}

impl Piece {
    /// Where an access of `len` bytes at `offset` meets a register of `width` bytes at `reg_offset`; `None` if it does not.
    pub(crate) fn of(offset: u64, len: usize, reg_offset: u64, width: u64) -> Option<Self> {
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        let first = offset.max(reg_offset);
        let last = end.min(reg_offset.checked_add(width)?);
        if first >= last {
            return None;
        }
        Some(Self {
            data: usize::try_from(first - offset).ok()?..usize::try_from(last - offset).ok()?,
            byte: u32::try_from(first - reg_offset).ok()?,
        })
    }

    /// Copies this part of a register's value into the access.
    pub(crate) fn put(&self, value: u64, data: &mut [u8]) {
        let bytes = value.to_le_bytes();
        let from = bytes.iter().skip(self.byte as usize);
        for (to, from) in data.get_mut(self.data.clone()).into_iter().flatten().zip(from) {
            *to = *from;
        }
    }

    /// The register's value as far as the access carries it, and the mask of those bits.
    pub(crate) fn take(&self, data: &[u8]) -> (u64, u64) {
        let mut value = [0; 8];
        let mut mask = [0; 8];
        let to = value.iter_mut().zip(&mut mask).skip(self.byte as usize);
        for (from, (value, mask)) in data.get(self.data.clone()).into_iter().flatten().zip(to) {
            *value = *from;
            *mask = 0xff;
        }
        (u64::from_le_bytes(value), u64::from_le_bytes(mask))
    }
}

/// The 32-bit registers of an array that an access of `len` bytes at `offset` meets: index and part, at most `count` of them.
pub(crate) fn dwords(offset: u64, len: usize, count: u64) -> impl Iterator<Item = (u64, Piece)> {
    let end = offset.saturating_add(len as u64).div_ceil(4).min(count);
    (offset / 4..end).filter_map(move |index| Some((index, Piece::of(offset, len, index * 4, 4)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Reg {
        Id,
        Byte,
        Word,
        Kick,
    }
    const TABLE: &[Register<Reg>] = &[
        Register::new(Reg::Id, 0, 4, Access::Ro),
        Register::new(Reg::Byte, 4, 1, Access::Rw),
        Register::new(Reg::Word, 6, 2, Access::Rw),
        Register::new(Reg::Kick, 8, 8, Access::Wo),
    ];
    fn value(reg: Reg) -> u64 {
        match reg {
            Reg::Id => 0x4433_2211,
            Reg::Byte => 0x55,
            Reg::Word => 0x7766,
            Reg::Kick => unreachable!(),
        }
    }

    #[test]
    fn any_width_read_straddles_registers_and_holes() {
        let map = RegisterMap::new(TABLE, Widths::Any);
        let mut data = [0; 8];
        map.read(2, &mut data, value);
        assert_eq!(data, [0x33, 0x44, 0x55, 0xff, 0x66, 0x77, 0, 0]);
        map.read(0x20, &mut data, value);
        assert_eq!(data, [0xff; 8]);
        map.read(u64::MAX - 2, &mut data, value);
        assert_eq!(data, [0xff; 8]);
        map.with_holes(0).read(3, &mut data, value);
        assert_eq!(data, [0x44, 0x55, 0, 0x66, 0x77, 0, 0, 0]);
    }

    #[test]
    fn any_width_write_carries_a_mask_and_skips_read_only() {
        let map = RegisterMap::new(TABLE, Widths::Any);
        let mut seen = Vec::new();
        map.write(3, &[1, 2, 3, 4, 5, 6], |reg, value, mask| seen.push((reg, value, mask)));
        assert_eq!(seen, [(Reg::Byte, 2, 0xff), (Reg::Word, 0x0504, 0xffff), (Reg::Kick, 6, 0xff)]);
    }

    #[test]
    fn exact_width_refuses_the_rest() {
        let map = RegisterMap::new(TABLE, Widths::Exact);
        let mut data = [0; 4];
        map.read(0, &mut data, value);
        assert_eq!(data, [0x11, 0x22, 0x33, 0x44]);
        for (offset, len) in [(0, 2), (0, 8), (2, 4), (1, 1)] {
            let mut data = vec![0; len];
            map.read(offset, &mut data, value);
            assert_eq!(data, vec![0xff; len]);
            map.write(offset, &data, |_, _, _| panic!("{offset} {len}"));
        }
    }

    #[test]
    fn dwords_are_bounded() {
        assert_eq!(dwords(2, 4, 100).map(|(i, _)| i).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(dwords(4, 8, 2).map(|(i, _)| i).collect::<Vec<_>>(), [1]);
        assert_eq!(dwords(u64::MAX, 8, 2).count(), 0);
        assert_eq!(dwords(0, 0, 2).count(), 0);
    }
}
