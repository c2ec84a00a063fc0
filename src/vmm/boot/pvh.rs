//! The structures of the PVH boot protocol (xenbits.xen.org docs/misc/pvh, xen/include/public/arch-x86/hvm/start_info.h).

use super::{BootError, Initrd, MapEntry, write};
use crate::layout::boot;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, GuestMemoryMmap};

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;

/// Writes `hvm_start_info` and what it points to.
pub fn write_info(memory: &GuestMemoryMmap, map: &[MapEntry], rsdp: u64, initrd: Initrd) -> Result<(), BootError> {
    let mut entries = Vec::new();
    for area in map {
        let entry = hvm_memmap_table_entry { addr: area.start, size: area.size, type_: area.kind as u32, reserved: 0 };
        entries.extend_from_slice(entry.as_slice());
    }
    write(memory, "the PVH memory map", boot::MEMORY_MAP, &entries)?;
    if let Some((paddr, size)) = initrd {
        let module = hvm_modlist_entry { paddr, size, ..Default::default() };
        write(memory, "the PVH module list", boot::MODULES, module.as_slice())?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: boot::MODULES,
        cmdline_paddr: boot::CMDLINE,
        rsdp_paddr: rsdp,
        memmap_paddr: boot::MEMORY_MAP,
        memmap_entries: u32::try_from(map.len()).unwrap_or(0),
        ..Default::default()
    };
    write(memory, "hvm_start_info", boot::START_INFO, info.as_slice())
}
