//! Handle space: which device is given what, and what becomes of freed blocks.

use crate::Config;
use crate::handles::{Block, Handles, order_of_mask, pages_of};
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const ALL: u64 = u64::MAX;

/// A machine with few handles: these pages above 4 GiB and nothing else.
fn only(start: u64, pages: u64) -> Config {
    let mut config = Config::for_ram(MIB);
    config.low_window = 4096..4096;
    config.high_window = start..start + pages * 4096;
    config.reserved = Vec::new();
    config
}

fn take(handles: &mut Handles, pages: u64) -> Option<Block> {
    handles.alloc(pages, ALL, 0, |_| true)
}

/// All blocks of one size there are.
fn drain(handles: &mut Handles, pages: u64) -> Vec<Block> {
    std::iter::from_fn(|| take(handles, pages)).collect()
}

#[test]
fn every_page_of_a_window_is_given_out_once() {
    for pages in [16, 17, 31, 1000] {
        let mut handles = Handles::new(&only(64 * GIB, pages));
        let blocks = drain(&mut handles, 1);
        let bases: BTreeSet<u64> = blocks.iter().map(|block| block.base).collect();
        assert_eq!((blocks.len() as u64, bases.len() as u64), (pages, pages));
        assert_eq!((bases.first().copied(), bases.last().copied()), (Some(64 * GIB), Some(64 * GIB + (pages - 1) * 4096)));
    }
}

#[test]
fn what_alignment_skips_is_given_out_later() {
    let mut handles = Handles::new(&only(64 * GIB, 64));
    let small = take(&mut handles, 1).unwrap();
    let large = take(&mut handles, 32).unwrap();
    assert_eq!((small.base, large.base), (64 * GIB, 64 * GIB + 32 * 4096));
    // 31 pages were skipped: one of 1, one of 2, ... one of 16.
    for pages in [16, 8, 4, 2, 1] {
        let block = take(&mut handles, pages).unwrap();
        assert_eq!(block.range(), block.base..block.base + pages * 4096);
        assert!(block.base > small.base && block.base < large.base && block.base.is_multiple_of(pages * 4096));
    }
    assert!(take(&mut handles, 1).is_none());
}

#[test]
fn a_larger_block_is_split_when_nothing_else_is_left() {
    let mut handles = Handles::new(&only(64 * GIB, 64));
    let whole = take(&mut handles, 64).unwrap();
    assert!(take(&mut handles, 1).is_none());
    handles.free(whole);
    let blocks = drain(&mut handles, 1);
    let bases: BTreeSet<u64> = blocks.iter().map(|block| block.base).collect();
    assert_eq!((blocks.len(), bases.len()), (64, 64), "each page once");
    assert!(bases.iter().all(|base| whole.contains(*base)));
}

#[test]
fn freed_neighbours_become_one_again() {
    let mut handles = Handles::new(&only(64 * GIB, 64));
    let blocks = drain(&mut handles, 2);
    assert_eq!(blocks.len(), 32);
    // Every second one: no two are buddies.
    for block in blocks.iter().skip(1).step_by(2) {
        handles.free(*block);
    }
    assert!(take(&mut handles, 4).is_none(), "no block of four is free as a whole");
    for block in blocks.iter().step_by(2).take(8) {
        handles.free(*block);
    }
    let joined = drain(&mut handles, 4);
    let bases: BTreeSet<u64> = joined.iter().map(|block| block.base).collect();
    assert_eq!((joined.len(), bases.len()), (8, 8));
    assert!(joined.iter().all(|block| block.base < blocks[16].base && block.base.is_multiple_of(4 * 4096)));
    assert_eq!(drain(&mut handles, 2).len(), 8, "the others are still there in their size");
}

#[test]
fn a_quarter_of_the_space_waits_before_blocks_are_used_again() {
    let mut handles = Handles::new(&only(64 * GIB, 64));
    let mut bases = Vec::new();
    for _ in 0..18 {
        let block = take(&mut handles, 1).unwrap();
        bases.push(block.base);
        handles.free(block);
    }
    // 16 pages may wait; the seventeenth that is free sends the oldest round again.
    let fresh: Vec<u64> = (0..17).map(|n| 64 * GIB + n * 4096).collect();
    assert_eq!(bases[..17], fresh);
    assert_eq!(bases[17], bases[0]);
}

#[test]
fn blocks_end_where_they_end() {
    let mut handles = Handles::new(&only(64 * GIB, 64));
    let block = take(&mut handles, 3).unwrap();
    assert_eq!(block.range().end - block.base, 4 * 4096);
    assert!(block.contains(block.base) && block.contains(block.base + 4 * 4096 - 1));
    assert!(!block.contains(block.base + 4 * 4096) && !block.contains(block.base - 1) && !block.contains(0));
}

#[test]
fn nothing_is_larger_than_the_largest_block() {
    let mut config = only(64 * GIB, 1);
    config.high_window = 64 * GIB..(1 << 47);
    let mut handles = Handles::new(&config);
    assert!(take(&mut handles, 1 << 23).is_some());
    assert!(take(&mut handles, (1 << 23) + 1).is_none() && take(&mut handles, ALL).is_none());
    assert!(handles.alloc(1, ALL, 24, |_| true).is_none());
}

#[test]
fn a_block_that_is_not_usable_is_left_for_others() {
    let mut handles = Handles::new(&only(64 * GIB, 64));
    let odd = |block: &Block| block.base / 4096 % 2 == 1;
    assert_eq!(handles.alloc(1, ALL, 0, odd).map(|b| b.base), Some(64 * GIB + 4096));
    assert!(handles.alloc(1, ALL, 0, |_| false).is_none());
    assert_eq!(drain(&mut handles, 1).len(), 63, "none is lost");
}

#[test]
fn masks_are_obeyed_to_the_byte() {
    let mut config = only(64 * GIB, 16);
    let last = 64 * GIB + 16 * 4096 - 1;
    assert!(Handles::new(&config).alloc(1, last, 0, |_| true).is_some());
    assert!(Handles::new(&config).alloc(1, last - 1, 0, |_| true).is_none());
    assert!(Handles::new(&config).reaches(last) && !Handles::new(&config).reaches(last - 1));
    config.high_window.end -= 4096;
    assert!(!Handles::new(&config).reaches(ALL), "fifteen pages are too few");
    config = Config::for_ram(8 * MIB);
    config.low_window.start = 8 * MIB;
    let handles = Handles::new(&config);
    assert!(handles.reaches(0xff_ffff) && !handles.reaches(0xff_fffe));
}

#[test]
fn reserved_ranges_are_cut_out() {
    let base = 64 * GIB;
    let page = |n: u64| base + n * 4096;
    let given = |reserved: &[(u64, u64)]| {
        let mut config = only(base, 64);
        config.reserved = reserved.iter().map(|(start, end)| *start..*end).collect();
        let mut handles = Handles::new(&config);
        drain(&mut handles, 1).iter().map(|block| (block.base - base) / 4096).collect::<BTreeSet<u64>>()
    };
    let pages = |ranges: &[(u64, u64)]| ranges.iter().flat_map(|(start, end)| *start..*end).collect::<BTreeSet<u64>>();
    assert_eq!(given(&[(page(10), page(20))]), pages(&[(0, 10), (20, 64)]));
    assert_eq!(given(&[(page(0), page(8))]), pages(&[(8, 64)]), "at the beginning");
    assert_eq!(given(&[(page(60), page(64))]), pages(&[(0, 60)]), "at the end");
    assert_eq!(given(&[(0, base), (page(64), ALL), (page(30), page(30))]), pages(&[(0, 64)]), "beside it, and empty");
    assert_eq!(given(&[(0, ALL)]), BTreeSet::new());
    assert_eq!(given(&[(page(10), page(20)), (page(15), page(30))]), pages(&[(0, 10), (30, 64)]));
    assert_eq!(given(&[(page(4), page(61))]), pages(&[(0, 4)]), "three pages are not worth a zone, four are");
}

#[test]
fn the_mask_that_covers_everything() {
    assert_eq!(Handles::new(&only(64 * GIB, 64)).required_mask(), (128 * GIB) - 1);
    let mut config = only(4 * GIB, 1);
    config.high_window = 4 * GIB..8 * GIB;
    assert_eq!(Handles::new(&config).required_mask(), 8 * GIB - 1);
    config.high_window.end += 64 * 4096;
    assert_eq!(Handles::new(&config).required_mask(), 16 * GIB - 1);
    assert_eq!(Handles::new(&Config::for_ram(MIB)).required_mask(), 128 * GIB - 1);
}

#[test]
fn addresses_of_ram_come_last() {
    let mut config = Config::for_ram(32 * MIB);
    config.high_window = 0..0;
    let mut handles = Handles::new(&config);
    let wide = take(&mut handles, 1).unwrap();
    assert!(wide.base >= 32 * MIB, "{wide:?}");
    let narrow = handles.alloc(1, 0xff_ffff, 0, |_| true).unwrap();
    assert!((MIB..16 * MIB).contains(&narrow.base), "{narrow:?}");
}

#[test]
fn pieces_take_the_pages_they_touch() {
    for (offset, len, pages) in
        [(0, 0, 1), (0, 1, 1), (0, 4096, 1), (1, 4096, 2), (4095, 1, 1), (4095, 2, 2), (8191, 4098, 3), (0, 8193, 3)]
    {
        assert_eq!(pages_of(offset, len), pages, "{len} bytes at {offset}");
    }
    for (mask, order) in [(0, 0), (0xfff, 0), (0x1fff, 1), (0xffff, 4), (0xf_ffff, 8)] {
        assert_eq!(order_of_mask(mask), order, "{mask:#x}");
    }
}
