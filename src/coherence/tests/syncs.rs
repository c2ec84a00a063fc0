//! 219, 220, 222, 304: syncs that do nothing, that are needed on other machines, that cut lines.

use super::fixture::*;
use crate::*;

fn pedantic() -> World {
    World::with(|c| c.pedantic = true)
}

#[test]
fn dv219_a_sync_of_coherent_memory() {
    let w = pedantic();
    let ring = w.alloc_coherent(BUF, PAGE);
    w.for_device(ring, 64, ToDevice);
    assert_eq!(w.codes(), ["DV219n"]);
    assert!(w.finding(Code::DV219).message.contains("bytes 0..64 of 4096"));
    let w = World::new();
    let ring = w.alloc_coherent(BUF, PAGE);
    w.for_device(ring, 64, ToDevice);
    assert_eq!(w.codes(), [""; 0], "only on request");
}

#[test]
fn dv220_the_side_has_it_already() {
    let w = pedantic();
    let dma = w.map(BUF, 256, FromDevice);
    w.write(dma, &[1; 256]);
    w.for_cpu(dma, 256, FromDevice);
    w.for_cpu(dma, 64, FromDevice);
    assert!(w.finding(Code::DV220).message.starts_with("The CPU had bytes 0..64 of 256 already (synced for the CPU)"));
    let w = pedantic();
    let dma = w.map(BUF, 256, ToDevice);
    w.for_device(dma, 256, ToDevice);
    let f = w.finding(Code::DV220);
    assert_eq!((f.severity, f.handover.unwrap().operation.as_str()), (Severity::Note, "mapped"));
    assert_eq!(w.codes(), ["DV220n"]);
}

#[test]
fn dv220_not_when_anything_happened() {
    let w = pedantic();
    // The CPU wrote: that is what a for_device is for, with or without a for_cpu before.
    let dma = w.map(BUF, 256, ToDevice);
    w.cpu_write(BUF, &[1; 4]);
    w.for_device(dma, 256, ToDevice);
    w.for_cpu(dma, 256, ToDevice);
    w.for_device(dma, 256, ToDevice);
    // The device wrote since.
    let dma = w.map(BUF + PAGE, 256, FromDevice);
    w.for_cpu(dma, 256, FromDevice);
    w.write(dma, &[1; 4]);
    w.for_cpu(dma, 256, FromDevice);
    w.for_device(dma, 256, FromDevice);
    w.write(dma, &[2; 4]);
    w.for_device(dma, 256, FromDevice);
    // A page that was mapped without a sync.
    let dma = w.map_skip(BUF + 2 * PAGE, PAGE, FromDevice);
    w.for_device(dma, PAGE, FromDevice);
    // Neighbours in a line, and a part first and then all.
    let dma = w.map(BUF + 3 * PAGE, 256, Bidirectional);
    w.for_cpu(dma, 16, Bidirectional);
    w.for_cpu(Iova(dma.0 + 16), 16, Bidirectional);
    w.for_cpu(dma, 256, Bidirectional);
    // Memory from dma_alloc_pages() is the CPU's from the start.
    let dma = w.alloc_pages(BUF + 4 * PAGE, PAGE, Bidirectional);
    w.for_cpu(dma, PAGE, Bidirectional);
    w.for_device(dma, PAGE, Bidirectional);
    let codes = w.codes();
    assert!(!codes.contains(&"DV220n".to_owned()), "{codes:?}");
}

#[test]
fn dv220_a_loop_looks_again() {
    let w = pedantic();
    let dma = w.map(BUF, 256, FromDevice);
    w.for_cpu(dma, 64, FromDevice);
    w.for_device(dma, 64, FromDevice);
    for _ in 0..4 {
        w.for_cpu(dma, 64, FromDevice);
    }
    for n in 0..30 {
        // So many that the first hand-over of a part is long forgotten.
        w.for_device(Iova(dma.0 + 64 + n % 2 * 64), 64, FromDevice);
    }
    w.for_device(dma, 64, FromDevice);
    assert_eq!(w.codes(), ["DV220n"; 1], "the for_device after the map");
}

#[test]
fn dv222_used_again_without_a_sync() {
    let w = World::new();
    let dma = w.map(BUF, 2048, FromDevice);
    for n in 0..3 {
        w.kick();
        w.write(dma, &[n; 100]);
        w.for_cpu(dma, 128, FromDevice);
        assert_eq!(w.cpu_read(BUF, 100), [n; 100], "on most machines it works");
    }
    let f = w.finding(Code::DV222);
    assert_eq!((f.severity, f.range, f.offence.what.as_str()), (Severity::Note, Some(ByteRange { start: 0, end: 100 }), "device write"));
    assert_eq!(f.handover.unwrap().operation, "synced for the CPU");
    assert_eq!(w.codes(), ["DV222n"]);
    // The unmap takes it, too.
    let w = World::new();
    let dma = w.map(BUF, 2048, FromDevice);
    w.for_cpu(dma, 2048, FromDevice);
    w.write(dma, &[1; 100]);
    w.unmap(dma, 2048, FromDevice);
    assert_eq!(w.codes(), ["DV222n"]);
}

#[test]
fn dv222_is_an_error_where_for_cpu_does_nothing() {
    let w = World::with(|c| c.profile = Profile::Mips);
    let dma = w.map(BUF, 2048, FromDevice);
    w.for_cpu(dma, 2048, FromDevice);
    w.write(dma, &[1; 100]);
    w.for_cpu(dma, 2048, FromDevice);
    assert_eq!(w.codes(), ["DV222e"]);
}

#[test]
fn dv222_not_when_it_was_given_back_or_only_looked_at() {
    let w = World::new();
    // Peek, and give back while the device goes on: its write may come before the for_device.
    let dma = w.map(BUF, 64, FromDevice);
    for n in 0..3 {
        w.for_cpu(dma, 64, FromDevice);
        w.write(dma, &[n; 8]);
        w.for_device(dma, 64, FromDevice);
    }
    w.for_cpu(dma, 64, FromDevice);
    w.unmap(dma, 64, FromDevice);
    // The receive loop: a part for the CPU, as much as may be written for the device.
    let dma = w.map_call(MapCall { attrs: Attrs::SKIP_CPU_SYNC, kind: PageKind::PagePool, ..single(BUF, PAGE, FromDevice) })[0].0;
    for n in 0..3 {
        w.for_device(dma, 2048, FromDevice);
        w.write(Iova(dma.0 + 64), &[n; 60]);
        w.for_cpu(Iova(dma.0 + 64), 60, FromDevice);
    }
    w.unmap_skip(dma, PAGE, FromDevice);
    // Entries of a completion queue, one behind the other in a line.
    let dma = w.map(BUF + PAGE, 256, FromDevice);
    for n in 0..4 {
        w.write(Iova(dma.0 + n * 16), &[1; 16]);
        w.for_cpu(Iova(dma.0 + n * 16), 16, FromDevice);
    }
    // Another direction is another rule's.
    let dma = w.map(BUF + 2 * PAGE, 256, Bidirectional);
    w.for_cpu(dma, 256, Bidirectional);
    w.write(dma, &[1; 16]);
    w.for_cpu(dma, 256, Bidirectional);
    // Nobody looked at what came later.
    let dma = w.map(BUF + 3 * PAGE, 256, FromDevice);
    w.for_cpu(dma, 256, FromDevice);
    w.write(dma, &[1; 16]);
    w.unmap_skip(dma, 256, FromDevice);
    let codes = w.codes();
    assert!(!codes.contains(&"DV222n".to_owned()), "{codes:?}");
    w.silent();
}

#[test]
fn dv304_edges_inside_a_line() {
    let w = pedantic();
    let dma = w.map(BUF, 256, FromDevice);
    w.for_cpu(Iova(dma.0 + 20), 10, FromDevice);
    assert!(w.finding(Code::DV304).message.contains("bytes 20..30 of 256 begins and ends inside a cache line of 64"));
    assert_eq!(w.codes(), ["DV304n"]);
    let w = World::with(|c| (c.pedantic, c.line_size) = (true, 128));
    let dma = w.map(BUF, 256, FromDevice);
    w.for_cpu(dma, 64, FromDevice);
    assert!(w.finding(Code::DV304).message.contains("ends inside a cache line of 128"));
}

#[test]
fn dv304_whole_lines_whole_mappings_and_what_is_only_read() {
    let w = pedantic();
    let dma = w.map(BUF + 8, 100, FromDevice);
    w.for_cpu(dma, 100, FromDevice);
    w.for_device(dma, 64, FromDevice);
    w.for_cpu(Iova(dma.0 + 64), 36, FromDevice);
    let dma = w.map(BUF + PAGE, 256, ToDevice);
    w.cpu_write(BUF + PAGE + 20, &[1; 10]);
    w.for_device(Iova(dma.0 + 20), 10, ToDevice);
    assert!(w.codes().is_empty(), "{:?}", w.codes());
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.for_cpu(Iova(dma.0 + 20), 10, FromDevice);
    assert!(w.codes().is_empty(), "only on request");
}
