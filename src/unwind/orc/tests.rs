use super::*;
use proptest::prelude::*;

/// A table of calls relative to the stack pointer with some others, in the layout of `version`.
fn entries(version: &str, special: &[[u8; ENTRY]]) -> Vec<u8> {
    let plain = match version {
        "6.1" | "6.3" => [8, 0, 0, 0, 0x05, 0],
        "6.12" => [8, 0, 0, 0, 0x05, 2],
        _ => [8, 0, 0, 0, 0x03, 2],
    };
    let mut bytes: Vec<u8> = std::iter::repeat_n(plain, 20).flatten().collect();
    bytes.extend(special.iter().flatten());
    bytes
}

#[test]
fn the_layout_shows_in_the_entries() {
    let of = |version, special: &[[u8; ENTRY]]| Format::detect(&entries(version, special)).unwrap();
    assert_eq!(of("6.1", &[[0, 0, 0, 0, 0, 4]]), Format { renumbered: false, types: Types::End });
    assert_eq!(of("6.3", &[[0, 0, 0, 0, 0, 8]]), Format { renumbered: false, types: Types::SignalEnd });
    assert_eq!(of("6.12", &[[0, 0, 0, 0, 5, 3 | 8]]), Format { renumbered: false, types: Types::Signal });
    assert_eq!(of("7.2", &[[0, 0, 0, 0, 3, 3 | 8]]), Format { renumbered: true, types: Types::Signal });
    assert_eq!(Format::detect(&[0; 600]), None);
    assert_eq!(Format::detect(&[]), None);
}

#[test]
fn entries_decode_the_same_from_every_layout() {
    let of = |renumbered, types, bytes: [u8; ENTRY]| Format { renumbered, types }.decode(bytes);
    let call = Entry { sp: Base::Bp, sp_offset: 16, bp: Base::PrevSp, bp_offset: -16, kind: Kind::Call, signal: false };
    assert_eq!(of(false, Types::End, [16, 0, 0xf0, 0xff, 0x14, 0]), call);
    assert_eq!(of(false, Types::SignalEnd, [16, 0, 0xf0, 0xff, 0x14, 0]), call);
    assert_eq!(of(false, Types::Signal, [16, 0, 0xf0, 0xff, 0x14, 2]), call);
    assert_eq!(of(true, Types::Signal, [16, 0, 0xf0, 0xff, 0x84, 2]), call);

    let regs = Entry { sp: Base::Sp, sp_offset: 0, bp: Base::Undefined, bp_offset: 0, kind: Kind::Regs, signal: true };
    assert_eq!(of(false, Types::End, [0, 0, 0, 0, 0x05, 1]), regs);
    assert_eq!(of(false, Types::SignalEnd, [0, 0, 0, 0, 0x05, 1 | 4]), regs);
    assert_eq!(of(false, Types::Signal, [0, 0, 0, 0, 0x05, 3 | 8]), regs);
    assert_eq!(of(true, Types::Signal, [0, 0, 0, 0, 0x03, 3 | 8]), regs);

    for (renumbered, types, end) in
        [(false, Types::End, 4), (false, Types::SignalEnd, 8), (false, Types::Signal, 1), (true, Types::Signal, 1)]
    {
        assert_eq!(of(renumbered, types, [0, 0, 0, 0, 0, end]).kind, Kind::End);
        assert_eq!(of(renumbered, types, [0; ENTRY]).kind, Kind::Undefined);
    }
    assert_eq!(of(false, Types::Signal, [0, 0, 0, 0, 0x09, 2]).sp, Base::SpIndirect);
    assert_eq!(of(true, Types::Signal, [0, 0, 0, 0, 0x0a, 2]).sp, Base::BpIndirect);
}

/// A table for code at `addresses`; entry number n has n as offset.
pub(crate) fn table(addresses: &[u64], ips: u64) -> (Store, Place, Place) {
    let mut bytes = Vec::new();
    for (address, at) in addresses.iter().zip((ips..).step_by(4)) {
        bytes.extend(i32::try_from(address.wrapping_sub(at).cast_signed()).unwrap().to_le_bytes());
    }
    let size = bytes.len() as u64;
    for n in 0..u16::try_from(addresses.len()).unwrap() {
        let [low, high] = n.to_le_bytes();
        bytes.extend([low, high, 0, 0, 5, 2]);
    }
    let entries = Place { address: 0, offset: size, size: bytes.len() as u64 - size };
    (Store::Memory(bytes), Place { address: ips, offset: 0, size }, entries)
}

#[test]
fn the_entry_is_that_of_the_last_address_before() {
    let first = 0xffff_ffff_8100_0000;
    let addresses: Vec<u64> = (0..1000).map(|i| first + i * 8).collect();
    let (store, ips, entries) = table(&addresses, 0xffff_ffff_8200_0000);
    let table = Table::open(&store, ips, entries).unwrap();
    for n in [0, 1, 127, 128, 129, 255, 256, 999] {
        for within in [0, 7] {
            let entry = table.lookup(&store, addresses[n] + within).unwrap();
            assert_eq!(usize::try_from(entry.sp_offset).unwrap(), n);
        }
    }
    assert_eq!(table.lookup(&store, first - 1), None);
    assert_eq!(table.lookup(&store, u64::MAX).map(|e| e.sp_offset), Some(999));
}

#[test]
fn a_table_in_disorder_is_refused() {
    let (store, ips, entries) = table(&[8, 16, 12], 0x1000);
    assert!(Table::open(&store, ips, entries).is_none());
    let (store, ips, entries) = table(&[8, 16, 24], 0x1000);
    assert!(Table::open(&store, ips, Place { size: entries.size - 6, ..entries }).is_none());
    assert!(Table::open(&store, Place { size: u64::MAX, ..ips }, entries).is_none());
    assert!(Table::open(&store, Place { offset: u64::MAX, ..ips }, entries).is_none());
}

proptest! {
    #[test]
    fn anything_decodes_to_something(bytes in any::<[u8; ENTRY]>(), table in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Format::detect(&table);
        for (renumbered, types) in [(false, Types::End), (false, Types::SignalEnd), (true, Types::Signal)] {
            let _ = Format { renumbered, types }.decode(bytes);
        }
    }
}
