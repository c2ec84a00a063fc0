//! The small machinery: masks of bytes, chunks of mappings, and the address map.

use crate::arena::{Arena, DeviceWrites};
use crate::bits::{Bits, PageBytes, block_differs, words};
use crate::chunk::{Segment, chunks};
use crate::{Code, Config, Error};
use vm_memory::Bytes;
use vm_memory::bitmap::{Bitmap, NewBitmap};

const GIB: u64 = 1 << 30;

/// Bits that are set, as ranges.
fn bits(ranges: &[(usize, usize)]) -> Bits {
    let mut bits = Bits::EMPTY;
    for (start, end) in ranges {
        bits.set(*start, *end);
    }
    bits
}

#[test]
fn marks_of_a_device_are_byte_exact_over_pages_and_words() {
    let marks = DeviceWrites::with_len(3 * 4096);
    let arena = Arena::new(3).unwrap();
    for slot in 0..3 {
        arena.prepare(slot);
    }
    assert!(!marks.dirty_at(0), "memory nobody prepared remembers nothing");
    // From the middle of a word of one page to the middle of a word of the next.
    let slice = arena.slice(1, 4000, 96).unwrap();
    slice.write_slice(&[1; 26], 70).unwrap();
    let here = slice.bitmap();
    let dirty: Vec<usize> = (0..4096_usize).filter(|at| here.dirty_at(at.wrapping_sub(4000))).collect();
    assert_eq!(dirty, (4070..4096).collect::<Vec<_>>());
    assert!(here.slice_at(70).dirty_at(0) && !here.slice_at(69).dirty_at(0));
    here.slice_at(90).mark_dirty(0, 200);
    assert!(arena.any_written(2, 193, 194) && !arena.any_written(2, 194, 4096), "marks go on in the next page");
    assert!(!arena.any_written(0, 0, 4096));
}

#[test]
fn a_device_tells_where_it_wrote() {
    let arena = Arena::new(2).unwrap();
    arena.prepare(1);
    let slice = arena.slice(1, 0, 4096).unwrap();
    slice.bitmap().mark_dirty(130, 3);
    for at in 0..4096 {
        assert_eq!(slice.bitmap().dirty_at(at), (130..133).contains(&at), "{at}");
    }
}

#[test]
fn what_lies_between_the_edges_counts_every_time() {
    // Words 0 to 4; the edges and two words in the middle, set alike so that they must not cancel out.
    let twice = bits(&[(70, 74), (134, 138)]);
    assert!(twice.any(10, 300));
    assert!(!twice.all(10, 300));
    assert!(!bits(&[(5, 10), (300, 310)]).any(10, 300));
    assert!(bits(&[(10, 300)]).all(10, 300));
    assert!(!bits(&[(10, 150), (151, 300)]).all(10, 300), "one byte of a middle word");
    assert!(!bits(&[(0, 64), (256, 320)]).all(10, 300), "nothing in the middle");
    let arena = Arena::new(1).unwrap();
    arena.prepare(0);
    for at in [70, 134] {
        arena.slice(0, at, 4).unwrap().write_slice(&[1; 4], 0).unwrap();
    }
    assert!(arena.any_written(0, 10, 300), "two writes alike");
    assert!(words(7, 7).is_empty(), "no bytes, no words");
}

#[test]
fn equal_blocks_do_not_differ() {
    let (mut a, b) = (PageBytes([0; 512]), PageBytes([0; 512]));
    assert!(!block_differs(&a, &b, 0) && !block_differs(&a, &b, 63));
    a.bytes_mut()[200] = 1;
    assert_eq!((0..64).filter(|word| block_differs(&a, &b, *word)).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_range_that_begins_at_a_segment_is_that_segments() {
    let segments = [
        Segment { iova: 0x1000, gpa: 0x5000, len: 0x100, offset: 0, joined: false },
        Segment { iova: 0x3000, gpa: 0x7000, len: 0x100, offset: 0x100, joined: false },
    ];
    let mut found = chunks(&segments, crate::ByteRange { start: 0x100, end: 0x180 });
    assert_eq!(found.next().map(|c| (c.page, c.start, c.end, c.segment)), Some((0x7000, 0, 0x80, 1)));
    assert!(found.next().is_none());
}

#[test]
fn codes_tell_their_numbers() {
    assert_eq!(Code::DV201.number(), 201);
    assert_eq!(Code::DV901.number(), 901);
}

#[test]
fn the_address_map_follows_the_size_of_ram() {
    // Up to 3 GiB below, the rest from 4 GiB up; handles lie behind, and behind the first 64 GiB at least.
    for (ram, low_start, high_start) in [
        (8 << 20, 16 << 20, 64 * GIB),
        (2 * GIB, 2 * GIB, 64 * GIB),
        (3 * GIB, 3 * GIB, 64 * GIB),
        (3 * GIB + 4096, 3 * GIB, 64 * GIB),
        (63 * GIB, 3 * GIB, 64 * GIB),
        (64 * GIB, 3 * GIB, 128 * GIB),
        (127 * GIB, 3 * GIB, 128 * GIB),
    ] {
        let config = Config::for_ram(ram);
        assert_eq!((config.low_window.start, config.high_window.start), (low_start, high_start), "{ram:#x}");
        assert_eq!((config.low_window.end, config.high_window.end), (3 * GIB, high_start + 64 * GIB));
        config.validate().unwrap();
    }
}

#[test]
fn windows_that_make_no_sense_are_refused() {
    let check = |change: fn(&mut Config)| {
        let mut config = Config::for_ram(GIB);
        change(&mut config);
        config.validate()
    };
    let good: [fn(&mut Config); 5] = [
        |c| c.low_window.end = 4 * GIB,
        |c| c.high_window = 4 * GIB..1 << 48,
        |c| c.high_window = 0..0,
        |c| c.low_window = 4096..4096,
        |c| c.high_window = 8 * GIB..8 * GIB + 4096,
    ];
    for (n, change) in good.into_iter().enumerate() {
        assert!(check(change).is_ok(), "good window {n}");
    }
    let bad: [fn(&mut Config); 8] = [
        |c| c.low_window.start = c.low_window.end + 4096,
        |c| c.low_window.start = 100,
        |c| c.low_window.end = 2 * GIB + 1,
        |c| c.low_window.end = 4 * GIB + 4096,
        |c| c.high_window.end = (1 << 48) + 4096,
        |c| c.high_window = 2 * GIB..8 * GIB,
        |c| c.high_window.start += 1,
        |c| c.high_window.end -= 1,
    ];
    for (n, change) in bad.into_iter().enumerate() {
        assert!(matches!(check(change), Err(Error::Window { .. })), "bad window {n}");
    }
    assert!(matches!(check(|c| c.line_size = 48), Err(Error::LineSize(48))));
    let full = Config::for_ram(u64::MAX).validate();
    assert!(matches!(full, Err(Error::Window { .. })), "RAM that leaves no room for handles");
}
