//! Accesses of the CPU, stopped where the core wants them stopped.

use super::fixture::*;
use super::watched::*;
use crate::*;

#[test]
fn pages_close_and_open_with_ownership() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Closed);
    w.for_cpu(dma, 256, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Open);
    w.for_device(dma, 256, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Closed);
    let other = w.map(BUF + 512, 64, ToDevice);
    w.unmap(dma, 256, FromDevice);
    assert_eq!(w.guard(BUF), Guard::ReadOnly);
    w.unmap(other, 64, ToDevice);
    assert_eq!(w.guard(BUF), Guard::Open);
    let pages = w.alloc_pages(BUF + 0x4000, 8192, Bidirectional);
    assert_eq!(w.guard(BUF + 0x4000), Guard::Open, "allocated memory is the CPU's");
    w.for_device(pages, 16, Bidirectional);
    assert_eq!((w.guard(BUF + 0x4000), w.guard(BUF + 0x5000)), (Guard::Closed, Guard::Open));
    w.free_pages(pages, BUF + 0x4000, 8192, Bidirectional);
    assert_eq!(w.guard(BUF + 0x4000), Guard::Open);
    w.silent();
}

#[test]
fn auto_watches_what_holds_nothing_else() {
    let w = Watched::with(|c| c.watch = WatchPolicy::Auto);
    w.map(BUF, 256, FromDevice);
    w.map(BUF + 0x1000, 4096, FromDevice);
    w.map_call(MapCall { kind: PageKind::PagePool, ..single(BUF + 0x2040, 1024, FromDevice) });
    let pages = w.alloc_pages(BUF + 0x3000, 4096, Bidirectional);
    w.for_device(pages, 4096, Bidirectional);
    let closed = [0, 0x1000, 0x2000, 0x3000].map(|at| w.guard(BUF + at) == Guard::Closed);
    assert_eq!(closed, [false, true, true, true]);
    let stats = w.core.stats();
    assert_eq!((stats.watched_bytes, stats.content_bytes), (4096 + 1024 + 4096, 256));
    let off = Watched::with(|c| c.watch = WatchPolicy::Off);
    off.map(BUF, 4096, FromDevice);
    assert_eq!(*off.desk.calls.lock().unwrap(), 0);
}

#[test]
fn reading_what_the_device_wrote_before_the_sync() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.transfer(dma, &[7; 256]);
    assert_eq!(w.load(BUF + 16, 4), [0; 4], "the CPU reads its own copy");
    w.for_cpu(dma, 256, FromDevice);
    assert_eq!(w.load(BUF + 16, 4), [7; 4]);
    let f = w.finding(Code::DV202);
    assert_eq!((f.severity, f.range), (Severity::Error, Some(ByteRange { start: 16, end: 20 })));
    assert_eq!((f.access.unwrap().rip, f.access.unwrap().len, f.offence.what.as_str()), (0x1000, 4, "CPU read"));
    assert_eq!((f.cpu_bytes[0], f.device_bytes[0]), (0, 7));
    assert_eq!(w.bad(), ["DV202e"]);
}

#[test]
fn polling_without_a_sync_is_one_finding() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.load(BUF, 4);
    assert_eq!(w.bad(), ["DV204w"]);
    w.transfer(dma, &[7; 16]);
    w.load(BUF, 4);
    assert_eq!(w.bad(), ["DV202e"], "the look before the device wrote was the same mistake");
}

/// Linux puts an skb's bookkeeping behind a received frame, into a page_pool page that stays mapped; only the frame is synced.
#[test]
fn the_cpu_may_keep_its_own_bytes_where_the_device_does_not_write() {
    let w = Watched::new();
    let dma = w.map_call(MapCall { kind: PageKind::PagePool, attrs: Attrs::SKIP_CPU_SYNC, ..single(BUF, 4096, FromDevice) })[0].0;
    w.for_device(dma, 4096, FromDevice);
    for round in 0..50 {
        w.transfer(dma, &[round; 1000]);
        w.for_cpu(dma, 1000, FromDevice);
        // The same value as before in all rounds but the first, piece by piece.
        for at in (0x4c0..0x4e0).step_by(8) {
            w.store(BUF + at, &[0; 8]);
        }
        w.store(BUF + 0x4e0, &[1, 0, 0, 0]);
        assert_eq!(w.load(BUF + 0x4c0, 36)[32], 1);
        w.load(BUF + 0x4c6, 4);
        w.for_device(dma, 1000, FromDevice);
    }
    w.silent();
    // What is given to the device, and what is not the CPU's own, is what it may still write.
    w.load(BUF + 0x4e0, 8);
    assert_eq!(w.bad(), ["DV204w"]);
}

#[test]
fn a_status_that_was_cleared_and_given_away_may_not_be_polled() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.store(BUF, &[0; 4]);
    w.load(BUF, 4);
    assert!(w.bad().is_empty(), "nothing came of it yet");
    w.for_device(dma, 256, FromDevice);
    w.load(BUF, 4);
    assert_eq!(w.bad(), ["DV204w"]);

    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.store(BUF, &[0; 4]);
    w.transfer(dma, &[7; 16]);
    w.load(BUF, 4);
    w.unmap(dma, 256, FromDevice);
    assert!(w.bad().contains(&"DV202e".to_owned()), "{:?}", w.bad());
}

#[test]
fn a_to_device_mapping_may_be_read_and_written_before_its_sync() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.load(BUF, 64);
    w.store(BUF, &[1; 64]);
    w.for_device(dma, 256, ToDevice);
    assert_eq!(w.read(dma, 64), [1; 64]);
    w.unmap(dma, 256, ToDevice);
    assert!(w.codes().is_empty());
}

#[test]
fn peek_and_give_back_is_legal() {
    let w = Watched::new();
    let dma = w.alloc_pages(BUF, 4096, Bidirectional);
    w.store(BUF, &[0x80; 16]);
    w.for_device(dma, 16, Bidirectional);
    for _ in 0..3 {
        w.for_cpu(dma, 16, Bidirectional);
        assert_eq!(w.load(BUF, 4), [0x80; 4]);
        w.for_device(dma, 16, Bidirectional);
    }
    // The device finishes between the sync and the look, interrupt and all.
    w.for_cpu(dma, 16, Bidirectional);
    w.transfer(dma, &[1; 16]);
    assert_eq!(w.load(BUF, 4), [0x80; 4]);
    w.for_device(dma, 16, Bidirectional);
    w.for_cpu(dma, 16, Bidirectional);
    assert_eq!(w.load(BUF, 4), [1; 4]);
    w.free_pages(dma, BUF, 4096, Bidirectional);
    w.silent();
    assert_eq!(w.core.stats().peeks, 1);
}

#[test]
fn a_counter_the_device_goes_on_writing_may_be_peeked_at() {
    let w = Watched::new();
    let dma = w.map(BUF, 64, FromDevice);
    for round in 0..20u8 {
        w.for_cpu(dma, 64, FromDevice);
        if round % 8 == 3 {
            w.transfer(dma, &[round; 8]);
        }
        w.load(BUF, 8);
        w.for_device(dma, 64, FromDevice);
        w.transfer(dma, &[round; 8]);
    }
    w.for_cpu(dma, 64, FromDevice);
    w.load(BUF, 8);
    w.unmap(dma, 64, FromDevice);
    w.silent();
}

#[test]
fn a_sync_before_the_device_wrote_is_too_early() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.for_cpu(dma, 256, FromDevice);
    w.transfer(dma, &[9; 256]);
    assert_eq!(w.guard(BUF), Guard::Closed);
    assert_eq!(w.load(BUF, 8), [0; 8]);
    w.unmap(dma, 256, FromDevice);
    let f = w.finding(Code::DV212);
    assert_eq!((f.kind, f.handover.unwrap().operation.as_str()), (Some(Code::DV202), "synced for the CPU"));
    assert_eq!(w.bad(), ["DV212e"]);
}

#[test]
fn an_early_sync_in_a_loop_that_reuses_the_buffer() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    for round in 0..5 {
        w.for_cpu(dma, 256, FromDevice);
        w.transfer(dma, &[round; 256]);
        w.load(BUF, 8);
        w.for_device(dma, 256, FromDevice);
    }
    assert_eq!(w.bad(), ["DV212e"]);
}

#[test]
fn a_partial_sync_covers_what_is_read() {
    let w = Watched::new();
    let dma = w.map(BUF, 1024, FromDevice);
    w.transfer(dma, &[9; 512]);
    w.for_cpu(dma, 128, FromDevice);
    assert_eq!(w.load(BUF + 64, 64), [9; 64]);
    assert_eq!(w.load(BUF + 120, 8), [9; 8]);
    w.silent();
    w.load(BUF + 256, 4);
    let f = w.finding(Code::DV214);
    assert_eq!(f.range, Some(ByteRange { start: 256, end: 260 }));
    assert_eq!(f.handover.unwrap().range, ByteRange { start: 0, end: 128 });
}

#[test]
fn within_a_line_too_and_a_copy_by_words_may_run_over() {
    let w = Watched::new();
    let dma = w.map(BUF, 1024, FromDevice);
    w.transfer(dma, &[9; 64]);
    w.for_cpu(dma, 14, FromDevice);
    w.load(BUF + 8, 8);
    w.silent();
    w.load(BUF + 16, 8);
    assert_eq!(w.bad(), ["DV214e"]);
}

#[test]
fn a_descriptor_beside_a_synced_one_is_no_short_sync() {
    let w = Watched::new();
    let ring = w.alloc_pages(BUF, 4096, Bidirectional);
    w.for_device(ring, 4096, Bidirectional);
    w.transfer(ring, &[1; 16]);
    w.transfer(Iova(ring.0 + 128), &[1; 16]);
    w.for_cpu(ring, 16, Bidirectional);
    w.load(BUF, 4);
    w.load(BUF + 128, 4);
    assert_eq!(w.bad(), ["DV202e"]);
}

#[test]
fn a_reused_buffer_is_synced_every_time() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.transfer(dma, &[1; 256]);
    w.for_cpu(dma, 256, FromDevice);
    w.load(BUF, 8);
    w.for_device(dma, 256, FromDevice);
    w.transfer(dma, &[2; 256]);
    assert_eq!(w.load(BUF, 8), [1; 8]);
    assert_eq!(w.bad(), ["DV217e"]);
    assert_eq!(w.finding(Code::DV217).kind, Some(Code::DV202));
}

#[test]
fn the_wrong_sync_before_a_read() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.transfer(dma, &[1; 256]);
    w.for_device(dma, 256, FromDevice);
    w.load(BUF, 8);
    assert_eq!(w.bad(), ["DV213e"]);
}

#[test]
fn a_write_that_is_discarded_names_both_instants() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.store(BUF, &[5; 16]);
    w.transfer(dma, &[1; 256]);
    w.unmap(dma, 256, FromDevice);
    let f = w.finding(Code::DV203);
    assert_eq!((f.severity, f.offence.what.as_str(), f.access.unwrap().rip), (Severity::Error, "CPU write", 0x2000));
    assert_eq!(f.consequence.unwrap().what, "dma_unmap_single");
    assert_eq!(f.handover.unwrap().operation, "mapped");
}

#[test]
fn a_write_the_device_overtakes_before_it_is_given() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, Bidirectional);
    w.store(BUF, &[5; 4]);
    w.transfer(Iova(dma.0 + 32), &[1; 4]);
    w.for_device(dma, 256, Bidirectional);
    let f = w.finding(Code::DV203);
    assert_eq!((f.severity, f.consequence.unwrap().what.as_str()), (Severity::Error, "dma_sync_single_for_device"));
}

#[test]
fn a_write_nothing_comes_of_is_a_note() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, Bidirectional);
    w.store(BUF, &[0; 4]);
    w.unmap(dma, 256, Bidirectional);
    assert_eq!(w.codes(), ["DV203n"]);
    let dma = w.map(BUF + 0x1000, 256, Bidirectional);
    w.store(BUF + 0x1000, &[1; 4]);
    w.for_device(dma, 256, Bidirectional);
    w.read(dma, 4);
    w.unmap(dma, 256, Bidirectional);
    assert_eq!(w.codes(), ["DV203n"], "given before anything came of it");
}

#[test]
fn a_sync_after_the_doorbell_is_named() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.for_cpu(dma, 256, ToDevice);
    w.store(BUF, &[3; 256]);
    w.kick();
    w.read(dma, 256);
    w.for_device(dma, 256, ToDevice);
    let f = w.finding(Code::DV211);
    assert_eq!((f.kind, f.consequence.unwrap().what.as_str()), (Some(Code::DV201), "dma_sync_single_for_device"));
    assert_eq!(w.bad(), ["DV211e"]);
}

#[test]
fn the_sync_of_the_next_use_does_not_excuse_this_one() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.store(BUF, &[3; 256]);
    w.kick();
    w.read(dma, 256);
    w.store(BUF, &[4; 256]);
    w.for_device(dma, 256, ToDevice);
    assert_eq!(w.bad(), ["DV201e"]);
}

#[test]
fn memory_that_went_back_to_the_allocator() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.access(BUF + 128, 8, Some(&[1; 8]), &KFREE, 0x3000, false);
    w.store(BUF, &[9; 16]);
    w.load(BUF, 16);
    w.write(dma, &[7; 256]);
    w.unmap(dma, 256, FromDevice);
    assert_eq!(w.cpu_read(BUF, 16), [9; 16], "the unmap copies nothing into memory of another owner");
    assert_eq!(w.codes(), ["DV117e"]);
    let near = Watched::new();
    near.map(BUF, 256, FromDevice);
    near.access(BUF + 512, 8, Some(&[1; 8]), &KFREE, 0x3000, false);
    near.silent();
}

#[test]
fn foreign_pages_are_only_the_drivers_concern() {
    let map = |w: &Watched| w.map_call(MapCall { kind: PageKind::Foreign, ..single(BUF, 4096, FromDevice) })[0].0;
    let w = Watched::new();
    let dma = map(&w);
    w.transfer(dma, &[7; 4096]);
    w.access(BUF, 64, None, &KERNEL, 0x4000, true);
    w.access(BUF, 64, None, &KERNEL, 0x4000, false);
    w.access(BUF + 64, 64, Some(&[1; 64]), &KERNEL, 0x4000, false);
    w.silent();
    assert!(w.core.stats().foreign_offences >= 2);
    w.access(BUF, 64, None, &DRIVER, 0x4000, false);
    assert_eq!(w.bad(), ["DV202e"]);
}

#[test]
fn neighbours_are_innocent_and_too_many_of_them_end_the_watch() {
    let w = Watched::with(|c| c.innocent_budget = 10);
    let dma = w.map(BUF, 256, FromDevice);
    for _ in 0..10 {
        w.store(BUF + 512, &[1; 8]);
        w.load(BUF + 512, 8);
    }
    assert_eq!(w.guard(BUF), Guard::Open);
    let stats = w.core.stats();
    assert_eq!((stats.abandoned_pages, stats.watched_bytes, stats.content_bytes), (1, 0, 256));
    w.unmap(dma, 256, FromDevice);
    w.map(BUF, 256, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Closed, "a new chance");
    w.silent();
}

#[test]
fn a_page_that_cannot_be_guarded_is_said() {
    let w = Watched::new();
    w.desk.refuse.lock().unwrap().push(BUF);
    let dma = w.map(BUF, 8192, FromDevice);
    assert_eq!((w.guard(BUF), w.guard(BUF + 0x1000)), (Guard::Open, Guard::Closed));
    w.unmap(dma, 8192, FromDevice);
    assert_eq!(w.codes(), ["DV901w"]);
}

#[test]
fn a_struct_field_beside_a_buffer() {
    let in_object = |before, after| MapCall { object: (before, after), ..single(BUF + 16, 100, FromDevice) };
    let w = Watched::new();
    w.map_call(in_object(16, 12));
    w.store(BUF + 8, &[1; 8]);
    let f = w.finding(Code::DV303);
    assert_eq!((f.severity, f.access.unwrap().write), (Severity::Warning, true));
    for (before, after, at, place) in [(0, 0, 8, &DRIVER), (16, 12, 8, &KERNEL), (16, 12, 192, &DRIVER), (16, 3, 120, &DRIVER)] {
        let near = Watched::new();
        near.map_call(in_object(before, after));
        near.access(BUF + at, 8, Some(&[1; 8]), place, 0x5000, false);
        near.silent();
    }
}

#[test]
fn bytes_after_an_unmap_without_a_sync() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.write(dma, &[7; 256]);
    w.unmap_skip(dma, 256, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Closed);
    w.access(BUF, 8, None, &KERNEL, 0x6000, false);
    assert_eq!(w.bad(), ["DV402w"]);
    w.load(BUF, 8);
    assert!(w.bad().contains(&"DV402e".to_owned()) || w.core.finish().findings[0].count >= 1);
    let freed = Watched::new();
    let dma = freed.map(BUF, 256, FromDevice);
    freed.write(dma, &[7; 256]);
    freed.unmap_skip(dma, 256, FromDevice);
    freed.access(BUF, 4096, Some(&[0; 4096]), &KFREE, 0x6000, false);
    assert_eq!(freed.guard(BUF), Guard::Open, "whose memory it is now writes it first");
    freed.load(BUF, 64);
    freed.silent();
    let mapped = Watched::new();
    let dma = mapped.map(BUF, 256, FromDevice);
    mapped.write(dma, &[7; 256]);
    mapped.unmap_skip(dma, 256, FromDevice);
    let dma = mapped.map(BUF, 256, FromDevice);
    mapped.unmap(dma, 256, FromDevice);
    assert_eq!(mapped.guard(BUF), Guard::Open);
    mapped.silent();
}

#[test]
fn what_is_kept_after_an_unmap_is_forgotten_in_time() {
    let w = Watched::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.write(dma, &[7; 256]);
    w.unmap_skip(dma, 256, FromDevice);
    std::thread::sleep(std::time::Duration::from_millis(120));
    w.load(BUF, 8);
    assert_eq!(w.guard(BUF), Guard::Open);
    w.silent();
}

#[test]
fn memory_without_a_kernel_mapping_is_not_touched() {
    let w = Watched::new();
    let attrs = Attrs::NO_KERNEL_MAPPING;
    let call = MapCall { family: Family::Coherent, attrs, cpu_addr: BUF, ..single(BUF, 8192, Bidirectional) };
    let dma = w.map_call(call)[0].0;
    assert_eq!(w.guard(BUF + 0x1000), Guard::Closed);
    w.load(BUF + 0x1000, 4);
    w.unmap_call(UnmapCall { cpu_addr: BUF, attrs, ..unmap(Family::Coherent, dma, 8192, Bidirectional) });
    assert_eq!(w.guard(BUF + 0x1000), Guard::Open);
    assert_eq!(w.bad(), ["DV405e"]);
}

#[test]
fn coherent_memory_fetched_twice_is_a_note_on_request() {
    let w = Watched::with(|c| c.pedantic = true);
    w.alloc_coherent(BUF, 4096);
    w.access(BUF, 4, None, &DRIVER, 0x7000, false);
    w.access(BUF, 4, None, &DRIVER, 0x7000, false);
    assert!(w.codes().is_empty(), "a loop that waits");
    w.access(BUF, 4, None, &DRIVER, 0x7010, false);
    assert_eq!(w.codes(), ["DV503n"]);
    let other = Watched::with(|c| c.pedantic = true);
    other.alloc_coherent(BUF, 4096);
    other.access(BUF, 4, None, &DRIVER, 0x7000, false);
    other.store(BUF, &[1; 4]);
    other.access(BUF, 4, None, &DRIVER, 0x7010, false);
    assert!(other.codes().is_empty(), "written in between");
}

#[test]
fn news_and_the_next_call_are_no_second_fetch() {
    let w = Watched::with(|c| c.pedantic = true);
    let dma = w.alloc_coherent(BUF, 4096);
    w.access(BUF, 4, None, &DRIVER, 0x7000, false);
    w.write(dma, &[1; 4]);
    w.access(BUF, 4, None, &DRIVER, 0x7010, false);
    assert!(w.codes().is_empty(), "a counter that went on: {:?}", w.codes());
    w.access(BUF, 4, None, &DRIVER, 0x7000, false);
    assert!(w.codes().is_empty(), "the function was called again: {:?}", w.codes());
    w.access(BUF, 4, None, &DRIVER, 0x7010, false);
    assert_eq!(w.codes(), ["DV503n"]);
}

#[test]
fn bytes_behind_a_short_transfer_are_a_note_on_request() {
    let w = Watched::with(|c| c.pedantic = true);
    let dma = w.map(BUF, 256, FromDevice);
    w.transfer(dma, &[1; 60]);
    w.for_cpu(dma, 256, FromDevice);
    w.load(BUF + 56, 8);
    w.load(BUF + 60, 4);
    assert!(w.codes().is_empty(), "{:?}", w.codes());
    w.load(BUF + 128, 4);
    w.for_device(dma, 256, FromDevice);
    assert_eq!(w.codes(), ["DV218n"]);
}

#[test]
fn a_copy_that_runs_far_behind_a_short_transfer_is_the_same() {
    let w = Watched::with(|c| c.pedantic = true);
    let dma = w.map(BUF, 256, FromDevice);
    w.transfer(dma, &[1; 60]);
    w.for_cpu(dma, 256, FromDevice);
    w.load(BUF, 64);
    assert!(w.codes().is_empty(), "{:?}", w.codes());
    w.load(BUF, 256);
    assert_eq!(w.codes(), ["DV218n"]);
}

#[test]
fn an_access_of_two_pages_is_judged_in_each() {
    let w = Watched::new();
    let dma = w.map(BUF + 0x1000, 64, FromDevice);
    w.transfer(dma, &[3; 64]);
    let accesses = [
        CpuAccess { gpa: Gpa(BUF + 0xffc), len: 4, read: true, write: false },
        CpuAccess { gpa: Gpa(BUF + 0x1000), len: 4, read: true, write: false },
    ];
    let op = CpuOp { accesses: &accesses, cpu: 1, user: false, rip: 0x8000 };
    let seen = w.core.cpu_access(&op, &mut At(&DRIVER, 0x8000), &mut || ());
    assert!(!seen.innocent);
    assert_eq!(w.bad(), ["DV202e"]);
}
