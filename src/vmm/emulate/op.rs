//! The forms that are emulated.

use super::flags::Shift;
use iced_x86::{Code, ConditionCode, EncodingKind, Instruction, Mnemonic, OpKind, Register};

/// What to do, with the operands of the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// No access and no effect: prefetches, cache flushes, long NOPs.
    Nothing,
    Move,
    /// `movbe`.
    MoveSwapped,
    ZeroExtend,
    SignExtend,
    /// `cmovcc`: reads always.
    MoveIf(Condition),
    /// `setcc`.
    Set(Condition),
    Arithmetic(Arithmetic),
    Increment,
    Decrement,
    Negate,
    Not,
    Shift(Shift),
    Multiply {
        signed: bool,
    },
    Bit(Bit),
    Scan(Scan),
    /// `crc32`, with which kernels check what a device wrote.
    Checksum,
    Exchange,
    ExchangeAdd,
    CompareExchange,
    /// `cmpxchg8b` and `cmpxchg16b`.
    CompareExchangePair,
    Push,
    PushFlags,
    Pop,
    Call,
    Return,
    Jump,
    Leave,
    Text(Text),
    Vector(Vector),
}

/// Instructions with two operands and all the arithmetic flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Adc,
    Sub,
    Sbb,
    And,
    Or,
    Xor,
    Cmp,
    Test,
}

/// Bit tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bit {
    Test,
    Set,
    Reset,
    Complement,
}

/// Bit scans and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// `bsf`.
    Forward,
    /// `bsr`.
    Reverse,
    /// `tzcnt`.
    Trailing,
    /// `lzcnt`.
    Leading,
    /// `popcnt`.
    Ones,
}

/// String instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Move,
    Store,
    Load,
    Compare,
    Scan,
}

/// Vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// The whole register, to or from memory; `aligned` raises #GP otherwise.
    Whole { aligned: bool },
    /// Element 0; a load clears the rest of the register.
    Scalar,
    /// Bits 63:0; a load keeps the others.
    LowHalf,
    /// Bits 127:64.
    HighHalf,
    /// Bit by bit, or equality per element.
    Combine(Combine),
}

/// Vector instructions with two sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    And,
    AndNot,
    Or,
    Xor,
    /// All ones where elements of so many bytes are equal.
    Equal(u8),
}

/// The low four bits of a conditional opcode (SDM 2 appendix B.1.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition(u8);

impl Condition {
    fn of(insn: &Instruction) -> Self {
        use ConditionCode as Cc;
        Self(match insn.condition_code() {
            Cc::o => 0,
            Cc::no => 1,
            Cc::b => 2,
            Cc::ae => 3,
            Cc::e => 4,
            Cc::ne => 5,
            Cc::be => 6,
            Cc::a => 7,
            Cc::s => 8,
            Cc::ns => 9,
            Cc::p => 10,
            Cc::np => 11,
            Cc::l => 12,
            Cc::ge => 13,
            Cc::le => 14,
            _ => 15,
        })
    }

    /// Whether it holds with `rflags`.
    pub fn holds(self, rflags: u64) -> bool {
        use super::flags::{CF, OF, PF, SF, ZF};
        let set = |flag| rflags & flag != 0;
        let less = set(SF) != set(OF);
        let holds = match self.0 >> 1 {
            0 => set(OF),
            1 => set(CF),
            2 => set(ZF),
            3 => set(CF) || set(ZF),
            4 => set(SF),
            5 => set(PF),
            6 => less,
            _ => less || set(ZF),
        };
        holds != (self.0 & 1 != 0)
    }
}

impl Op {
    /// `None` for what is left to the CPU.
    pub fn of(insn: &Instruction) -> Option<Self> {
        let op = Self::of_string(insn.code()).or_else(|| Self::of_vector(insn)).or_else(|| Self::of_mnemonic(insn))?;
        // Every register of the integer forms must be a general one: no segment, control, MMX or mask register.
        let integer = !matches!(op, Self::Vector(_) | Self::Text(_));
        if integer && (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Register && !insn.op_register(i).is_gpr()) {
            return None;
        }
        Some(op)
    }

    fn of_mnemonic(insn: &Instruction) -> Option<Self> {
        use Mnemonic as M;
        if insn.encoding() != EncodingKind::Legacy {
            return None;
        }
        Some(match insn.mnemonic() {
            M::Mov | M::Movnti => Self::Move,
            M::Movbe => Self::MoveSwapped,
            M::Movzx => Self::ZeroExtend,
            M::Movsx | M::Movsxd => Self::SignExtend,
            M::Add => Self::Arithmetic(Arithmetic::Add),
            M::Adc => Self::Arithmetic(Arithmetic::Adc),
            M::Sub => Self::Arithmetic(Arithmetic::Sub),
            M::Sbb => Self::Arithmetic(Arithmetic::Sbb),
            M::And => Self::Arithmetic(Arithmetic::And),
            M::Or => Self::Arithmetic(Arithmetic::Or),
            M::Xor => Self::Arithmetic(Arithmetic::Xor),
            M::Cmp => Self::Arithmetic(Arithmetic::Cmp),
            M::Test => Self::Arithmetic(Arithmetic::Test),
            M::Inc => Self::Increment,
            M::Dec => Self::Decrement,
            M::Neg => Self::Negate,
            M::Not => Self::Not,
            M::Shl | M::Sal => Self::Shift(Shift::Shl),
            M::Shr => Self::Shift(Shift::Shr),
            M::Sar => Self::Shift(Shift::Sar),
            M::Rol => Self::Shift(Shift::Rol),
            M::Ror => Self::Shift(Shift::Ror),
            M::Rcl => Self::Shift(Shift::Rcl),
            M::Rcr => Self::Shift(Shift::Rcr),
            M::Mul => Self::Multiply { signed: false },
            M::Imul => Self::Multiply { signed: true },
            M::Bt => Self::Bit(Bit::Test),
            M::Bts => Self::Bit(Bit::Set),
            M::Btr => Self::Bit(Bit::Reset),
            M::Btc => Self::Bit(Bit::Complement),
            M::Bsf => Self::Scan(Scan::Forward),
            M::Bsr => Self::Scan(Scan::Reverse),
            M::Tzcnt => Self::Scan(Scan::Trailing),
            M::Lzcnt => Self::Scan(Scan::Leading),
            M::Popcnt => Self::Scan(Scan::Ones),
            M::Crc32 => Self::Checksum,
            M::Xchg => Self::Exchange,
            M::Xadd => Self::ExchangeAdd,
            M::Cmpxchg => Self::CompareExchange,
            M::Cmpxchg8b | M::Cmpxchg16b => Self::CompareExchangePair,
            M::Prefetch | M::Prefetchw | M::Prefetchwt1 => Self::Nothing,
            M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 => Self::Nothing,
            M::Clflush | M::Clflushopt | M::Clwb | M::Nop => Self::Nothing,
            _ => return Self::of_condition(insn).or_else(|| Self::of_stack(insn)),
        })
    }

    fn of_condition(insn: &Instruction) -> Option<Self> {
        // Conditional jumps have one operand too: a branch target.
        let general = (0..insn.op_count()).all(|i| matches!(insn.op_kind(i), OpKind::Register | OpKind::Memory));
        match insn.op_count() {
            _ if insn.condition_code() == ConditionCode::None || !general => None,
            1 => Some(Self::Set(Condition::of(insn))),
            2 => Some(Self::MoveIf(Condition::of(insn))),
            _ => None,
        }
    }

    /// 64-bit mode only, and no operand-size prefix on branches, where vendors differ.
    fn of_stack(insn: &Instruction) -> Option<Self> {
        Some(match insn.code() {
            Code::Pushq_imm32 | Code::Pushq_imm8 | Code::Push_imm16 | Code::Pushw_imm8 => Self::Push,
            Code::Push_r16 | Code::Push_r64 | Code::Push_rm16 | Code::Push_rm64 => Self::Push,
            Code::Pop_r16 | Code::Pop_r64 | Code::Pop_rm16 | Code::Pop_rm64 => Self::Pop,
            Code::Pushfq => Self::PushFlags,
            Code::Call_rel32_64 | Code::Call_rm64 => Self::Call,
            Code::Retnq | Code::Retnq_imm16 => Self::Return,
            Code::Jmp_rm64 => Self::Jump,
            Code::Leaveq => Self::Leave,
            _ => return None,
        })
    }

    fn of_string(code: Code) -> Option<Self> {
        Some(Self::Text(match code {
            Code::Movsb_m8_m8 | Code::Movsw_m16_m16 | Code::Movsd_m32_m32 | Code::Movsq_m64_m64 => Text::Move,
            Code::Stosb_m8_AL | Code::Stosw_m16_AX | Code::Stosd_m32_EAX | Code::Stosq_m64_RAX => Text::Store,
            Code::Lodsb_AL_m8 | Code::Lodsw_AX_m16 | Code::Lodsd_EAX_m32 | Code::Lodsq_RAX_m64 => Text::Load,
            Code::Cmpsb_m8_m8 | Code::Cmpsw_m16_m16 | Code::Cmpsd_m32_m32 | Code::Cmpsq_m64_m64 => Text::Compare,
            Code::Scasb_AL_m8 | Code::Scasw_AX_m16 | Code::Scasd_EAX_m32 | Code::Scasq_RAX_m64 => Text::Scan,
            _ => return None,
        }))
    }

    fn of_vector(insn: &Instruction) -> Option<Self> {
        use Mnemonic as M;
        if !matches!(insn.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
            return None;
        }
        let op = match insn.mnemonic() {
            M::Movaps | M::Movapd | M::Movdqa | M::Vmovaps | M::Vmovapd | M::Vmovdqa => Vector::Whole { aligned: true },
            M::Movntps | M::Movntpd | M::Movntdq | M::Vmovntps | M::Vmovntpd | M::Vmovntdq => Vector::Whole { aligned: true },
            M::Movntdqa | M::Vmovntdqa => Vector::Whole { aligned: true },
            M::Movups | M::Movupd | M::Movdqu | M::Lddqu => Vector::Whole { aligned: false },
            M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => Vector::Whole { aligned: false },
            M::Movd | M::Movq | M::Vmovd | M::Vmovq => Vector::Scalar,
            M::Movss | M::Movsd | M::Vmovss | M::Vmovsd => Vector::Scalar,
            M::Movlps | M::Movlpd | M::Vmovlps | M::Vmovlpd => Vector::LowHalf,
            M::Movhps | M::Movhpd | M::Vmovhps | M::Vmovhpd => Vector::HighHalf,
            M::Pand | M::Andps | M::Andpd | M::Vpand | M::Vandps | M::Vandpd => Vector::Combine(Combine::And),
            M::Pandn | M::Andnps | M::Andnpd | M::Vpandn | M::Vandnps | M::Vandnpd => Vector::Combine(Combine::AndNot),
            M::Por | M::Orps | M::Orpd | M::Vpor | M::Vorps | M::Vorpd => Vector::Combine(Combine::Or),
            M::Pxor | M::Xorps | M::Xorpd | M::Vpxor | M::Vxorps | M::Vxorpd => Vector::Combine(Combine::Xor),
            M::Pcmpeqb | M::Vpcmpeqb => Vector::Combine(Combine::Equal(1)),
            M::Pcmpeqw | M::Vpcmpeqw => Vector::Combine(Combine::Equal(2)),
            M::Pcmpeqd | M::Vpcmpeqd => Vector::Combine(Combine::Equal(4)),
            _ => return None,
        };
        // Exactly one operand in memory, the others XMM or YMM 0 to 15.
        let mut in_memory = 0;
        for i in 0..insn.op_count() {
            match insn.op_kind(i) {
                OpKind::Memory => in_memory += 1,
                OpKind::Register if vector_number(insn.op_register(i)).is_some() => {}
                _ => return None,
            }
        }
        (in_memory == 1).then_some(Self::Vector(op))
    }

    /// How an operand in memory is accessed: read, written. The destination is operand 0.
    pub fn rights(self, operand: u32) -> (bool, bool) {
        match self {
            _ if operand != 0 => (true, false),
            Self::Move | Self::MoveSwapped | Self::Set(_) | Self::Pop | Self::Vector(_) => (false, true),
            Self::Arithmetic(Arithmetic::Cmp | Arithmetic::Test) | Self::Bit(Bit::Test) => (true, false),
            Self::Multiply { .. } | Self::Push | Self::Call | Self::Jump => (true, false),
            _ => (true, true),
        }
    }
}

/// 0 to 15 of XMM0 to XMM15 and YMM0 to YMM15.
pub fn vector_number(register: Register) -> Option<u8> {
    if !register.is_xmm() && !register.is_ymm() {
        return None;
    }
    u8::try_from(register.number()).ok().filter(|number| *number < 16)
}
