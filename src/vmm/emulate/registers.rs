//! General registers by their names.

use iced_x86::Register;
use kvm_bindings::kvm_regs;

/// A general register or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpr {
    /// 0 (RAX) to 15, in the order of their encoding.
    number: usize,
    /// 1, 2, 4 or 8.
    pub bytes: usize,
    /// AH, CH, DH or BH.
    high: bool,
}

impl Gpr {
    pub const RAX: Self = Self::full(0);
    pub const RCX: Self = Self::full(1);
    pub const RDX: Self = Self::full(2);
    pub const RBX: Self = Self::full(3);
    pub const RSP: Self = Self::full(4);
    pub const RBP: Self = Self::full(5);
    pub const RSI: Self = Self::full(6);
    pub const RDI: Self = Self::full(7);

    const fn full(number: usize) -> Self {
        Self { number, bytes: 8, high: false }
    }

    /// `None` for registers of other kinds.
    pub fn new(register: Register) -> Option<Self> {
        if !register.is_gpr() {
            return None;
        }
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        Some(Self { number: register.full_register().number(), bytes: register.size(), high })
    }

    /// The low `bytes` of it.
    pub const fn low(self, bytes: usize) -> Self {
        Self { number: self.number, bytes, high: false }
    }

    pub fn get(self, regs: &kvm_regs) -> u64 {
        let full = self.slot(regs);
        if self.high { (full >> 8) & 0xff } else { full & mask(self.bytes) }
    }

    /// 8- and 16-bit writes keep the rest of the register, 32-bit writes clear it (SDM 1 3.4.1.1).
    pub fn set(self, regs: &mut kvm_regs, value: u64) {
        let slot = self.slot_mut(regs);
        *slot = match self.bytes {
            1 if self.high => (*slot & !0xff00) | (value & 0xff) << 8,
            1 | 2 => (*slot & !mask(self.bytes)) | (value & mask(self.bytes)),
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }

    fn slot(self, regs: &kvm_regs) -> u64 {
        match self.number {
            0 => regs.rax,
            1 => regs.rcx,
            2 => regs.rdx,
            3 => regs.rbx,
            4 => regs.rsp,
            5 => regs.rbp,
            6 => regs.rsi,
            7 => regs.rdi,
            8 => regs.r8,
            9 => regs.r9,
            10 => regs.r10,
            11 => regs.r11,
            12 => regs.r12,
            13 => regs.r13,
            14 => regs.r14,
            _ => regs.r15,
        }
    }

    fn slot_mut(self, regs: &mut kvm_regs) -> &mut u64 {
        match self.number {
            0 => &mut regs.rax,
            1 => &mut regs.rcx,
            2 => &mut regs.rdx,
            3 => &mut regs.rbx,
            4 => &mut regs.rsp,
            5 => &mut regs.rbp,
            6 => &mut regs.rsi,
            7 => &mut regs.rdi,
            8 => &mut regs.r8,
            9 => &mut regs.r9,
            10 => &mut regs.r10,
            11 => &mut regs.r11,
            12 => &mut regs.r12,
            13 => &mut regs.r13,
            14 => &mut regs.r14,
            _ => &mut regs.r15,
        }
    }
}

/// The bits of a value of `bytes`.
pub const fn mask(bytes: usize) -> u64 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// Sign-extends a value of `bytes`.
pub const fn sign_extend(value: u64, bytes: usize) -> u64 {
    let unused = match bytes {
        1 => 56,
        2 => 48,
        4 => 32,
        _ => 0,
    };
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}
