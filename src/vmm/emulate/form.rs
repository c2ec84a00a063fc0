//! Names of instruction forms, for statistics.

use iced_x86::{Instruction, OpKind, Register};
use std::fmt::Write;

/// Such as `lock add m32, r32` or `rep movs m8, m8`.
pub fn name(insn: &Instruction) -> String {
    let mut text = String::new();
    if insn.has_lock_prefix() {
        text.push_str("lock ");
    }
    if insn.has_rep_prefix() && has_string_operand(insn) {
        text.push_str("rep ");
    }
    if insn.has_repne_prefix() && has_string_operand(insn) {
        text.push_str("repne ");
    }
    let _ = write!(text, "{:?}", insn.mnemonic());
    text.make_ascii_lowercase();
    for i in 0..insn.op_count() {
        text.push_str(if i == 0 { " " } else { ", " });
        operand(&mut text, insn, i);
    }
    text
}

fn operand(text: &mut String, insn: &Instruction, i: u32) {
    let result = match insn.op_kind(i) {
        OpKind::Register => {
            let register = insn.op_register(i);
            let kind = match register {
                _ if register.is_gpr() => "r",
                _ if register.is_xmm() => "xmm",
                _ if register.is_ymm() => "ymm",
                _ if register.is_segment_register() => "sreg",
                Register::None => "none",
                _ => "reg",
            };
            if register.is_gpr() { write!(text, "r{}", register.size() * 8) } else { write!(text, "{kind}") }
        }
        kind if is_immediate(kind) => write!(text, "imm"),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => write!(text, "rel"),
        OpKind::FarBranch16 | OpKind::FarBranch32 => write!(text, "far"),
        _ => match insn.memory_size().size() {
            0 => write!(text, "m"),
            size => write!(text, "m{}", size * 8),
        },
    };
    // Writing to a string does not fail.
    let _ = result;
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

fn has_string_operand(insn: &Instruction) -> bool {
    insn.op_kinds().any(|kind| {
        matches!(
            kind,
            OpKind::MemorySegSI
                | OpKind::MemorySegESI
                | OpKind::MemorySegRSI
                | OpKind::MemoryESDI
                | OpKind::MemoryESEDI
                | OpKind::MemoryESRDI
        )
    })
}

/// One number for everything [`name`] depends on.
pub fn key(insn: &Instruction) -> u32 {
    let bit = |set: bool, at: u32| u32::from(set) << at;
    let text = has_string_operand(insn);
    // What a register-or-memory operand is; all else is in the code.
    let memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    insn.code() as u32
        | bit(insn.has_lock_prefix(), 16)
        | bit(text && insn.has_rep_prefix(), 17)
        | bit(text && insn.has_repne_prefix(), 18)
        | bit(memory, 19)
}
