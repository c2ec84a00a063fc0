use super::*;
use crate::orc::{Base, Kind};
use proptest::prelude::*;
use std::process::Command;

const SOURCE: &str = r#"
    .macro orc where, sp, base=5
        .pushsection .orc_unwind_ip, "a", @progbits
        .long \where - .
        .popsection
        .pushsection .orc_unwind, "a", @progbits
        .short \sp, 0
        .byte \base, 2
        .popsection
    .endm
    .text
    .globl first
    first: .skip 0x30
    same:
    second: .skip 0x15
    .section .init.text, "ax", @progbits
    start: .skip 0x20
    .section .altinstr_replacement, "ax", @progbits
    .skip 0x11
    .data
    table: .quad 7
    .section .exit.text, "ax", @progbits
    .balign 16
    stop: .skip 0x10
    orc second, 0x20
    orc first, 8
    orc stop, 0, 0
    orc stop, 0x38
    orc start, 0x18
"#;

/// An object with three functions in `.text`, one in `.init.text`, one in `.exit.text`, and unwind entries out of order.
pub(crate) fn sample() -> Vec<u8> {
    let dir = std::env::temp_dir().join(format!("dmavet-unwind-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (source, object) = (dir.join("sample.s"), dir.join("sample.o"));
    std::fs::write(&source, SOURCE).unwrap();
    let status = Command::new("gcc").arg("-c").arg("-o").args([&object, &source]).status().expect("gcc is needed for this test");
    assert!(status.success());
    let bytes = std::fs::read(&object).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    bytes
}

const TEXT: u64 = 0xffff_ffff_c010_0000;
const INIT: u64 = 0xffff_ffff_c020_0000;

fn layout() -> Layout {
    Layout { text_base: TEXT, text_size: 0x1000, init_base: INIT, init_size: 0x1000, anchors: Vec::new() }
}

#[test]
fn sections_are_placed_in_the_order_of_the_file() {
    let image = ModuleImage::parse("sample", &sample()).unwrap();
    // .text 0x45 bytes, then .altinstr_replacement unaligned, then .exit.text at 16.
    let expected = [Some(TEXT), Some(INIT), Some(TEXT + 0x45), Some(TEXT + 0x60)];
    assert_eq!(image.place(&layout()), expected);
    let anchors = vec![(TEXT + 0x60, "stop+0x0/0x10 [sample]".to_owned()), (TEXT + 0x32, "nobody+0x0/0x10 [sample]".to_owned())];
    assert_eq!(image.place(&Layout { anchors, ..layout() }), expected);
}

#[test]
fn what_the_guest_named_counts_more() {
    let image = ModuleImage::parse("sample", &sample()).unwrap();
    let anchors = vec![(TEXT + 0x105, "second+0x5/0x15 [sample]".to_owned()), (INIT + 0x10, "start+0x0/0x20 [sample]".to_owned())];
    // Not where it was thought: then only the sections that were named are known.
    assert_eq!(image.place(&Layout { anchors: anchors.clone(), ..layout() }), [Some(TEXT + 0xd0), Some(INIT + 0x10), None, None]);
    // A kernel that tells nothing else.
    assert_eq!(image.place(&Layout { anchors, ..Layout::default() }), [Some(TEXT + 0xd0), Some(INIT + 0x10), None, None]);
    assert_eq!(image.place(&Layout::default()), [None; 4]);
    // After init.
    let anchors = vec![(INIT, "start+0x0/0x20 [sample]".to_owned())];
    assert_eq!(image.place(&Layout { anchors, init_base: 0, ..layout() })[1], None);
}

#[test]
fn unwind_entries_are_found_by_section() {
    let image = ModuleImage::parse("sample", &sample()).unwrap();
    let mut plain: Vec<u8> = [8, 0, 0, 0, 5, 2].repeat(10);
    plain.extend([0; 6]);
    let format = Format::detect(&plain).unwrap();
    let offset = |section, offset| image.unwind_entry(section, offset, format).map(|e| (e.kind, e.sp, e.sp_offset));
    assert_eq!(offset(0, 0), Some((Kind::Call, Base::Sp, 8)));
    assert_eq!(offset(0, 0x2f), Some((Kind::Call, Base::Sp, 8)));
    assert_eq!(offset(0, 0x30), Some((Kind::Call, Base::Sp, 0x20)));
    assert_eq!(offset(1, 4), Some((Kind::Call, Base::Sp, 0x18)));
    assert_eq!(offset(2, 4), None);
    // Two entries for one place: the one that knows something.
    assert_eq!(offset(3, 0), Some((Kind::Call, Base::Sp, 0x38)));
}

#[test]
fn what_is_no_module_is_refused() {
    assert!(ModuleImage::parse("x", b"").is_err());
    assert!(ModuleImage::parse("x", b"\x7fELF").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn damaged_modules_never_panic(damage in proptest::collection::vec(proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6), 200)) {
        let good = sample();
        for damage in damage {
            let mut bytes = good.clone();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let Ok(image) = ModuleImage::parse("sample", &bytes) else { continue };
            let mut map = crate::CodeMap::new(None, [image]);
            map.module_loaded("sample", layout());
            for address in (TEXT..TEXT + 0x100).chain(INIT..INIT + 0x30) {
                let _ = (map.name(address), map.is_text(address), map.unwind_entry(address));
            }
        }
    }
}
