//! Plain moves.

use super::Unsupported;
use super::exec::Exec;
use super::op::{Condition, Op};
use super::registers::sign_extend;

/// `mov`, `movnti`, `movbe`, `movzx`, `movsx`, `movsxd`.
///
/// # Errors
/// When it must be left to the CPU.
pub fn perform(exec: &mut Exec<'_>, op: Op) -> Result<(), Unsupported> {
    let from = exec.width(1);
    let value = exec.value(1)?;
    let value = match op {
        Op::MoveSwapped => value.swap_bytes() >> (64 - 8 * from.clamp(1, 8)),
        Op::SignExtend => sign_extend(value, from),
        _ => value,
    };
    store(exec, value)
}

/// `cmovcc`: the source is read, and a 32-bit destination cleared above, whatever the condition.
///
/// # Errors
/// When it must be left to the CPU.
pub fn conditional(exec: &mut Exec<'_>, condition: Condition) -> Result<(), Unsupported> {
    let value = exec.value(1)?;
    let register = exec.register(0)?;
    let value = if condition.holds(exec.flags()) { value } else { register.get(exec.cpu.regs()) };
    exec.set(register, value);
    Ok(())
}

/// `setcc`.
///
/// # Errors
/// When it must be left to the CPU.
pub fn set(exec: &mut Exec<'_>, condition: Condition) -> Result<(), Unsupported> {
    let value = condition.holds(exec.flags()).into();
    store(exec, value)
}

fn store(exec: &mut Exec<'_>, value: u64) -> Result<(), Unsupported> {
    if exec.destination_in_memory() {
        let place = exec.explicit()?;
        return exec.memory.store(&place, value);
    }
    let register = exec.register(0)?;
    exec.set(register, value);
    Ok(())
}
