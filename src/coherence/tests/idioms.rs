//! What correct drivers do and must not be told off for.

use super::fixture::*;
use crate::*;

#[test]
pub(super) fn peeking_at_a_descriptor_the_device_still_works_on() {
    let w = World::new();
    w.cpu_write(BUF, &[0x80; 32]);
    let dma = w.map(BUF, PAGE, Bidirectional);
    for _ in 0..3 {
        w.for_cpu(dma, 32, Bidirectional);
        assert_eq!(w.cpu_read(BUF, 1), [0x80]);
        w.for_device(dma, 32, Bidirectional);
        assert_eq!(w.read(dma, 32), [0x80; 32]);
    }
    w.write(dma, &[0; 1]);
    w.for_cpu(dma, 32, Bidirectional);
    assert_eq!(w.cpu_read(BUF, 2), [0, 0x80]);
    w.unmap(dma, PAGE, Bidirectional);
    w.silent();
}

#[test]
pub(super) fn for_cpu_before_rewriting_a_to_device_descriptor() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    for n in 0..4 {
        w.for_cpu(dma, 64, ToDevice);
        w.cpu_write(BUF, &[n; 64]);
        w.for_device(dma, 64, ToDevice);
        assert_eq!(w.read(dma, 64), [n; 64]);
    }
    w.unmap(dma, 64, ToDevice);
    w.silent();
}

#[test]
pub(super) fn a_write_to_a_to_device_mapping_before_for_device() {
    let w = World::new();
    let dma = w.map(BUF, 64, ToDevice);
    w.cpu_write(BUF, &[1; 64]);
    w.for_device(dma, 64, ToDevice);
    assert_eq!(w.read(dma, 64), [1; 64]);
    w.silent();
}

#[test]
pub(super) fn syncs_of_a_part_at_an_offset() {
    let w = World::new();
    let dma = w.map(BUF + 0x234, 3 * PAGE, Bidirectional);
    w.cpu_write(BUF + 0x234 + 5000, &[1; 300]);
    w.for_device(Iova(dma.0 + 5000), 300, Bidirectional);
    assert_eq!(w.read(Iova(dma.0 + 5000), 300), [1; 300]);
    w.write(Iova(dma.0 + 4000), &[2; 200]);
    w.for_cpu(Iova(dma.0 + 4000), 200, Bidirectional);
    assert_eq!(w.cpu_read(BUF + 0x234 + 4000, 200), [2; 200]);
    w.silent();
}

#[test]
pub(super) fn a_buffer_dropped_without_a_look() {
    let w = World::new();
    let dma = w.map(BUF, 2048, FromDevice);
    w.write(dma, &[1; 60]);
    w.unmap(dma, 2048, FromDevice);
    assert_eq!(w.codes(), [""; 0]);
}

#[test]
pub(super) fn the_receive_loop_of_a_page_pool_driver() {
    let w = World::new();
    let call = MapCall { kind: PageKind::PagePool, attrs: Attrs::SKIP_CPU_SYNC, ..single(BUF, PAGE, FromDevice) };
    let dma = w.map_call(call)[0].0;
    for n in 0..3 {
        w.for_device(dma, 2048, FromDevice);
        w.write(Iova(dma.0 + 64), &[n; 60]);
        w.for_cpu(Iova(dma.0 + 64), 60, FromDevice);
        assert_eq!(w.cpu_read(BUF + 64, 60), [n; 60]);
    }
    w.unmap_skip(dma, PAGE, FromDevice);
    w.silent();
}

#[test]
pub(super) fn retransmit_maps_a_clone_while_the_first_is_still_mapped() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 200]);
    let first = w.map(BUF, 200, ToDevice);
    let second = w.map(BUF, 200, ToDevice);
    assert_eq!(w.read(first, 200), w.read(second, 200));
    w.unmap(first, 200, ToDevice);
    assert_eq!(w.read(second, 200), [1; 200]);
    w.unmap(second, 200, ToDevice);
    w.silent();
}

#[test]
pub(super) fn reading_back_what_the_device_itself_wrote() {
    let w = World::new();
    let dma = w.map(BUF, 64, Bidirectional);
    w.write(dma, &[4; 8]);
    assert_eq!(w.read(dma, 64)[..9], [4, 4, 4, 4, 4, 4, 4, 4, 0]);
    w.unmap(dma, 64, Bidirectional);
    w.silent();
}

#[test]
pub(super) fn no_mask_ever_set_is_32_bits_and_legal() {
    let w = World::new();
    let call = MapCall { limits: Limits::default(), ..single(BUF, 64, ToDevice) };
    assert!(w.map_call(call)[0].0.0 <= 0xffff_ffff);
    w.silent();
}

#[test]
pub(super) fn wide_mask_refused_then_narrow_accepted() {
    let w = World::new();
    assert_eq!(w.call(&ApiCall::SetMask { mask: 0xfff }), Answer::Supported(false));
    assert_eq!(w.call(&ApiCall::SetMask { mask: 0xffff_ffff }), Answer::Supported(true));
    w.map(BUF, 64, ToDevice);
    w.silent();
}
