//! SSE and AVX moves and a little logic.

use super::exec::Exec;
use super::op::{Combine, Vector, vector_number};
use super::{Unavailable, Unsupported, VectorWidth};
use iced_x86::{EncodingKind, OpKind};

type Value = [u8; 32];

/// Carries out one of them. Exactly one operand is in memory.
///
/// # Errors
/// When the registers cannot be had.
pub fn perform(exec: &mut Exec<'_>, kind: Vector) -> Result<(), Unsupported> {
    let insn = exec.prepared.insn;
    let place = exec.explicit()?;
    let len = place.len();
    let register = |operand: u32| match insn.try_op_kind(operand) {
        Ok(OpKind::Register) => vector_number(insn.op_register(operand)).ok_or(Unsupported),
        _ => Err(Unsupported),
    };
    if exec.destination_in_memory() {
        let value = exec.cpu.vector(register(1)?)?;
        let from = if kind == Vector::HighHalf { 8 } else { 0 };
        return exec.memory.store_bytes(&place, value.get(from..from + len).ok_or(Unsupported)?);
    }
    let target = register(0)?;
    let vex = insn.encoding() == EncodingKind::VEX;
    // The other source, or what stays of the destination. Asked for first, so that nothing was accessed when there is none.
    let other = exec.cpu.vector(if insn.op_count() == 3 { register(1)? } else { target })?;
    let mut loaded = [0; 32];
    exec.memory.load_bytes(&place, loaded.get_mut(..len).ok_or(Unsupported)?)?;
    let value = match kind {
        Vector::Whole { .. } | Vector::Scalar => loaded,
        Vector::LowHalf | Vector::HighHalf => {
            let mut value = other;
            let from = if kind == Vector::HighHalf { 8 } else { 0 };
            for (to, byte) in value.iter_mut().skip(from).zip(loaded.iter().take(8)) {
                *to = *byte;
            }
            value
        }
        Vector::Combine(how) => combine(how, &other, &loaded),
    };
    let width = if insn.op0_register().is_ymm() { VectorWidth::Ymm } else { VectorWidth::Xmm };
    exec.cpu.set_vector(target, value, width, vex)?;
    Ok(())
}

fn combine(how: Combine, a: &Value, b: &Value) -> Value {
    let mut value = [0; 32];
    let size = if let Combine::Equal(size) = how { usize::from(size) } else { 1 };
    let elements = a.chunks(size).zip(b.chunks(size));
    for (to, (a, b)) in value.chunks_mut(size).zip(elements) {
        let equal = a == b;
        for (to, (a, b)) in to.iter_mut().zip(a.iter().zip(b)) {
            *to = match how {
                Combine::And => a & b,
                Combine::AndNot => !a & b,
                Combine::Or => a | b,
                Combine::Xor => a ^ b,
                Combine::Equal(_) => u8::from(equal).wrapping_neg(),
            };
        }
    }
    value
}

impl From<Unavailable> for Unsupported {
    fn from(_: Unavailable) -> Self {
        Self
    }
}
