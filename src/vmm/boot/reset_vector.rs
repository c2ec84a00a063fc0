//! The one piece of firmware: 16-bit code at the reset vector that writes the ACPI reset register.
//!
//! On a hardware-reduced machine Linux (6.1 to 7.2, `reboot_init()` and `native_machine_emergency_restart()`) takes an EFI reset to be
//! the way to restart, and without EFI falls back to a jump to ffff:0000 in real mode, as on a PC of old. It never comes to write the
//! reset register itself.

use super::{BootError, write};
use crate::layout::{POWER_PORTS, boot};
use crate::legacy::power;
use vm_memory::GuestMemoryMmap;

/// Writes the code.
pub fn write_code(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    write(memory, "the reset vector", boot::RESET_VECTOR, &code())
}

fn code() -> [u8; 9] {
    let [low, high] = (POWER_PORTS + power::RESET).to_le_bytes();
    [
        0xba,
        low,
        high, // mov dx, reset register
        0xb0,
        power::RESET_VALUE, // mov al, value
        0xee,               // out dx, al
        0xf4,               // hlt
        0xeb,
        0xfd, // jmp to the hlt
    ]
}
