use super::*;
use crate::layout::{self, ECAM};
use crate::memory::Pages;
use linux_loader::loader::bootparam::boot_params;
use std::io::Write;
use tempfile::NamedTempFile;
use vm_memory::ByteValued;

const RAM: u64 = 64 << 20;
const NOTE_PVH: u32 = 18;

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// An ELF with one segment of `text` at 16 MiB and, if asked for, a PVH note.
fn elf(text: &[u8], pvh: Option<u32>) -> Vec<u8> {
    let mut note = Vec::new();
    if let Some(entry) = pvh {
        for word in [4u32, 4, NOTE_PVH] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Xen\0");
        note.extend(entry.to_le_bytes());
    }
    let headers = 64 + 2 * 56u64;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    out.extend(0x100_0000u64.to_le_bytes()); // entry
    out.extend(64u64.to_le_bytes()); // program headers
    out.extend([0; 12]);
    out.extend([64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let mut segment = |kind: u32, offset: u64, address: u64, len: usize| {
        out.extend(kind.to_le_bytes());
        out.extend(7u32.to_le_bytes());
        for word in [offset, address, address, len as u64, len as u64, 8] {
            out.extend(word.to_le_bytes());
        }
    };
    segment(1, headers, 0x100_0000, text.len());
    segment(4, headers + text.len() as u64, 0, note.len());
    out.extend(text);
    out.extend(note);
    out
}

/// A bzImage header with `version` and `xloadflags`, one setup sector.
fn bzimage(version: u16, flags: u16) -> Vec<u8> {
    let mut out = vec![0; 1024 + 4096];
    out[0x1f1] = 1;
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206..0x208].copy_from_slice(&version.to_le_bytes());
    out[0x211] = 1; // LOADED_HIGH
    out[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
    out[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    out[0x236..0x238].copy_from_slice(&flags.to_le_bytes());
    out[0x260..0x264].copy_from_slice(&0x10_0000u32.to_le_bytes()); // init_size
    out
}

fn image<'a>(kernel: &'a NamedTempFile, initrd: Option<&'a NamedTempFile>) -> Image<'a> {
    Image { kernel: kernel.path(), initrd: initrd.map(NamedTempFile::path), cmdline: "console=ttyS0", rsdp: 0xe_0000 }
}

fn read<T: ByteValued>(ram: &GuestRam, gpa: u64) -> T {
    ram.host().read_obj(GuestAddress(gpa)).unwrap()
}

#[test]
fn an_elf_with_a_note_is_entered_by_pvh() {
    let ram = GuestRam::new(RAM, Pages::Any).unwrap();
    let (kernel, initrd) = (file(&elf(b"text", Some(0x100_0123))), file(&[7; 5000]));
    let entry = load(&ram, image(&kernel, Some(&initrd))).unwrap();
    assert_eq!(entry, Entry::Pvh { rip: 0x100_0123 });
    assert_eq!(read::<u32>(&ram, 0x100_0000), u32::from_le_bytes(*b"text"));
    let info: [u64; 7] = read(&ram, boot::START_INFO);
    assert_eq!(info[0], 1 << 32 | 0x336e_c578, "magic and version");
    assert_eq!(info[1] >> 32, 1, "one module");
    assert_eq!(&info[2..6], [boot::MODULES, boot::CMDLINE, 0xe_0000, boot::MEMORY_MAP]);
    let entries = memory_map(RAM);
    assert_eq!(info[6], entries.len() as u64);
    let module: [u64; 2] = read(&ram, boot::MODULES);
    assert_eq!(module, [(RAM - 5000) & !0xfff, 5000]);
    assert_eq!(read::<u8>(&ram, module[0] + 4999), 7);
    let first: [u64; 3] = read(&ram, boot::MEMORY_MAP);
    assert_eq!(first, [0, boot::LOW_END, 1]);
}

#[test]
fn an_elf_without_a_note_is_entered_in_long_mode() {
    let ram = GuestRam::new(RAM, Pages::Any).unwrap();
    let kernel = file(&elf(b"text", None));
    assert_eq!(load(&ram, image(&kernel, None)).unwrap(), Entry::Linux64 { rip: 0x100_0000 });
    let params: boot_params = read(&ram, boot::ZERO_PAGE);
    assert_eq!(usize::from(params.e820_entries), memory_map(RAM).len());
    assert_eq!({ params.acpi_rsdp_addr }, 0xe_0000);
    assert_eq!({ params.hdr.cmd_line_ptr }, 0x2_0000);
    assert_eq!(read::<u64>(&ram, boot::PAGE_TABLES), boot::PAGE_TABLES + 0x1003);
    assert_eq!(read::<u64>(&ram, boot::PAGE_TABLES + 0x2000 + 8), 0x20_0083);
}

#[test]
fn a_bzimage_needs_its_64_bit_entry() {
    let ram = GuestRam::new(RAM, Pages::Any).unwrap();
    let kernel = file(&bzimage(0x20f, 1));
    assert_eq!(load(&ram, image(&kernel, None)).unwrap(), Entry::Linux64 { rip: 0x10_0200 });
    for old in [bzimage(0x20f, 0), bzimage(0x20b, 1)] {
        let kernel = file(&old);
        assert!(matches!(load(&ram, image(&kernel, None)), Err(BootError::No64BitEntry { .. })));
    }
}

#[test]
fn what_is_no_kernel_is_said_to_be_none() {
    let ram = GuestRam::new(RAM, Pages::Any).unwrap();
    let text = file(&[b'x'; 2048]);
    assert!(matches!(load(&ram, image(&text, None)), Err(BootError::Format { magic: [b'x', ..], .. })));
    let short = file(b"x");
    assert!(matches!(load(&ram, image(&short, None)), Err(BootError::File { .. })));
    let cut = file(&elf(&[0; 64], Some(1))[..200]);
    assert!(matches!(load(&ram, image(&cut, None)), Err(BootError::Kernel { memory: 64, .. })));
    let missing = Path::new("/nonexistent/vmlinux");
    let image = Image { kernel: missing, initrd: None, cmdline: "", rsdp: 0 };
    assert!(load(&ram, image).unwrap_err().to_string().contains("/nonexistent/vmlinux"));
}

#[test]
fn an_initramfs_must_fit_between_the_kernel_and_the_end() {
    let ram = GuestRam::new(GuestRam::MIN + (1 << 20), Pages::Any).unwrap();
    let kernel = file(&elf(&[0; 4096], Some(0x100_0000)));
    let fits = file(&[0; 0xf_0000]);
    load(&ram, image(&kernel, Some(&fits))).unwrap();
    let large = file(&[0; 0x10_0000]);
    let error = load(&ram, image(&kernel, Some(&large))).unwrap_err();
    assert!(matches!(error, BootError::TooSmall { kernel_end: 0x100_1000, initrd: 0x10_0000, .. }), "{error}");
}

#[test]
fn a_command_line_has_a_limit() {
    let ram = GuestRam::new(RAM, Pages::Any).unwrap();
    let kernel = file(&elf(b"", Some(1)));
    let with = |cmdline: &str| load(&ram, Image { kernel: kernel.path(), initrd: None, cmdline, rsdp: 0 });
    with(&"x".repeat(2047)).unwrap();
    assert!(matches!(with(&"x".repeat(2048)), Err(BootError::Cmdline { len: 2048, max: 2047 })));
    assert!(matches!(with("a\0b"), Err(BootError::Cmdline { .. })));
}

#[test]
fn the_memory_map_is_sorted_and_covers_all_ram_but_the_bios_area() {
    for memory in [RAM, 3 << 30, (3 << 30) + 4096, 16 << 30] {
        let map = memory_map(memory);
        let ram: u64 = map.iter().filter(|area| area.kind == MapKind::Ram).map(|area| area.size).sum();
        assert_eq!(ram, memory - (boot::BIOS_END - boot::LOW_END));
        assert!(map.iter().any(|area| area.kind == MapKind::Reserved && area.start == ECAM.start && area.end() == ECAM.end));
        assert!(map.windows(2).all(|pair| pair[0].end() <= pair[1].start), "{map:x?}");
        assert!(map.iter().filter(|a| a.kind == MapKind::Ram).all(|a| a.end() <= layout::LOW_RAM_END || a.start >= layout::HIGH_RAM));
    }
}
