//! The CPU's mode, and linear addresses.

use super::{CpuState, Stop};
use iced_x86::Register;
use kvm_bindings::{kvm_segment, kvm_sregs};

pub const CR0_PE: u64 = 1;
pub const CR0_EM: u64 = 1 << 2;
pub const CR0_TS: u64 = 1 << 3;
pub const CR0_WP: u64 = 1 << 16;
pub const CR0_AM: u64 = 1 << 18;
pub const CR0_PG: u64 = 1 << 31;
pub const CR3_LAM_U57: u64 = 1 << 61;
pub const CR3_LAM_U48: u64 = 1 << 62;
pub const CR4_PSE: u64 = 1 << 4;
pub const CR4_PAE: u64 = 1 << 5;
pub const CR4_OSFXSR: u64 = 1 << 9;
pub const CR4_LA57: u64 = 1 << 12;
pub const CR4_OSXSAVE: u64 = 1 << 18;
pub const CR4_SMEP: u64 = 1 << 20;
pub const CR4_SMAP: u64 = 1 << 21;
pub const CR4_CET: u64 = 1 << 23;
pub const CR4_LAM_SUP: u64 = 1 << 28;
pub const EFER_LMA: u64 = 1 << 10;
pub const EFER_NXE: u64 = 1 << 11;
pub const RFLAGS_TF: u64 = 1 << 8;
pub const RFLAGS_DF: u64 = 1 << 10;
pub const RFLAGS_RF: u64 = 1 << 16;
pub const RFLAGS_VM: u64 = 1 << 17;
pub const RFLAGS_AC: u64 = 1 << 18;

/// How a CPU runs code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// 16, 32 or 64.
    pub bits: u32,
    /// Width of the stack pointer: 16, 32 or 64.
    pub stack_bits: u32,
    /// CPL 3.
    pub user: bool,
    /// Real or virtual-8086 mode: segments have no rights.
    pub real: bool,
}

impl Mode {
    pub fn of(cpu: &dyn CpuState) -> Self {
        let sregs = cpu.sregs();
        let v86 = cpu.regs().rflags & RFLAGS_VM != 0;
        let real = sregs.cr0 & CR0_PE == 0;
        let long = sregs.efer & EFER_LMA != 0 && sregs.cs.l != 0;
        let bits = |db: u8| if db == 0 { 16 } else { 32 };
        Self {
            bits: if long { 64 } else { bits(sregs.cs.db) },
            stack_bits: if long { 64 } else { bits(sregs.ss.db) },
            user: !real && (v86 || sregs.ss.dpl == 3),
            real: real || v86,
        }
    }
}

/// SDM 1 3.3.7.1. Outside long mode every address is.
pub fn is_canonical(sregs: &kvm_sregs, address: u64) -> bool {
    if sregs.efer & EFER_LMA == 0 {
        return true;
    }
    let unused = if sregs.cr4 & CR4_LA57 == 0 { 16 } else { 7 };
    ((address << unused).cast_signed() >> unused).cast_unsigned() == address
}

/// Linear address masking of a data address (SDM 3A 4.10: LAM).
fn unmask(sregs: &kvm_sregs, user: bool, address: u64) -> u64 {
    let keep = if address >> 63 == 0 {
        match (sregs.cr3 & CR3_LAM_U57 != 0, sregs.cr3 & CR3_LAM_U48 != 0) {
            (true, _) => 57,
            (false, true) => 48,
            (false, false) => return address,
        }
    } else if user || sregs.cr4 & CR4_LAM_SUP == 0 {
        return address;
    } else if sregs.cr4 & CR4_LA57 != 0 {
        57
    } else {
        48
    };
    let unused = 64 - keep;
    let sign = 1 << 63;
    (((address << unused).cast_signed() >> unused).cast_unsigned() & !sign) | (address & sign)
}

fn segment_of(sregs: &kvm_sregs, register: Register) -> &kvm_segment {
    match register {
        Register::ES => &sregs.es,
        Register::CS => &sregs.cs,
        Register::SS => &sregs.ss,
        Register::FS => &sregs.fs,
        Register::GS => &sregs.gs,
        _ => &sregs.ds,
    }
}

/// The linear address of `len` bytes at `offset` in `segment`, with the segment's checks.
///
/// # Errors
/// [`Stop::General`], or [`Stop::Stack`] through SS.
pub fn linear(cpu: &dyn CpuState, mode: Mode, segment: Register, offset: u64, len: u64, write: bool) -> Result<u64, Stop> {
    let sregs = cpu.sregs();
    let refused = if segment == Register::SS { Stop::Stack } else { Stop::General };
    let last = offset.wrapping_add(len.saturating_sub(1));
    if mode.bits == 64 {
        let based = matches!(segment, Register::FS | Register::GS);
        let base = if based { segment_of(sregs, segment).base } else { 0 };
        let address = unmask(sregs, mode.user, base.wrapping_add(offset));
        let end = address.wrapping_add(len.saturating_sub(1));
        return if is_canonical(sregs, address) && is_canonical(sregs, end) { Ok(address) } else { Err(refused) };
    }
    let descriptor = segment_of(sregs, segment);
    if !mode.real {
        let code = descriptor.type_ & 8 != 0;
        let bit1 = descriptor.type_ & 2 != 0;
        let forbidden = if write { code || !bit1 } else { code && !bit1 };
        if descriptor.unusable != 0 || descriptor.present == 0 || forbidden {
            return Err(refused);
        }
    }
    let expands_down = !mode.real && descriptor.type_ & 0xc == 4;
    let limit = u64::from(descriptor.limit);
    let top = if descriptor.db == 0 { 0xffff } else { 0xffff_ffff };
    let inside = if expands_down { offset > limit && last <= top } else { last <= limit };
    if !inside || last < offset {
        return Err(refused);
    }
    Ok(descriptor.base.wrapping_add(offset) & 0xffff_ffff)
}
