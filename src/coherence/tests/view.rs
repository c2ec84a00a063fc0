//! The view as device models use it.

use super::fixture::*;
use crate::*;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

#[test]
fn slices_are_cut_at_pages_and_entries() {
    let w = World::new();
    let dma = w.map(BUF + 0xf00, 0x2200, Bidirectional);
    let lens: Vec<_> =
        w.view.get_slices(GuestAddress(dma.0 + 0x80), 0x2100, Permissions::Read).unwrap().map(|s| s.unwrap().len()).collect();
    assert_eq!(lens, [0x80, 0x1000, 0x1000, 0x80]);
}

#[test]
fn a_write_counts_when_it_happens() {
    let w = World::new();
    let dma = w.map(BUF, 4096, FromDevice);
    let slices: Vec<_> = w.view.get_slices(GuestAddress(dma.0), 4096, Permissions::Write).unwrap().map(Result::unwrap).collect();
    w.cpu_write(BUF + 10, &[1]);
    slices[0].write_slice(&[9; 3], 128).unwrap();
    w.for_cpu(dma, 4096, FromDevice);
    assert_eq!(w.cpu_read(BUF + 127, 5), [0, 9, 9, 9, 0]);
    assert_eq!(w.bad(), ["DV203e"], "byte 10 was the CPU's, and the device wrote nothing there");
}

#[test]
fn an_access_of_a_merged_list_crosses_entries() {
    let w = World::with(|c| c.sg_merge = true);
    w.cpu_write(BUF + 0xff0, &[1; 16]);
    w.cpu_write(BUF + 7 * PAGE, &[2; 16]);
    let handles = w.map_call(list(&[(BUF, PAGE), (BUF + 7 * PAGE, PAGE)], ToDevice));
    assert_eq!(w.read(Iova(handles[0].0.0 + 0xff0), 32), [[1; 16], [2; 16]].concat());
    w.silent();
}

#[test]
fn entries_of_a_split_list_do_not_touch() {
    let w = World::new();
    let handles = w.map_call(list(&[(BUF, PAGE), (BUF + PAGE, PAGE)], ToDevice));
    assert_eq!(handles.len(), 2);
    assert!(handles[1].0.0 >= handles[0].0.0 + 2 * PAGE, "a page between them");
    assert!(w.try_read(Iova(handles[0].0.0 + 4090), 8).is_none());
    assert!(w.finding(Code::DV207).message.contains("an entry of 4096 bytes"), "{}", w.finding(Code::DV207).message);
}

#[test]
fn views_are_usable_while_none_iterates() {
    let w = World::new();
    let dma = w.map(BUF, 64, Bidirectional);
    let mut slices = w.view.get_slices(GuestAddress(dma.0), 64, Permissions::Read).unwrap();
    let slice = slices.next().unwrap().unwrap();
    assert!(slices.next().is_none(), "exhausted: the lock is free");
    assert_eq!(w.view.read_obj::<u32>(GuestAddress(dma.0)).unwrap(), 0);
    drop(slices);
    assert_eq!(slice.len(), 64);
}

#[test]
fn volatile_reads_and_writes_through_files_work() {
    let w = World::new();
    let dma = w.map(BUF + 4000, 5000, Bidirectional);
    let data: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
    w.view.read_exact_volatile_from(GuestAddress(dma.0), &mut data.as_slice(), 5000).unwrap();
    let mut out = Vec::new();
    w.view.write_all_volatile_to(GuestAddress(dma.0), &mut out, 5000).unwrap();
    assert_eq!(out, data);
    w.unmap(dma, 5000, Bidirectional);
    assert_eq!(w.cpu_read(BUF + 4000, 5000), data);
    w.silent();
}

#[test]
fn atomics_reach_coherent_memory() {
    use std::sync::atomic::Ordering;
    let w = World::new();
    let dma = w.alloc_coherent(BUF, PAGE);
    w.view.store(0x1234_5678u32, GuestAddress(dma.0 + 8), Ordering::Release).unwrap();
    assert_eq!(w.cpu_read(BUF + 8, 4), 0x1234_5678u32.to_le_bytes());
}

#[test]
fn coherent_memory_without_a_file_is_said() {
    let ram = std::sync::Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 << 20)]).unwrap());
    let core = Coherence::new(Config::for_ram(RAM), ram).unwrap();
    core.set_bus_master(DEVICE, true);
    let call = MapCall { family: Family::Coherent, cpu_addr: BUF, ..single(BUF, PAGE, Bidirectional) };
    let Answer::Handles(handles) = core.call(Caller { requester: DEVICE, site: SiteId(0), cpu: 0 }, &ApiCall::Map(call)) else { panic!() };
    assert!(core.view(DEVICE).read_obj::<u32>(GuestAddress(handles[0].0.0)).is_err());
    let summary = core.finish();
    assert_eq!(summary.findings[0].code, Code::DV901);
}

#[test]
fn devices_and_hand_overs_of_the_same_bytes_exclude_each_other() {
    let w = World::new();
    w.cpu_write(BUF, &[0; 4096]);
    let dma = w.map(BUF, PAGE, Bidirectional);
    let view = w.view.clone();
    let device = std::thread::spawn(move || {
        for n in 0..2000u32 {
            view.write_slice(&[(n % 251) as u8; 4096], GuestAddress(dma.0)).unwrap();
        }
    });
    while !device.is_finished() {
        w.for_cpu(dma, PAGE, Bidirectional);
        let page = w.cpu_read(BUF, 4096);
        assert!(page.iter().all(|b| *b == page[0]), "a transfer arrives as a whole");
    }
    device.join().unwrap();
    w.silent();
}
