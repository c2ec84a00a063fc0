//! A prepared instruction.

use super::memory::Operand;
use super::mode::Mode;
use super::op::Op;
use super::pages::Pages;
use super::{Bus, CpuState, Unsupported, exec, form};
use iced_x86::Instruction;
use vm_memory::GuestMemoryMmap;

/// A stretch of memory an instruction accesses, within one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Guest virtual (linear) address.
    pub gva: u64,
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes, 1 to 4096.
    pub len: u32,
    /// It is read.
    pub read: bool,
    /// It is written.
    pub write: bool,
    /// It is in guest RAM, not in device memory.
    pub ram: bool,
}

/// An instruction whose memory operands are known.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    pub(super) insn: Instruction,
    pub(super) op: Option<Op>,
    pub(super) mode: Mode,
    /// The operand in the encoding, or the source of a string instruction.
    pub(super) explicit: Option<Operand>,
    /// The stack, or the destination of a string instruction.
    pub(super) other: Option<Operand>,
    /// Elements of a string instruction's run.
    pub(super) run: u64,
    pub(super) pieces: [Piece; 8],
    pub(super) piece_count: usize,
    pub(super) tables: Pages,
    pub(super) code: Pages,
    pub(super) complete: bool,
    pub(super) emulated: bool,
}

impl Prepared {
    /// What it accesses: one piece per operand and page, in the order of the accesses. Of a repeated string instruction this is the run up
    /// to the nearest end of a page of any operand, or for `cmps` and `scas` up to where it ends with the bytes now in memory.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        self.pieces.get(..self.piece_count).unwrap_or(&self.pieces)
    }

    /// [`pieces`](Self::pieces) is everything the instruction accesses. It is not for the few whose operands depend on more
    /// than the general registers (gathers, XSAVE, far control transfers, descriptor loads).
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// A piece lies outside guest RAM.
    #[must_use]
    pub fn touches_mmio(&self) -> bool {
        self.pieces().iter().any(|piece| !piece.ram)
    }

    /// The instruction ran with user privilege (CPL 3).
    #[must_use]
    pub fn user(&self) -> bool {
        self.mode.user
    }

    /// The form for people and counters, such as `lock add m32, r32`. The same for all instructions of the same
    /// [`form_key`](Self::form_key).
    #[must_use]
    pub fn form(&self) -> String {
        form::name(&self.insn)
    }

    /// The form as a number, cheap to count by.
    #[must_use]
    pub fn form_key(&self) -> u32 {
        form::key(&self.insn)
    }

    /// Guest physical addresses of the page-table pages walked for the fetch and the operands.
    #[must_use]
    pub fn tables(&self) -> &[u64] {
        self.tables.as_slice()
    }

    /// Guest physical addresses of the pages of code.
    #[must_use]
    pub fn code_pages(&self) -> &[u64] {
        self.code.as_slice()
    }

    /// Length of the instruction in bytes.
    #[must_use]
    pub fn length(&self) -> u8 {
        u8::try_from(self.insn.len()).unwrap_or(15)
    }

    /// The address after the instruction (RIP, not linear).
    #[must_use]
    pub fn next_ip(&self) -> u64 {
        self.insn.next_ip()
    }

    /// [`perform`](Self::perform) is likely to work. When false it certainly does not.
    #[must_use]
    pub fn can_emulate(&self) -> bool {
        self.emulated
    }

    /// Carries it out: memory, registers, flags and RIP. A repeated string instruction does the run its pieces tell; when that is not all of it,
    /// RIP stays, as if an interrupt had come between. `cpu` must be as it was when the instruction was prepared.
    ///
    /// # Errors
    /// When the form, or these values of its operands, must be left to the CPU. Then guest memory and registers are unchanged; only a
    /// device may have seen a read.
    pub fn perform(&self, cpu: &mut dyn CpuState, ram: &GuestMemoryMmap, bus: &mut dyn Bus) -> Result<(), Unsupported> {
        exec::perform(self, cpu, ram, bus)
    }

    /// It locks the operand in the encoding, by prefix or by nature.
    pub(super) fn locked(&self) -> bool {
        self.insn.has_lock_prefix() || self.op == Some(Op::Exchange)
    }
}
