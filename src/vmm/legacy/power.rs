//! Power-off and reset.
//!
//! The ACPI tables describe a hardware-reduced machine (ACPI 6.5 section 4.1): sleep control, sleep status and reset are three
//! byte-wide ports. The older ways to reset a PC are accepted too, because a kernel falls back to them.

use crate::ports::{PortDevice, Power, ResetBy};

/// Offset of the sleep control register.
pub const SLEEP_CONTROL: u16 = 0;
/// Offset of the sleep status register.
pub const SLEEP_STATUS: u16 = 1;
/// Offset of the reset register.
pub const RESET: u16 = 2;
/// Ports used.
pub const LEN: u16 = 4;
/// Value that resets when written to [`RESET`].
pub const RESET_VALUE: u8 = 0x5a;
/// `SLP_TYPx` of S5 in the `\_S5` package.
pub const S5_TYPE: u8 = 5;

/// Sleep control register: `SLP_TYPx` in bits 4:2, `SLP_EN` bit 5 (ACPI 6.5 section 4.8.3.7).
const SLEEP_ENABLE: u8 = 1 << 5;

/// The ACPI registers.
#[derive(Debug, Default)]
pub struct AcpiPower;

impl PortDevice for AcpiPower {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Option<Power> {
        match (offset, *data.first()?) {
            (SLEEP_CONTROL, value) if value & SLEEP_ENABLE != 0 && (value >> 2) & 7 == S5_TYPE => Some(Power::Off),
            (RESET, RESET_VALUE) => Some(Power::Reset(ResetBy::Acpi)),
            _ => None,
        }
    }
}

/// Port 0x64 of a keyboard controller that does nothing but pulse the reset line (command 0xfe). Reads as "idle": a kernel that resets
/// by this road waits for that first, 65,536 reads long.
#[derive(Debug, Default)]
pub struct KeyboardReset;

impl PortDevice for KeyboardReset {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u16, data: &[u8]) -> Option<Power> {
        (data.first() == Some(&0xfe)).then_some(Power::Reset(ResetBy::Keyboard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s5_and_reset_need_their_exact_values() {
        let mut power = AcpiPower;
        assert_eq!(power.write(SLEEP_CONTROL, &[S5_TYPE << 2 | SLEEP_ENABLE]), Some(Power::Off));
        assert_eq!(power.write(SLEEP_CONTROL, &[S5_TYPE << 2]), None);
        assert_eq!(power.write(SLEEP_CONTROL, &[1 << 2 | SLEEP_ENABLE]), None);
        assert_eq!(power.write(RESET, &[RESET_VALUE]), Some(Power::Reset(ResetBy::Acpi)));
        assert_eq!(power.write(RESET, &[0]), None);
        assert_eq!(power.write(RESET, &[]), None);
        assert_eq!(KeyboardReset.write(0, &[0xfe]), Some(Power::Reset(ResetBy::Keyboard)));
    }
}
