//! 2xx and 401: what moves, what is stale, what is lost. Each rule with its bug and with the nearest thing that is right.

use super::fixture::*;
use crate::*;

#[test]
fn the_two_copies_are_real() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 256]);
    let dma = w.map(BUF, 256, Bidirectional);
    assert_eq!(w.read(dma, 256), [1; 256]);
    w.cpu_write(BUF, &[2; 8]);
    assert_eq!(w.read(dma, 8), [1; 8], "the device sees the hand-over, not the CPU's copy");
    w.write(Iova(dma.0 + 64), &[3; 64]);
    assert_eq!(w.cpu_read(BUF + 64, 64), [1; 64], "the CPU does not see the device's write yet");
    w.for_device(dma, 64, Bidirectional);
    assert_eq!(w.read(dma, 8), [2; 8]);
    w.for_cpu(dma, 256, Bidirectional);
    assert_eq!(w.cpu_read(BUF + 64, 64), [3; 64]);
    assert_eq!(w.cpu_read(BUF, 8), [2; 8]);
    assert_eq!(w.bad(), ["DV217e"]);
}

#[test]
fn dv201_names_bytes_and_places() {
    let w = World::new();
    w.cpu_write(BUF, &[0; 256]);
    let dma = w.map(BUF, 256, ToDevice);
    w.cpu_write(BUF + 100, b"new");
    w.kick();
    w.read(dma, 256);
    w.read(dma, 256);
    let f = w.finding(Code::DV201);
    assert_eq!(f.range, Some(ByteRange { start: 100, end: 103 }));
    assert_eq!((f.bytes_at, &f.cpu_bytes[4..7], &f.device_bytes[4..7]), (96, &b"new"[..], &[0u8; 3][..]));
    assert_eq!(f.count, 2);
    assert_eq!(f.offence.site, w.site("kick+0x1"));
    assert_eq!(f.driver, "testdrv");
    assert_eq!(f.handover.unwrap().operation, "mapped");
    assert_eq!(f.history.last().unwrap().event, "device read");
    assert_eq!(f.mapping.unwrap().size, 256);
}

#[test]
fn dv201_is_byte_exact() {
    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.cpu_write(BUF + 100, b"new");
    w.read(dma, 100);
    w.read(Iova(dma.0 + 103), 100);
    w.silent();
}

#[test]
fn rewriting_the_same_value_is_no_change() {
    let w = World::new();
    w.cpu_write(BUF, &[7; 64]);
    let dma = w.map(BUF, 64, ToDevice);
    w.cpu_write(BUF, &[7; 64]);
    assert_eq!(w.read(dma, 64), [7; 64]);
    w.silent();
}

#[test]
fn dv203_at_unmap_and_not_when_handed_over() {
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.cpu_write(BUF + 64, &[9; 4]);
    w.write(dma, &[1; 32]);
    w.unmap(dma, 256, FromDevice);
    assert_eq!(w.cpu_read(BUF + 64, 4), [0; 4], "the write is gone, as on the board");
    let f = w.finding(Code::DV203);
    assert_eq!(f.range, Some(ByteRange { start: 64, end: 68 }));
    assert_eq!((&f.cpu_bytes[..4], &f.device_bytes[..4]), (&[9u8; 4][..], &[0u8; 4][..]));

    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.cpu_write(BUF + 64, &[9; 4]);
    w.for_device(dma, 256, FromDevice);
    w.unmap(dma, 256, FromDevice);
    assert_eq!(w.cpu_read(BUF + 64, 4), [9; 4]);
    w.silent();
}

#[test]
fn dv203_after_for_cpu_says_so() {
    let w = World::new();
    let dma = w.map(BUF, 128, FromDevice);
    w.write(dma, &[1; 128]);
    w.for_cpu(dma, 128, FromDevice);
    w.cpu_write(BUF, &[2; 4]);
    w.unmap(dma, 128, FromDevice);
    assert!(w.finding(Code::DV203).message.contains("after a for_cpu sync"));
}

#[test]
fn to_device_unmap_keeps_the_cpus_bytes() {
    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.cpu_write(BUF, &[5; 256]);
    w.unmap(dma, 256, ToDevice);
    assert_eq!(w.cpu_read(BUF, 256), [5; 256]);
    w.silent();
}

#[test]
fn edges_take_only_what_the_device_wrote() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 256]);
    // Bytes 8..120 of the lines 0 and 1.
    let dma = w.map(BUF + 8, 112, FromDevice);
    w.write(Iova(dma.0 + 4), &[2; 8]);
    w.cpu_write(BUF, &[3; 8]);
    w.cpu_write(BUF + 120, &[3; 8]);
    w.cpu_write(BUF + 40, &[4; 8]);
    w.unmap(dma, 112, FromDevice);
    assert_eq!(w.cpu_read(BUF, 8), [3; 8], "before the range");
    assert_eq!(w.cpu_read(BUF + 120, 8), [3; 8], "after the range");
    assert_eq!(w.cpu_read(BUF + 40, 8), [4; 8], "in a line covered in part and not written by the device");
    assert_eq!(w.cpu_read(BUF + 12, 8), [2; 8], "what the device wrote");
    w.silent();
}

#[test]
fn an_edge_byte_both_wrote_is_lost() {
    let w = World::new();
    let dma = w.map(BUF + 8, 16, FromDevice);
    w.cpu_write(BUF + 10, &[7]);
    w.write(dma, &[2; 8]);
    w.unmap(dma, 16, FromDevice);
    assert_eq!(w.cpu_read(BUF + 10, 1), [2]);
    assert_eq!(w.bad(), ["DV203e"]);
}

#[test]
fn dv205_and_dv206_follow_the_direction() {
    let w = World::new();
    let to = w.map(BUF, 64, ToDevice);
    let from = w.map(BUF + PAGE, 64, FromDevice);
    w.read(to, 64);
    w.write(from, &[1; 64]);
    w.silent();
    w.write(to, &[1; 4]);
    assert_eq!(w.read(to, 4), [1; 4], "without an IOMMU the write takes place");
    w.read(from, 4);
    w.unmap(to, 64, ToDevice);
    assert_eq!(w.cpu_read(BUF, 4), [0; 4], "and the CPU never sees it");
    assert_eq!(w.bad(), ["DV205e", "DV206w"]);
}

#[test]
fn dv210_first_handover() {
    let w = World::new();
    let dma = w.alloc_pages(BUF, PAGE, Bidirectional);
    w.cpu_write(BUF, &[1; 32]);
    w.for_device(dma, 32, Bidirectional);
    assert_eq!(w.read(dma, 32), [1; 32]);
    w.silent();
    assert_eq!(w.read(dma, 33)[32], 0xdb, "poison");
    let f = w.finding(Code::DV210);
    assert_eq!((f.severity, f.kind, f.range), (Severity::Error, Some(Code::DV201), Some(ByteRange { start: 32, end: 33 })));
}

#[test]
fn dv210_as_a_warning_at_for_cpu() {
    let w = World::new();
    let dma = w.alloc_pages(BUF, PAGE, Bidirectional);
    w.for_cpu(dma, PAGE, Bidirectional);
    w.silent();
    w.cpu_write(BUF + 5, &[1; 32]);
    w.for_cpu(dma, PAGE, Bidirectional);
    assert_eq!(w.cpu_read(BUF + 5, 32), [1; 32], "a line never handed over: no data moves");
    assert_eq!(w.bad(), ["DV210w"]);
}

#[test]
fn a_device_write_before_the_first_handover_arrives() {
    let w = World::new();
    let dma = w.alloc_pages(BUF, PAGE, FromDevice);
    w.write(dma, &[8; 10]);
    w.for_cpu(dma, PAGE, FromDevice);
    assert_eq!(w.cpu_read(BUF, 12), [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 0, 0]);
    w.silent();
}

#[test]
fn dv213_for_cpu_where_for_device_was_needed_to_device() {
    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.for_cpu(dma, 256, ToDevice);
    w.cpu_write(BUF, &[1; 4]);
    w.for_cpu(dma, 256, ToDevice);
    w.read(dma, 64);
    let f = w.finding(Code::DV213);
    assert_eq!(f.kind, Some(Code::DV201));

    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.for_cpu(dma, 256, ToDevice);
    w.cpu_write(BUF, &[1; 4]);
    w.for_device(dma, 256, ToDevice);
    w.read(dma, 64);
    w.silent();
}

/// A driver that takes the buffer before each rewrite and gives it the first time only: the for_cpu of the next round finds
/// the bytes of the last round changed, which is the same offence and no wrong sync.
#[test]
fn what_follows_from_a_stale_read_is_the_same_offence() {
    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    for round in 0..4u8 {
        w.for_cpu(dma, 256, ToDevice);
        w.cpu_write(BUF, &[round + 1; 256]);
        if round == 0 {
            w.for_device(dma, 256, ToDevice);
        }
        w.read(dma, 256);
    }
    assert_eq!(w.bad(), ["DV217e"]);
    assert_eq!(w.finding(Code::DV217).count, 3);

    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    for round in 0..3u8 {
        w.for_cpu(dma, 256, ToDevice);
        w.cpu_write(BUF, &[round + 1; 256]);
        w.for_device(dma, 128, ToDevice);
        w.read(dma, 256);
    }
    assert_eq!(w.bad(), ["DV214e"]);

    // The device used stale bytes; that a for_cpu discards them afterwards is no second finding. Other bytes are.
    let w = World::new();
    let dma = w.map(BUF, 256, Bidirectional);
    w.cpu_write(BUF, &[1; 64]);
    w.read(dma, 64);
    w.for_cpu(dma, 256, Bidirectional);
    assert_eq!(w.bad(), ["DV201e"]);
    w.for_device(dma, 256, Bidirectional);
    w.cpu_write(BUF, &[2; 64]);
    w.for_cpu(dma, 256, Bidirectional);
    assert_eq!(w.bad(), ["DV201e", "DV203e"]);
}

#[test]
fn dv213_for_cpu_where_for_device_was_needed_bidirectional() {
    let w = World::new();
    let dma = w.map(BUF, 256, Bidirectional);
    w.for_cpu(dma, 256, Bidirectional);
    w.cpu_write(BUF, &[1; 4]);
    w.for_cpu(dma, 256, Bidirectional);
    let f = w.finding(Code::DV213);
    assert_eq!(f.kind, Some(Code::DV203));
    assert_eq!(w.bad(), ["DV213e"]);
}

#[test]
fn dv214_short_sync() {
    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.for_cpu(dma, 256, ToDevice);
    w.cpu_write(BUF, &[1; 100]);
    w.for_device(dma, 64, ToDevice);
    w.read(dma, 100);
    let f = w.finding(Code::DV214);
    assert_eq!((f.kind, f.range), (Some(Code::DV201), Some(ByteRange { start: 64, end: 100 })));
    let sync = f.handover.expect("the short sync is named");
    assert_eq!((sync.operation.as_str(), sync.range), ("synced for the device", ByteRange { start: 0, end: 64 }));
}

#[test]
fn a_sync_of_another_part_does_not_make_a_missing_one_short() {
    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.for_cpu(dma, 256, ToDevice);
    w.cpu_write(BUF, &[1; 128]);
    w.for_device(dma, 64, ToDevice);
    w.read(Iova(dma.0 + 64), 64);
    assert_eq!(w.bad(), ["DV201e"], "the sync does not overlap the transfer");

    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.for_device(dma, 256, ToDevice);
    w.cpu_write(BUF, &[1; 128]);
    w.read(dma, 128);
    assert_eq!(w.bad(), ["DV201e"], "the sync covered the bytes, the write came later");
}

#[test]
fn dv217_stale_reuse() {
    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.read(dma, 256);
    w.cpu_write(BUF, &[1; 100]);
    w.read(dma, 256);
    assert_eq!(w.finding(Code::DV217).kind, Some(Code::DV201));
    assert_eq!(w.bad(), ["DV217e"]);

    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    for byte in 0..4 {
        w.cpu_write(BUF, &[byte; 100]);
        w.for_device(dma, 256, ToDevice);
        assert_eq!(w.read(dma, 1), [byte]);
    }
    w.silent();
}

#[test]
fn what_was_used_before_is_remembered_line_by_line() {
    type Step = fn(&World, Iova);
    let change: Step = |w, _| {
        let value = w.cpu_read(BUF, 1)[0] + 1;
        w.cpu_write(BUF, &[value; 4]);
        w.cpu_write(BUF + 16, &[value; 4]);
    };
    let read: Step = |w, dma| drop(w.read(dma, 64));
    let read_both: Step = |w, dma| drop(w.read(dma, 128));
    let change_other: Step = |w, _| w.cpu_write(BUF + 64, &[9; 4]);
    let read_other: Step = |w, dma| drop(w.read(Iova(dma.0 + 64), 64));
    let give: Step = |w, dma| w.for_device(dma, 128, Bidirectional);
    let take: Step = |w, dma| w.for_cpu(dma, 128, Bidirectional);
    let write: Step = |w, dma| w.write(dma, &[9; 32]);
    let change_rest: Step = |w, _| w.cpu_write(BUF + 40, &[9; 4]);
    let cases: [(&[Step], &[&str]); 10] = [
        (&[change, read], &["DV201e"]),
        (&[read, change, read], &["DV217e"]),
        (&[read, read, change, read], &["DV217e"]),
        // Used well for the first time after it was used stale.
        (&[change, read, give, read, change, read], &["DV201e", "DV211e"]),
        (&[change, read, read, give, read, change, read], &["DV201e", "DV211e"]),
        (&[change, read_both, change_other, read_other], &["DV201e", "DV217e"]),
        (&[change, read_both, read_both, change_other, read_other], &["DV201e", "DV217e"]),
        (&[change, read, take], &["DV201e"]),
        // What the device wrote itself it may use.
        (&[write, change, read, change_rest, read], &["DV217e"]),
        (&[write, change, read, read, change_rest, read], &["DV217e"]),
    ];
    for (n, (steps, expected)) in cases.into_iter().enumerate() {
        let w = World::new();
        let dma = w.map(BUF, 128, Bidirectional);
        steps.iter().for_each(|step| step(&w, dma));
        let mut bad = w.bad();
        bad.sort();
        assert_eq!(bad, expected, "history {n}");
    }
}

#[test]
fn dv221_is_a_note_with_an_example() {
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.write(dma, &[6; 10]);
    w.unmap_skip(dma, 256, FromDevice);
    assert_eq!(w.codes(), ["DV221n"]);
    let device = &w.core.finish().devices[0];
    assert_eq!(device.lost_bytes, 10);
    assert_eq!(device.lost_writes[0].device_bytes[..10], [6; 10]);
    assert_eq!(device.lost_writes[0].range, ByteRange { start: 0, end: 10 });

    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.write(dma, &[6; 10]);
    w.for_cpu(dma, 256, FromDevice);
    w.unmap_skip(dma, 256, FromDevice);
    assert_eq!(w.codes(), [""; 0]);
}

#[test]
fn dv221_when_handed_back_freed_or_left() {
    let w = World::new();
    let a = w.map(BUF, 64, Bidirectional);
    w.write(a, &[6; 10]);
    w.for_device(a, 64, Bidirectional);
    let b = w.alloc_pages(BUF + PAGE, PAGE, FromDevice);
    w.write(b, &[7; 3]);
    w.free_pages(b, BUF + PAGE, PAGE, FromDevice);
    let c = w.map(BUF + 2 * PAGE, 64, FromDevice);
    w.write(c, &[8; 2]);
    let summary = w.core.finish();
    let whats: Vec<_> = summary.devices[0].lost_writes.iter().map(|l| l.what.as_str()).collect();
    assert_eq!(whats, ["dma_sync_single_for_device", "dma_free_pages", "end of the run", "end of the run"]);
}

#[test]
fn dv401_skip_at_map() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 64]);
    let dma = w.map_skip(BUF, 64, ToDevice);
    assert_eq!(w.read(dma, 4), [0xdb; 4]);
    assert_eq!(w.finding(Code::DV401).kind, Some(Code::DV201));
    assert_eq!(w.bad(), ["DV401e"]);

    let w = World::new();
    w.cpu_write(BUF, &[1; 64]);
    let dma = w.map_skip(BUF, 64, ToDevice);
    w.for_device(dma, 64, ToDevice);
    assert_eq!(w.read(dma, 4), [1; 4]);
    w.silent();
}

#[test]
fn skip_at_map_is_right_for_bytes_another_mapping_handed_over() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 64]);
    let first = w.map(BUF, 64, ToDevice);
    let second = w.map_skip(BUF, 64, ToDevice);
    assert_eq!(w.read(second, 64), [1; 64]);
    w.unmap(first, 64, ToDevice);
    assert_eq!(w.read(second, 64), [1; 64]);
    w.silent();
}

#[test]
fn foreign_pages_are_counted_not_reported() {
    let w = World::new();
    let call = MapCall { kind: PageKind::Foreign, ..single(BUF, 256, Bidirectional) };
    let dma = w.map_call(call)[0].0;
    w.cpu_write(BUF, &[1; 64]);
    w.read(dma, 64);
    w.cpu_write(BUF + 128, &[2; 64]);
    w.unmap(dma, 256, Bidirectional);
    w.silent();
    assert_eq!(w.core.stats().foreign_offences, 2);
}

#[test]
fn poll_and_prefetch_are_not_judged_until_consumed() {
    use vm_memory::{Bytes, GuestAddress};
    let w = World::new();
    let dma = w.map(BUF, 256, ToDevice);
    w.cpu_write(BUF, &[1; 4]);
    let addr = GuestAddress(dma.0);
    assert_eq!(w.view.polling().read_obj::<u32>(addr).unwrap(), 0);
    assert_eq!(w.view.prefetching().read_obj::<u32>(addr).unwrap(), 0);
    w.silent();
    w.view.consume(Iova(dma.0 + 64), 16).unwrap();
    w.silent();
    w.view.consume(dma, 16).unwrap();
    assert_eq!(w.bad(), ["DV201e"]);
    assert!(w.view.consume(Iova(dma.0 + 250), 16).is_err());

    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    let addr = GuestAddress(dma.0);
    w.view.polling().read_obj::<u32>(addr).unwrap();
    w.view.prefetching().read_obj::<u32>(addr).unwrap();
    w.silent();
    w.view.consume(dma, 4).unwrap();
    assert_eq!(w.bad(), ["DV206w"]);
}

#[test]
fn coherent_memory_is_one_copy() {
    let w = World::new();
    let dma = w.alloc_coherent(BUF, 2 * PAGE);
    w.cpu_write(BUF + 4090, &[1; 12]);
    assert_eq!(w.read(Iova(dma.0 + 4090), 12), [1; 12]);
    w.write(Iova(dma.0 + 4000), &[2; 200]);
    assert_eq!(w.cpu_read(BUF + 4000, 200), [2; 200]);
    w.unmap_call(UnmapCall { cpu_addr: BUF, ..unmap(Family::Coherent, dma, 2 * PAGE, Bidirectional) });
    assert_eq!(w.core.stats().tracked_pages, 0);
    w.silent();
}
