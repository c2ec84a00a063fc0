//! The same instruction here and on the CPU, from the same state.

use super::machine::{Cpu, Log, Space, U, W};
use super::native::{ARENA_LEN, Native, State};
use crate::emulate::flags::STATUS;
use crate::emulate::mode::RFLAGS_DF;
use crate::emulate::*;

/// Where the pages of the arena lie: not in order, so that an operand on two pages is on two places.
const PAGES: [u64; 4] = [0x5_3000, 0x5_1000, 0x5_7000, 0x5_5000];
const CODE: u64 = 0x4_0000;

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Emulated, with the CPU's result.
    Same,
    /// Refused when decoded or prepared: can_emulate() is false.
    Refused,
    /// Refused by perform().
    Late,
}

/// Both sides.
pub struct Bench {
    pub native: Native,
    space: Space,
    /// Largest number of times one instruction was performed.
    pub rounds: u32,
}

impl Bench {
    pub fn new() -> Self {
        let native = Native::new();
        let mut space = Space::new();
        space.map(native.slot() & !0xfff, CODE, U);
        for (gva, gpa) in (native.arena()..).step_by(4096).zip(PAGES) {
            space.map(gva, gpa, U | W);
        }
        Self { native, space, rounds: 0 }
    }

    /// Compares the two. `undefined` are flags the CPU may leave as it likes.
    pub fn compare(&mut self, label: &str, code: &[u8], before: &State, arena: &[u8], undefined: u64) -> Verdict {
        let mut cpu = Cpu::long(true);
        cpu.set_gprs(&before.gprs);
        cpu.regs.rflags = before.rflags;
        cpu.regs.rip = self.native.slot();
        cpu.vectors = before.vectors;
        self.space.write(CODE + (self.native.slot() & 0xfff), &[0x90; 32]);
        self.space.write(CODE + (self.native.slot() & 0xfff), code);
        for (page, gpa) in arena.chunks(4096).zip(PAGES) {
            self.space.write(gpa, page);
        }
        let mut rounds = 0;
        while cpu.regs.rip == self.native.slot() {
            let insn = Insn::decode(&cpu, &self.space.ram).unwrap_or_else(|stop| panic!("{label}: {stop}"));
            assert_eq!(insn.bytes().as_slice(), code, "{label}");
            let prepared = insn.prepare(&cpu, &self.space.ram).unwrap_or_else(|stop| panic!("{label}: {stop}, {:x?}", cpu.regs));
            assert!(prepared.pieces().iter().all(|piece| piece.len > 0 && piece.gva % PAGE + u64::from(piece.len) <= PAGE), "{label}");
            assert!(prepared.pieces().iter().all(|piece| piece.gva % PAGE == piece.gpa % PAGE && piece.ram), "{label}");
            if !prepared.can_emulate() {
                return Verdict::Refused;
            }
            let (regs, mut bus) = (cpu.regs, Log::default());
            if prepared.perform(&mut cpu, &self.space.ram, &mut bus).is_err() {
                assert_eq!(cpu.regs, regs, "{label}: refused, but registers changed");
                return Verdict::Late;
            }
            rounds += 1;
            assert!(rounds < 5000, "{label}: no end");
        }
        self.rounds = self.rounds.max(rounds);
        let (after, memory) = self.native.run(code, before, arena);
        let context = || format!("{label}, bytes {code:02x?}, before {:x?}, flags {:x}", before.gprs, before.rflags);
        assert_eq!(cpu.regs.rip, self.native.slot() + code.len() as u64, "RIP of {}", context());
        assert_eq!(format!("{:x?}", cpu.gprs()), format!("{:x?}", after.gprs), "registers of {}", context());
        let flags = (STATUS | RFLAGS_DF) & !undefined;
        assert_eq!(cpu.regs.rflags & flags, after.rflags & flags, "flags (emulated, CPU) of {}", context());
        for (index, (mine, real)) in cpu.vectors.iter().zip(&after.vectors).enumerate() {
            assert_eq!(mine, real, "vector register {index} of {}", context());
        }
        let mine: Vec<u8> = PAGES.iter().flat_map(|gpa| self.space.read(*gpa, 4096)).collect();
        assert_eq!(mine.len(), ARENA_LEN);
        if let Some(at) = mine.iter().zip(&memory).position(|(mine, real)| mine != real) {
            panic!("memory at {at:#x}: emulated {:02x}, CPU {:02x}, of {}", mine[at], memory[at], context());
        }
        Verdict::Same
    }
}
