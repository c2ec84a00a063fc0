use super::*;

const ID: Identity =
    Identity { vendor: 0x1234, device: 0x5678, class: 0x08_01_02, revision: 9, subsystem_vendor: 0xaaaa, subsystem: 0xbbbb };

fn space() -> ConfigSpace {
    ConfigSpace::new(&ID, &[BarSpec::memory32(0, 0x1000), BarSpec::memory64(2, 0x10000), BarSpec::io(5, 0x20)])
}

fn get(space: &ConfigSpace, offset: usize) -> u32 {
    let mut data = [0; 4];
    space.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn set(space: &mut ConfigSpace, offset: usize, value: u32) -> ConfigChange {
    space.write(offset, &value.to_le_bytes())
}

fn bases(space: &ConfigSpace) -> Vec<(usize, u64)> {
    space.ranges().iter().map(|range| (range.bar, range.base)).collect()
}

#[test]
fn identity_is_where_software_looks() {
    let mut space = space();
    assert_eq!(get(&space, 0x00), 0x5678_1234);
    assert_eq!(get(&space, 0x08), 0x0801_0209);
    assert_eq!(get(&space, 0x0c), 0, "type 0, one function");
    assert_eq!(get(&space, 0x2c), 0xbbbb_aaaa);
    for offset in [0x00, 0x08, 0x2c] {
        let before = get(&space, offset);
        assert_eq!(set(&mut space, offset, 0xffff_ffff), ConfigChange::empty());
        assert_eq!(get(&space, offset), before);
    }
}

#[test]
fn command_holds_what_the_function_has() {
    let mut space = space();
    set(&mut space, 4, 0xffff_ffff);
    assert_eq!(get(&space, 4), 0x0547, "I/O, memory, master, parity, SERR, INTx disable; status is read-only");
    let mut bridge = ConfigSpace::new(&ID, &[]);
    set(&mut bridge, 4, 0xffff_ffff);
    assert_eq!(get(&bridge, 4), 0x0544);
}

#[test]
fn bus_master_changes_are_told_once() {
    let mut space = space();
    assert_eq!(set(&mut space, 4, 4), ConfigChange::BUS_MASTER);
    assert!(space.bus_master());
    assert_eq!(set(&mut space, 4, 4), ConfigChange::empty());
    assert_eq!(space.write(4, &[0]), ConfigChange::BUS_MASTER);
    assert!(!space.bus_master());
}

#[test]
fn sizing_answers_the_size() {
    let mut space = space();
    for (offset, expected) in
        [(0x10, 0xffff_f000), (0x14, 0), (0x18, 0xffff_000c), (0x1c, 0xffff_ffff), (0x20, 0), (0x24, 0xffff_ffe1), (0x30, 0)]
    {
        set(&mut space, offset, 0xffff_ffff);
        assert_eq!(get(&space, offset), expected, "{offset:#x}");
    }
}

#[test]
fn sizing_with_decoding_on_moves_nothing() {
    let mut space = space();
    set(&mut space, 0x10, 0xc000_0000);
    set(&mut space, 0x18, 0x1000_0000);
    set(&mut space, 0x1c, 0x40);
    assert_eq!(set(&mut space, 4, 2), ConfigChange::DECODE);
    let expected = [(0, 0xc000_0000), (2, 0x40_1000_0000)];
    assert_eq!(bases(&space), expected);
    for (offset, value) in [(0x10, 0xc000_0000), (0x18, 0x1000_0000), (0x1c, 0x40)] {
        assert_eq!(set(&mut space, offset, 0xffff_ffff), ConfigChange::empty());
        assert_eq!(bases(&space), expected);
        assert_eq!(set(&mut space, offset, value), ConfigChange::empty());
        assert_eq!(bases(&space), expected);
    }
    // All halves at once, then restored.
    for (offset, value) in [(0x18, u32::MAX), (0x1c, u32::MAX), (0x18, 0x1000_0000), (0x1c, 0x40)] {
        assert_eq!(set(&mut space, offset, value), ConfigChange::empty(), "{offset:#x} {value:#x}");
    }
    assert_eq!(bases(&space), expected);
}

#[test]
fn halves_of_a_64_bit_bar_are_decoded_together() {
    for order in [[0x18, 0x1c], [0x1c, 0x18]] {
        let mut space = space();
        set(&mut space, 4, 2);
        assert!(bases(&space).is_empty(), "address 0 is no address");
        set(&mut space, 0x18, 0x1000_0000);
        set(&mut space, 0x1c, 0x40);
        assert_eq!(bases(&space), [(2, 0x40_1000_0000)]);
        let value = |offset| if offset == 0x18 { 0x2000_0000 } else { 0x41 };
        assert_eq!(set(&mut space, order[0], value(order[0])), ConfigChange::empty());
        assert_eq!(bases(&space), [(2, 0x40_1000_0000)], "half an address is not decoded");
        assert_eq!(set(&mut space, order[1], value(order[1])), ConfigChange::DECODE);
        assert_eq!(bases(&space), [(2, 0x41_2000_0000)]);
    }
}

#[test]
fn a_lone_half_takes_effect_when_decoding_is_switched_on() {
    let mut space = space();
    set(&mut space, 4, 2);
    space.write(0x18, &0x40_1000_0000_u64.to_le_bytes());
    assert_eq!(bases(&space), [(2, 0x40_1000_0000)], "both halves in one access");
    assert_eq!(set(&mut space, 0x18, 0x3000_0000), ConfigChange::empty());
    assert_eq!(set(&mut space, 4, 0), ConfigChange::DECODE);
    assert_eq!(set(&mut space, 4, 2), ConfigChange::DECODE);
    assert_eq!(bases(&space), [(2, 0x40_3000_0000)]);
}

#[test]
fn ports_and_memory_are_switched_apart() {
    let mut space = space();
    set(&mut space, 0x10, 0xc000_0000);
    set(&mut space, 0x24, 0xc040);
    set(&mut space, 4, 1);
    assert_eq!(space.ranges(), [DecodedRange { bar: 5, space: BarSpace::Io, base: 0xc040, size: 0x20 }]);
    set(&mut space, 4, 3);
    assert_eq!(bases(&space), [(0, 0xc000_0000), (5, 0xc040)]);
    set(&mut space, 0x24, 0x1_0000);
    assert_eq!(bases(&space), [(0, 0xc000_0000)], "there are 65536 ports");
}

#[test]
fn capabilities_are_linked_and_found() {
    let mut space = space();
    assert_eq!(get(&space, 4) >> 16, 0);
    space.add_power_management();
    space.add_msix(&MsixSpec::own_bar(4, 1));
    assert_eq!(get(&space, 4) >> 16, 0x10);
    assert_eq!(get(&space, 0x34), 0x40);
    assert_eq!(get(&space, 0x40), 0x0003_4801);
    assert_eq!([get(&space, 0x48), get(&space, 0x4c), get(&space, 0x50)], [0x0003_0011, 0x0000_0001, 0x0000_0801]);
    set(&mut space, 0x48, 0xffff_ffff);
    assert_eq!(get(&space, 0x48), 0xc003_0011);
    assert_eq!(space.msix_control(), MsixControl { enabled: true, masked: true });
    for offset in [0x40, 0x4c, 0x50] {
        let before = get(&space, offset);
        set(&mut space, offset, !before);
        assert_eq!(get(&space, offset), before);
    }
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_capability_list_too_long_is_a_model_mistake() {
    space().add_capability(9, &[0; 191], &[]);
}

#[test]
fn d3hot_stops_the_function_and_d0_resets_it() {
    let mut space = space();
    space.add_power_management();
    set(&mut space, 0x10, 0xc000_0000);
    set(&mut space, 4, 6);
    let changes = ConfigChange::DECODE | ConfigChange::BUS_MASTER;
    set(&mut space, 0x44, 1);
    assert_eq!(get(&space, 0x44), 0, "there is no D1");
    assert_eq!(set(&mut space, 0x44, 3), changes);
    assert!(!space.bus_master() && space.ranges().is_empty());
    set(&mut space, 0x44, 2);
    assert_eq!(get(&space, 0x44), 3, "there is no D2");
    assert_eq!(set(&mut space, 0x44, 0), ConfigChange::RESET);
    assert_eq!((get(&space, 4) & 0xffff, get(&space, 0x10)), (0, 0));
}

#[test]
fn beyond_the_space_are_all_ones() {
    let mut space = space();
    assert_eq!(get(&space, 0x100), u32::MAX);
    assert_eq!(get(&space, 0xfe), 0xffff_0000, "an access across the end");
    assert_eq!(get(&space, usize::MAX - 1), u32::MAX);
    assert_eq!(set(&mut space, usize::MAX - 1, 0), ConfigChange::empty());
    assert_eq!(set(&mut space, 0xfe, 0), ConfigChange::empty());
}

#[test]
fn reset_restores_power_on_values() {
    let mut space = space();
    space.add_power_management();
    let fresh: Vec<_> = (0..64).map(|dword| get(&space, dword * 4)).collect();
    for offset in (0..256).step_by(4) {
        set(&mut space, offset, 0xffff_fffc);
    }
    space.reset();
    assert_eq!((0..64).map(|dword| get(&space, dword * 4)).collect::<Vec<_>>(), fresh);
    assert!(space.ranges().is_empty());
}
