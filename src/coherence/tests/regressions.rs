//! Histories that broke earlier designs, by name, and what is easy to get wrong again.

use super::fixture::*;
use crate::*;

#[test]
fn an_all_zero_line_after_alloc_and_for_device() {
    let w = World::new();
    // The slot held other data before.
    w.cpu_write(BUF + PAGE, &[0xff; 4096]);
    let old = w.map(BUF + PAGE, PAGE, ToDevice);
    w.unmap(old, PAGE, ToDevice);
    // alloc_pages returns zeroed memory; nothing is written, the whole is handed over.
    w.cpu_write(BUF, &[0; 4096]);
    let dma = w.alloc_pages(BUF, PAGE, Bidirectional);
    w.for_device(dma, PAGE, Bidirectional);
    assert_eq!(w.read(dma, 4096), [0; 4096], "zeros are handed over although they equal the baseline");
    w.silent();
}

#[test]
fn a_page_zeroed_after_a_skip_unmap_and_mapped_again() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 4096]);
    let dma = w.map(BUF, PAGE, FromDevice);
    w.write(dma, &[2; 4096]);
    w.unmap_skip(dma, PAGE, FromDevice);
    w.cpu_write(BUF, &[0; 4096]);
    let dma = w.map(BUF, PAGE, ToDevice);
    assert_eq!(w.read(dma, 4096), [0; 4096]);
    w.unmap(dma, PAGE, ToDevice);
    assert_eq!(w.cpu_read(BUF, 4096), [0; 4096]);
    w.silent();
}

#[test]
fn a_whole_page_handed_over_with_a_partial_for_cpu_and_writes_to_the_tail() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 4096]);
    let dma = w.map(BUF, PAGE, Bidirectional);
    w.write(dma, &[2; 100]);
    w.for_cpu(dma, 128, Bidirectional);
    assert_eq!(w.cpu_read(BUF, 101), [vec![2; 100], vec![1]].concat());
    w.cpu_write(BUF + 4000, &[3; 96]);
    w.for_device(dma, PAGE, Bidirectional);
    assert_eq!(w.read(Iova(dma.0 + 4000), 96), [3; 96]);
    w.unmap(dma, PAGE, Bidirectional);
    assert_eq!(w.cpu_read(BUF + 4000, 96), [3; 96]);
    assert_eq!(w.cpu_read(BUF, 100), [2; 100]);
    w.silent();
}

#[test]
fn two_mappings_can_share_a_line() {
    let w = World::new();
    w.cpu_write(BUF, &[1; 64]);
    let a = w.map(BUF, 32, Bidirectional);
    w.cpu_write(BUF + 32, &[2; 32]);
    let b = w.map(BUF + 32, 32, Bidirectional);
    assert_eq!(w.read(a, 32), [1; 32]);
    assert_eq!(w.read(b, 32), [2; 32]);
    w.unmap(a, 32, Bidirectional);
    w.cpu_write(BUF, &[5; 32]);
    assert_eq!(w.read(b, 32), [2; 32], "the neighbour's end touches no byte of this one");
    let a = w.map(BUF, 32, Bidirectional);
    assert_eq!(w.read(a, 32), [5; 32]);
    w.silent();
}

#[test]
fn the_zero_page_mapped_many_times() {
    let w = World::new();
    let handles: Vec<_> = (0..100).map(|_| w.map(BUF, PAGE, ToDevice)).collect();
    for (n, dma) in handles.iter().enumerate() {
        assert_eq!(w.read(*dma, 64), [0; 64]);
        if n % 2 == 0 {
            w.unmap(*dma, PAGE, ToDevice);
        }
    }
    assert_eq!(w.core.stats().tracked_pages, 1);
    for dma in handles.iter().skip(1).step_by(2) {
        assert_eq!(w.read(*dma, 64), [0; 64]);
        w.unmap(*dma, PAGE, ToDevice);
    }
    assert_eq!(w.core.stats().tracked_pages, 0);
    w.silent();
}

#[test]
fn a_forwarded_receive_page_hands_over_for_all() {
    let w = World::new();
    let rx = w.map(BUF, PAGE, FromDevice);
    w.write(rx, &[9; 1500]);
    w.for_cpu(rx, 1500, FromDevice);
    // The page goes on to transmit while it is still mapped for receive (page_pool).
    let tx = w.map(BUF, 1500, ToDevice);
    assert_eq!(w.read(tx, 1500), [9; 1500]);
    w.unmap(tx, 1500, ToDevice);
    w.unmap_skip(rx, PAGE, FromDevice);
    w.silent();
}

#[test]
fn a_slot_used_again_shows_nothing_of_its_past() {
    let w = World::new();
    for round in 0..5u8 {
        let gpa = BUF + u64::from(round) * PAGE;
        w.cpu_write(gpa, &[round; 4096]);
        let dma = w.map(gpa, PAGE, Bidirectional);
        assert_eq!(w.read(dma, 4096), [round; 4096]);
        w.write(dma, &[0xee; 4096]);
        w.unmap(dma, PAGE, Bidirectional);
        assert_eq!(w.cpu_read(gpa, 4096), [0xee; 4096]);
    }
    assert_eq!(w.core.stats().peak_tracked_pages, 1);
    w.silent();
}

#[test]
fn order_of_findings_does_not_depend_on_the_numbers_of_sites() {
    let run = |reversed: bool| {
        let w = World::new();
        let mut names = ["a+0x1 [drv]", "b+0x2 [drv]", "c+0x3 [drv]"];
        if reversed {
            names.reverse();
        }
        let sites = names.map(|name| w.site(name));
        for site in sites {
            let caller = Caller { requester: DEVICE, site, cpu: 0 };
            w.core.call(caller, &ApiCall::Map(single(BUF, 16, ToDevice)));
        }
        w.call(&ApiCall::Unbound);
        let summary = w.core.finish();
        let name = |f: &Finding| summary.sites.frames(f.mapping.as_ref().unwrap().map_site)[0].symbol.clone();
        summary.findings.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true));
    assert_eq!(run(false).len(), 3);
}
