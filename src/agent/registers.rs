//! The register page: where the slots are, and the doorbell.

use crate::abi;

/// What a register write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegisterAction {
    /// Nothing beyond the register itself.
    None,
    /// A slot array was announced: check it and [`accept`](Registers::accept) it.
    Announce(SlotArray),
    /// The doorbell named a slot: its index and guest physical address.
    Ring(u32, u64),
    /// The doorbell named no slot.
    Refused(u32),
}

/// A slot array in guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotArray {
    /// Guest physical address of the first slot.
    pub base: u64,
    /// Number of slots.
    pub count: u32,
}

impl SlotArray {
    /// Bytes the array takes; at most about 4 MiB once [`plausible`](Self::plausible).
    pub(crate) fn bytes(self) -> usize {
        self.count as usize * abi::SLOT_SIZE
    }

    /// Whether count, alignment and end of the address space fit. Whether it is RAM is for the caller to say.
    pub(crate) fn plausible(self) -> bool {
        (1..=abi::MAX_SLOTS).contains(&self.count)
            && self.base.is_multiple_of(abi::SLOT_SIZE as u64)
            && self.base.checked_add(self.bytes() as u64).is_some()
    }

    fn slot(self, index: u32) -> Option<u64> {
        (index < self.count).then(|| self.base + u64::from(index) * abi::SLOT_SIZE as u64)
    }
}

/// The registers' contents.
#[derive(Debug, Default)]
pub(crate) struct Registers {
    slots_lo: u32,
    slots_hi: u32,
    slot_count: u32,
    accepted: Option<SlotArray>,
    refused: bool,
}

impl Registers {
    /// Reads `data.len()` bytes at `offset`. Only naturally aligned 32-bit accesses see a register, all others all-ones.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Ok(word) = <&mut [u8; 4]>::try_from(data) else { return };
        let value = match offset {
            abi::REG_MAGIC => abi::MAGIC,
            abi::REG_ABI => u32::from(abi::ABI_VERSION),
            abi::REG_SLOTS_LO => self.slots_lo,
            abi::REG_SLOTS_HI => self.slots_hi,
            abi::REG_SLOT_COUNT => self.slot_count,
            abi::REG_STATUS => {
                let ready = if self.accepted.is_some() { abi::STATE_READY } else { 0 };
                ready | if self.refused { abi::STATE_REFUSED } else { 0 }
            }
            _ => return,
        };
        *word = value.to_le_bytes();
    }

    /// Writes a register; other widths and unknown offsets are ignored.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> RegisterAction {
        let Ok(word) = <[u8; 4]>::try_from(data) else { return RegisterAction::None };
        let value = u32::from_le_bytes(word);
        match offset {
            abi::REG_SLOTS_LO => {
                self.slots_lo = value;
                self.accepted = None;
            }
            abi::REG_SLOTS_HI => {
                self.slots_hi = value;
                self.accepted = None;
            }
            abi::REG_SLOT_COUNT => {
                self.slot_count = value;
                self.accepted = None;
                let base = (u64::from(self.slots_hi) << 32) | u64::from(self.slots_lo);
                return RegisterAction::Announce(SlotArray { base, count: value });
            }
            abi::REG_DOORBELL => {
                let slot = self.accepted.and_then(|a| a.slot(value));
                self.refused = slot.is_none();
                return slot.map_or(RegisterAction::Refused(value), |gpa| RegisterAction::Ring(value, gpa));
            }
            _ => {}
        }
        RegisterAction::None
    }

    /// Takes the array into use: [`abi::STATE_READY`] reads as set from now on.
    pub(crate) fn accept(&mut self, array: SlotArray) {
        self.accepted = Some(array);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(registers: &Registers, offset: u64) -> u32 {
        let mut data = [0; 4];
        registers.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn identity_reads_back() {
        let registers = Registers::default();
        assert_eq!(read(&registers, abi::REG_MAGIC), abi::MAGIC);
        assert_eq!(read(&registers, abi::REG_ABI), 1);
        assert_eq!(read(&registers, abi::REG_STATUS), 0);
    }

    #[test]
    fn other_widths_and_offsets_see_all_ones() {
        let registers = Registers::default();
        for (offset, len) in [(0, 1), (0, 2), (0, 8), (1, 4), (0x14, 4), (0x1c, 4), (0xffc, 4), (u64::MAX, 4), (0, 0)] {
            let mut data = vec![0; len];
            registers.read(offset, &mut data);
            assert!(data.iter().all(|b| *b == 0xff), "{offset:#x} {len}");
        }
    }

    #[test]
    fn a_doorbell_before_the_array_or_past_its_end_is_refused() {
        let mut registers = Registers::default();
        assert_eq!(registers.write(abi::REG_DOORBELL, &[0; 4]), RegisterAction::Refused(0));
        assert_eq!(read(&registers, abi::REG_STATUS), abi::STATE_REFUSED);
        registers.write(abi::REG_SLOTS_LO, &0x1000_u32.to_le_bytes());
        registers.write(abi::REG_SLOTS_HI, &1_u32.to_le_bytes());
        let RegisterAction::Announce(array) = registers.write(abi::REG_SLOT_COUNT, &2_u32.to_le_bytes()) else { panic!() };
        assert_eq!(array, SlotArray { base: 0x1_0000_1000, count: 2 });
        assert!(array.plausible());
        registers.accept(array);
        assert_eq!(registers.write(abi::REG_DOORBELL, &1_u32.to_le_bytes()), RegisterAction::Ring(1, 0x1_0000_2000));
        assert_eq!(read(&registers, abi::REG_STATUS), abi::STATE_READY);
        assert_eq!(registers.write(abi::REG_DOORBELL, &2_u32.to_le_bytes()), RegisterAction::Refused(2));
        registers.write(abi::REG_SLOTS_LO, &0_u32.to_le_bytes());
        assert_eq!(registers.write(abi::REG_DOORBELL, &[0; 4]), RegisterAction::Refused(0));
    }

    #[test]
    fn implausible_arrays() {
        for (base, count) in [(0, 0), (0, abi::MAX_SLOTS + 1), (8, 1), (u64::MAX - 0xfff, 1), (0, u32::MAX)] {
            assert!(!SlotArray { base, count }.plausible(), "{base:#x} {count}");
        }
    }
}
