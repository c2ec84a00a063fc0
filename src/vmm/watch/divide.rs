//! Whether a division faults: known before it is stepped, because a step would leave its trap flag in the frame of the exception.

use crate::emulate::Piece;
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use kvm_bindings::kvm_regs;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Whether the instruction is a DIV or IDIV of these registers by what `pieces` hold, and ends in #DE (SDM 2A).
#[must_use]
pub fn faults(code: &[u8], bitness: u32, regs: &kvm_regs, ram: &GuestMemoryMmap, pieces: &[Piece]) -> bool {
    let signed = match Decoder::new(bitness, code, DecoderOptions::NONE).decode().mnemonic() {
        Mnemonic::Div => false,
        Mnemonic::Idiv => true,
        _ => return false,
    };
    let mut divisor = [0; 8];
    let mut size = 0;
    for piece in pieces {
        let end = size + usize::try_from(piece.len).unwrap_or(usize::MAX).min(8);
        let Some(part) = divisor.get_mut(size..end) else { return false };
        if ram.read_slice(part, GuestAddress(piece.gpa)).is_err() {
            return false;
        }
        size = end;
    }
    overflows(signed, size, regs, u64::from_le_bytes(divisor))
}

/// For a divisor of `size` bytes.
fn overflows(signed: bool, size: usize, regs: &kvm_regs, divisor: u64) -> bool {
    let (low, high) = match size {
        1 => (regs.rax & 0xff, regs.rax >> 8 & 0xff),
        2 => (regs.rax & 0xffff, regs.rdx & 0xffff),
        4 => (regs.rax & 0xffff_ffff, regs.rdx & 0xffff_ffff),
        8 => (regs.rax, regs.rdx),
        _ => return false,
    };
    let bits = size * 8;
    let dividend = u128::from(high) << bits | u128::from(low);
    if !signed {
        return dividend.checked_div(u128::from(divisor)).is_none_or(|quotient| quotient >> bits != 0);
    }
    let dividend = dividend.cast_signed() << (128 - 2 * bits) >> (128 - 2 * bits);
    let divisor = i128::from(divisor) << (128 - bits) >> (128 - bits);
    let limit = 1i128 << (bits - 1);
    dividend.checked_div(divisor).is_none_or(|quotient| !(-limit..limit).contains(&quotient))
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn quotients_that_do_not_fit_are_known() {
        let regs = |rdx, rax| kvm_regs { rax, rdx, ..Default::default() };
        for (signed, size, regs, divisor, faults) in [
            (false, 8, regs(0, 7), 0, true),
            (false, 8, regs(1, 0), 1, true),
            (false, 8, regs(1, 0), 2, false),
            (false, 4, regs(0xffff_ffff_0000_0001, 5), 2, false),
            (false, 4, regs(2, 5), 2, true),
            (false, 1, regs(0, 0x0200), 2, true),
            (false, 1, regs(0, 0x01ff), 2, false),
            (true, 8, regs(u64::MAX, 1 << 63), u64::MAX, true),
            (true, 8, regs(u64::MAX, 1 << 63), 1, false),
            (true, 8, regs(1 << 63, 0), u64::MAX, true),
            (true, 4, regs(0xffff_ffff, 0xffff_fff8), 0xffff_fffe, false),
            (true, 2, regs(0, 0x8000), 1, true),
            (true, 1, regs(0, 0xff80), 0xff, true),
        ] {
            assert_eq!(overflows(signed, size, &regs, divisor), faults, "{signed} {size} {regs:?} {divisor:#x}");
        }
    }
}
