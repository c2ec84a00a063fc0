//! A guest that does what it likes.

use super::fixture::*;
use crate::*;

#[test]
fn what_cannot_be_mapped_fails_and_is_said() {
    let w = World::new();
    let bad = [
        single(RAM, 64, ToDevice),
        single(RAM - 10, 64, ToDevice),
        single(u64::MAX - 10, 64, ToDevice),
        single(BUF, u64::MAX, ToDevice),
        single(BUF, 64, Direction::None),
        MapCall { extents: vec![], ..single(BUF, 64, ToDevice) },
        list(&vec![(BUF, 1); 65537], ToDevice),
        MapCall { limits: Limits { mask: 0xff, ..Limits::default() }, ..single(BUF, 64, ToDevice) },
        MapCall { family: Family::Resource, ..single(0xd000_0000, u64::MAX - 0xe000_0000, ToDevice) },
    ];
    for call in bad {
        assert_eq!(w.call(&ApiCall::Map(call.clone())), Answer::Failed, "{call:?}");
    }
    let stats = w.core.stats();
    assert_eq!((stats.failed_maps, stats.live_mappings, stats.tracked_pages), (9, 0, 0));
    assert!(w.bad().iter().all(|code| code == "DV901w"));
}

#[test]
fn strange_limits_are_survived() {
    let w = World::new();
    for seg_boundary in [0, 1, 0xfff, 0x1000, 0xffff, u64::MAX] {
        for min_align_mask in [0, 1, 5, 0xfff, 0x1fff, 0xf_ffff, u32::MAX] {
            for max_seg_size in [0, 1, u32::MAX] {
                let limits = Limits { mask: u64::MAX, seg_boundary, max_seg_size, min_align_mask };
                let entries = [(BUF + 0x123, 5000), (BUF + 0x4000, 0), (BUF + 0x5000, 4096)];
                let handles = w.map_call(MapCall { limits, ..list(&entries, ToDevice) });
                let mask = if u64::from(min_align_mask + u32::from(min_align_mask != u32::MAX)).is_power_of_two() {
                    min_align_mask & 0xf_ffff
                } else {
                    0
                };
                if min_align_mask < 1 << 20 {
                    assert_eq!(handles[0].0.0 & u64::from(mask), (BUF + 0x123) & u64::from(mask));
                }
                assert_eq!(handles[0].0.0 & 0xfff, 0x123);
                w.unmap_call(UnmapCall { ranges: handles, ..unmap(Family::Sg, Iova(0), 0, ToDevice) });
            }
        }
    }
    assert_eq!(w.bad(), ["DV112w"], "limits no list can keep");
}

#[test]
fn calls_without_ranges_and_of_length_zero() {
    let w = World::new();
    let dma = w.map(BUF, 0, ToDevice);
    w.for_cpu(dma, 0, ToDevice);
    w.sync_call(SyncCall { for_cpu: true, sg: true, ranges: vec![], direction: ToDevice });
    assert_eq!(w.try_read(dma, 0), Some(vec![]));
    w.unmap(dma, 0, ToDevice);
    w.silent();
    w.unmap_call(UnmapCall { ranges: vec![], ..unmap(Family::Sg, Iova(0), 0, ToDevice) });
    assert_eq!(w.bad(), ["DV101e"]);
    w.for_cpu(dma, u64::MAX, ToDevice);
    w.for_cpu(Iova(u64::MAX), u64::MAX, ToDevice);
}

#[test]
fn the_number_of_mappings_is_bounded() {
    let w = World::with(|c| c.max_mappings = 10);
    let handles: Vec<_> = (0..10).map(|_| w.map(BUF, 8, ToDevice)).collect();
    assert_eq!(w.call(&ApiCall::Map(single(BUF, 8, ToDevice))), Answer::Failed);
    assert_eq!(w.bad(), ["DV901w"]);
    w.unmap(handles[0], 8, ToDevice);
    w.map(BUF, 8, ToDevice);
}

#[test]
fn mappings_of_one_page_are_bounded_and_undone_as_one() {
    let w = World::new();
    for _ in 0..4096 {
        w.map(BUF + PAGE, 8, ToDevice);
    }
    let before = w.core.stats();
    assert_eq!(w.call(&ApiCall::Map(single(BUF, 2 * PAGE, ToDevice))), Answer::Failed);
    let after = w.core.stats();
    assert_eq!((before.live_mappings, before.tracked_pages), (after.live_mappings, after.tracked_pages));
    assert_eq!(w.bad(), ["DV901w"]);
}

#[test]
fn findings_are_bounded() {
    let w = World::with(|c| c.max_findings = 5);
    for n in 0..20 {
        let site = w.site(&format!("f{n}"));
        let call = ApiCall::Unmap(unmap(Family::Single, Iova(1 << 36), 4, ToDevice));
        w.core.call(Caller { requester: DEVICE, site, cpu: 0 }, &call);
    }
    let summary = w.core.finish();
    assert_eq!(summary.stats.suppressed_findings, 15);
    assert_eq!(summary.findings.len(), 6);
    assert_eq!(summary.findings.last().unwrap().code, Code::DV901);
}

#[test]
fn requesters_are_bounded() {
    let w = World::new();
    for n in 0..5000u16 {
        w.core.call(Caller { requester: Requester::Platform(n), site: SiteId(0), cpu: 0 }, &ApiCall::Unbound);
    }
    assert_eq!(w.core.finish().devices.len(), 4096);
    assert_eq!(w.bad(), ["DV901w"]);
    let none = w.core.view(Requester::Platform(4999));
    use vm_memory::{Bytes, GuestAddress};
    assert!(none.read_obj::<u8>(GuestAddress(0)).is_err());
}

#[test]
fn tiny_masks_get_handles_that_are_not_the_buffers_address() {
    let w = World::new();
    let limits = Limits { mask: 0xff_ffff, ..Limits::default() };
    let mut live = Vec::new();
    for n in 0..500 {
        let gpa = BUF + n * PAGE;
        let (iova, _) = w.map_call(MapCall { limits, ..single(gpa, 100, ToDevice) })[0];
        assert!(iova.0 <= 0xff_ffff && iova.0 != gpa && iova.0 >= 1 << 20);
        live.push((iova, gpa));
    }
    for (iova, _) in live {
        w.unmap(iova, 100, ToDevice);
    }
    w.silent();
}

#[test]
fn handles_run_out_and_come_back() {
    let w = World::new();
    let limits = Limits { mask: 0xff_ffff, ..Limits::default() };
    let call = MapCall { limits, ..single(BUF, 1 << 20, ToDevice) };
    let mut live = Vec::new();
    while let Answer::Handles(handles) = w.call(&ApiCall::Map(call.clone())) {
        live.push(handles[0].0);
    }
    assert!(live.len() >= 5, "{}", live.len());
    for iova in live.drain(..) {
        w.unmap(iova, 1 << 20, ToDevice);
    }
    for _ in 0..200 {
        let iova = w.map_call(call.clone())[0].0;
        w.unmap(iova, 1 << 20, ToDevice);
    }
    assert_eq!(w.bad(), ["DV901w"]);
}

#[test]
fn a_resource_beyond_the_end_of_the_address_space_is_refused() {
    let w = World::new();
    for family in [Family::Resource, Family::Coherent] {
        let call = MapCall { family, attrs: Attrs::MMIO, ..single(u64::MAX - 0xfff, 0x2000, Bidirectional) };
        assert_eq!(w.call(&ApiCall::Map(call)), Answer::Failed);
    }
    assert_eq!(w.bad(), ["DV901w"]);
}

#[test]
fn the_number_of_mapped_pages_is_bounded() {
    let w = World::with(|c| c.max_page_refs = 4);
    let three = w.map(BUF, 3 * PAGE, ToDevice);
    assert_eq!(w.call(&ApiCall::Map(single(BUF + 8 * PAGE, 2 * PAGE, ToDevice))), Answer::Failed);
    let one = w.map(BUF, PAGE, ToDevice);
    w.unmap(three, 3 * PAGE, ToDevice);
    w.unmap(one, PAGE, ToDevice);
    // All of the room is there again, and no more.
    w.map(BUF, 4 * PAGE, ToDevice);
    assert_eq!(w.call(&ApiCall::Map(single(BUF, PAGE, ToDevice))), Answer::Failed);
    assert_eq!(w.bad(), ["DV901w"]);
}
