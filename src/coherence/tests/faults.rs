//! 109, 404: failed map calls whose result is used.

use super::fixture::*;
use crate::*;

fn fails(w: &World, call: MapCall) {
    assert_eq!(w.call(&ApiCall::Fail(call)), Answer::Failed);
}

#[test]
fn a_plan_fails_calls_by_number() {
    let w = World::new();
    w.core.set_fault_plan(Box::new([2, 4].into_iter().collect::<NthMaps>()));
    let answers: Vec<_> = (0..5).map(|n| w.call(&ApiCall::Map(single(BUF + n * PAGE, 64, ToDevice))) == Answer::Failed).collect();
    assert_eq!(answers, [false, true, false, true, false]);
    let stats = w.core.stats();
    assert_eq!((stats.maps, stats.failed_maps, stats.injected_failures, stats.live_mappings), (3, 2, 2, 3));
    w.silent();
}

#[test]
fn specifications_count_for_each_device_and_kind() {
    let w = World::new();
    let specs = ["map,nth=2", "alloc,nth=1,device=00:02.0"].map(|s| s.parse::<FaultSpec>().unwrap());
    w.core.set_fault_plan(Box::new(Faults::new(specs, 0)));
    let page = |n: u64| single(BUF + n * PAGE, PAGE, Bidirectional);
    let alloc = |n: u64| MapCall { family: Family::Coherent, ..page(n) };
    let fails = |requester, call| w.call_as(requester, &ApiCall::Map(call)) == Answer::Failed;
    assert_eq!([fails(DEVICE, page(0)), fails(OTHER, page(1)), fails(OTHER, page(2)), fails(DEVICE, page(3))], [false, false, true, true]);
    assert_eq!([fails(OTHER, alloc(4)), fails(DEVICE, alloc(5)), fails(DEVICE, alloc(6))], [false, true, false]);
    assert_eq!(w.core.stats().injected_failures, 3);
}

#[test]
fn dv109_the_device_got_the_error_value() {
    for address in [u64::MAX, u64::MAX - 63, 0xffff_ffff, 63] {
        let w = World::new();
        fails(&w, single(BUF, 64, ToDevice));
        w.kick();
        assert!(w.try_read(Iova(address), 1).is_none());
        let f = w.finding(Code::DV109);
        assert_eq!((f.severity, f.kind, f.offence.what.as_str()), (Severity::Error, Some(Code::DV209), "dma_map_single"));
        let used = f.consequence.expect("where it was used");
        assert_eq!((used.what.as_str(), used.site), ("device read", w.site("kick+0x1")));
        assert!(f.message.contains("made to fail"), "{}", f.message);
        assert_eq!(w.bad(), ["DV109e"]);
    }
}

#[test]
fn dv109_the_error_value_was_unmapped_or_synced() {
    let w = World::new();
    fails(&w, single(BUF, 64, FromDevice));
    w.unmap(Iova(u64::MAX), 64, FromDevice);
    assert_eq!(w.finding(Code::DV109).kind, Some(Code::DV101));
    let w = World::new();
    fails(&w, single(BUF, 64, FromDevice));
    w.for_cpu(Iova(u64::MAX), 64, FromDevice);
    assert_eq!(w.finding(Code::DV109).kind, Some(Code::DV215));
    assert_eq!(w.bad(), ["DV109e"]);
}

#[test]
fn dv109_null_after_a_failed_alloc_or_list() {
    let alloc = MapCall { family: Family::Coherent, ..single(BUF, PAGE, Bidirectional) };
    let w = World::new();
    fails(&w, alloc);
    assert!(!w.try_write(Iova(16), &[1; 4]));
    assert!(w.finding(Code::DV109).advice.contains("NULL"));
    let w = World::new();
    fails(&w, list(&[(BUF, 64), (BUF + PAGE, 64)], ToDevice));
    w.unmap_call(UnmapCall { ranges: vec![(Iova(0), 0); 2], ..unmap(Family::Sg, Iova(0), 0, ToDevice) });
    assert!(w.finding(Code::DV109).advice.contains("dma_map_sg"));
    assert_eq!(w.bad(), ["DV109e"]);
}

#[test]
fn a_failure_that_is_noticed_is_silent() {
    let w = World::new();
    fails(&w, single(BUF, 64, ToDevice));
    let dma = w.map(BUF, 64, ToDevice);
    w.read(dma, 64);
    w.unmap(dma, 64, ToDevice);
    w.silent();
}

#[test]
fn other_mistakes_keep_their_names() {
    // Nothing failed; another device's call failed; another driver's did; an address that is no error value.
    let w = World::new();
    assert!(w.try_read(Iova(u64::MAX), 1).is_none());
    w.unmap(Iova(u64::MAX), 64, ToDevice);
    assert_eq!(w.bad(), ["DV101e", "DV209e"]);
    let w = World::new();
    w.call_as(OTHER, &ApiCall::Fail(single(BUF, 64, ToDevice)));
    assert!(w.try_read(Iova(u64::MAX), 1).is_none());
    assert_eq!(w.bad(), ["DV209e"]);
    let w = World::new();
    fails(&w, single(BUF, 64, ToDevice));
    w.call(&ApiCall::Unbound);
    w.call(&ApiCall::Bound { driver: "second".into() });
    assert!(w.try_read(Iova(u64::MAX), 1).is_none());
    assert_eq!(w.bad(), ["DV209e"]);
    let w = World::new();
    fails(&w, single(BUF, 64, ToDevice));
    for address in [0, 16, BUF, 0x13_0000_0000, 0x1_0000_0000] {
        assert!(w.try_read(Iova(address), 4).is_none());
    }
    assert_eq!(w.bad(), ["DV209e"; 1], "one place");
}

#[test]
fn dv404_require_coherent_fails_here() {
    let w = World::new();
    let call = MapCall { attrs: Attrs::REQUIRE_COHERENT, ..single(BUF, 64, Bidirectional) };
    assert_eq!(w.call(&ApiCall::Map(call.clone())), Answer::Failed);
    w.silent();
    assert!(!w.try_write(Iova(u64::MAX), &[1]));
    let f = w.finding(Code::DV404);
    assert_eq!(f.kind, Some(Code::DV209));
    assert!(f.message.contains("not coherent"));
    assert_eq!(w.core.stats().injected_failures, 0);

    // Looked at, and done without; coherent memory is.
    let w = World::new();
    assert_eq!(w.call(&ApiCall::Map(MapCall { family: Family::Sg, ..call.clone() })), Answer::Failed);
    let dma = w.map(BUF, 64, Bidirectional);
    w.unmap(dma, 64, Bidirectional);
    w.map_call(MapCall { family: Family::Coherent, ..call });
    w.silent();
}
