//! The Microwire EEPROM, a 93C46 of 64 words (SDM section 5). It cannot be written: every run finds the same one.

use super::spec::{
    EECD_CHIP_SELECT, EECD_CLOCK, EECD_GRANT, EECD_IN, EECD_OUT, EECD_PRESENT, EECD_REQUEST, EEPROM, EEPROM_SIZE, EEPROM_SUM, EERD_DONE,
    EERD_START,
};
use crate::peer::GUEST_MAC;

/// Pins that software drives; the rest of EECD is made of what the device does.
const DRIVEN: u32 = EECD_CLOCK | EECD_CHIP_SELECT | EECD_IN | EECD_REQUEST;
/// A command behind its start bit: two bits of opcode and six of address.
const COMMAND_BITS: u32 = 8;
const OPCODE_READ: u32 = 0b10;
const ADDRESS: u32 = 0x3f;

/// What the part is doing since chip select went high.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Waits for the start bit.
    Idle,
    /// Takes a command: bits so far, and how many.
    Command(u32, u32),
    /// Shifts a word out: the bits that are left are the topmost of the 16, and how many are out; then the address of the next word.
    Output(u16, u32, u32),
    /// Did something that takes no data, or is none of its commands: ready.
    Done,
}

/// The EEPROM and the pins to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Eeprom {
    words: [u16; EEPROM_SIZE],
    pins: u32,
    phase: Phase,
    out: bool,
    eerd: u32,
}

/// What the part holds.
fn contents() -> [u16; EEPROM_SIZE] {
    let mut words = [0; EEPROM_SIZE];
    let station = GUEST_MAC.chunks_exact(2).map(|pair| u16::from_le_bytes(pair.try_into().unwrap_or_default()));
    for (at, word) in (0..).zip(station).chain(EEPROM) {
        if let Some(to) = words.get_mut(at) {
            *to = word;
        }
    }
    let sum = words.iter().fold(0, |sum: u16, word| sum.wrapping_add(*word));
    if let Some(last) = words.last_mut() {
        *last = EEPROM_SUM.wrapping_sub(sum);
    }
    words
}

impl Default for Eeprom {
    fn default() -> Self {
        Self { words: contents(), pins: 0, phase: Phase::Idle, out: true, eerd: 0 }
    }
}

impl Eeprom {
    fn word(&self, address: u32) -> u16 {
        usize::try_from(address & ADDRESS).ok().and_then(|address| self.words.get(address)).copied().unwrap_or_default()
    }

    /// EECD.
    pub(super) const fn pins(&self) -> u32 {
        let grant = if self.pins & EECD_REQUEST != 0 { EECD_GRANT } else { 0 };
        let out = if self.out { EECD_OUT } else { 0 };
        self.pins | grant | out | EECD_PRESENT
    }

    /// A write of EECD: the part acts on the rising edge of its clock.
    pub(super) fn drive(&mut self, value: u32) {
        let before = std::mem::replace(&mut self.pins, value & DRIVEN);
        if value & EECD_CHIP_SELECT == 0 {
            (self.phase, self.out) = (Phase::Idle, true);
        } else if value & EECD_CLOCK != 0 && before & EECD_CLOCK == 0 && before & EECD_CHIP_SELECT != 0 {
            self.clock(value & EECD_IN != 0);
        }
    }

    fn clock(&mut self, bit: bool) {
        match self.phase {
            Phase::Idle if bit => self.phase = Phase::Command(0, 0),
            Phase::Idle | Phase::Done => {}
            Phase::Command(bits, count) => {
                let (bits, count) = (bits << 1 | u32::from(bit), count + 1);
                self.phase = Phase::Command(bits, count);
                if count == COMMAND_BITS {
                    let read = bits >> 6 == OPCODE_READ;
                    self.phase = if read { Phase::Output(self.word(bits), 0, bits + 1) } else { Phase::Done };
                    // A zero goes before the word.
                    self.out = !read;
                }
            }
            Phase::Output(bits, count, next) => {
                self.out = bits & 0x8000 != 0;
                self.phase = if count == 15 {
                    Phase::Output(self.word(next), 0, next.wrapping_add(1))
                } else {
                    Phase::Output(bits << 1, count + 1, next)
                };
            }
        }
    }

    /// EERD.
    pub(super) const fn register(&self) -> u32 {
        self.eerd
    }

    /// A write of EERD (SDM section 13.4.4): a read is done at once.
    pub(super) fn ask(&mut self, value: u32) {
        let address = value & 0xff00;
        let data = if value & EERD_START != 0 { EERD_DONE | u32::from(self.word(address >> 8)) << 16 } else { 0 };
        self.eerd = address | data;
    }
}
