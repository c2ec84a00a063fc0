use super::*;
use proptest::prelude::*;

pub(crate) const BASE: u64 = 0xffff_ffff_8100_0000;
pub(crate) const RODATA: u64 = 0xffff_ffff_8200_0000;
pub(crate) const COUNT: u32 = 1500;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Before,
    Numbered,
    Behind,
    Place,
}

/// The tables of a kernel with [`COUNT`] symbols 16 bytes apart, the first 8 of them per-CPU variables at absolute addresses when
/// the shape allows.
pub(crate) fn tables(shape: Shape, percpu: bool) -> Vec<u8> {
    let balign = if shape == Shape::Place { 4 } else { 8 };
    let mut out = b"something else before 0\x001\x002\x003\x00".to_vec();
    let pad = |out: &mut Vec<u8>, to: usize| out.resize(align(out.len(), to), 0);
    let word = |out: &mut Vec<u8>, value: u32| out.extend(value.to_le_bytes());
    let offset = |i: u32, at: u64| -> u32 {
        let absolute = percpu && i < 8;
        match (shape, percpu) {
            (Shape::Place, _) => i32::try_from((address(i, false).wrapping_sub(at)).cast_signed()).unwrap().cast_unsigned(),
            (_, true) if absolute => i * 16,
            (_, true) => (-1 - i32::try_from(i * 16).unwrap()).cast_unsigned(),
            (_, false) => i * 16,
        }
    };
    let offsets = |out: &mut Vec<u8>| {
        pad(out, balign);
        for i in 0..COUNT {
            let at = RODATA + out.len() as u64;
            word(out, offset(i, at));
        }
        if shape != Shape::Place {
            pad(out, 8);
            out.extend(BASE.to_le_bytes());
        }
    };
    let early = matches!(shape, Shape::Before | Shape::Numbered);
    if early {
        offsets(&mut out);
    }
    pad(&mut out, balign);
    word(&mut out, COUNT);
    pad(&mut out, balign);
    let mut markers = Vec::new();
    let start = out.len();
    for i in 0..COUNT {
        if i % STEP == 0 {
            markers.push(u32::try_from(out.len() - start).unwrap());
        }
        // Token 1 is "unction_"; one name is long enough for a head of two bytes.
        let mut tokens = name(i).replace("unction_", "\u{1}").into_bytes();
        tokens.insert(0, b'T');
        if tokens.len() < 0x80 {
            out.push(u8::try_from(tokens.len()).unwrap());
        } else {
            out.extend([u8::try_from(tokens.len() & 0x7f).unwrap() | 0x80, u8::try_from(tokens.len() >> 7).unwrap()]);
        }
        out.extend(tokens);
    }
    pad(&mut out, balign);
    markers.into_iter().for_each(|m| word(&mut out, m));
    if shape == Shape::Numbered {
        pad(&mut out, balign);
        (0..COUNT).for_each(|i| out.extend([0, 1, u8::try_from(i % 251).unwrap()]));
    }
    pad(&mut out, balign);
    let table = out.len();
    let mut index = Vec::new();
    for token in 0..=255u8 {
        index.push(u16::try_from(out.len() - table).unwrap());
        match token {
            1 => out.extend(b"unction_"),
            b'!'..=b'~' => out.push(token),
            _ => out.extend(b"qq"),
        }
        out.push(0);
    }
    pad(&mut out, balign);
    index.into_iter().for_each(|i| out.extend(i.to_le_bytes()));
    if !early {
        offsets(&mut out);
    }
    out.extend([0x55; 64]);
    out
}

fn name(i: u32) -> String {
    match i {
        8 => "_text".into(),
        9 => format!("f{}", "x".repeat(200)),
        _ => format!("function_{i}"),
    }
}

fn address(i: u32, percpu: bool) -> u64 {
    if percpu && i < 8 { u64::from(i) * 16 } else { BASE + u64::from(i) * 16 }
}

fn search(bytes: &[u8]) -> Option<(Kallsyms, HashMap<&'static str, u64>)> {
    let rodata = Rodata { bytes, address: RODATA, offset: 0 };
    Kallsyms::find(&rodata, &(BASE..RODATA), &["_text", "function_1499"])
}

#[test]
fn all_layouts_are_found_and_looked_up() {
    let all = [Shape::Before, Shape::Numbered, Shape::Behind].into_iter().flat_map(|shape| [(shape, true), (shape, false)]);
    for (shape, percpu) in all.chain([(Shape::Place, false)]) {
        let bytes = tables(shape, percpu);
        let (found, wanted) = search(&bytes).unwrap_or_else(|| panic!("{shape:?} {percpu}"));
        let store = Store::Memory(bytes);
        assert_eq!(found.count(), COUNT);
        assert_eq!(wanted, HashMap::from([("_text", address(8, percpu)), ("function_1499", address(1499, percpu))]));
        for i in [0, 7, 8, 9, 10, 255, 256, 257, 511, 512, 1498] {
            let symbol = found.lookup(&store, address(i, percpu) + 5).unwrap();
            assert_eq!(symbol, Symbol { name: name(i), start: address(i, percpu), end: address(i + 1, percpu) }, "{shape:?} {percpu}");
        }
        assert_eq!(found.lookup(&store, address(8, percpu) - 1).map(|s| s.name), Some("function_7".into()));
        assert_eq!(found.address_of(&store, &name(9)), Some(address(9, percpu)));
        assert_eq!(found.address_of(&store, "nobody"), None);
        assert_eq!(found.lookup(&store, u64::MAX).map(|s| s.name), Some("function_1499".into()));
    }
}

#[test]
fn of_names_for_one_address_the_first_counts() {
    let mut bytes = tables(Shape::Behind, false);
    let (found, _) = search(&bytes).unwrap();
    let at = usize::try_from(found.offsets).unwrap();
    for i in 255..259 {
        bytes[at + i * 4..][..4].copy_from_slice(&(255u32 * 16).to_le_bytes());
    }
    let (found, _) = search(&bytes).unwrap();
    let symbol = found.lookup(&Store::Memory(bytes), address(258, false)).unwrap();
    assert_eq!(symbol, Symbol { name: name(255), start: address(255, false), end: address(259, false) });
}

#[test]
fn tables_that_do_not_agree_are_refused() {
    let good = tables(Shape::Behind, false);
    let (found, _) = search(&good).unwrap();
    let offsets = usize::try_from(found.offsets).unwrap();
    let names = usize::try_from(found.names.0).unwrap();
    let spoiled = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        search(&bytes).is_none()
    };
    assert!(spoiled(offsets + 400 * 4 + 2), "addresses that do not ascend");
    assert!(spoiled(names), "the first name's length");
    assert!(spoiled(offsets - 512), "the token index");
    assert!(search(&good[..offsets]).is_none(), "no addresses");
    assert!(search(&[]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_tables_never_panic(
        shape in prop_oneof![Just(Shape::Before), Just(Shape::Behind), Just(Shape::Place)],
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<proptest::sample::Index>(),
        late in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..200),
        addresses in proptest::collection::vec(any::<u64>(), 1..20),
    ) {
        let mut bytes = tables(shape, false);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() * 4) + 1);
        let _ = search(&bytes);
        // Tables that were sound when they were found, and are not any more.
        let mut bytes = tables(shape, false);
        let (found, _) = search(&bytes).unwrap();
        for (at, value) in late {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let store = Store::Memory(bytes);
        for address in addresses.into_iter().chain((0..COUNT).step_by(97).map(|i| BASE + u64::from(i) * 16)) {
            let _ = found.lookup(&store, address);
        }
    }
}
