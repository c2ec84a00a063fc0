//! Integer arithmetic.

use super::Unsupported;
use super::exec::Exec;
use super::flags::{self, CF, OF, STATUS, Shift, low};
use super::op::{Arithmetic, Op};
use super::registers::{Gpr, mask, sign_extend};

/// Two operands and all six flags.
///
/// # Errors
/// When it must be left to the CPU.
pub fn two(exec: &mut Exec<'_>, kind: Arithmetic) -> Result<(), Unsupported> {
    let width = exec.width(0);
    let carry = exec.flags() & CF != 0;
    let source = exec.value(1)?;
    let compute = |old: u64| {
        let logic = |value| (value, flags::logic(value, width));
        match kind {
            Arithmetic::Add => flags::add(old, source, false, width),
            Arithmetic::Adc => flags::add(old, source, carry, width),
            Arithmetic::Sub | Arithmetic::Cmp => flags::sub(old, source, false, width),
            Arithmetic::Sbb => flags::sub(old, source, carry, width),
            Arithmetic::And | Arithmetic::Test => logic(old & source),
            Arithmetic::Or => logic(old | source),
            Arithmetic::Xor => logic(old ^ source),
        }
    };
    let old = match kind {
        Arithmetic::Cmp | Arithmetic::Test => exec.value(0)?,
        _ => exec.update(&mut |old| compute(old).0)?,
    };
    exec.set_flags(STATUS, compute(old).1);
    Ok(())
}

/// `inc`, `dec` (CF stays), `neg`, `not` (no flags).
///
/// # Errors
/// When it must be left to the CPU.
pub fn one(exec: &mut Exec<'_>, op: Op) -> Result<(), Unsupported> {
    let width = exec.width(0);
    let compute = |old: u64| match op {
        Op::Increment => flags::add(old, 1, false, width),
        Op::Decrement => flags::sub(old, 1, false, width),
        Op::Negate => flags::sub(0, old, false, width),
        _ => (!old & mask(width), 0),
    };
    let old = exec.update(&mut |old| compute(old).0)?;
    let which = match op {
        Op::Increment | Op::Decrement => STATUS & !CF,
        Op::Negate => STATUS,
        _ => 0,
    };
    exec.set_flags(which, compute(old).1);
    Ok(())
}

/// Shifts and rotates by 1, an immediate or CL.
///
/// # Errors
/// When it must be left to the CPU.
pub fn shift(exec: &mut Exec<'_>, kind: Shift) -> Result<(), Unsupported> {
    let width = exec.width(0);
    let rflags = exec.flags();
    let count = exec.value(1)? & 0xff;
    let old = exec.update(&mut |old| flags::shift(kind, old, count, width, rflags).0)?;
    let (_, new) = flags::shift(kind, old, count, width, rflags);
    exec.set_flags(STATUS, new);
    Ok(())
}

/// `mul` and `imul` in all their forms. SF, ZF, AF and PF are undefined and stay.
///
/// # Errors
/// When it must be left to the CPU.
pub fn multiply(exec: &mut Exec<'_>, signed: bool) -> Result<(), Unsupported> {
    let width = exec.width(0);
    let operands = exec.prepared.insn.op_count();
    let (a, b) = match operands {
        1 => (exec.value(0)?, Gpr::RAX.low(width).get(exec.cpu.regs())),
        2 => (exec.value(0)?, exec.value(1)?),
        _ => (exec.value(1)?, exec.value(2)?),
    };
    let (product, fits) = if signed {
        let extend = |value| i128::from(sign_extend(value, width).cast_signed());
        let product = extend(a) * extend(b);
        (product.cast_unsigned(), product == extend(low(product.cast_unsigned()) & mask(width)))
    } else {
        let product = u128::from(a) * u128::from(b);
        (product, product <= u128::from(mask(width)))
    };
    let half = low(product) & mask(width);
    match (operands, width) {
        (1, 1) => exec.set(Gpr::RAX.low(2), low(product)),
        (1, _) => {
            let upper = low(product >> (8 * width)) & mask(width);
            exec.set(Gpr::RAX.low(width), half);
            exec.set(Gpr::RDX.low(width), upper);
        }
        _ => {
            let register = exec.register(0)?;
            exec.set(register, half);
        }
    }
    exec.set_flags(CF | OF, flags::when(!fits, CF | OF));
    Ok(())
}
