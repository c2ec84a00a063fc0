use super::*;
use crate::kallsyms::tests::{BASE, COUNT, RODATA, Shape, tables};
use crate::orc::ENTRY;
use std::ops::Range;

/// Address of function number `n` of [`kernel`], 16 bytes long.
pub(crate) const fn function(n: u64) -> u64 {
    BASE + n * 16
}

/// A kernel with functions called `function_N`, 16 bytes each, unwound as a plain call unless `special` says otherwise (entries in the
/// layout of 6.12). Interrupts enter by the functions in `entries`.
pub(crate) fn kernel(special: &[(u64, [u8; ENTRY])], entries: Range<u64>) -> KernelImage {
    let mut bytes = tables(Shape::Behind, false);
    let rodata = Rodata { bytes: &bytes, address: RODATA, offset: 0 };
    let (symbols, _) = Kallsyms::find(&rodata, &(BASE..RODATA), &["_text"]).unwrap();
    let ips = Place { address: RODATA + 0x10_0000, offset: bytes.len() as u64, size: u64::from(COUNT) * 4 };
    for n in 0..u64::from(COUNT) {
        let offset = function(n).wrapping_sub(ips.address + n * 4).cast_signed();
        bytes.extend(i32::try_from(offset).unwrap().to_le_bytes());
    }
    let orc = Place { address: 0, offset: bytes.len() as u64, size: u64::from(COUNT) * 6 };
    for n in 0..u64::from(COUNT) {
        let found = special.iter().find(|(number, _)| *number == n);
        bytes.extend(found.map_or([8, 0, 0, 0, 5, 2], |(_, entry)| *entry));
    }
    let store = Store::Memory(bytes);
    let orc = Table::open(&store, ips, orc);
    assert!(orc.is_some());
    let interrupt_entries = std::iter::once(function(entries.start)..function(entries.end)).collect();
    KernelImage { store, symbols, orc, text: std::iter::once(BASE..function(COUNT.into())).collect(), interrupt_entries, slide: 0 }
}

/// The same kernel without unwind tables.
pub(crate) fn without_tables() -> KernelImage {
    KernelImage { orc: None, ..kernel(&[], 1000..1001) }
}

#[test]
fn a_slide_moves_everything() {
    let mut kernel = kernel(&[(12, [16, 0, 0, 0, 5, 2])], 20..21);
    kernel.set_slide(0x20_0000);
    let at = function(12) + 0x20_0000;
    assert!(kernel.is_text(at) && !kernel.is_text(function(0)));
    assert_eq!(kernel.symbol(at + 3), Some(Symbol { name: "function_12".into(), start: at, end: at + 16 }));
    assert_eq!(kernel.unwind_entry(at).unwrap().sp_offset, 16);
    assert!(kernel.is_interrupt_entry(function(20) + 0x20_0000));
}

#[test]
fn what_is_no_kernel_is_refused() {
    assert!(matches!(KernelImage::parse(Vec::new()), Err(ImageError::Elf(_))));
    assert!(matches!(KernelImage::open(Path::new("/nonexistent")), Err(ImageError::Read { .. })));
    let own = std::fs::read("/proc/self/exe").unwrap();
    assert!(matches!(KernelImage::parse(own), Err(ImageError::Symbols | ImageError::Section(_))));
}
