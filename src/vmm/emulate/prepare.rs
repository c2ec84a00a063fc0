//! Finding all the memory an instruction accesses.

use super::memory::Operand;
use super::mode::{self, Mode};
use super::op::{Op, Scan, Vector};
use super::{CpuState, Insn, PAGE, Piece, Prepared, Stop, address, strings, wide};
use iced_x86::{
    EncodingKind, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};
use vm_memory::GuestMemoryMmap;

/// [`Insn::prepare`].
///
/// # Errors
/// As there.
pub fn prepare(insn: &Insn, cpu: &dyn CpuState, ram: &GuestMemoryMmap) -> Result<Prepared, Stop> {
    let op = Op::of(&insn.insn);
    let mut prepared = Prepared::new(insn, op);
    match op {
        Some(Op::Text(text)) => strings::prepare(&mut prepared, text, cpu, ram)?,
        Some(op) => Preparing { prepared: &mut prepared, cpu, ram }.known(op)?,
        None => Preparing { prepared: &mut prepared, cpu, ram }.any()?,
    }
    prepared.emulated = prepared.complete && op.is_some_and(|op| emulates(&prepared, op, cpu));
    Ok(prepared)
}

/// Which operand in memory this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The one in the encoding, or the source of a string instruction.
    Explicit,
    /// The stack, or the destination of a string instruction.
    Other,
}

struct Preparing<'a> {
    prepared: &'a mut Prepared,
    cpu: &'a dyn CpuState,
    ram: &'a GuestMemoryMmap,
}

impl Preparing<'_> {
    fn known(&mut self, op: Op) -> Result<(), Stop> {
        let insn = self.prepared.insn;
        let rsp = self.cpu.regs().rsp;
        let moved = i64::from(insn.stack_pointer_increment());
        match op {
            Op::Nothing => Ok(()),
            Op::Push | Op::PushFlags | Op::Call => {
                self.explicit(op, rsp)?;
                self.stack(address::stack_pointer(self.cpu, self.prepared.mode, moved), moved.unsigned_abs(), true)
            }
            Op::Pop => {
                self.stack(rsp, moved.unsigned_abs(), false)?;
                self.explicit(op, address::stack_pointer(self.cpu, self.prepared.mode, moved))
            }
            Op::Return => self.stack(rsp, 8, false),
            Op::Leave => self.stack(self.cpu.regs().rbp, 8, false),
            op => self.explicit(op, rsp),
        }
    }

    fn explicit(&mut self, op: Op, rsp: u64) -> Result<(), Stop> {
        let (insn, mode) = (self.prepared.insn, self.prepared.mode);
        let Some(index) = (0..insn.op_count()).find(|i| insn.op_kind(*i) == OpKind::Memory) else { return Ok(()) };
        let len = insn.memory_size().size();
        let rights = op.rights(index);
        let gva = match op {
            Op::Bit(_) => address::bit_unit(self.cpu, &insn, mode, len, rights.1)?,
            _ => address::explicit(self.cpu, &insn, mode, rsp, len, rights.1)?,
        };
        let must_align = matches!(op, Op::Vector(Vector::Whole { aligned: true })) || (op == Op::CompareExchangePair && len == 16);
        if must_align && !gva.is_multiple_of(len as u64) {
            return Err(Stop::General);
        }
        self.prepared.add(Slot::Explicit, self.cpu, self.ram, (gva, len), rights)
    }

    fn stack(&mut self, rsp: u64, len: u64, write: bool) -> Result<(), Stop> {
        let gva = mode::linear(self.cpu, self.prepared.mode, Register::SS, rsp, len, write)?;
        let len = usize::try_from(len).unwrap_or(8);
        self.prepared.add(Slot::Other, self.cpu, self.ram, (gva, len), (!write, write))
    }

    /// Whatever the decoder's tables tell of an instruction that is not emulated.
    fn any(&mut self) -> Result<(), Stop> {
        let insn = self.prepared.insn;
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(&insn);
        self.prepared.complete = !insn.is_vsib() && !hidden_accesses(&insn, info);
        if insn.is_vsib() {
            return Ok(());
        }
        for used in info.used_memory() {
            let (rights, certain) = match used.access() {
                OpAccess::Read => ((true, false), true),
                OpAccess::CondRead => ((true, false), false),
                OpAccess::Write => ((false, true), true),
                OpAccess::CondWrite => ((false, true), false),
                OpAccess::ReadWrite => ((true, true), true),
                OpAccess::ReadCondWrite => ((true, true), false),
                OpAccess::None | OpAccess::NoMemAccess => continue,
            };
            let found = self.used(used, rights);
            // What may not be accessed at all must not stop the instruction.
            if certain {
                found?;
            } else if found.is_err() {
                self.prepared.complete = false;
            }
        }
        Ok(())
    }

    fn used(&mut self, used: &UsedMemory, rights: (bool, bool)) -> Result<(), Stop> {
        let cpu = self.cpu;
        let size = used.memory_size().size();
        if size == 0 || size as u64 > PAGE {
            self.prepared.complete = false;
        }
        let len = size.clamp(1, 1024);
        let offset = used
            .virtual_address(0, |register, _, _| {
                let segment = register.is_segment_register();
                // The base of the segment is added with its checks.
                if segment { Some(0) } else { super::registers::Gpr::new(register).map_or(Some(0), |gpr| Some(gpr.get(cpu.regs()))) }
            })
            .unwrap_or(0);
        let gva = mode::linear(cpu, self.prepared.mode, used.segment(), offset, len as u64, rights.1)?;
        let operand = Operand::resolve(cpu, self.ram, self.prepared.mode, (gva, len), rights, &mut self.prepared.tables)?;
        self.prepared.add_pieces(&operand);
        Ok(())
    }
}

/// Accesses that the decoder's tables do not show: descriptors, the TSS, the IDT, structures of virtual machines.
fn hidden_accesses(insn: &Instruction, info: &InstructionInfo) -> bool {
    let far = matches!(
        insn.mnemonic(),
        Mnemonic::Iret
            | Mnemonic::Iretd
            | Mnemonic::Iretq
            | Mnemonic::Retf
            | Mnemonic::Lar
            | Mnemonic::Lsl
            | Mnemonic::Verr
            | Mnemonic::Verw
    );
    let far = far || insn.is_call_far() || insn.is_call_far_indirect() || insn.is_jmp_far() || insn.is_jmp_far_indirect();
    let event = matches!(insn.flow_control(), FlowControl::Interrupt | FlowControl::Exception);
    let segment = info
        .used_registers()
        .iter()
        .any(|used| used.register().is_segment_register() && matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite));
    far || event || segment || insn.is_privileged() || insn.is_save_restore_instruction()
}

/// Whether `op` is left to this module in the state `cpu` is in.
fn emulates(prepared: &Prepared, op: Op, cpu: &dyn CpuState) -> bool {
    let sregs = cpu.sregs();
    let checked_alignment = prepared.mode.user && sregs.cr0 & mode::CR0_AM != 0 && cpu.regs().rflags & mode::RFLAGS_AC != 0;
    if prepared.mode.bits != 64 || Insn::traced(cpu) || checked_alignment {
        return false;
    }
    if op == Op::Nothing {
        return !prepared.insn.has_lock_prefix();
    }
    if prepared.pieces().is_empty() {
        return false;
    }
    if prepared.locked() && !prepared.explicit.is_some_and(|operand| operand.atomic()) {
        return false;
    }
    match op {
        // Shadow stacks and branch tracking.
        Op::Call | Op::Return | Op::Jump => sregs.cr4 & mode::CR4_CET == 0,
        Op::CompareExchangePair if prepared.insn.memory_size().size() == 16 => {
            wide::available() && prepared.explicit.is_some_and(|operand| operand.atomic())
        }
        Op::Vector(vector) => {
            let vex = prepared.insn.encoding() == EncodingKind::VEX;
            let disabled = sregs.cr0 & (mode::CR0_EM | mode::CR0_TS) != 0 || sregs.cr4 & mode::CR4_OSFXSR == 0;
            let no_state = vex && sregs.cr4 & mode::CR4_OSXSAVE == 0;
            // Without AMD's misaligned mode these fault.
            let misaligned = !vex && matches!(vector, Vector::Combine(_)) && !prepared.explicit.is_some_and(|o| o.aligned(16));
            !disabled && !no_state && !misaligned
        }
        // A CPU without them ignores the prefix and runs `bsf` and `bsr`, whatever CPUID tells the guest.
        Op::Scan(Scan::Trailing) => is_x86_feature_detected!("bmi1"),
        Op::Scan(Scan::Leading) => is_x86_feature_detected!("lzcnt"),
        // Repeated by F2 where that is not defined.
        Op::Text(text) => strings::defined(&prepared.insn, text),
        _ => true,
    }
}

impl Prepared {
    fn new(insn: &Insn, op: Option<Op>) -> Self {
        Self {
            insn: insn.insn,
            op,
            mode: insn.mode,
            explicit: None,
            other: None,
            run: 0,
            pieces: [Piece { gva: 0, gpa: 0, len: 0, read: false, write: false, ram: true }; 8],
            piece_count: 0,
            tables: insn.tables,
            code: insn.code,
            complete: true,
            emulated: false,
        }
    }

    /// Translates an operand and takes it in.
    ///
    /// # Errors
    /// As [`Operand::resolve`].
    pub(super) fn add(
        &mut self,
        slot: Slot,
        cpu: &dyn CpuState,
        ram: &GuestMemoryMmap,
        at: (u64, usize),
        rights: (bool, bool),
    ) -> Result<(), Stop> {
        let mode: Mode = self.mode;
        let operand = Operand::resolve(cpu, ram, mode, at, rights, &mut self.tables)?;
        self.add_pieces(&operand);
        match slot {
            Slot::Explicit => self.explicit = Some(operand),
            Slot::Other => self.other = Some(operand),
        }
        Ok(())
    }

    fn add_pieces(&mut self, operand: &Operand) {
        for piece in operand.pieces() {
            match self.pieces.get_mut(self.piece_count) {
                Some(slot) => {
                    *slot = piece;
                    self.piece_count += 1;
                }
                None => self.complete = false,
            }
        }
    }
}
