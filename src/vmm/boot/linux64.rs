//! The 64-bit entry of the Linux boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").

use super::{BootError, Initrd, MapEntry, write};
use crate::layout::boot;
use crate::vcpu::state::GDT;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{ByteValued, GuestMemoryMmap};

/// First protocol version with `xloadflags`.
pub const MIN_VERSION: u16 = 0x20c;
/// `xloadflags`: the image has the 64-bit entry.
pub const XLF_KERNEL_64: u16 = 1;
/// Offset of that entry from the load address.
pub const ENTRY_OFFSET: u64 = 0x200;

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = 0x5372_6448;
const LOADER_UNDEFINED: u8 = 0xff;
const KERNEL_ALIGNMENT: u32 = 0x20_0000;

/// Writes `boot_params` and what else the entry needs. `header` is that of a bzImage; an ELF has none.
pub fn write_params(
    memory: &GuestMemoryMmap,
    map: &[MapEntry],
    rsdp: u64,
    initrd: Initrd,
    header: Option<setup_header>,
) -> Result<(), BootError> {
    let mut params = boot_params { hdr: header.unwrap_or_default(), acpi_rsdp_addr: rsdp, ..Default::default() };
    if header.is_none() {
        params.hdr.boot_flag = BOOT_FLAG;
        params.hdr.header = HEADER_MAGIC;
        params.hdr.version = MIN_VERSION;
        params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
    }
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = u32::try_from(boot::CMDLINE).unwrap_or(0);
    params.hdr.cmdline_size = u32::try_from(boot::CMDLINE_MAX - 1).unwrap_or(0);
    if let Some((start, size)) = initrd {
        // Below 3 GiB by construction.
        params.hdr.ramdisk_image = u32::try_from(start).unwrap_or(0);
        params.hdr.ramdisk_size = u32::try_from(size).unwrap_or(0);
    }
    for (slot, area) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry { addr: area.start, size: area.size, r#type: area.kind as u32 };
    }
    params.e820_entries = u8::try_from(map.len()).unwrap_or(0);
    write(memory, "boot_params", boot::ZERO_PAGE, params.as_slice())?;
    write_long_mode(memory)
}

/// Writes the page tables and the GDT that [`Entry::Linux64`](crate::vcpu::state::Entry::Linux64) relies on.
pub fn write_long_mode(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    write(memory, "the page tables", boot::PAGE_TABLES, &page_tables())?;
    let gdt: Vec<u8> = GDT.iter().flat_map(|descriptor| descriptor.to_le_bytes()).collect();
    write(memory, "the GDT", boot::GDT, &gdt)
}

/// PML4, PDPT and four page directories: the first 4 GiB mapped one to one with 2 MiB pages.
fn page_tables() -> Vec<u8> {
    const PRESENT_WRITE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let page = |n: u64| boot::PAGE_TABLES + n * 4096;
    let table = |used: Vec<u64>| used.into_iter().chain(std::iter::repeat(0)).take(512);
    let pml4 = table(vec![page(1) | PRESENT_WRITE]);
    let pdpt = table((0..4).map(|n| page(2 + n) | PRESENT_WRITE).collect());
    let directories = (0..4 * 512u64).map(|n| n << 21 | PRESENT_WRITE | LARGE);
    pml4.chain(pdpt).chain(directories).flat_map(u64::to_le_bytes).collect()
}
