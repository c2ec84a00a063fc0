//! 115: a mapping ends under a transfer.

use super::fixture::*;
use crate::*;

#[test]
fn dv115_names_the_unmap() {
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    w.kick();
    let flight = w.view.begin(dma, 128);
    w.unmap(dma, 256, FromDevice);
    w.silent();
    assert!(!w.try_write(Iova(dma.0 + 64), &[1; 64]));
    let f = w.finding(Code::DV115);
    assert_eq!((f.severity, f.kind, f.range), (Severity::Error, Some(Code::DV208), Some(ByteRange { start: 64, end: 128 })));
    assert_eq!(f.offence.what, "dma_unmap_single");
    assert_eq!(f.mapping.unwrap().unmap_site, Some(f.offence.site));
    assert_eq!(f.consequence.unwrap().site, w.site("kick+0x1"));
    assert_eq!(w.bad(), ["DV115e"]);
    drop(flight);
}

#[test]
fn only_a_transfer_that_goes_on_and_those_bytes() {
    // Over before the unmap; over before the device comes back; other bytes of the mapping; begun after the unmap.
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    drop(w.view.begin(dma, 256));
    w.unmap(dma, 256, FromDevice);
    assert!(!w.try_write(dma, &[1]));
    assert_eq!(w.bad(), ["DV208e"]);
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    let flight = w.view.begin(dma, 256);
    w.unmap(dma, 256, FromDevice);
    drop(flight);
    assert!(!w.try_write(dma, &[1]));
    assert_eq!(w.bad(), ["DV208e"]);
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    let _flight = w.view.begin(dma, 64);
    w.unmap(dma, 256, FromDevice);
    assert!(!w.try_write(Iova(dma.0 + 64), &[1; 4]));
    let _late = w.view.begin(dma, 256);
    assert!(!w.try_write(Iova(dma.0 + 64), &[1; 4]));
    assert_eq!(w.bad(), ["DV208e"]);
}

#[test]
fn a_device_that_stops_in_time_is_silent() {
    let w = World::new();
    let dma = w.map(BUF, 256, Bidirectional);
    let flight = w.view.begin(dma, 256);
    w.read(dma, 128);
    // Reset: the device drops what it was doing.
    drop(flight);
    w.unmap(dma, 256, Bidirectional);
    let flight = w.view.begin(Iova(0x1234), 16);
    drop(flight);
    let ring = w.alloc_coherent(BUF, PAGE);
    let flight = w.view.begin(ring, 64);
    w.write(ring, &[1; 64]);
    drop(flight);
    w.silent();
}

#[test]
fn what_was_left_mapped_was_not_unmapped() {
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    let _flight = w.view.begin(dma, 256);
    w.call(&ApiCall::Unbound);
    assert!(!w.try_write(dma, &[1]));
    assert_eq!(w.bad(), ["DV108e", "DV208e"]);
}

#[test]
fn flights_are_bounded() {
    let w = World::new();
    let dma = w.map(BUF, 256, FromDevice);
    let flights: Vec<_> = (0..70_000).map(|_| w.view.begin(dma, 4)).collect();
    assert_eq!(w.bad(), ["DV901w"]);
    drop(flights);
    let _one = w.view.begin(dma, 4);
    assert_eq!(w.bad(), ["DV901w"]);
}
