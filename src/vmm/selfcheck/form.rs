//! One form of instruction under test: its code and the state it starts from.

use super::layout::{A, B, F, FORM_SLOT, FORMS, P, Place, U, X, mailbox as m};
use iced_x86::code_asm::{CodeAssembler, qword_ptr, r15};
use iced_x86::{Decoder, DecoderOptions, IcedError, RflagsBits};

/// Writes the instruction.
pub type Build = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Numbers of registers in the order of their encoding.
pub mod reg {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
}

/// RFLAGS: carry.
pub const CF: u64 = 1;
/// Zero.
pub const ZF: u64 = 1 << 6;
/// Direction.
pub const DF: u64 = 1 << 10;

/// What the guest's CPU must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing special.
    Nothing,
    /// A bit of CPUID leaf 1 ECX.
    Leaf1(u32),
    /// XSAVE and AVX.
    Avx,
    /// AVX2.
    Avx2,
    /// Pages of 1 GiB.
    HugePages,
}

/// CPUID leaf 1 ECX.
pub const MOVBE: Needs = Needs::Leaf1(22);
/// CMPXCHG16B.
pub const CX16: Needs = Needs::Leaf1(13);
/// SSSE3.
pub const SSSE3: Needs = Needs::Leaf1(9);
/// SSE4.2, with CRC32.
pub const SSE42: Needs = Needs::Leaf1(20);
/// POPCNT.
pub const POPCNT: Needs = Needs::Leaf1(23);
/// XSAVE; the driver switches it on together with AVX.
pub const XSAVE: Needs = Needs::Avx;

/// Where the code lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In open memory.
    Open,
    /// On a guarded page.
    Guarded,
    /// In user mode's page.
    User,
}

/// One form.
#[derive(Clone, Debug)]
pub struct Form {
    /// What it is called in the report.
    pub name: &'static str,
    build: Build,
    /// General registers at the start.
    pub registers: [u64; 16],
    /// RFLAGS at the start.
    pub flags: u64,
    /// Bytes put into memory at the start: place, offset, bytes.
    pub pokes: Vec<(Place, u64, Vec<u8>)>,
    /// Which vector registers take part.
    pub mode: u8,
    /// What it needs.
    pub needs: Needs,
    /// Where its code lies.
    pub place: Where,
    /// It need not trap: it touches no guarded page, or faults before.
    pub quiet: bool,
    /// Flags that do not count although the instruction defines them, as in RFLAGS.
    pub loose: u64,
    /// It ends in an exception.
    pub faults: bool,
    /// Other pages guarded meanwhile, guest physical addresses.
    pub also: Vec<u64>,
}

impl Form {
    /// A form with the usual state: RBX and RSI, RDI point into A, RBP is odd, R12 is 4 bytes before the end of A, R14 8 before that of B, R10 and
    /// R11 point into P, RSP into A; RCX is 3.
    pub fn new(name: &'static str, build: Build) -> Self {
        let (a, b, p) = (A.gva(), B.gva(), P.gva());
        let registers = [
            0x8877_6655_4433_2211,
            3,
            0x0123_4567_89ab_cdef,
            a + 0x100,
            a + 0xa00,
            a + 0x103,
            a + 0x200,
            a + 0x800,
            0xfedc_ba98_7654_3210,
            5,
            p + 0x100,
            p + 0x800,
            a + 0xffc,
            U.gva() + 0x100,
            b + 0xff8,
            0,
        ];
        Self {
            name,
            build,
            registers,
            flags: 2,
            pokes: Vec::new(),
            mode: 0,
            needs: Needs::Nothing,
            place: Where::Open,
            quiet: false,
            loose: 0,
            faults: false,
            also: Vec::new(),
        }
    }

    /// Another start value of a register.
    pub fn with(mut self, register: usize, value: u64) -> Self {
        if let Some(slot) = self.registers.get_mut(register) {
            *slot = value;
        }
        self
    }

    /// Flags set at the start.
    pub fn flags(mut self, flags: u64) -> Self {
        self.flags |= flags;
        self
    }

    /// Bytes at an offset of A.
    pub fn poke(self, offset: u64, bytes: &[u8]) -> Self {
        self.poke_at(A, offset, bytes)
    }

    /// Bytes at an offset of a place.
    pub fn poke_at(mut self, place: Place, offset: u64, bytes: &[u8]) -> Self {
        self.pokes.push((place, offset, bytes.to_vec()));
        self
    }

    /// The x87 and SSE registers take part.
    pub fn vectors(mut self) -> Self {
        self.mode |= m::VECTORS;
        self
    }

    /// The YMM registers take part.
    pub fn wide(mut self, needs: Needs) -> Self {
        self.mode |= m::VECTORS | m::WIDE;
        self.needs = needs;
        self
    }

    /// Only on a CPU that has this.
    pub fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// Its arithmetic flags do not count: under software emulation with several CPUs (QEMU's atomic step) they are lost when it is
    /// single-stepped.
    pub fn loose_flags(mut self) -> Self {
        self.loose = 0x8d5;
        self
    }

    /// It need not trap.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// It ends in an exception.
    pub fn faults(mut self) -> Self {
        self.faults = true;
        self
    }

    /// This page (guest physical address) is guarded, too.
    pub fn also(mut self, page: u64) -> Self {
        self.also.push(page);
        self
    }

    /// The code itself is guarded.
    pub fn guarded_code(mut self) -> Self {
        self.place = Where::Guarded;
        self
    }

    /// Runs in user mode.
    pub fn user(mut self) -> Self {
        self.place = Where::User;
        self.mode |= m::USER_MODE;
        self
    }

    /// Assembles it as number `index`.
    ///
    /// # Errors
    /// When the form is wrong or too long for its slot.
    pub fn assemble(&self, index: usize) -> Result<Assembled, FormError> {
        let fail = |source: IcedError| FormError { name: self.name, what: source.to_string() };
        let (gva, gpa) = match self.place {
            Where::Open => {
                let at = FORMS + index as u64 * FORM_SLOT;
                (at, at)
            }
            Where::Guarded => (F.gva(), F.gpa),
            Where::User => (X.gva(), X.gpa),
        };
        let mut a = CodeAssembler::new(64).map_err(fail)?;
        (self.build)(&mut a).map_err(fail)?;
        let body = a.instructions().len();
        match self.place {
            Where::User => a.int(i32::try_from(super::layout::vector::USER_DONE).unwrap_or(0)),
            _ => a.jmp(qword_ptr(r15 + i32::try_from(m::SAVE).unwrap_or(0))),
        }
        .map_err(fail)?;
        let code = a.assemble(gva).map_err(fail)?;
        if code.len() as u64 > FORM_SLOT {
            return Err(FormError { name: self.name, what: format!("{} bytes are too many", code.len()) });
        }
        Ok(Assembled { undefined: undefined_flags(&code, gva, body) | self.loose, gva, gpa, code })
    }
}

/// A form that cannot be assembled.
#[derive(Debug, thiserror::Error)]
#[error("the form {name} cannot be assembled: {what}")]
pub struct FormError {
    name: &'static str,
    what: String,
}

/// A form in guest memory.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// Guest virtual address of its first instruction.
    pub gva: u64,
    /// Guest physical address.
    pub gpa: u64,
    /// The code.
    pub code: Vec<u8>,
    /// Flags that it leaves undefined, as in RFLAGS.
    pub undefined: u64,
}

/// Flags left undefined by the first `count` instructions and not written again by a later one.
fn undefined_flags(code: &[u8], gva: u64, count: usize) -> u64 {
    const BITS: [(u32, u32); 6] =
        [(RflagsBits::CF, 0), (RflagsBits::PF, 2), (RflagsBits::AF, 4), (RflagsBits::ZF, 6), (RflagsBits::SF, 7), (RflagsBits::OF, 11)];
    let mut undefined = 0;
    for instruction in Decoder::with_ip(64, code, gva, DecoderOptions::NONE).iter().take(count) {
        undefined = (undefined & !instruction.rflags_modified()) | instruction.rflags_undefined();
    }
    BITS.iter().filter(|(bit, _)| undefined & bit != 0).map(|(_, at)| 1 << at).sum()
}
