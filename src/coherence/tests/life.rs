//! 1xx, 215, 216: calls against the mapping they name.

use super::fixture::*;
use crate::*;

#[test]
fn dv101_double_unmap() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.unmap(dma, 64, ToDevice);
    w.silent();
    w.unmap(dma, 64, ToDevice);
    let f = w.finding(Code::DV101);
    assert!(f.message.contains("second time") && f.mapping.is_some());
}

#[test]
fn dv101_never_mapped_and_mapping_error_and_physical() {
    for (address, words) in [(0x13_0000_0000, "no map"), (u64::MAX, "DMA_MAPPING_ERROR"), (BUF, "physical address")] {
        let w = World::new();
        w.map(BUF, 64, ToDevice);
        w.unmap(Iova(address), 64, ToDevice);
        let f = w.finding(Code::DV101);
        assert!(f.message.contains(words), "{}", f.message);
    }
}

#[test]
fn dv101_wrong_device_leaves_the_mapping_alone() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.call_as(OTHER, &ApiCall::Unmap(unmap(Family::Single, dma, 64, ToDevice)));
    assert!(w.finding(Code::DV101).message.contains("another device"));
    assert!(w.try_read(dma, 64).is_some());
}

#[test]
fn dv101_from_the_middle_ends_the_mapping() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.unmap(Iova(dma.0 + 16), 48, ToDevice);
    assert!(w.finding(Code::DV101).message.contains("16 bytes from its start"));
    assert_eq!(w.core.stats().live_mappings, 0);
}

#[test]
fn dv101_next_to_a_mapping_leaves_it_alone() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.unmap(Iova(dma.0 + 64), 64, ToDevice);
    assert!(w.finding(Code::DV101).message.contains("next to a mapping"));
    assert_eq!(w.core.stats().live_mappings, 1);
}

#[test]
fn dv102_dv103_are_each_their_own() {
    let w = World::new();
    let dma = w.map(BUF, 64, FromDevice);
    w.write(dma, &[5; 64]);
    w.unmap(dma, 60, ToDevice);
    assert_eq!(w.bad(), ["DV102e", "DV103e"]);
    assert_eq!(w.cpu_read(BUF, 64), [5; 64], "the mapping ends as it was made, so that the guest stays healthy");
}

#[test]
fn dv104_explains_the_rest() {
    let w = World::new();
    let dma = w.map(BUF, 64, FromDevice);
    w.unmap_call(unmap(Family::Coherent, dma, 4096, Bidirectional));
    assert_eq!(w.bad(), ["DV104e"]);
    assert!(w.finding(Code::DV104).advice.contains("dma_unmap_single"));
    assert_eq!(w.core.stats().live_mappings, 0);
}

#[test]
fn dv105_free_cpu_addr() {
    let w = World::new();
    let dma = w.alloc_coherent(BUF, PAGE);
    w.unmap_call(UnmapCall { cpu_addr: BUF + 64, ..unmap(Family::Coherent, dma, PAGE, Bidirectional) });
    assert!(w.finding(Code::DV105).message.contains("64 bytes into"));
    let w = World::new();
    let dma = w.alloc_pages(BUF, PAGE, Bidirectional);
    w.free_pages(dma, BUF, PAGE, Bidirectional);
    w.silent();
}

#[test]
fn dv107_original_entries() {
    let entries = [(BUF, 100), (BUF + PAGE, 200), (BUF + 3 * PAGE, 300)];
    let w = World::new();
    let handles = w.map_call(list(&entries, ToDevice));
    assert_eq!(handles.len(), 3);
    let sync = SyncCall { for_cpu: true, sg: true, ranges: handles.clone(), direction: ToDevice };
    w.sync_call(sync.clone());
    w.silent();
    w.sync_call(SyncCall { ranges: handles[..2].to_vec(), ..sync });
    assert!(w.finding(Code::DV107).message.contains("3 entries was mapped, 2 were synced"));
    w.unmap_call(UnmapCall { ranges: handles[..1].to_vec(), ..unmap(Family::Sg, Iova(0), 0, ToDevice) });
    let finding = w.core.finish().findings;
    assert_eq!(finding.len(), 2);
    assert_eq!(w.core.stats().live_mappings, 0);
}

#[test]
fn a_merged_list_takes_its_original_entries_too() {
    let w = World::with(|c| c.sg_merge = true);
    let entries = [(BUF, PAGE), (BUF + 4 * PAGE, PAGE), (BUF + 9 * PAGE, 100)];
    let handles = w.map_call(list(&entries, Bidirectional));
    assert_eq!(handles.len(), 1);
    assert_eq!(handles[0].1, 2 * PAGE + 100);
    w.write(handles[0].0, &[7; 8292]);
    let mut given = handles.clone();
    given.resize(3, (Iova(0), 0));
    w.sync_call(SyncCall { for_cpu: true, sg: true, ranges: given.clone(), direction: Bidirectional });
    assert_eq!(w.cpu_read(BUF + 9 * PAGE + 98, 3), [7, 7, 0]);
    w.unmap_call(UnmapCall { ranges: given, ..unmap(Family::Sg, Iova(0), 0, Bidirectional) });
    w.silent();
    let w = World::with(|c| c.sg_merge = true);
    let handles = w.map_call(list(&entries, Bidirectional));
    w.unmap_call(UnmapCall { ranges: handles, ..unmap(Family::Sg, Iova(0), 0, Bidirectional) });
    assert_eq!(w.bad(), ["DV107e"]);
}

#[test]
fn dv108_leak() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    let kept = w.map(BUF + PAGE, 64, ToDevice);
    w.unmap(dma, 64, ToDevice);
    w.call(&ApiCall::Unbound);
    let f = w.finding(Code::DV108);
    assert_eq!(f.mapping.unwrap().gpa, Gpa(BUF + PAGE));
    assert!(w.try_read(kept, 4).is_none(), "dropped");
    assert_eq!(w.core.stats().live_mappings, 0);
    assert_eq!(w.core.stats().tracked_pages, 0);
}

#[test]
fn dv108_nothing_left_is_silent_and_page_pool_only_a_warning_at_the_end() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.unmap(dma, 64, ToDevice);
    w.call(&ApiCall::Unbound);
    w.silent();
    let w = World::new();
    let call = MapCall { kind: PageKind::PagePool, ..single(BUF, PAGE, FromDevice) };
    let pool = w.map_call(call.clone())[0].0;
    let late = w.map_call(MapCall { extents: single(BUF + PAGE, PAGE, FromDevice).extents, ..call })[0].0;
    w.call(&ApiCall::Unbound);
    w.unmap(late, PAGE, FromDevice);
    assert_eq!(w.bad(), ["DV108w"]);
    w.unmap(pool, PAGE, FromDevice);
    assert_eq!(w.core.stats().live_mappings, 0);
}

#[test]
fn dv111_after_a_refused_mask_and_below_live_handles() {
    let w = World::new();
    assert_eq!(w.call(&ApiCall::SetMask { mask: 0x7f_ffff }), Answer::Supported(false));
    w.map(BUF, 64, ToDevice);
    assert_eq!(w.bad(), ["DV111e"]);
    let w = World::new();
    let high = w.map(BUF, 64, ToDevice);
    assert_eq!(w.call(&ApiCall::SetMask { mask: u64::MAX }), Answer::Supported(true));
    w.silent();
    w.call(&ApiCall::SetMask { mask: 0xffff_ffff });
    assert_eq!(w.bad(), ["DV111w"]);
    w.unmap(high, 64, ToDevice);
}

#[test]
fn dv215_sync_outside() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 256]);
    let dma = w.map(BUF, 256, Bidirectional);
    w.for_cpu(Iova(dma.0 + 16), 240, Bidirectional);
    w.silent();
    w.write(dma, &[2; 256]);
    w.for_cpu(Iova(dma.0 + 128), 129, Bidirectional);
    assert!(w.finding(Code::DV215).message.contains("1 past their end"));
    assert_eq!(w.cpu_read(BUF + 128, 128), [2; 128], "the part inside is synced");
    for (address, words) in [(0x13_0000_0000, "nothing is mapped"), (0, "nothing is mapped")] {
        let w = World::new();
        w.for_device(Iova(address), 4, ToDevice);
        assert!(w.finding(Code::DV215).message.contains(words));
    }
    w.unmap(dma, 256, Bidirectional);
    w.for_cpu(dma, 256, Bidirectional);
    assert!(w.core.finish().findings.iter().any(|f| f.message.contains("after it was unmapped")));
}

#[test]
fn dv216_sync_direction_moves_what_it_says() {
    let w = World::new();
    let dma = w.map(BUF, 64, Bidirectional);
    w.write(dma, &[2; 64]);
    w.for_cpu(dma, 64, ToDevice);
    assert_eq!(w.cpu_read(BUF, 64), [0; 64], "for_cpu with DMA_TO_DEVICE invalidates nothing: the CPU reads stale bytes");
    assert_eq!(w.bad(), ["DV216e"]);
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.cpu_write(BUF, &[3; 64]);
    w.for_cpu(dma, 64, FromDevice);
    assert_eq!(w.cpu_read(BUF, 64), [0; 64], "and with DMA_FROM_DEVICE it discards the CPU's");
    assert_eq!(w.bad(), ["DV216e"], "one offence, one code");
}

#[test]
fn call_sites_are_listed_by_kind() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.for_device(dma, 64, ToDevice);
    w.unmap(dma, 64, ToDevice);
    let device = w.core.finish().devices.remove(0);
    let kinds: Vec<_> = device.call_sites.keys().copied().collect();
    assert_eq!(kinds, [CallKind::Map, CallKind::Unmap, CallKind::SyncForDevice]);
    assert_eq!((device.mappings, device.bytes_mapped, device.drivers), (1, 64, vec!["testdrv".to_owned()]));
}

#[test]
fn a_mask_is_lowered_below_a_mapping_whose_last_byte_it_cuts_off() {
    for (len, below, found) in [(PAGE, 1, false), (PAGE, 2, true), (64, 1, false), (64, 2, true)] {
        let w = World::new();
        let limits = Limits { mask: 0xffff_ffff, ..Limits::default() };
        let dma = w.map_call(MapCall { limits, ..single(BUF, len, ToDevice) })[0].0;
        w.call(&ApiCall::SetMask { mask: dma.0 + len - below });
        assert_eq!(w.bad(), Vec::from_iter(found.then_some("DV111w")), "{len} {below}");
    }
}

#[test]
fn calls_and_hand_overs_are_counted() {
    let w = World::new();
    for _ in 0..3 {
        let dma = w.map(BUF, 256, Bidirectional);
        w.for_cpu(dma, 256, Bidirectional);
        w.for_device(dma, 256, Bidirectional);
        w.unmap(dma, 256, Bidirectional);
    }
    let stats = w.core.stats();
    assert_eq!((stats.maps, stats.unmaps, stats.syncs_for_cpu, stats.syncs_for_device, stats.handovers), (3, 3, 3, 3, 12));
    assert_eq!((stats.live_mappings, stats.peak_mappings, stats.repeated_offences), (0, 1, 0));
    assert_eq!(stats.bytes_to_device, 3 * 256, "all of it at each map, nothing after it");
    // The same offence at the same place again is counted, not told.
    let dma = w.map(BUF, 64, ToDevice);
    for _ in 0..3 {
        w.write(dma, &[1]);
    }
    assert_eq!(w.core.stats().repeated_offences, 2);
    assert_eq!(w.finding(Code::DV205).count, 3);
}
