//! The guest physical address map.
//!
//! ```text
//! 0                     low RAM, at most 3 GiB (holes for the EBDA and the ISA area are in the E820 map only)
//! 0xc000_0000           32-bit BAR window
//! 0xe000_0000           ECAM, 256 buses
//! 0xfd00_0000           platform devices, 64 KiB each
//! 0xfec0_0000           I/O APIC
//! 0xfee0_0000           local APICs
//! 0xfffb_c000           identity map page and TSS of KVM on VMX
//! 4 GiB                 high RAM
//! 0x40_0000_0000        64-bit BAR window (lower when the CPU has too few address bits)
//! ```

use std::ops::Range;

/// Where low RAM ends at the latest.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// Where high RAM starts.
pub const HIGH_RAM: u64 = 1 << 32;
/// Window for 32-bit BARs.
pub const WINDOW32: Range<u64> = 0xc000_0000..0xe000_0000;
/// PCI Express enhanced configuration space: 4 KiB a function, 256 buses.
pub const ECAM: Range<u64> = 0xe000_0000..0xf000_0000;
/// Register windows of platform devices.
pub const PLATFORM: Range<u64> = 0xfd00_0000..0xfd04_0000;
/// Bytes from one to the next.
pub const PLATFORM_STRIDE: u64 = 0x1_0000;
/// Interrupt line of the first one; each has its own.
pub const PLATFORM_GSI: u32 = 20;
/// The I/O APIC that KVM emulates.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs that KVM emulates.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page KVM on VMX needs for real mode without unrestricted guests.
pub const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages KVM on VMX needs for a task state segment.
pub const TSS: usize = 0xfffb_d000;
/// The usual window for 64-bit BARs.
pub const WINDOW64: Range<u64> = 0x40_0000_0000..0x44_0000_0000;

/// I/O ports for I/O BARs.
pub const PORT_WINDOW: Range<u16> = 0x1000..0xffff;
/// Power management registers, see `legacy/power.rs`.
pub const POWER_PORTS: u16 = 0x600;
/// First serial port.
pub const COM1: u16 = 0x3f8;
/// Its interrupt line.
pub const COM1_GSI: u32 = 4;
/// Interrupt lines of the I/O APIC.
pub const IO_APIC_PINS: u32 = 24;
/// First of four interrupt lines that INTA to INTD of all slots are swizzled onto.
pub const INTX_GSI: u32 = 16;

/// The line that pin `pin` (0 is INTA) of a function in `slot` is wired to: swizzled by slot (PCI-to-PCI Bridge 1.2, section 9.1).
#[must_use]
pub const fn intx_gsi(slot: u32, pin: u32) -> u32 {
    INTX_GSI + (slot + pin) % 4
}

/// Where the boot protocol's structures live in low memory.
pub mod boot {
    /// Global descriptor table of the 64-bit entry.
    pub const GDT: u64 = 0x500;
    /// `hvm_start_info`.
    pub const START_INFO: u64 = 0x6000;
    /// `hvm_modlist_entry`.
    pub const MODULES: u64 = 0x6080;
    /// `hvm_memmap_table_entry`s.
    pub const MEMORY_MAP: u64 = 0x6100;
    /// `boot_params` of the 64-bit boot protocol.
    pub const ZERO_PAGE: u64 = 0x7000;
    /// Page tables of the 64-bit entry: PML4, PDPT and four page directories.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// Command line.
    pub const CMDLINE: u64 = 0x2_0000;
    /// The most bytes of command line, terminator included (x86 `COMMAND_LINE_SIZE`).
    pub const CMDLINE_MAX: usize = 2048;
    /// End of conventional memory (start of the extended BIOS data area).
    pub const LOW_END: u64 = 0x9_fc00;
    /// ACPI tables.
    pub const ACPI: u64 = 0xe_0000;
    /// Where an 8086 starts, and where real mode code jumps to reset a PC. The ACPI tables end below.
    pub const RESET_VECTOR: u64 = 0xf_fff0;
    /// End of the BIOS area.
    pub const BIOS_END: u64 = 0x10_0000;
}

/// The window for 64-bit BARs on a CPU with `address_bits` of physical address: [`WINDOW64`] if it fits, else the top quarter of
/// the address space.
#[must_use]
pub fn window64(address_bits: u32) -> Range<u64> {
    let end = 1u64 << address_bits.clamp(36, 52);
    if end >= WINDOW64.end { WINDOW64 } else { (end - end / 4)..end }
}

/// How much of `memory` bytes lies below [`LOW_RAM_END`] and how much from [`HIGH_RAM`] on.
#[must_use]
pub fn split_ram(memory: u64) -> (u64, u64) {
    let low = memory.min(LOW_RAM_END);
    (low, memory - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_device_has_a_window_and_a_pin() {
        let devices = crate::VmConfig::MAX_PLATFORM_DEVICES as u64;
        assert_eq!(PLATFORM.end - PLATFORM.start, devices * PLATFORM_STRIDE);
        assert!(u64::from(PLATFORM_GSI) + devices <= u64::from(IO_APIC_PINS) && PLATFORM_GSI >= INTX_GSI + 4);
    }

    #[test]
    fn ram_splits_at_three_gib() {
        assert_eq!(split_ram(256 << 20), (256 << 20, 0));
        assert_eq!(split_ram(5 << 30), (3 << 30, 2 << 30));
    }

    #[test]
    fn a_narrow_cpu_gets_a_lower_window() {
        assert_eq!(window64(40), WINDOW64);
        assert_eq!(window64(39), WINDOW64);
        let narrow = window64(36);
        assert_eq!(narrow.end, 1 << 36);
        assert!(narrow.start >= 32 << 30);
    }
}
