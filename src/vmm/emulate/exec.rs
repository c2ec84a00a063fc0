//! Carrying out a prepared instruction.

use super::memory::{Memory, Operand};
use super::mode::RFLAGS_RF;
use super::op::Op;
use super::registers::{Gpr, mask};
use super::{Bus, CpuState, Prepared, Unsupported};
use super::{alu, atomics, bits, moves, stack, strings, vector};
use iced_x86::OpKind;
use vm_memory::GuestMemoryMmap;

/// An instruction being carried out.
pub struct Exec<'a> {
    pub prepared: &'a Prepared,
    pub cpu: &'a mut dyn CpuState,
    pub memory: Memory<'a>,
    /// False when RIP is to stay on the instruction.
    pub finished: bool,
    /// Where a branch goes.
    pub target: Option<u64>,
}

/// [`Prepared::perform`].
///
/// # Errors
/// As there.
pub fn perform(prepared: &Prepared, cpu: &mut dyn CpuState, ram: &GuestMemoryMmap, bus: &mut dyn Bus) -> Result<(), Unsupported> {
    let op = prepared.op.filter(|_| prepared.emulated).ok_or(Unsupported)?;
    let mut exec = Exec { prepared, cpu, memory: Memory { ram, bus }, finished: true, target: None };
    match op {
        Op::Nothing => {}
        Op::Move | Op::MoveSwapped | Op::ZeroExtend | Op::SignExtend => moves::perform(&mut exec, op)?,
        Op::MoveIf(condition) => moves::conditional(&mut exec, condition)?,
        Op::Set(condition) => moves::set(&mut exec, condition)?,
        Op::Arithmetic(kind) => alu::two(&mut exec, kind)?,
        Op::Increment | Op::Decrement | Op::Negate | Op::Not => alu::one(&mut exec, op)?,
        Op::Shift(kind) => alu::shift(&mut exec, kind)?,
        Op::Multiply { signed } => alu::multiply(&mut exec, signed)?,
        Op::Bit(kind) => bits::test(&mut exec, kind)?,
        Op::Scan(kind) => bits::scan(&mut exec, kind)?,
        Op::Checksum => bits::checksum(&mut exec)?,
        Op::Exchange => atomics::exchange(&mut exec)?,
        Op::ExchangeAdd => atomics::exchange_add(&mut exec)?,
        Op::CompareExchange => atomics::compare_exchange(&mut exec)?,
        Op::CompareExchangePair => atomics::compare_exchange_pair(&mut exec)?,
        Op::Push | Op::PushFlags | Op::Pop | Op::Call | Op::Return | Op::Jump | Op::Leave => stack::perform(&mut exec, op)?,
        Op::Text(text) => strings::perform(&mut exec, text)?,
        Op::Vector(kind) => vector::perform(&mut exec, kind)?,
    }
    if exec.finished {
        let next = exec.target.unwrap_or_else(|| prepared.next_ip());
        let regs = exec.cpu.regs_mut();
        regs.rip = next;
        regs.rflags &= !RFLAGS_RF;
    }
    Ok(())
}

impl Exec<'_> {
    /// The explicit operand in memory.
    pub fn explicit(&self) -> Result<Operand, Unsupported> {
        self.prepared.explicit.ok_or(Unsupported)
    }

    /// The operand on the stack.
    pub fn other(&self) -> Result<Operand, Unsupported> {
        self.prepared.other.ok_or(Unsupported)
    }

    /// Bytes of an operand; an immediate is as wide as the destination.
    pub fn width(&self, operand: u32) -> usize {
        let insn = &self.prepared.insn;
        match insn.try_op_kind(operand) {
            Ok(OpKind::Register) => insn.op_register(operand).size(),
            Ok(OpKind::Memory) => insn.memory_size().size(),
            _ if operand != 0 => self.width(0),
            _ => 8,
        }
    }

    /// The destination is in memory.
    pub fn destination_in_memory(&self) -> bool {
        self.prepared.insn.op0_kind() == OpKind::Memory
    }

    /// The general register that is an operand.
    pub fn register(&self, operand: u32) -> Result<Gpr, Unsupported> {
        let insn = &self.prepared.insn;
        match insn.try_op_kind(operand) {
            Ok(OpKind::Register) => Gpr::new(insn.op_register(operand)).ok_or(Unsupported),
            _ => Err(Unsupported),
        }
    }

    /// The value of an operand, at its width.
    pub fn value(&mut self, operand: u32) -> Result<u64, Unsupported> {
        let insn = &self.prepared.insn;
        match insn.try_op_kind(operand) {
            Ok(OpKind::Register) => Ok(self.register(operand)?.get(self.cpu.regs())),
            Ok(OpKind::Memory) => {
                let place = self.explicit()?;
                self.memory.load(&place)
            }
            _ => Ok(insn.try_immediate(operand).map_err(|_| Unsupported)? & mask(self.width(operand))),
        }
    }

    /// Sets a register.
    pub fn set(&mut self, register: Gpr, value: u64) {
        register.set(self.cpu.regs_mut(), value);
    }

    /// RFLAGS.
    pub fn flags(&self) -> u64 {
        self.cpu.regs().rflags
    }

    /// Takes the flags of `which` from `new`.
    pub fn set_flags(&mut self, which: u64, new: u64) {
        let regs = self.cpu.regs_mut();
        regs.rflags = super::flags::merge(regs.rflags, which, new);
    }

    /// Replaces the destination by `f` of it, and returns what it was. `f` may be called more than once.
    pub fn update(&mut self, f: &mut dyn FnMut(u64) -> u64) -> Result<u64, Unsupported> {
        if self.destination_in_memory() {
            let place = self.explicit()?;
            return self.memory.update(&place, self.prepared.locked(), f);
        }
        let register = self.register(0)?;
        let old = register.get(self.cpu.regs());
        let new = f(old);
        self.set(register, new);
        Ok(old)
    }
}
