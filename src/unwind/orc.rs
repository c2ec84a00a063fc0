//! ORC unwind tables: for each range of code, where its caller's stack frame is (arch/x86/include/asm/orc_types.h).
//!
//! A table is two arrays: `.orc_unwind_ip`, 32-bit addresses relative to their own place in ascending order, and `.orc_unwind`, one
//! 6-byte entry for each. The entries changed over time and do not say so; the contents tell, because nearly all entries are
//! calls relative to the stack pointer:
//! - to 6.2: type:2 end:1, 6.3: type:2 signal:1 end:1, from 6.4: type:3 signal:1
//! - registers were renumbered when SP moved from 5 to 3 (7.x)

use crate::bytes::Store;
use std::ops::Range;

/// Bytes of an entry.
pub(crate) const ENTRY: usize = 6;
/// Addresses between two entries of the index kept in memory.
const STEP: usize = 128;
/// Entries looked at in one go when a table is opened, a multiple of [`STEP`].
const PIECE: usize = 64 * STEP;

/// What an offset is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing is known.
    Undefined,
    /// The caller's stack pointer.
    PrevSp,
    Ax,
    Dx,
    Sp,
    Bp,
    Di,
    R10,
    R13,
    /// The value at the stack pointer, the offset added to it.
    SpIndirect,
    /// The value at BP plus the offset.
    BpIndirect,
}

/// What the frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Cannot be unwound.
    Undefined,
    /// There is no caller.
    End,
    /// A return address below the caller's stack pointer.
    Call,
    /// All registers, as an exception saves them (struct pt_regs).
    Regs,
    /// Only what the CPU itself saves: RIP, CS, RFLAGS, RSP, SS.
    RegsPartial,
}

/// How to unwind one range of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sp: Base,
    pub(crate) sp_offset: i16,
    pub(crate) bp: Base,
    pub(crate) bp_offset: i16,
    pub(crate) kind: Kind,
    /// The caller was interrupted: its address is that of an instruction that did not run yet, not one behind a call.
    pub(crate) signal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Types {
    /// type:2 end:1
    End,
    /// type:2 signal:1 end:1
    SignalEnd,
    /// type:3 signal:1
    Signal,
}

/// The layout of a kernel's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    renumbered: bool,
    types: Types,
}

impl Format {
    /// The layout `entries` have, all of a kernel's. `None` when no layout makes sense of them.
    #[cfg(test)]
    pub(crate) fn detect(entries: &[u8]) -> Option<Self> {
        let mut census = Census::default();
        census.add(entries);
        census.format()
    }

    fn base(self, number: u8) -> Base {
        const TO_6: [Base; 10] = [
            Base::Undefined,
            Base::PrevSp,
            Base::Dx,
            Base::Di,
            Base::Bp,
            Base::Sp,
            Base::R10,
            Base::R13,
            Base::BpIndirect,
            Base::SpIndirect,
        ];
        const RENUMBERED: [Base; 11] = [
            Base::Undefined,
            Base::Ax,
            Base::Dx,
            Base::Sp,
            Base::Bp,
            Base::Di,
            Base::R10,
            Base::R13,
            Base::PrevSp,
            Base::SpIndirect,
            Base::BpIndirect,
        ];
        let table = if self.renumbered { RENUMBERED.as_slice() } else { TO_6.as_slice() };
        table.get(usize::from(number)).copied().unwrap_or(Base::Undefined)
    }

    /// The entry of these bytes.
    pub(crate) fn decode(self, entry: [u8; ENTRY]) -> Entry {
        let [s0, s1, b0, b1, registers, types] = entry;
        let sp = self.base(registers & 0xf);
        let old = match types & 3 {
            0 => Kind::Call,
            1 => Kind::Regs,
            2 => Kind::RegsPartial,
            _ => Kind::Undefined,
        };
        let (kind, signal) = match self.types {
            Types::Signal => match types & 7 {
                1 => (Kind::End, false),
                2 => (Kind::Call, types & 8 != 0),
                3 => (Kind::Regs, types & 8 != 0),
                4 => (Kind::RegsPartial, types & 8 != 0),
                _ => (Kind::Undefined, false),
            },
            // Before there was a type for them, the end and the unknown had no stack pointer.
            Types::End if sp == Base::Undefined => (if types & 4 != 0 { Kind::End } else { Kind::Undefined }, false),
            Types::SignalEnd if sp == Base::Undefined => (if types & 8 != 0 { Kind::End } else { Kind::Undefined }, false),
            Types::SignalEnd => (old, types & 4 != 0),
            Types::End => (old, matches!(old, Kind::Regs | Kind::RegsPartial)),
        };
        let offset = |low, high| i16::from_le_bytes([low, high]);
        Entry { sp, sp_offset: offset(s0, s1), bp: self.base(registers >> 4), bp_offset: offset(b0, b1), kind, signal }
    }
}

/// What entries hold, counted to tell their layout.
#[derive(Default)]
struct Census {
    all: usize,
    sp3: usize,
    sp5: usize,
    call: usize,
    plain: usize,
    bit11: bool,
}

impl Census {
    fn add(&mut self, entries: &[u8]) {
        for [.., registers, types] in entries.as_chunks::<ENTRY>().0 {
            self.all += 1;
            self.sp3 += usize::from(registers & 0xf == 3);
            self.sp5 += usize::from(registers & 0xf == 5);
            self.call += usize::from(types & 7 == 2);
            self.plain += usize::from(types & 3 == 0 && registers & 0xf != 0);
            self.bit11 |= types & 8 != 0;
        }
    }

    fn format(&self) -> Option<Format> {
        let Self { all, sp3, sp5, call, plain, bit11 } = *self;
        if all == 0 || sp3.max(sp5) < all / 4 || call.max(plain) < all / 2 {
            return None;
        }
        let types = match (call > plain, bit11) {
            (true, _) => Types::Signal,
            (false, true) => Types::SignalEnd,
            (false, false) => Types::End,
        };
        Some(Format { renumbered: sp3 > sp5, types })
    }
}

/// A kernel's table, in its file.
#[derive(Debug)]
pub(crate) struct Table {
    format: Format,
    count: usize,
    /// Address and file offset of the addresses.
    ips: (u64, u64),
    /// File offset of the entries.
    entries: u64,
    /// Every [`STEP`]th address.
    index: Vec<u64>,
}

/// Where a section lies: its address, its offset in the file, its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Place {
    pub(crate) fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.size)
    }

    pub(crate) fn read(&self, store: &Store) -> Option<Vec<u8>> {
        store.read(self.offset, usize::try_from(self.size).ok()?)
    }
}

impl Table {
    /// The table in these two sections; `None` when it is not sorted or of no known layout.
    pub(crate) fn open(store: &Store, ips: Place, entries: Place) -> Option<Self> {
        let count = usize::try_from(ips.size).ok()? / 4;
        if count != usize::try_from(entries.size).ok()? / ENTRY {
            return None;
        }
        // In pieces: large blocks that were allocated once stay with the process.
        let (mut census, mut index, mut last) = (Census::default(), Vec::new(), 0);
        for first in (0..count).step_by(PIECE) {
            let here = (count - first).min(PIECE);
            let at = |size: usize| u64::try_from(first * size).ok();
            census.add(&store.read(entries.offset.checked_add(at(ENTRY)?)?, here * ENTRY)?);
            let bytes = store.read(ips.offset.checked_add(at(4)?)?, here * 4)?;
            let addresses = addresses(&bytes, ips.address.wrapping_add(at(4)?));
            if addresses.first().is_some_and(|ip| *ip < last) || !addresses.is_sorted() {
                return None;
            }
            last = addresses.last().copied().unwrap_or(last);
            index.extend(addresses.into_iter().step_by(STEP));
        }
        Some(Self { format: census.format()?, count, ips: (ips.address, ips.offset), entries: entries.offset, index })
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// The entry for the code at `address`.
    pub(crate) fn lookup(&self, store: &Store, address: u64) -> Option<Entry> {
        let block = self.index.partition_point(|ip| *ip <= address).checked_sub(1)? * STEP;
        let skip = u64::try_from(block * 4).ok()?;
        let bytes = store.read(self.ips.1 + skip, (self.count - block).min(STEP) * 4)?;
        let ips = addresses(&bytes, self.ips.0 + skip);
        let at = ips.partition_point(|ip| *ip <= address).checked_sub(1)? + block;
        let entry = store.read(self.entries + u64::try_from(at * ENTRY).ok()?, ENTRY)?;
        Some(self.format.decode(*entry.first_chunk()?))
    }
}

fn addresses(bytes: &[u8], first: u64) -> Vec<u64> {
    let offsets = bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
    (0u64..).zip(offsets).map(|(i, offset)| first.wrapping_add(i * 4).wrapping_add_signed(offset.into())).collect()
}

#[cfg(test)]
mod tests;
