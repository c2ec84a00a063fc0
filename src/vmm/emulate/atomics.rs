//! Exchanges.

use super::Unsupported;
use super::exec::Exec;
use super::flags::{self, STATUS, ZF, low, when};
use super::registers::{Gpr, mask};
use super::wide;

/// `xchg`, which always locks.
///
/// # Errors
/// When it must be left to the CPU.
pub fn exchange(exec: &mut Exec<'_>) -> Result<(), Unsupported> {
    let register = exec.register(1)?;
    let value = register.get(exec.cpu.regs());
    let old = exec.update(&mut |_| value)?;
    exec.set(register, old);
    Ok(())
}

/// `xadd`.
///
/// # Errors
/// When it must be left to the CPU.
pub fn exchange_add(exec: &mut Exec<'_>) -> Result<(), Unsupported> {
    let width = exec.width(0);
    let register = exec.register(1)?;
    let value = register.get(exec.cpu.regs());
    let old = exec.update(&mut |old| flags::add(old, value, false, width).0)?;
    exec.set(register, old);
    exec.set_flags(STATUS, flags::add(old, value, false, width).1);
    Ok(())
}

/// `cmpxchg`. The destination is written in any case.
///
/// # Errors
/// When it must be left to the CPU.
pub fn compare_exchange(exec: &mut Exec<'_>) -> Result<(), Unsupported> {
    let width = exec.width(0);
    let value = exec.register(1)?.get(exec.cpu.regs());
    let accumulator = Gpr::RAX.low(width);
    let expected = accumulator.get(exec.cpu.regs());
    let old = exec.update(&mut |old| if old == expected { value } else { old })?;
    if old != expected {
        exec.set(accumulator, old);
    }
    exec.set_flags(STATUS, flags::sub(expected, old, false, width).1);
    Ok(())
}

/// `cmpxchg8b` and `cmpxchg16b`: RDX:RAX against memory, RCX:RBX into it.
///
/// # Errors
/// When it must be left to the CPU.
pub fn compare_exchange_pair(exec: &mut Exec<'_>) -> Result<(), Unsupported> {
    let half = exec.width(0) / 2;
    let bits = half * 8;
    let regs = exec.cpu.regs();
    let pair = |upper: Gpr, lower: Gpr| u128::from(upper.low(half).get(regs)) << bits | u128::from(lower.low(half).get(regs));
    let expected = pair(Gpr::RDX, Gpr::RAX);
    let value = pair(Gpr::RCX, Gpr::RBX);
    let old = if half == 8 {
        let place = exec.explicit()?;
        wide::compare_exchange(&exec.memory.slice(&place)?, expected, value)?
    } else {
        exec.update(&mut |old| if u128::from(old) == expected { low(value) } else { old })?.into()
    };
    if old != expected {
        exec.set(Gpr::RAX.low(half), low(old) & mask(half));
        exec.set(Gpr::RDX.low(half), low(old >> bits));
    }
    exec.set_flags(ZF, when(old == expected, ZF));
    Ok(())
}
