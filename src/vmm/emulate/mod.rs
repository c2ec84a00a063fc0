//! What a stopped guest instruction is about to do, and doing it in its place.
//!
//! A vCPU that touches a closed page stops *before* the instruction with nothing but its registers. This module finds out the rest:
//! it [fetches and decodes](Insn::decode) the instruction through the guest's own page tables, [prepares](Insn::prepare) it by
//! computing, translating and permission-checking every memory operand, and, where the form is known, [performs](Prepared::perform)
//! it with host atomics on the VMM's mapping of guest RAM, so that the page never has to be opened.
//!
//! ```text
//! Insn::decode --> Insn::prepare --> Prepared { pieces, tables, ... } --> can_emulate? --> perform
//!      |                |                                                     no -> run it on the CPU itself, alone
//!      +--- Stop -------+   the guest gets the exception, or the caller runs it on the CPU itself
//! ```
//!
//! The rules for anyone who adds a form: an instruction that is not known to the last flag is not emulated; a flag the manual
//! leaves undefined stays as it was unless said otherwise; everything that can fail comes before the first change.
//!
//! Sources: Intel SDM volumes 1 to 3 (cited as "SDM", chapter or instruction), AMD APM volumes 2 and 3 where they differ.
//!
//! What the caller has to see to, because it is not in the registers handled here: the interrupt shadow of STI and MOV SS ends
//! with the emulated instruction; hardware breakpoints on data are not honoured; protection keys are not checked (the CPU checked
//! them for the operand it stopped at).

use kvm_bindings::{kvm_regs, kvm_sregs};
use std::fmt;

mod address;
mod alu;
mod atomics;
mod bits;
mod exec;
mod flags;
mod form;
mod insn;
mod memory;
mod mode;
mod moves;
mod op;
mod pages;
mod prepare;
mod prepared;
mod registers;
mod stack;
mod strings;
mod vector;
mod walk;
mod wide;

#[cfg(test)]
mod tests;

pub use insn::Insn;
pub use prepared::{Piece, Prepared};
pub use walk::{Access, PageFault, Translation, lookup, tables, translate};

/// Bytes in the smallest guest page.
pub const PAGE: u64 = 4096;

/// A register that could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the vCPU's vector registers are not available")]
pub struct Unavailable;

/// The instruction was not performed and nothing was changed: let the CPU run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the instruction cannot be emulated")]
pub struct Unsupported;

/// How much of a vector register an instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorWidth {
    /// Bits 127:0.
    Xmm,
    /// Bits 255:0.
    Ymm,
}

/// The registers of a stopped vCPU. The caller writes them back to the vCPU after [`Prepared::perform`].
///
/// Vector registers are fetched lazily because they cost an ioctl.
pub trait CpuState {
    /// General registers, RIP and RFLAGS.
    fn regs(&self) -> &kvm_regs;

    /// The same, for writing.
    fn regs_mut(&mut self) -> &mut kvm_regs;

    /// System registers. SS.DPL is the privilege level, as both of KVM's vendors keep it.
    fn sregs(&self) -> &kvm_sregs;

    /// Bits 255:0 of vector register `index` (0 to 15); bits 255:128 are 0 on a CPU without AVX.
    ///
    /// # Errors
    /// When they cannot be had.
    fn vector(&mut self, index: u8) -> Result<[u8; 32], Unavailable>;

    /// Writes the low `width` of vector register `index`. With `zero_upper` all bits above become 0 (VEX encodings), else they stay
    /// as they are (legacy SSE).
    ///
    /// # Errors
    /// When they cannot be written. Then nothing was.
    fn set_vector(&mut self, index: u8, value: [u8; 32], width: VectorWidth, zero_upper: bool) -> Result<(), Unavailable>;
}

/// Guest physical addresses outside RAM. An access is 1 to 8 bytes and never crosses a page.
pub trait Bus {
    /// Reads at `gpa`.
    fn read(&mut self, gpa: u64, data: &mut [u8]);

    /// Writes at `gpa`.
    fn write(&mut self, gpa: u64, data: &[u8]);
}

/// Why an instruction could not be decoded or prepared.
///
/// The exceptions ([`Fault`](Self::Fault), [`General`](Self::General), [`Stack`](Self::Stack)) are what the CPU would raise for the
/// state as it is now: the caller may inject them or let the CPU find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// #PF, with CR2 and the error code.
    #[error("page fault at {:#x}, code {:#x}", .0.address, .0.code)]
    Fault(PageFault),
    /// #GP(0): an address that is not canonical, a segment that does not allow the access, or a misaligned vector operand.
    #[error("general protection fault")]
    General,
    /// #SS(0): the same through the stack segment.
    #[error("stack fault")]
    Stack,
    /// The bytes are no instruction known here. The CPU may know better.
    #[error("unknown instruction {0}")]
    Undecodable(Bytes),
    /// A page table outside guest RAM.
    #[error("page table at {gpa:#x} is outside guest RAM")]
    TableOutside {
        /// Guest physical address of the entry.
        gpa: u64,
    },
    /// The guest kept changing its page tables under the walk: let it run the instruction again.
    #[error("page tables changed during the walk")]
    Raced,
    /// Code outside guest RAM.
    #[error("code at {gpa:#x} is outside guest RAM")]
    CodeOutside {
        /// Guest physical address of the first such byte.
        gpa: u64,
    },
}

/// Up to 15 bytes of an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    bytes: [u8; 15],
    len: u8,
}

impl Bytes {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.as_slice().iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}
