//! 106, 110, 112, 113, 116, 219: what map and unmap calls are given.

use super::fixture::*;
use crate::*;

fn alloc_attrs(attrs: Attrs) -> MapCall {
    MapCall { family: Family::Coherent, cpu_addr: BUF, attrs, ..single(BUF, PAGE, Bidirectional) }
}

fn free_attrs(dma: Iova, attrs: Attrs) -> UnmapCall {
    UnmapCall { cpu_addr: BUF, attrs, ..unmap(Family::Coherent, dma, PAGE, Bidirectional) }
}

#[test]
fn dv106_attributes_that_say_how_memory_was_allocated() {
    for (map, free, words) in [
        (Attrs::NO_KERNEL_MAPPING, Attrs::empty(), "dma_alloc_coherent was given DMA_ATTR_NO_KERNEL_MAPPING and dma_free_coherent was not"),
        (Attrs::empty(), Attrs::FORCE_CONTIGUOUS, "dma_free_coherent was given DMA_ATTR_FORCE_CONTIGUOUS and dma_alloc_coherent was not"),
    ] {
        let w = World::new();
        let dma = w.map_call(alloc_attrs(map))[0].0;
        w.unmap_call(free_attrs(dma, free));
        assert_eq!(w.bad(), ["DV106w"]);
        assert!(w.finding(Code::DV106).message.contains(words), "{}", w.finding(Code::DV106).message);
        assert_eq!(w.core.stats().live_mappings, 0);
    }
}

#[test]
fn dv106_all_others_may_differ() {
    let w = World::new();
    // dma_alloc_coherent(__GFP_NOWARN) and dma_free_coherent(); dma_alloc_wc() and dma_free_coherent(); managed by devres.
    let lenient = Attrs::NO_WARN | Attrs::WRITE_COMBINE | Attrs::WEAK_ORDERING | Attrs::ALLOC_SINGLE_PAGES;
    let both = Attrs::NO_KERNEL_MAPPING | Attrs::FORCE_CONTIGUOUS;
    for (map, free) in [(lenient, Attrs::empty()), (both, both), (both | lenient, both)] {
        let dma = w.map_call(alloc_attrs(map))[0].0;
        w.unmap_call(free_attrs(dma, free));
    }
    let streaming = Attrs::SKIP_CPU_SYNC | Attrs::WEAK_ORDERING | Attrs::DEBUGGING_IGNORE_CACHELINES;
    let dma = w.map_call(MapCall { attrs: streaming, ..single(BUF, 64, ToDevice) })[0].0;
    w.unmap(dma, 64, ToDevice);
    let dma = w.map(BUF, 64, ToDevice);
    w.unmap_skip(dma, 64, ToDevice);
    w.silent();
}

#[test]
fn dv110_code_and_constants_of_the_kernel() {
    let image = 0x20_0000..0x30_0000u64;
    let with = || {
        let w = World::with(|c| c.kernel_image = vec![0x20_0000..0x30_0000, 0x40_0000..0x48_0000]);
        w.cpu_write(image.end - 8, b"text");
        w.cpu_write(0x40_1000, b"constant");
        w
    };
    let w = with();
    w.map(image.end - 8, 16, ToDevice);
    assert_eq!(w.bad(), ["DV110e"]);
    let w = with();
    w.map_call(list(&[(BUF, 64), (0x40_1000, 32)], ToDevice));
    assert_eq!(w.finding(Code::DV110).range, Some(ByteRange { start: 64, end: 96 }));
    let w = with();
    w.map(0x40_2000, PAGE, FromDevice);
    assert_eq!(w.bad(), ["DV110e"], "zeroes are for reading");
    // The zero page is in the image's data or among its constants, and what lies between its parts goes to the page allocator.
    let w = with();
    w.map(image.end, PAGE, ToDevice);
    w.map(image.start - 64, 64, FromDevice);
    w.map(0x48_0000, PAGE, ToDevice);
    w.map(0x40_2000, PAGE, ToDevice);
    w.map_call(list(&[(0x40_2000, PAGE), (0x40_2000, PAGE)], ToDevice));
    w.silent();
    World::new().map(image.start, 64, ToDevice);
}

#[test]
fn dv112_longer_than_declared() {
    let limits = Limits { max_seg_size: 4096, ..Limits::default() };
    let w = World::new();
    w.map_call(MapCall { limits, ..list(&[(BUF, PAGE), (BUF + 4 * PAGE, PAGE + 512)], ToDevice) });
    let f = w.finding(Code::DV112);
    assert!(f.message.contains("4608 bytes") && f.message.contains("at most 4096"), "{}", f.message);
    assert_eq!((f.severity, f.range), (Severity::Warning, Some(ByteRange { start: 4096, end: 4096 + 4608 })));
}

#[test]
fn dv112_across_a_boundary() {
    let limits = Limits { seg_boundary: 0xffff, ..Limits::default() };
    let w = World::new();
    w.map_call(MapCall { limits, ..list(&[(BUF + 0x800, 0x1_0000)], ToDevice) });
    assert!(w.finding(Code::DV112).message.contains("cannot but cross a boundary of 65536"));
    let small = Limits { seg_boundary: 0x3ff, ..Limits::default() };
    let w = World::new();
    w.map_call(MapCall { limits: small, ..list(&[(BUF + 0x300, 0x200)], ToDevice) });
    assert_eq!(w.bad(), ["DV112w"]);
}

#[test]
fn dv112_within_the_limits_and_other_families() {
    let w = World::with(|c| c.sg_merge = true);
    let limits = Limits { max_seg_size: 4096, seg_boundary: 0xffff, ..Limits::default() };
    // Where entries come to lie, and that they are merged, is not the driver's doing: BUF + 0xf000 is next to a boundary.
    let many: Vec<_> = (0..300).map(|n| (BUF + 0xf000 + n * PAGE, PAGE)).collect();
    w.map_call(MapCall { limits, ..list(&many, FromDevice) });
    w.map_call(MapCall { limits: Limits { seg_boundary: 0x3ff, ..limits }, ..list(&[(BUF + 0x400, 0x400)], ToDevice) });
    // Limits are about lists; a mask of an odd form says nothing.
    w.map_call(MapCall { limits, ..single(BUF + 0x20_0000, 0x2_0000, ToDevice) });
    w.map_call(MapCall { limits: Limits { seg_boundary: 0x1_2345, ..limits }, ..list(&[(BUF + 1, 4096)], ToDevice) });
    w.map_call(MapCall { limits: Limits { seg_boundary: u64::MAX, ..limits }, ..list(&[(BUF + 1, 4096)], ToDevice) });
    w.silent();
}

#[test]
fn dv113_ram_is_no_resource() {
    let w = World::new();
    w.cpu_write(BUF, &[7; 64]);
    let resource = MapCall { family: Family::Resource, ..single(BUF, 64, Bidirectional) };
    let dma = w.map_call(resource)[0].0;
    assert_eq!(w.bad(), ["DV113e"]);
    assert_eq!(w.read(dma, 64), [7; 64], "without a cache in between it works");
    w.unmap_call(unmap(Family::Resource, dma, 64, Bidirectional));
    let w = World::new();
    w.map_call(MapCall { attrs: Attrs::MMIO, ..single(BUF, 64, ToDevice) });
    assert_eq!(w.bad(), ["DV113e"]);
}

#[test]
fn dv113_what_is_not_ram() {
    let w = World::new();
    for gpa in [0xe000_0000, 0xa_0000, 0x40_0000_0000, RAM] {
        let dma = w.map_call(MapCall { family: Family::Resource, ..single(gpa, PAGE, Bidirectional) })[0].0;
        w.unmap_call(unmap(Family::Resource, dma, PAGE, Bidirectional));
    }
    w.silent();
}

#[test]
fn dv116_mapped_twice_to_be_written() {
    let w = World::new();
    let first = w.map(BUF, 256, FromDevice);
    let again = w.map(BUF + 128, 256, Bidirectional);
    let f = w.finding(Code::DV116);
    assert_eq!((f.severity, f.mapping.unwrap().handle, f.offence.what.as_str()), (Severity::Warning, first, "dma_map_single"));
    assert!(f.message.contains("256 bytes were mapped") && again != first);
    assert_eq!(w.bad(), ["DV116w"]);
    let w = World::new();
    w.map_call(list(&[(BUF, 64), (BUF + PAGE, 64)], FromDevice));
    w.map_call(list(&[(BUF + 2 * PAGE, 64), (BUF + PAGE, 64)], FromDevice));
    assert_eq!(w.bad(), ["DV116w"]);
}

#[test]
fn dv116_not_when_one_only_reads_or_one_is_the_cpus() {
    let w = World::new();
    // A frame sent twice; one page of zeroes behind many mappings; a received buffer that is sent on.
    for _ in 0..3 {
        w.map(BUF, 256, ToDevice);
    }
    let received = w.map(BUF + PAGE, 256, FromDevice);
    w.map(BUF + PAGE, 256, ToDevice);
    // Next to each other, in one line.
    w.map(BUF + 2 * PAGE, 96, FromDevice);
    w.map(BUF + 2 * PAGE + 96, 96, FromDevice);
    // Taken back first, and one after the other.
    let buffer = w.map(BUF + 3 * PAGE, 256, FromDevice);
    w.for_cpu(buffer, 256, FromDevice);
    let again = w.map(BUF + 3 * PAGE, 256, FromDevice);
    w.unmap(again, 256, FromDevice);
    w.unmap(buffer, 256, FromDevice);
    w.map(BUF + 3 * PAGE, 256, FromDevice);
    // Memory from dma_alloc_pages() is the CPU's until it is handed over.
    w.alloc_pages(BUF + 4 * PAGE, PAGE, Bidirectional);
    w.map(BUF + 4 * PAGE, 64, FromDevice);
    // An entry twice in one list: a place to throw things.
    w.map_call(list(&[(BUF + 6 * PAGE, 64), (BUF + 6 * PAGE, 64)], FromDevice));
    w.silent();
    w.unmap(received, 256, FromDevice);
}

#[test]
fn dv116_not_for_those_who_keep_count_themselves() {
    let w = World::new();
    // A page_pool page, mapped once for its life; a fragment of it as the driver syncs it.
    let pool = MapCall { kind: PageKind::PagePool, attrs: Attrs::SKIP_CPU_SYNC, ..single(BUF, PAGE, FromDevice) };
    let dma = w.map_call(pool.clone())[0].0;
    w.for_device(dma, 2048, FromDevice);
    w.map_call(pool);
    // Two direct reads into one buffer of a user.
    let user = MapCall { kind: PageKind::Foreign, ..single(BUF + PAGE, PAGE, FromDevice) };
    w.map_call(user.clone());
    w.map_call(user);
    // Both say that they know.
    let known = MapCall { attrs: Attrs::DEBUGGING_IGNORE_CACHELINES, ..single(BUF + 2 * PAGE, 64, FromDevice) };
    w.map_call(known.clone());
    w.map_call(known);
    // A buffer that devices share.
    w.map(BUF + 3 * PAGE, 256, Bidirectional);
    assert!(matches!(w.call_as(OTHER, &ApiCall::Map(single(BUF + 3 * PAGE, 256, Bidirectional))), Answer::Handles(_)));
    w.silent();
}

#[test]
fn dv219_coherent_memory_is_not_mapped() {
    let w = World::new();
    let ring = w.alloc_coherent(BUF, 2 * PAGE);
    w.map(BUF + PAGE + 64, 64, ToDevice);
    let f = w.finding(Code::DV219);
    assert_eq!((f.severity, f.mapping.unwrap().handle), (Severity::Error, ring));
    assert_eq!(w.bad(), ["DV219e"], "always");
}

#[test]
fn dv219_memory_that_was_coherent_or_is_exported() {
    let w = World::new();
    let ring = w.alloc_coherent(BUF, PAGE + 100);
    // An exporter maps its coherent buffer for another device, or for its own, without a sync.
    let export = MapCall { attrs: Attrs::SKIP_CPU_SYNC, ..list(&[(BUF, PAGE)], Bidirectional) };
    let exported = w.map_call(export.clone())[0].0;
    assert!(matches!(w.call_as(OTHER, &ApiCall::Map(export)), Answer::Handles(_)));
    assert!(matches!(w.call_as(OTHER, &ApiCall::Map(single(BUF, PAGE, Bidirectional))), Answer::Handles(_)));
    w.unmap_call(UnmapCall { attrs: Attrs::SKIP_CPU_SYNC, ..unmap(Family::Sg, exported, PAGE, Bidirectional) });
    // Its neighbours, and the memory once it was freed.
    w.map(BUF + 2 * PAGE, PAGE, ToDevice);
    w.map(BUF - PAGE, PAGE, ToDevice);
    w.unmap_call(UnmapCall { cpu_addr: BUF, ..unmap(Family::Coherent, ring, PAGE + 100, Bidirectional) });
    let w2 = w.map(BUF + PAGE, PAGE, ToDevice);
    w.unmap(w2, PAGE, ToDevice);
    w.silent();
}

#[test]
fn dv302_not_where_all_say_that_they_know() {
    let w = World::new();
    let known = |at| MapCall { attrs: Attrs::DEBUGGING_IGNORE_CACHELINES, kind: PageKind::Other, ..single(BUF + at, 32, FromDevice) };
    w.map_call(known(0));
    w.map_call(known(32));
    w.silent();
    w.map_call(MapCall { attrs: Attrs::empty(), ..known(64) });
    w.map_call(known(96));
    assert_eq!(w.bad(), ["DV302w"]);
}

#[test]
fn dv110_and_dv114_as_the_kernel_rejects_them() {
    let w = World::new();
    assert_eq!(w.call(&ApiCall::Rejected(Rejected::Flags(AllocFlags::DMA32 | AllocFlags::COMP))), Answer::Done);
    let f = w.finding(Code::DV114);
    assert_eq!((f.severity, f.offence.what.as_str()), (Severity::Error, "dma_alloc_pages"));
    assert!(f.message.contains("__GFP_DMA32 | __GFP_COMP"), "{}", f.message);
    assert!(f.advice.contains("mask"), "{}", f.advice);
    w.call(&ApiCall::Rejected(Rejected::Flags(AllocFlags::COMP)));
    w.call(&ApiCall::Rejected(Rejected::Vmalloc));
    let f = w.finding(Code::DV110);
    assert_eq!((f.severity, f.offence.what.as_str(), f.mapping.is_some()), (Severity::Error, "dma_map_single", false));
    assert_eq!(w.bad(), ["DV110e", "DV114e", "DV114e"]);
    assert_eq!(w.core.stats().maps, 0, "nothing was mapped");
}

/// A pedantic machine whose pages are all watched.
fn strict() -> World {
    World::with(|c| (c.pedantic, c.watch) = (true, WatchPolicy::All))
}

#[test]
fn a_map_of_no_bytes_has_a_handle_and_nothing_to_tell() {
    for (at, direction) in [(BUF, ToDevice), (BUF + 4095, FromDevice), (BUF + 5, Bidirectional)] {
        for kind in [PageKind::Slab, PageKind::Other, PageKind::PagePool] {
            let w = strict();
            let empty = || MapCall { kind, ..single(at, 0, direction) };
            // Two over each other, and over one that has bytes.
            let around = w.map(BUF, PAGE, ToDevice);
            let handles = [w.map_call(empty()), w.map_call(empty())].concat();
            assert!(handles.iter().all(|(iova, len)| *len == 0 && iova.0 % PAGE == at % PAGE && *iova != around));
            assert_ne!(handles[0].0, handles[1].0);
            for (iova, len) in handles {
                w.for_cpu(iova, len, direction);
                w.for_device(iova, len, direction);
                assert!(w.view.consume(iova, 0).is_ok());
                w.unmap(iova, 0, direction);
            }
            w.unmap(around, PAGE, ToDevice);
            assert_eq!((w.codes(), w.core.stats().live_mappings), (vec![], 0));
        }
    }
}

#[test]
fn no_byte_of_a_map_of_no_bytes_is_the_devices() {
    let w = World::new();
    w.cpu_write(BUF, &[7; 64]);
    let dma = w.map(BUF, 0, Bidirectional);
    assert_eq!((w.try_read(dma, 1), w.try_write(dma, &[1])), (None, false));
    assert_eq!(w.bad(), ["DV207e"]);
    w.unmap(dma, 0, Bidirectional);
    assert_eq!(w.cpu_read(BUF, 64), [7; 64]);
    assert_eq!(w.try_read(dma, 1), None);
    w.unmap(dma, 0, Bidirectional);
    assert_eq!(w.bad(), ["DV101e", "DV207e", "DV208e"]);
}

#[test]
fn a_map_of_no_bytes_has_a_size_and_an_end() {
    let w = World::new();
    w.unmap(w.map(BUF, 0, ToDevice), 1, ToDevice);
    assert_eq!(w.bad(), ["DV102e"]);
    let w = World::new();
    w.map(BUF, 0, ToDevice);
    w.call(&ApiCall::Unbound);
    assert_eq!(w.bad(), ["DV108e"]);
}

#[test]
fn an_entry_of_no_bytes_leaves_the_others_as_they_are() {
    for merge in [false, true] {
        let w = World::with(|c| (c.pedantic, c.sg_merge) = (true, merge));
        let handles = w.map_call(list(&[(BUF, 64), (BUF + PAGE, 0), (BUF + 2 * PAGE, 64)], FromDevice));
        assert_eq!(handles.iter().map(|h| h.1).collect::<Vec<_>>(), [64, 0, 64]);
        w.write(handles[2].0, &[9; 64]);
        w.unmap_call(UnmapCall { ranges: handles, ..unmap(Family::Sg, Iova(0), 0, FromDevice) });
        assert_eq!((w.cpu_read(BUF + 2 * PAGE, 64), w.codes()), (vec![9; 64], vec![]));
    }
}
