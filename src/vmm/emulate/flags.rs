//! Integer arithmetic with the flags it leaves (SDM 1 appendix A, SDM 2 per instruction).
//!
//! Values are in the low bytes of a `u64` with the rest clear; widths are in bytes.

use super::registers::{mask, sign_extend};

pub const CF: u64 = 1;
pub const PF: u64 = 1 << 2;
pub const AF: u64 = 1 << 4;
pub const ZF: u64 = 1 << 6;
pub const SF: u64 = 1 << 7;
pub const OF: u64 = 1 << 11;
/// The six.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// `flag` when `set`.
pub const fn when(set: bool, flag: u64) -> u64 {
    if set { flag } else { 0 }
}

/// `old` with the flags of `which` taken from `new`.
pub const fn merge(old: u64, which: u64, new: u64) -> u64 {
    (old & !which) | (new & which)
}

const fn top(value: u64, width: usize) -> bool {
    sign_extend(value, width) >> 63 != 0
}

/// SF, ZF and PF of a result.
fn result(value: u64, width: usize) -> u64 {
    let value = value & mask(width);
    let even = (value & 0xff).count_ones().is_multiple_of(2);
    when(value == 0, ZF) | when(top(value, width), SF) | when(even, PF)
}

/// `a + b + carry`, and all six flags.
pub fn add(a: u64, b: u64, carry: bool, width: usize) -> (u64, u64) {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let sum = a.wrapping_add(b).wrapping_add(u64::from(carry)) & mask(width);
    let overflow = top((a ^ sum) & (b ^ sum), width);
    let flags = result(sum, width) | when(wide > u128::from(mask(width)), CF) | when(overflow, OF) | ((a ^ b ^ sum) & AF);
    (sum, flags)
}

/// `a - b - borrow`, and all six flags.
pub fn sub(a: u64, b: u64, borrow: bool, width: usize) -> (u64, u64) {
    let difference = a.wrapping_sub(b).wrapping_sub(u64::from(borrow)) & mask(width);
    let below = u128::from(a) < u128::from(b) + u128::from(borrow);
    let overflow = top((a ^ b) & (a ^ difference), width);
    let flags = result(difference, width) | when(below, CF) | when(overflow, OF) | ((a ^ b ^ difference) & AF);
    (difference, flags)
}

/// All six flags of AND, OR, XOR and TEST. AF is undefined; real CPUs clear it.
pub fn logic(value: u64, width: usize) -> u64 {
    result(value, width)
}

/// A shift or rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
    Rcl,
    Rcr,
}

/// `a` shifted by `count`, and RFLAGS `old` after it. With a count that leaves OF undefined OF follows the rule for a count of 1.
pub fn shift(kind: Shift, a: u64, count: u64, width: usize, old: u64) -> (u64, u64) {
    let bits = u64::try_from(width * 8).unwrap_or(64);
    let count = count & if width == 8 { 63 } else { 31 };
    if count == 0 {
        return (a, old);
    }
    let signed = sign_extend(a, width).cast_signed();
    let carried = old & CF != 0;
    match kind {
        Shift::Shl => {
            let wide = u128::from(a) << count;
            let value = (a << count) & mask(width);
            let carry = (wide >> bits) & 1 != 0;
            (value, merge(old, STATUS & !AF, result(value, width) | when(carry, CF) | when(carry != top(value, width), OF)))
        }
        Shift::Shr => {
            let value = a >> count;
            let carry = (a >> (count - 1)) & 1 != 0;
            (value, merge(old, STATUS & !AF, result(value, width) | when(carry, CF) | when(top(a, width), OF)))
        }
        Shift::Sar => {
            let value = (signed >> count).cast_unsigned() & mask(width);
            let carry = (signed >> (count - 1)) & 1 != 0;
            (value, merge(old, STATUS & !AF, result(value, width) | when(carry, CF)))
        }
        Shift::Rol => {
            let value = rotate(a.into(), bits, count % bits) & mask(width);
            let carry = value & 1 != 0;
            (value, merge(old, CF | OF, when(carry, CF) | when(carry != top(value, width), OF)))
        }
        Shift::Ror => {
            let value = rotate(a.into(), bits, bits - count % bits) & mask(width);
            let carry = top(value, width);
            (value, merge(old, CF | OF, when(carry, CF) | when(carry != top(value << 1, width), OF)))
        }
        Shift::Rcl | Shift::Rcr => {
            // The carry flag is one more bit above the operand.
            let around = bits + 1;
            let steps = count % around;
            let steps = if kind == Shift::Rcl { steps } else { around - steps };
            let joined = u128::from(carried) << bits | u128::from(a);
            let turned = rotate_wide(joined, around, steps % around);
            let value = low(turned) & mask(width);
            let carry = (turned >> bits) & 1 != 0;
            let other = if kind == Shift::Rcl { carry } else { top(value << 1, width) };
            (value, merge(old, CF | OF, when(carry, CF) | when(other != top(value, width), OF)))
        }
    }
}

fn rotate(value: u128, bits: u64, left: u64) -> u64 {
    low(rotate_wide(value, bits, left % bits))
}

fn rotate_wide(value: u128, bits: u64, left: u64) -> u128 {
    if left == 0 { value } else { (value << left | value >> (bits - left)) & ((1 << bits) - 1) }
}

/// The low half.
pub fn low(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).unwrap_or(0)
}
