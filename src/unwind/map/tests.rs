use super::*;
use crate::kernel::tests::{function, kernel};
use crate::module::tests::sample;

const TEXT: u64 = 0xffff_ffff_c010_0000;
const INIT: u64 = 0xffff_ffff_c020_0000;

fn map() -> CodeMap {
    let image = ModuleImage::parse("sample", &sample()).unwrap();
    let mut map = CodeMap::new(Some(kernel(&[], 1000..1001)), [image]);
    map.module_loaded("sample", Layout { text_base: TEXT, text_size: 0x1000, init_base: INIT, init_size: 0x1000, anchors: Vec::new() });
    map
}

#[test]
fn names_are_the_kernels() {
    let map = map();
    let name = |address| map.name(address).unwrap_or_default();
    assert_eq!(name(function(33) + 4), "function_33+0x4/0x10");
    assert_eq!(name(TEXT), "first+0x0/0x30 [sample]");
    // Of two names for one place the first of the symbol table, as find_kallsyms_symbol() has it.
    assert_eq!(name(TEXT + 0x31), "same+0x1/0x30 [sample]");
    // A size is the distance to the next symbol, at last to the end of the region.
    assert_eq!(name(TEXT + 0x65), "stop+0x5/0xfa0 [sample]");
    assert_eq!(name(INIT + 0x1f), "start+0x1f/0x1000 [sample]");
    assert_eq!(map.name_behind(TEXT + 0x30).unwrap(), "first+0x30/0x30 [sample]");
    for nowhere in [0, 1, TEXT - 1, TEXT + 0x1000, INIT + 0x1000, function(2000), u64::MAX] {
        assert_eq!(map.name(nowhere), None, "{nowhere:#x}");
        assert!(!map.is_text(nowhere));
    }
}

#[test]
fn modules_come_and_go() {
    let mut map = map();
    assert_eq!((map.module_at(TEXT + 0xfff), map.module_at(INIT), map.module_at(function(3))), (Some("sample"), Some("sample"), None));
    map.module_live("sample");
    assert_eq!((map.module_at(TEXT), map.module_at(INIT), map.name(INIT)), (Some("sample"), None, None));
    map.module_gone("sample");
    assert_eq!((map.module_at(TEXT), map.name(TEXT)), (None, None));
    map.module_live("sample");
    assert!(!map.is_text(TEXT));
}

#[test]
fn a_module_without_an_image_has_a_place_but_no_names() {
    let mut map = map();
    map.module_loaded("other", Layout { text_base: TEXT + 0x8000, text_size: 0x2000, ..Layout::default() });
    assert_eq!(map.module_at(TEXT + 0x9000), Some("other"));
    assert!(map.is_text(TEXT + 0x9000) && map.name(TEXT + 0x9000).is_none());
}

#[test]
fn anchors_add_up_while_a_module_stays() {
    let mut map = map();
    map.module_gone("sample");
    let anchor = |address: u64, name: &str| vec![(address, format!("{name}+0x0/0x10 [sample]"))];
    map.module_loaded("sample", Layout { anchors: anchor(TEXT, "first"), ..Layout::default() });
    assert!(map.is_text(TEXT) && !map.is_text(INIT));
    map.module_loaded("sample", Layout { anchors: anchor(INIT, "stop"), ..Layout::default() });
    assert_eq!((map.name(TEXT).unwrap(), map.name(INIT).unwrap()), ("first+0x0/0x30 [sample]".into(), "stop+0x0/0x10 [sample]".into()));
}

#[test]
fn a_guest_cannot_announce_without_end() {
    let mut map = CodeMap::default();
    for n in 0..2000u64 {
        map.module_loaded(&n.to_string(), Layout { text_base: u64::MAX - n, text_size: u64::MAX, ..Layout::default() });
    }
    assert_eq!(map.loaded.len(), MAX_LOADED);
    for n in 0..2000u64 {
        map.module_loaded("7", Layout { anchors: vec![(n, format!("f{n}+0x0/0x1"))], ..Layout::default() });
    }
    assert!(map.loaded["7"].layout.anchors.len() <= 65);
    map.clear();
    assert!(map.loaded.is_empty());
}
