//! Where the operands of an instruction are.

use super::mode::{Mode, linear};
use super::registers::{Gpr, mask, sign_extend};
use super::{CpuState, Stop};
use iced_x86::{Instruction, OpKind, Register};

/// Bytes in the addresses of an operand in memory.
fn address_bytes(insn: &Instruction) -> usize {
    let by_register = |register: Register| match register {
        Register::None => None,
        Register::RIP => Some(8),
        Register::EIP => Some(4),
        register => Some(register.size()),
    };
    let by_displacement = match insn.memory_displ_size() {
        2 => 2,
        4 => 4,
        _ => 8,
    };
    by_register(insn.memory_base()).or_else(|| by_register(insn.memory_index())).unwrap_or(by_displacement)
}

/// The effective address of the explicit operand in memory: the offset in its segment. `rsp` is the stack pointer to use, which is not
/// always the register (`pop`).
pub fn effective(cpu: &dyn CpuState, insn: &Instruction, rsp: u64) -> u64 {
    let regs = cpu.regs();
    let value = |register: Register| match Gpr::new(register) {
        Some(gpr) if register.full_register() == Register::RSP => rsp & mask(gpr.bytes),
        Some(gpr) => gpr.get(regs),
        // With RIP as the base the displacement is the target itself.
        None => 0,
    };
    let index = value(insn.memory_index()).wrapping_mul(u64::from(insn.memory_index_scale()));
    let sum = value(insn.memory_base()).wrapping_add(index).wrapping_add(insn.memory_displacement64());
    sum & mask(address_bytes(insn))
}

/// The linear address of the explicit operand in memory, `len` bytes long.
///
/// # Errors
/// [`Stop::General`], [`Stop::Stack`].
pub fn explicit(cpu: &dyn CpuState, insn: &Instruction, mode: Mode, rsp: u64, len: usize, write: bool) -> Result<u64, Stop> {
    let offset = effective(cpu, insn, rsp);
    linear(cpu, mode, insn.memory_segment(), offset, len as u64, write)
}

/// The same for a bit test with the offset in a register: the unit of the bit string that holds the bit (SDM 1 3.1.1.9).
///
/// # Errors
/// [`Stop::General`], [`Stop::Stack`].
pub fn bit_unit(cpu: &dyn CpuState, insn: &Instruction, mode: Mode, len: usize, write: bool) -> Result<u64, Stop> {
    let mut offset = effective(cpu, insn, cpu.regs().rsp);
    if let Some(gpr) = (insn.op1_kind() == OpKind::Register).then(|| Gpr::new(insn.op1_register())).flatten() {
        let bit = sign_extend(gpr.get(cpu.regs()), gpr.bytes).cast_signed();
        let unit_bits = i64::try_from(len * 8).unwrap_or(64);
        let unit = bit.div_euclid(unit_bits).wrapping_mul(unit_bits / 8);
        offset = offset.wrapping_add_signed(unit) & mask(address_bytes(insn));
    }
    linear(cpu, mode, insn.memory_segment(), offset, len as u64, write)
}

/// The stack pointer moved by `by`, at the width of the stack.
pub fn stack_pointer(cpu: &dyn CpuState, mode: Mode, by: i64) -> u64 {
    let bytes = usize::try_from(mode.stack_bits / 8).unwrap_or(8);
    cpu.regs().rsp.wrapping_add_signed(by) & mask(bytes)
}
