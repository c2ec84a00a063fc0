//! Numbers and names other programs rely on: the agent's wire, the kernel's enums, reports.

use super::fixture::*;
use crate::*;

#[test]
fn requesters_go_over_the_wire_and_back() {
    let bdf = Bdf::new(0x12, 0x1e, 5);
    assert_eq!((bdf.0, bdf.bus(), bdf.device(), bdf.function()), (0x12f5, 0x12, 0x1e, 5));
    assert_eq!((Bdf(0xffff).bus(), Bdf(0xffff).device(), Bdf(0xffff).function()), (0xff, 0x1f, 7));
    for (requester, raw) in [
        (Requester::Pci(bdf), 0x12f5),
        (Requester::Pci(Bdf(0)), 0),
        (Requester::Pci(Bdf(0xffff)), 0xffff),
        (Requester::Platform(0), 0x8000_0000),
        (Requester::Platform(0xabcd), 0x8000_abcd),
    ] {
        assert_eq!(requester.to_wire(), raw);
        assert_eq!(Requester::from_wire(raw), Some(requester));
    }
    for neither in [0x1_0000, 0x4000_0000, 0x8001_0000, u32::MAX] {
        assert_eq!(Requester::from_wire(neither), None, "{neither:#x}");
    }
}

#[test]
fn directions_families_and_kinds_have_their_numbers() {
    let directions =
        [(Bidirectional, "DMA_BIDIRECTIONAL"), (ToDevice, "DMA_TO_DEVICE"), (FromDevice, "DMA_FROM_DEVICE"), (Direction::None, "DMA_NONE")];
    for (raw, (direction, name)) in (0..).zip(directions) {
        assert_eq!((Direction::from_wire(raw), direction.name()), (Some(direction), name));
    }
    assert_eq!(Direction::from_wire(4), None);
    let families = [Family::Single, Family::Sg, Family::Resource, Family::Coherent, Family::Pages];
    for (raw, family) in (1..).zip(families) {
        assert_eq!(Family::from_wire(raw), Some(family));
    }
    assert_eq!((Family::from_wire(0), Family::from_wire(6)), (None, None));
    let kinds = [PageKind::Other, PageKind::Slab, PageKind::PagePool, PageKind::Foreign, PageKind::Other, PageKind::Other];
    for (raw, kind) in (0..).zip(kinds) {
        assert_eq!(PageKind::from_wire(raw), kind);
    }
}

#[test]
fn ranges_of_bytes() {
    let range = |start, end| ByteRange { start, end };
    assert_eq!((range(3, 10).len(), range(3, 3).len()), (7, 0));
    assert!(range(3, 3).is_empty() && range(4, 3).is_empty() && !range(3, 4).is_empty());
    assert!(range(0, 4).overlaps(range(3, 9)) && range(3, 9).overlaps(range(0, 4)));
    assert!(!range(0, 4).overlaps(range(4, 9)) && !range(4, 9).overlaps(range(0, 4)), "neighbours");
    assert_eq!(range(5, 8).hull(range(1, 6)), range(1, 8));
    assert_eq!(range(1, 2).hull(range(7, 9)), range(1, 9));
}

#[test]
fn sites_are_numbered_once_and_0_is_unknown() {
    let mut table = SiteTable::default();
    let unknown = table.len();
    let frames = |n| vec![Frame::new(n, format!("f+{n:#x}"))];
    let first = table.intern(frames(1));
    let second = table.intern(frames(2));
    assert_ne!(first, second);
    assert_eq!(table.intern(frames(1)), first);
    assert_eq!(table.len(), unknown + 2);
    assert!(!table.is_empty());
    assert_eq!(table.frames(second), frames(2));
    assert_eq!(table.iter().count(), table.len());
    assert!(table.frames(SiteId(77)).is_empty());
}

#[test]
fn a_summary_counts_by_severity() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.unmap(dma, 64, ToDevice);
    w.unmap(dma, 64, ToDevice);
    w.core.blind_spot("not seen".into());
    w.core.blind_spot("not seen either".into());
    w.core.blind_spot("not seen".into());
    let summary = w.core.finish();
    assert_eq!((summary.count(Severity::Error), summary.count(Severity::Warning), summary.count(Severity::Note)), (1, 2, 0));
    assert_eq!(w.codes().iter().filter(|code| *code == "DV901w").count(), 2, "different ones");
}

#[test]
fn devices_are_listed_with_their_models() {
    let w = World::new();
    w.core.add_device(OTHER, "another");
    let devices = w.core.finish().devices;
    let listed: Vec<_> = devices.iter().map(|d| (d.requester, d.model.as_str(), d.drivers.len())).collect();
    assert_eq!(listed, [(DEVICE, "test", 1), (OTHER, "another", 0)]);
    w.call(&ApiCall::Unbound);
    w.call(&ApiCall::Bound { driver: "testdrv".into() });
    assert_eq!(w.core.finish().devices[0].drivers, ["testdrv"], "named once");
    w.call(&ApiCall::Bound { driver: "second".into() });
    assert_eq!(w.core.finish().devices[0].drivers, ["testdrv", "second"]);
}

#[test]
fn the_required_mask_covers_every_handle() {
    let w = World::new();
    let mask = w.core.required_mask();
    assert!((mask.wrapping_add(1)).is_power_of_two(), "{mask:#x}");
    let dma = w.map(BUF, 64, ToDevice);
    assert!(dma.0 <= mask && dma.0 > 0xffff_ffff, "{dma:?} {mask:#x}");
    assert!(mask / 2 < 128 << 30, "no more than it takes: {mask:#x}");
}
