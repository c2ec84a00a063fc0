//! Calls and accesses at the very edge of what they may touch, and what is said of those beyond.

use super::fixture::*;
use crate::*;

fn message(w: &World, code: Code) -> String {
    w.finding(code).message
}

#[test]
fn an_access_past_the_end_says_how_far() {
    let past = |at: u64, len: usize| {
        let w = World::new();
        let dma = w.map(BUF + 64, 100, Bidirectional);
        assert_eq!(w.try_read(Iova(dma.0.wrapping_add(at)), len), None);
        message(&w, Code::DV207)
    };
    assert!(past(96, 5).ends_with(", 1 byte past its end."), "{}", past(96, 5));
    assert!(past(96, 8).ends_with(", 4 bytes past its end."));
    assert!(past(100, 4).contains("beginning 0 bytes past the end of a mapping of 100 bytes"), "{}", past(100, 4));
    assert!(past(110, 4).contains("beginning 10 bytes past the end"));
    assert!(past(0u64.wrapping_sub(8), 16).contains("beginning 8 bytes before a mapping of 100 bytes"));
    let w = World::new();
    let dma = w.map(BUF + 64, 100, Bidirectional);
    assert!(w.try_read(Iova(dma.0 + 96), 4).is_some() && w.try_read(Iova(dma.0 + 99), 1).is_some());
    w.silent();
}

#[test]
fn an_access_past_an_entry_names_the_entry() {
    let past = |entry: usize, at: u64, len: usize, entries: &[(u64, u64)]| {
        let w = World::new();
        let handles = w.map_call(list(entries, Bidirectional));
        assert_eq!(w.try_read(Iova(handles[entry].0.0 + at), len), None);
        message(&w, Code::DV207)
    };
    let two = [(BUF, 100), (BUF + 8192, 200)];
    assert!(past(0, 90, 20, &two).contains("an entry of 100 bytes of a scatterlist, 10 bytes past its end"), "{}", past(0, 90, 20, &two));
    assert!(past(1, 190, 20, &two).contains("an entry of 200 bytes of a scatterlist, 10 bytes past its end"));
    assert!(past(0, 90, 20, &two[..1]).contains("a mapping of 100 bytes, 10 bytes past its end"));
}

#[test]
fn handles_that_were_never_given_are_told_apart() {
    let said = |iova: u64| {
        let w = World::new();
        w.map(BUF, 64, Bidirectional);
        assert_eq!(w.try_read(Iova(iova), 4), None);
        message(&w, Code::DV209)
    };
    assert!(said(0xffff).contains("a null handle or an offset from one"));
    assert!(said(0x1_0000).contains("an address of RAM"), "{}", said(0x1_0000));
    assert!(said(RAM - 4).contains("an address of RAM"));
    assert!(said(RAM + 4096).contains("no map or alloc call returned that handle"));
    assert!(said(BUF).contains("the physical address of a mapped buffer"));
    assert!(said(u64::MAX - 64).contains("DMA_MAPPING_ERROR"));
    assert!(said(!0xffff).contains("DMA_MAPPING_ERROR"));
    assert!(!said(!0xffff - 4).contains("DMA_MAPPING_ERROR"));
}

#[test]
fn an_unmap_of_something_else_is_explained() {
    let said = |what: &dyn Fn(&World, Iova) -> Iova| {
        let w = World::new();
        let dma = w.map(BUF, 256, ToDevice);
        let iova = what(&w, dma);
        w.unmap(iova, 256, ToDevice);
        w.core.finish().findings.into_iter().find(|f| f.code == Code::DV101).unwrap()
    };
    let usual = "Unmap with the handle the map call returned.";
    let f = said(&|_, _| Iova(u64::MAX));
    assert!(f.message.contains("DMA_MAPPING_ERROR was unmapped") && f.advice.contains("dma_mapping_error()"), "{f:?}");
    let f = said(&|_, _| Iova(BUF));
    assert!(f.message.contains("that is the physical address") && f.advice != usual && !f.advice.contains("dma_mapping_error()"), "{f:?}");
    let f = said(&|_, dma| Iova(dma.0 + 16));
    assert!(f.message.contains("16 bytes from its start") && f.advice == usual, "{f:?}");
    let f = said(&|w, dma| {
        w.unmap(dma, 256, ToDevice);
        dma
    });
    assert!(f.message.contains("a second time") && f.advice != usual, "{f:?}");
}

#[test]
fn a_sync_outside_says_where() {
    let said = |at: i64, len: u64| {
        let w = World::new();
        let dma = w.map(BUF + 512, 256, Bidirectional);
        w.for_device(Iova(dma.0.wrapping_add_signed(at)), len, Bidirectional);
        message(&w, Code::DV215)
    };
    assert!(said(-8, 16).contains("16 bytes beginning before a mapping of 256 bytes"), "{}", said(-8, 16));
    assert!(said(250, 16).contains("16 bytes at offset 250 of 256 bytes mapped were synced, 10 past their end"), "{}", said(250, 16));
    assert!(said(0, 257).contains("257 bytes at offset 0 of 256 bytes mapped were synced, 1 past their end"));
    let w = World::new();
    let dma = w.map(BUF, 64, Bidirectional);
    w.call_as(OTHER, &ApiCall::Sync(SyncCall { for_cpu: false, sg: false, ranges: vec![(dma, 64)], direction: Bidirectional }));
    assert_eq!(message(&w, Code::DV215), "A handle of another device was synced.");
    let w = World::new();
    let dma = w.map(BUF, 64, Bidirectional);
    w.for_device(dma, 64, Direction::None);
    assert!(w.finding(Code::DV216).advice.contains("DMA_NONE"));
    let w = World::new();
    let dma = w.map(BUF, 64, Bidirectional);
    w.for_device(dma, 64, ToDevice);
    assert!(!w.finding(Code::DV216).advice.contains("DMA_NONE"));
}

#[test]
fn a_free_inside_the_allocation_says_where() {
    let said = |cpu_addr: u64| {
        let w = World::new();
        let dma = w.alloc_coherent(BUF, 4096);
        w.unmap_call(UnmapCall { cpu_addr, ..unmap(Family::Coherent, dma, 4096, Bidirectional) });
        message(&w, Code::DV105)
    };
    assert!(said(BUF + 4095).contains("4095 bytes into the allocation"));
    assert!(!said(BUF + 4096).contains("into the allocation"));
    assert!(!said(BUF - 1).contains("into the allocation"));
}

#[test]
fn a_lowered_mask_counts_what_lies_above_it() {
    let said = |maps: u64, mask: fn(u64) -> u64| {
        let w = World::new();
        let handles: Vec<u64> = (0..maps).map(|n| w.map(BUF + n * PAGE, 100, ToDevice).0).collect();
        let last = handles.iter().max().unwrap() + 99;
        w.call(&ApiCall::SetMask { mask: mask(last) });
        let found = w.core.finish().findings;
        found.into_iter().find(|f| f.code == Code::DV111).map(|f| f.message)
    };
    assert!(said(1, |_| 0xffff_ffff).is_some_and(|text| text.ends_with("is alive.")));
    assert!(said(2, |_| 0xffff_ffff).is_some_and(|text| text.contains("and 1 more like it")));
    assert!(said(3, |_| 0xffff_ffff).is_some_and(|text| text.contains("and 2 more like it")));
    assert_eq!(said(2, |_| u64::MAX), None);
    let w = World::new();
    w.call_as(OTHER, &ApiCall::Map(single(BUF, 100, ToDevice)));
    w.call(&ApiCall::SetMask { mask: 0xffff_ffff });
    w.silent();
    let w = World::new();
    let dma = w.map(BUF, 100, ToDevice);
    w.unmap(dma, 100, ToDevice);
    w.call(&ApiCall::SetMask { mask: 0xffff_ffff });
    w.silent();
}

#[test]
fn buffers_the_device_writes_begin_and_end_with_their_lines() {
    let said = |gpa: u64, len: u64, change: fn(&mut MapCall)| {
        let w = World::new();
        let mut call = MapCall { kind: PageKind::Other, ..single(gpa, len, FromDevice) };
        change(&mut call);
        w.map_call(call);
        let found = w.core.finish().findings;
        found.into_iter().find(|f| f.code == Code::DV301).map(|f| f.message)
    };
    assert_eq!(said(BUF, 128, |_| ()), None);
    assert!(said(BUF, 100, |_| ()).is_some_and(|text| text.contains("ends 36 bytes into a cache line of 64")));
    assert!(said(BUF + 16, 112, |_| ()).is_some_and(|text| text.contains("begins 16 bytes into")));
    assert!(said(BUF + 16, 100, |_| ()).is_some_and(|text| text.contains("begins 16 and ends 52 bytes into")));
    assert_eq!(said(BUF, 100, |call| call.kind = PageKind::Slab), None);
    assert_eq!(said(BUF, 100, |call| call.direction = ToDevice), None);
    assert_eq!(said(BUF + 16, 0, |_| ()), None);
    assert_eq!(said(BUF, 100, |call| (call.family, call.cpu_addr) = (Family::Pages, BUF)), None, "allocated, not mapped");
}

#[test]
fn two_buffers_in_a_line_are_said_unless_their_users_know() {
    let said = |first: fn(&mut MapCall), second: fn(&mut MapCall)| {
        let w = World::new();
        for (at, change) in [(0, first), (32, second)] {
            let mut call = MapCall { kind: PageKind::Other, ..single(BUF + at, 32, FromDevice) };
            change(&mut call);
            w.map_call(call);
        }
        w.bad().contains(&"DV302e".to_owned()) || w.bad().contains(&"DV302w".to_owned())
    };
    assert!(said(|_| (), |_| ()));
    assert!(!said(|c| c.kind = PageKind::Slab, |_| ()) && !said(|_| (), |c| c.kind = PageKind::Slab));
    assert!(!said(|c| c.direction = ToDevice, |_| ()) && !said(|_| (), |c| c.direction = ToDevice));
    let known: fn(&mut MapCall) = |c| c.attrs = Attrs::DEBUGGING_IGNORE_CACHELINES;
    assert!(!said(known, known), "both say so");
    assert!(said(known, |_| ()) && said(|_| (), known), "one alone is not enough");
}

#[test]
fn limits_of_segments_are_to_the_byte() {
    let said = |len: u64, at: u64, limits: Limits| {
        let w = World::new();
        w.map_call(MapCall { limits: Limits { mask: u64::MAX, ..limits }, ..list(&[(BUF + at, len)], ToDevice) });
        w.bad().iter().any(|code| code.starts_with("DV112"))
    };
    let longest = |max_seg_size| Limits { max_seg_size, ..Limits::default() };
    assert!(!said(4096, 0, longest(4096)) && said(4097, 0, longest(4096)));
    assert!(!said(100_000, 0, longest(0)), "0 declares nothing");
    let boundary = |seg_boundary| Limits { seg_boundary, max_seg_size: 0, ..Limits::default() };
    assert!(!said(4096, 0, boundary(0xfff)) && said(4096, 1, boundary(0xfff)) && said(4097, 0, boundary(0xfff)));
    assert!(!said(256, 256, boundary(0xff)) && said(256, 257, boundary(0xff)));
    assert!(!said(8192, 0, boundary(0x1fff)) && said(8193, 0, boundary(0x1fff)));
    assert!(!said(100, 0, boundary(0x1234)), "no power of two");
}

#[test]
fn the_kernels_image_is_known_by_its_addresses() {
    let said = |gpa: u64, len: u64, change: fn(&mut MapCall)| {
        let w = World::with(|c| c.kernel_image.push(BUF..BUF + 0x2000));
        w.cpu_write(BUF, &[0x90; 0x2000]);
        let mut call = single(gpa, len, ToDevice);
        change(&mut call);
        w.map_call(call);
        w.bad().iter().any(|code| code.starts_with("DV110"))
    };
    assert!(said(BUF, 16, |_| ()) && said(BUF + 0x1ff0, 64, |_| ()) && said(BUF - 8, 16, |_| ()));
    assert!(!said(BUF - 16, 16, |_| ()) && !said(BUF + 0x2000, 16, |_| ()), "beside it");
    assert!(!said(BUF, 4096, |call| (call.family, call.cpu_addr) = (Family::Pages, BUF)));
    assert!(said(BUF, 16, |call| call.family = Family::Sg));
}
