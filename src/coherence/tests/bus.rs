//! 207 to 209 and 5xx: where a device may go, and when.

use super::fixture::*;
use crate::*;
use vm_memory::{Bytes, GuestAddress};

#[test]
fn dv207_to_the_byte() {
    let w = World::new();
    let dma = w.map(BUF + 0x10, 100, Bidirectional);
    w.read(Iova(dma.0 + 50), 50);
    w.silent();
    assert!(w.try_read(Iova(dma.0 + 50), 51).is_none(), "nothing is transferred");
    let f = w.finding(Code::DV207);
    assert_eq!(f.range, Some(ByteRange { start: 50, end: 101 }));
    assert!(f.message.contains("1 byte past its end"), "{}", f.message);
}

#[test]
fn dv207_past_the_end_before_the_start_and_in_the_guard() {
    for (offset, len, words) in [(100i64, 4, "0 bytes past the end"), (5000, 4, "4900 bytes past the end"), (-4, 8, "4 bytes before")] {
        let w = World::new();
        let dma = w.map(BUF + 0x10, 100, Bidirectional);
        assert!(!w.try_write(Iova(dma.0.wrapping_add_signed(offset)), &vec![1; len]));
        let f = w.finding(Code::DV207);
        assert!(f.message.contains(words), "{}", f.message);
        assert_eq!(w.cpu_read(BUF, 0x10), [0; 0x10]);
    }
}

#[test]
fn dv208_after_unmap() {
    let w = World::new();
    let dma = w.map(BUF, 100, Bidirectional);
    w.unmap(dma, 100, Bidirectional);
    assert!(w.try_read(dma, 4).is_none());
    let f = w.finding(Code::DV208);
    assert!(f.mapping.unwrap().unmap_site.is_some());
    assert_eq!(f.history.last().unwrap().event, "unmapped");
}

#[test]
fn dv208_lasts_while_other_handles_come_and_go() {
    let w = World::new();
    let dma = w.map(BUF, 100, Bidirectional);
    w.unmap(dma, 100, Bidirectional);
    for _ in 0..1000 {
        let other = w.map(BUF, 100, Bidirectional);
        assert_ne!(other, dma, "handles are not used again at once");
        w.unmap(other, 100, Bidirectional);
    }
    assert!(!w.try_write(dma, &[1]));
    assert_eq!(w.bad(), ["DV208e"]);
}

#[test]
fn dv209_tells_addresses_apart() {
    let cases: [(u64, &str); 4] = [
        (BUF + 8, "physical address of a mapped buffer"),
        (u64::MAX - 15, "DMA_MAPPING_ERROR"),
        (0x40, "null handle"),
        (0x12_3456_7000, "no map or alloc call returned"),
    ];
    for (address, words) in cases {
        let w = World::new();
        w.map(BUF, 100, Bidirectional);
        assert!(w.try_read(Iova(address), 8).is_none());
        let f = w.finding(Code::DV209);
        assert!(f.message.contains(words), "{}", f.message);
        assert_eq!(f.mapping.is_some(), address == BUF + 8, "the buffer meant is named");
    }
}

#[test]
fn dv209_another_devices_handle() {
    let w = World::new();
    w.core.set_bus_master(OTHER, true);
    let dma = w.map(BUF, 100, Bidirectional);
    let mut byte = [0];
    assert!(w.core.view(OTHER).read_slice(&mut byte, GuestAddress(dma.0)).is_err());
    let f = w.finding(Code::DV209);
    assert_eq!(f.requester, Some(OTHER));
    assert!(f.message.contains("another device"));
}

#[test]
fn dv501_before_and_after_bus_mastering() {
    let w = World::new();
    let dma = w.map(BUF, 100, Bidirectional);
    assert!(w.try_read(dma, 4).is_some());
    w.silent();
    w.core.set_bus_master(DEVICE, false);
    assert!(w.try_read(dma, 4).is_none() && !w.try_write(dma, &[1]));
    assert_eq!(w.cpu_read(BUF, 1), [0]);
    assert_eq!(w.bad(), ["DV501e"]);
    w.core.set_bus_master(DEVICE, true);
    w.core.reset_device(DEVICE);
    w.kick();
    assert!(w.try_read(dma, 4).is_none(), "a reset clears the Command register");
    assert_eq!(w.bad(), ["DV501e"; 2], "before a register was written, and after");
}

#[test]
fn dv502_after_a_reset_until_somebody_sets_it_up() {
    let w = World::new();
    let dma = w.map(BUF, 100, Bidirectional);
    w.core.reset_device(DEVICE);
    assert!(w.try_read(dma, 4).is_none() && !w.try_write(dma, &[1]));
    assert_eq!(w.cpu_read(BUF, 1), [0]);
    let f = w.finding(Code::DV502);
    assert_eq!((f.severity, f.kind, f.count), (Severity::Error, Some(Code::DV501), 2));
    assert!(f.message.contains("after a reset"), "{}", f.message);
    assert_eq!(w.bad(), ["DV502e"]);

    // Set up again; a reset of a device that was doing nothing; a register written first, then bus mastering.
    let w = World::new();
    let dma = w.map(BUF, 100, Bidirectional);
    for _ in 0..2 {
        w.core.reset_device(DEVICE);
        w.core.set_bus_master(DEVICE, false);
        w.kick();
        w.core.set_bus_master(DEVICE, true);
        assert!(w.try_write(dma, &[1]));
    }
    w.silent();

    // A platform device has no Command register: its registers alone set it up.
    let node = Requester::Platform(7);
    let w = World::new();
    let Answer::Handles(handles) = w.call_as(node, &ApiCall::Map(single(BUF, 64, ToDevice))) else { panic!("mapped") };
    let read = || w.core.view(node).read_slice(&mut [0; 4], GuestAddress(handles[0].0.0)).is_ok();
    w.core.reset_device(node);
    assert!(!read());
    assert_eq!(w.bad(), ["DV502e"]);
    w.core.kick(node, w.site("kick+0x1"));
    assert!(read());
    assert_eq!(w.bad(), ["DV502e"]);
}

#[test]
fn peer_to_peer_is_refused_and_said() {
    let w = World::new();
    let call = MapCall { family: Family::Resource, kind: PageKind::Other, ..single(0xd000_0000, 0x1000, Bidirectional) };
    let dma = w.map_call(call)[0].0;
    assert!(w.try_read(dma, 4).is_none());
    assert_eq!(w.bad(), ["DV901w"]);
    w.unmap_call(unmap(Family::Resource, dma, 0x1000, Bidirectional));
    assert_eq!(w.bad(), ["DV901w"]);
}

#[test]
fn asking_is_not_accessing() {
    use vm_memory::{GuestMemory, Permissions};
    let w = World::new();
    let dma = w.map(BUF, 100, ToDevice);
    assert!(w.view.check_range(GuestAddress(dma.0), 100, Permissions::Read));
    assert!(!w.view.check_range(GuestAddress(dma.0), 101, Permissions::Read));
    assert!(!w.view.check_range(GuestAddress(0), 1, Permissions::Write));
    w.silent();
    assert_eq!(w.core.stats().device_reads, 0);
}

#[test]
fn accesses_are_counted() {
    let w = World::new();
    let dma = w.map(BUF, 256, Bidirectional);
    for _ in 0..3 {
        w.read(dma, 8);
    }
    for _ in 0..2 {
        w.write(dma, &[1; 16]);
    }
    let stats = w.core.stats();
    assert_eq!((stats.device_reads, stats.device_bytes_read, stats.device_writes, stats.device_bytes_written), (3, 24, 2, 32));
    let device = w.core.finish().devices.remove(0);
    assert_eq!((device.reads, device.writes), (3, 2));
}

#[test]
fn accesses_are_called_what_they_are() {
    use vm_memory::{GuestMemory, Permissions};
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.write(dma, &[1; 4]);
    assert_eq!(w.finding(Code::DV205).offence.what, "device write");
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.view.get_slices(GuestAddress(dma.0), 4, Permissions::ReadWrite).unwrap().for_each(drop);
    assert_eq!(w.finding(Code::DV205).offence.what, "device read and write");
}

#[test]
fn an_access_that_is_refused_is_told_why() {
    let w = World::new();
    let dma = w.map(BUF, 64, Bidirectional);
    let beyond = w.view.consume(Iova(dma.0 + 60), 8);
    let bounds = AccessError::OutOfBounds { iova: Iova(dma.0 + 60), len: 8, start: dma, end: Iova(dma.0 + 64) };
    assert_eq!(beyond, Err(bounds));
    w.unmap(dma, 64, Bidirectional);
    assert_eq!(w.view.consume(dma, 8), Err(AccessError::Unmapped(dma)));
    assert_eq!(w.view.consume(Iova(4), 8), Err(AccessError::NotMapped(Iova(4))));
    let call = MapCall { family: Family::Resource, kind: PageKind::Other, ..single(0xd000_0000, 0x1000, Bidirectional) };
    let peer = w.map_call(call)[0].0;
    assert_eq!(w.view.consume(peer, 8), Err(AccessError::PeerToPeer(peer)));
}

#[test]
fn a_device_names_a_few_of_the_bytes_it_lost() {
    let w = World::new();
    for n in 0..20 {
        let caller = Caller { requester: w.device, site: w.site(&format!("map{n}+0x1")), cpu: 0 };
        let Answer::Handles(handles) = w.core.call(caller, &ApiCall::Map(single(BUF + n * PAGE, 64, FromDevice))) else { panic!("mapped") };
        w.write(handles[0].0, &[7; 10]);
        w.unmap_skip(handles[0].0, 64, FromDevice);
    }
    let device = w.core.finish().devices.remove(0);
    assert_eq!((device.lost_bytes, device.lost_writes.len()), (200, 8));
}
