//! Operands in memory, and accesses to them.

use super::mode::Mode;
use super::pages::Pages;
use super::{Access, Bus, CpuState, PAGE, Piece, Stop, Unsupported, walk};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory, VolatileSlice};

/// A memory operand: one part per page.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    gva: u64,
    len: usize,
    read: bool,
    write: bool,
    first: Part,
    second: Option<Part>,
}

/// The part of an operand on one page.
#[derive(Clone, Copy, Debug)]
struct Part {
    gpa: u64,
    len: usize,
    ram: bool,
}

impl Operand {
    /// Translates `len` bytes (at most a page) at the linear address `gva`.
    ///
    /// # Errors
    /// As [`super::translate`].
    pub fn resolve(
        cpu: &dyn CpuState,
        ram: &GuestMemoryMmap,
        mode: Mode,
        at: (u64, usize),
        rights: (bool, bool),
        tables: &mut Pages,
    ) -> Result<Self, Stop> {
        let ((gva, len), (read, write)) = (at, rights);
        let access = Access { write, user: mode.user, ..Access::default() };
        let room = usize::try_from(PAGE - gva % PAGE).unwrap_or(0);
        let mut part = |gva: u64, len: usize| {
            let gpa = walk::walk(ram, cpu.sregs(), cpu.regs().rflags, gva, access, tables)?.gpa;
            Ok(Part { gpa, len, ram: ram.get_slice(GuestAddress(gpa), len).is_ok() })
        };
        let first = part(gva, len.min(room))?;
        let second = if len > room {
            let next = (gva - gva % PAGE).wrapping_add(PAGE);
            let next = if mode.bits == 64 { next } else { next & 0xffff_ffff };
            Some(part(next, len - room)?)
        } else {
            None
        };
        Ok(Self { gva, len, read, write, first, second })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// It lies in RAM.
    pub fn ram(&self) -> bool {
        self.first.ram && self.second.is_none_or(|part| part.ram)
    }

    /// It is one naturally aligned unit of RAM, so that the host can access it atomically.
    pub fn atomic(&self) -> bool {
        self.first.ram && self.second.is_none() && self.len.is_power_of_two() && self.gva.is_multiple_of(self.len as u64)
    }

    /// Whether it lies at a multiple of `align`.
    pub fn aligned(&self, align: usize) -> bool {
        self.gva.is_multiple_of(align as u64)
    }

    /// The physical range when it is RAM of one page.
    pub fn range(&self) -> Option<(u64, usize)> {
        (self.first.ram && self.second.is_none()).then_some((self.first.gpa, self.first.len))
    }

    /// Its pieces.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        let piece = |gva, part: Part| Piece {
            gva,
            gpa: part.gpa,
            len: u32::try_from(part.len).unwrap_or(0),
            read: self.read,
            write: self.write,
            ram: part.ram,
        };
        let second = self.second.map(|part| piece(self.gva.wrapping_add(self.first.len as u64), part));
        std::iter::once(piece(self.gva, self.first)).chain(second)
    }

    /// `len` bytes from `offset` on of an operand that lies on one page.
    pub fn element(&self, offset: usize, len: usize) -> Self {
        let first = Part { gpa: self.first.gpa + offset as u64, len, ram: self.first.ram };
        Self { gva: self.gva.wrapping_add(offset as u64), len, first, second: None, ..*self }
    }
}

/// Guest memory as the emulated instruction reaches it.
pub struct Memory<'a> {
    pub ram: &'a GuestMemoryMmap,
    pub bus: &'a mut dyn Bus,
}

impl Memory<'_> {
    /// Loads up to 8 bytes, at once when they are aligned.
    pub fn load(&mut self, operand: &Operand) -> Result<u64, Unsupported> {
        if operand.atomic() && operand.len <= 8 {
            return load_atomic(&self.slice(operand)?, operand.len);
        }
        let mut bytes = [0; 8];
        self.load_bytes(operand, bytes.get_mut(..operand.len).ok_or(Unsupported)?)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Stores up to 8 bytes, at once when they are aligned.
    pub fn store(&mut self, operand: &Operand, value: u64) -> Result<(), Unsupported> {
        if operand.atomic() && operand.len <= 8 {
            return store_atomic(&self.slice(operand)?, operand.len, value);
        }
        let bytes = value.to_le_bytes();
        self.store_bytes(operand, bytes.get(..operand.len).ok_or(Unsupported)?)
    }

    /// Replaces the operand by `f` of it and returns what it was. With `locked` no other CPU's change is lost; `f` may then be called
    /// more than once.
    pub fn update(&mut self, operand: &Operand, locked: bool, f: &mut dyn FnMut(u64) -> u64) -> Result<u64, Unsupported> {
        if locked {
            return if operand.atomic() { update_atomic(&self.slice(operand)?, operand.len, f) } else { Err(Unsupported) };
        }
        let old = self.load(operand)?;
        self.store(operand, f(old))?;
        Ok(old)
    }

    /// Reads the whole operand into `data`, which has its length. In aligned units of 8 bytes where it can.
    pub fn load_bytes(&mut self, operand: &Operand, data: &mut [u8]) -> Result<(), Unsupported> {
        let (one, two) = data.split_at_mut_checked(operand.first.len).ok_or(Unsupported)?;
        self.load_part(operand.first, one)?;
        operand.second.map_or(Ok(()), |part| self.load_part(part, two))
    }

    /// Writes the whole operand from `data`, which has its length.
    pub fn store_bytes(&mut self, operand: &Operand, data: &[u8]) -> Result<(), Unsupported> {
        let (one, two) = data.split_at_checked(operand.first.len).ok_or(Unsupported)?;
        self.store_part(operand.first, one)?;
        operand.second.map_or(Ok(()), |part| self.store_part(part, two))
    }

    /// The host's view of an operand in RAM on one page.
    pub fn slice(&self, operand: &Operand) -> Result<VolatileSlice<'_>, Unsupported> {
        let (gpa, len) = operand.range().ok_or(Unsupported)?;
        self.ram.get_slice(GuestAddress(gpa), len).map_err(|_| Unsupported)
    }

    fn load_part(&mut self, part: Part, data: &mut [u8]) -> Result<(), Unsupported> {
        if !part.ram {
            for (gpa, chunk) in (part.gpa..).step_by(8).zip(data.chunks_mut(8)) {
                self.bus.read(gpa, chunk);
            }
            return Ok(());
        }
        let slice = self.ram.get_slice(GuestAddress(part.gpa), part.len).map_err(|_| Unsupported)?;
        if part.gpa.is_multiple_of(8) && matches!(part.len, 16 | 32) {
            for (index, chunk) in data.chunks_exact_mut(8).enumerate() {
                let unit = slice.get_atomic_ref::<AtomicU64>(index * 8).map_err(|_| Unsupported)?;
                chunk.copy_from_slice(&unit.load(Ordering::Acquire).to_le_bytes());
            }
        } else {
            slice.copy_to(data);
        }
        Ok(())
    }

    fn store_part(&mut self, part: Part, data: &[u8]) -> Result<(), Unsupported> {
        if !part.ram {
            for (gpa, chunk) in (part.gpa..).step_by(8).zip(data.chunks(8)) {
                self.bus.write(gpa, chunk);
            }
            return Ok(());
        }
        let slice = self.ram.get_slice(GuestAddress(part.gpa), part.len).map_err(|_| Unsupported)?;
        if part.gpa.is_multiple_of(8) && matches!(part.len, 16 | 32) {
            for (index, chunk) in data.as_chunks::<8>().0.iter().enumerate() {
                let unit = slice.get_atomic_ref::<AtomicU64>(index * 8).map_err(|_| Unsupported)?;
                unit.store(u64::from_le_bytes(*chunk), Ordering::Release);
            }
        } else {
            slice.copy_from(data);
        }
        Ok(())
    }
}

/// Calls `$with` for the atomic and integer type of a width.
macro_rules! by_width {
    ($len:expr, $with:ident) => {
        match $len {
            1 => $with!(AtomicU8, u8),
            2 => $with!(AtomicU16, u16),
            4 => $with!(AtomicU32, u32),
            8 => $with!(AtomicU64, u64),
            _ => Err(Unsupported),
        }
    };
}

fn load_atomic(slice: &VolatileSlice<'_>, len: usize) -> Result<u64, Unsupported> {
    macro_rules! load {
        ($atomic:ty, $int:ty) => {
            slice.get_atomic_ref::<$atomic>(0).map(|unit| u64::from(unit.load(Ordering::Acquire))).map_err(|_| Unsupported)
        };
    }
    by_width!(len, load)
}

fn store_atomic(slice: &VolatileSlice<'_>, len: usize, value: u64) -> Result<(), Unsupported> {
    macro_rules! store {
        ($atomic:ty, $int:ty) => {{
            let value = <$int>::try_from(value & u64::from(<$int>::MAX)).map_err(|_| Unsupported)?;
            slice.get_atomic_ref::<$atomic>(0).map(|unit| unit.store(value, Ordering::Release)).map_err(|_| Unsupported)
        }};
    }
    by_width!(len, store)
}

fn update_atomic(slice: &VolatileSlice<'_>, len: usize, f: &mut dyn FnMut(u64) -> u64) -> Result<u64, Unsupported> {
    macro_rules! update {
        ($atomic:ty, $int:ty) => {{
            let unit = slice.get_atomic_ref::<$atomic>(0).map_err(|_| Unsupported)?;
            let mut old = unit.load(Ordering::Acquire);
            loop {
                let new = <$int>::try_from(f(old.into()) & u64::from(<$int>::MAX)).map_err(|_| Unsupported)?;
                match unit.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Acquire) {
                    Ok(_) => return Ok(old.into()),
                    Err(now) => old = now,
                }
            }
        }};
    }
    by_width!(len, update)
}
