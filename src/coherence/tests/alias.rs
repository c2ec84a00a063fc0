//! 403: a buffer that devices share.

use super::fixture::*;
use crate::*;
use vm_memory::{Bytes, GuestAddress};

/// The device under test and another one that shares its buffer.
fn shared(direction: Direction) -> (World, DmaView, Iova, Iova) {
    let w = World::new();
    w.core.set_bus_master(OTHER, true);
    let a = w.map(BUF, 256, direction);
    let skip = MapCall { attrs: Attrs::SKIP_CPU_SYNC, ..single(BUF, 256, direction) };
    let Answer::Handles(b) = w.call_as(OTHER, &ApiCall::Map(skip)) else { panic!("no handle") };
    let view = w.core.view(OTHER);
    (w, view, a, b[0].0)
}

fn sync_as(w: &World, device: Requester, for_cpu: bool, dma: Iova, direction: Direction) {
    let call = SyncCall { for_cpu, sg: false, ranges: vec![(dma, 256)], direction };
    assert_eq!(w.call_as(device, &ApiCall::Sync(call)), Answer::Done);
}

#[test]
fn dv403_the_other_device_uses_what_the_cpu_changed() {
    let (w, view, a, b) = shared(ToDevice);
    w.for_cpu(a, 256, ToDevice);
    w.cpu_write(BUF + 8, &[7; 4]);
    let mut bytes = [0; 64];
    view.read_slice(&mut bytes, GuestAddress(b.0)).unwrap();
    let f = w.finding(Code::DV403);
    assert_eq!((f.kind, f.requester, f.range), (Some(Code::DV201), Some(OTHER), Some(ByteRange { start: 8, end: 12 })));
    assert_eq!(w.bad(), ["DV403e"]);
}

#[test]
fn dv403_the_other_hand_over_discards_what_the_cpu_wrote() {
    let (w, view, a, b) = shared(Bidirectional);
    w.for_cpu(a, 256, Bidirectional);
    w.cpu_write(BUF, &[7; 64]);
    view.write_slice(&[1; 4], GuestAddress(b.0 + 128)).unwrap();
    sync_as(&w, OTHER, true, b, Bidirectional);
    assert_eq!(w.finding(Code::DV403).kind, Some(Code::DV203));
    assert_eq!(w.bad(), ["DV403e"]);
}

#[test]
fn a_buffer_all_of_whose_mappings_are_synced() {
    let (w, view, a, b) = shared(Bidirectional);
    let mut bytes = [0; 256];
    for n in 0..3 {
        // dma_buf_begin_cpu_access() and dma_buf_end_cpu_access() sync every attachment.
        sync_as(&w, w.device, true, a, Bidirectional);
        sync_as(&w, OTHER, true, b, Bidirectional);
        w.cpu_write(BUF, &[n; 256]);
        sync_as(&w, w.device, false, a, Bidirectional);
        sync_as(&w, OTHER, false, b, Bidirectional);
        view.read_slice(&mut bytes, GuestAddress(b.0)).unwrap();
        assert_eq!(bytes, [n; 256]);
        view.write_slice(&[n + 1; 16], GuestAddress(b.0)).unwrap();
        assert_eq!(w.read(a, 16), [n + 1; 16], "one buffer");
    }
    w.silent();
}

#[test]
fn a_hand_over_through_one_mapping_holds_for_the_other() {
    let (w, view, a, b) = shared(ToDevice);
    w.for_cpu(a, 256, ToDevice);
    w.cpu_write(BUF, &[7; 256]);
    w.for_device(a, 256, ToDevice);
    let mut bytes = [0; 256];
    view.read_slice(&mut bytes, GuestAddress(b.0)).unwrap();
    assert_eq!(bytes, [7; 256]);
    w.silent();
}

/// Two mappings that only happen to lie over each other are not shared: the rules of one mapping hold.
#[test]
fn forwarded_frames_and_missing_syncs_keep_their_names() {
    let w = World::new();
    w.core.set_bus_master(OTHER, true);
    let view = w.core.view(OTHER);
    // Received by one device, changed by the CPU, sent by another.
    let pool = MapCall { attrs: Attrs::SKIP_CPU_SYNC, kind: PageKind::PagePool, ..single(BUF, PAGE, FromDevice) };
    let rx = w.map_call(pool)[0].0;
    w.for_device(rx, PAGE, FromDevice);
    w.write(rx, &[3; 100]);
    w.for_cpu(rx, 100, FromDevice);
    w.cpu_write(BUF, &[4; 14]);
    let Answer::Handles(tx) = w.call_as(OTHER, &ApiCall::Map(single(BUF, 100, ToDevice))) else { panic!("no handle") };
    let mut bytes = [0; 100];
    view.read_slice(&mut bytes, GuestAddress(tx[0].0.0)).unwrap();
    assert_eq!((bytes[0], bytes[99]), (4, 3));
    w.call_as(OTHER, &ApiCall::Unmap(unmap(Family::Single, tx[0].0, 100, ToDevice)));
    w.unmap_skip(rx, PAGE, FromDevice);
    w.silent();
    // The same page for both devices, each with its own hand-over.
    let a = w.map(BUF, 64, ToDevice);
    let Answer::Handles(b) = w.call_as(OTHER, &ApiCall::Map(single(BUF, 64, ToDevice))) else { panic!("no handle") };
    w.for_cpu(a, 64, ToDevice);
    w.cpu_write(BUF, &[9; 4]);
    view.read_slice(&mut bytes[..4], GuestAddress(b[0].0.0)).unwrap();
    assert_eq!(w.bad(), ["DV201e"]);
}

#[test]
fn a_line_the_other_device_owns_in_part_was_not_taken_from_it() {
    let sync = |for_cpu, at, len| SyncCall { for_cpu, sg: false, ranges: vec![(at, len)], direction: Bidirectional };
    for (given_back, code) in [(false, "DV403e"), (true, "DV201e")] {
        let (w, _, a, b) = shared(Bidirectional);
        w.call_as(OTHER, &ApiCall::Sync(sync(true, b, 64)));
        if given_back {
            // The second half of the line: the first is the device's with it.
            w.call_as(OTHER, &ApiCall::Sync(sync(false, Iova(b.0 + 32), 32)));
        }
        w.cpu_write(BUF, &[7; 4]);
        w.read(a, 16);
        assert_eq!(w.bad(), [code]);
    }
}
