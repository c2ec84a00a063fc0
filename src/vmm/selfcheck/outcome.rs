//! What a form left behind, and how two runs of it differ.

use super::layout::{A, B, F, MAILBOX, P, PAGE, Place, R, U, mailbox as m, vector::USER_DONE};
use std::fmt::Write as _;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Pages whose content is compared.
const COMPARED: [(Place, &str); 6] = [(A, "A"), (B, "B"), (R, "R"), (U, "U"), (P, "P"), (F, "F")];

const NAMES: [&str; 16] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Bytes of the FXSAVE area that are compared (SDM volume 1, table 10-2): control, status and tag word; MXCSR; the x87 registers without
/// their padding; the XMM registers. The opcode and addresses of the last x87 instruction differ from CPU to CPU.
const FX: [(usize, usize); 11] =
    [(0, 5), (24, 28), (32, 42), (48, 58), (64, 74), (80, 90), (96, 106), (112, 122), (128, 138), (144, 154), (160, 416)];

/// Registers, flags and memory behind a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    registers: [u64; 16],
    flags: u64,
    /// Vector plus 1, error code, RIP, CR2, CS; zero without an exception.
    exception: [u64; 5],
    fx: Vec<u8>,
    ymm: Vec<u8>,
    memory: Vec<Vec<u8>>,
}

impl State {
    /// Reads it from the guest.
    pub fn read(ram: &GuestMemoryMmap, mode: u8) -> Option<Self> {
        let quad = |offset: u64| ram.read_obj::<u64>(GuestAddress(MAILBOX + offset)).ok();
        let bytes = |at: u64, len: u64| {
            let mut bytes = vec![0; usize::try_from(len).ok()?];
            ram.read_slice(&mut bytes, GuestAddress(at)).ok()?;
            Some(bytes)
        };
        let mut registers = [0; 16];
        for (index, register) in (0u64..).zip(registers.iter_mut()).take(15) {
            *register = quad(m::OUT + index * 8)?;
        }
        let raised = quad(m::OUT_VECTOR)? != 0;
        let mut exception = [0; 5];
        if raised {
            for (slot, offset) in exception.iter_mut().zip([m::OUT_VECTOR, m::OUT_ERROR, m::OUT_RIP, m::OUT_CR2, m::OUT_CS]) {
                *slot = quad(offset)?;
            }
        }
        Some(Self {
            registers,
            flags: quad(m::OUT_FLAGS)?,
            exception,
            fx: if mode & m::VECTORS == 0 { Vec::new() } else { bytes(MAILBOX + m::OUT_FX, 512)? },
            ymm: if mode & m::WIDE == 0 { Vec::new() } else { bytes(MAILBOX + m::OUT_YMM, 512)? },
            memory: COMPARED.iter().map(|(place, _)| bytes(place.gpa, PAGE)).collect::<Option<_>>()?,
        })
    }

    /// The exception it ended in, in words.
    pub fn exception(&self) -> Option<String> {
        let [vector, ..] = self.exception;
        // Software interrupts are the way back from user mode.
        (vector != 0 && vector != USER_DONE + 1).then(|| exception(&self.exception))
    }

    /// What is different in `other`, in words; nothing if it is the same. Flags in `undefined` do not count.
    pub fn differences(&self, other: &Self, undefined: u64) -> Option<String> {
        let mut text = String::new();
        if self.exception != other.exception {
            let _ = write!(text, "exception {} instead of {}; ", exception(&other.exception), exception(&self.exception));
        }
        for ((mine, theirs), name) in self.registers.iter().zip(&other.registers).zip(NAMES) {
            if mine != theirs {
                let _ = write!(text, "{name} {theirs:#x} instead of {mine:#x}; ");
            }
        }
        if (self.flags ^ other.flags) & !undefined != 0 {
            let _ = write!(text, "flags {:#x} instead of {:#x}; ", other.flags, self.flags);
        }
        for (from, to) in FX {
            differing(&mut text, "fxsave area", from, self.fx.get(from..to), other.fx.get(from..to));
        }
        differing(&mut text, "ymm", 0, Some(&self.ymm), Some(&other.ymm));
        for ((mine, theirs), (_, name)) in self.memory.iter().zip(&other.memory).zip(COMPARED) {
            differing(&mut text, name, 0, Some(mine), Some(theirs));
        }
        let text = text.trim_end_matches("; ");
        (!text.is_empty()).then(|| text.to_owned())
    }
}

fn exception(parts: &[u64; 5]) -> String {
    match parts {
        [0, ..] => "none".into(),
        [vector, error, rip, cr2, _] => format!("{} (code {error:#x}, cr2 {cr2:#x}) at {rip:#x}", vector - 1),
    }
}

/// The first differing bytes.
fn differing(text: &mut String, what: &str, base: usize, mine: Option<&[u8]>, theirs: Option<&[u8]>) {
    let (mine, theirs) = (mine.unwrap_or_default(), theirs.unwrap_or_default());
    let Some(at) = mine.iter().zip(theirs).position(|(a, b)| a != b) else { return };
    let end = (at + 16).min(mine.len());
    let count = mine.iter().zip(theirs).filter(|(a, b)| a != b).count();
    let part = |bytes: &[u8]| bytes.get(at..end).unwrap_or_default().iter().map(|b| format!("{b:02x}")).collect::<String>();
    let _ = write!(text, "{what}+{:#x} {} instead of {} ({count} bytes differ); ", base + at, part(theirs), part(mine));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { registers: [0; 16], flags: 2, exception: [0; 5], fx: vec![0; 512], ymm: Vec::new(), memory: vec![vec![0; 4096]; 6] }
    }

    #[test]
    fn every_part_counts_and_is_named() {
        let good = state();
        assert_eq!(good.differences(&state(), 0), None);
        let mut bad = state();
        bad.registers[3] = 7;
        bad.flags = 3;
        bad.memory[1][0x20] = 9;
        bad.fx[24] = 1;
        bad.exception = [15, 2, 0x1000, 0x2000, 0x10];
        let text = good.differences(&bad, 0).unwrap();
        for word in ["rbx 0x7", "flags 0x3", "B+0x20", "fxsave area+0x18", "exception 14 (code 0x2"] {
            assert!(text.contains(word), "{text}");
        }
        let mut undefined = state();
        undefined.flags = 0x12;
        assert_eq!(good.differences(&undefined, 0x10), None);
        undefined.fx[8] = 1;
        assert_eq!(good.differences(&undefined, 0x10), None);
    }
}
