//! The driver's side of virtio-blk. Types, offsets and bits are written out, not taken from `spec`.
#![expect(clippy::cast_possible_truncation, reason = "tests count small things")]

use super::VirtioBlk;
use crate::disk::Disk;
use crate::testing::Dma;
use crate::virtio_pci::driver::{Board, EVENT_IDX, Part};
use proptest::prelude::*;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const SIZE: u64 = 1 << 20;
const SECTORS: u64 = SIZE / 512;

fn board() -> Board<VirtioBlk> {
    Board::running(VirtioBlk::new(Disk::empty(SIZE), false), 128, 0)
}

fn header(code: u32, sector: u64) -> Part {
    let mut bytes = code.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    Part::Out(bytes)
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i + seed) % 253) as u8 + 1).collect()
}

/// Status and data of a request with `out` bytes of data to the device and room for `room` from it.
fn request(board: &mut Board<VirtioBlk>, code: u32, sector: u64, out: &[u8], room: u32) -> (u8, Vec<u8>) {
    let mut parts = vec![header(code, sector)];
    if !out.is_empty() {
        parts.push(Part::Out(out.to_vec()));
    }
    if room != 0 {
        parts.push(Part::In(room));
    }
    parts.push(Part::In(1));
    let mut back = board.run(0, &parts);
    (back.bytes.pop().unwrap(), back.bytes)
}

#[test]
fn what_was_written_is_read() {
    let mut board = board();
    let data = pattern(0, 3 * 512);
    assert_eq!(request(&mut board, OUT, 7, &data, 0), (0, vec![]));
    assert_eq!(request(&mut board, FLUSH, 0, &[], 0), (0, vec![]));
    assert_eq!(request(&mut board, IN, 7, &[], 3 * 512), (0, data.clone()));
    let (status, around) = request(&mut board, IN, 6, &[], 5 * 512);
    assert_eq!((status, &around[512..4 * 512]), (0, &data[..]));
    assert!(around[..512].iter().chain(&around[4 * 512..]).all(|byte| *byte == 0));
    // The end of the disk, and one sector more.
    assert_eq!(request(&mut board, OUT, SECTORS - 1, &pattern(1, 512), 0).0, 0);
    assert_eq!(request(&mut board, OUT, SECTORS - 1, &pattern(1, 1024), 0).0, 1);
    assert_eq!(request(&mut board, IN, SECTORS, &[], 512).0, 1);
    assert_eq!(request(&mut board, IN, u64::MAX, &[], 512).0, 1);
    assert_eq!(request(&mut board, IN, 0, &[], 511).0, 1, "whole sectors only");
    assert_eq!(board.status(), 15);
}

#[test]
fn the_configuration_says_what_there_is() {
    let mut board = board();
    assert_eq!(board.bar(0x2000, 8), SECTORS);
    assert_eq!((board.bar(0x2008, 4), board.bar(0x200c, 4), board.bar(0x2014, 4)), (64 * 1024, 62, 512));
    assert_eq!((board.bar(0x2024, 4), board.bar(0x2028, 4), board.bar(0x2038, 1)), (1 << 16, 4, 1));
    assert_eq!(board.bar(0x203c, 4), 0xffff_ffff);
    let offered = board.begin();
    for bit in [1, 2, 6, 9, 13, 14, 28, 29, 32, 33] {
        assert_ne!(offered >> bit & 1, 0, "bit {bit}");
    }
    assert_eq!(offered.count_ones(), 10);
}

#[test]
fn layouts_are_the_drivers_choice() {
    let mut board = board();
    let data = pattern(3, 1024);
    // One descriptor for header and data, data and status in pieces, all of it indirect, zero lengths in between.
    let Part::Out(mut together) = header(OUT, 2) else { unreachable!() };
    together.extend(&data);
    let back = board.run(0, &[Part::Out(together), Part::In(1)]);
    assert_eq!((back.len, back.bytes), (1, vec![0]));
    let parts = [header(IN, 2), Part::Out(vec![]), Part::In(100), Part::In(0), Part::In(924), Part::In(1)];
    board.offer_indirect(0, &parts);
    board.kick(0);
    let back = board.back(0);
    assert_eq!((back[0].len, &back[0].bytes[..1024], back[0].bytes[1024]), (1025, &data[..], 0));
    let Part::Out(bytes) = header(IN, 2) else { unreachable!() };
    let back = board.run(0, &[Part::Out(bytes[..3].to_vec()), Part::Out(bytes[3..].to_vec()), Part::In(1025)]);
    assert_eq!((back.len, &back.bytes[..1024]), (1025, &data[..]));
}

#[test]
fn no_byte_more_is_touched_than_asked_for() {
    let mut board = board();
    request(&mut board, OUT, 0, &pattern(0, 512), 0);
    board.memory.log();
    board.run(0, &[header(IN, 0), Part::In(512), Part::In(1)]);
    let log = board.memory.log();
    let ring = board.rings[0].clone();
    let buffers: Vec<Dma> = log.into_iter().filter(|dma| matches!(dma, Dma::Read(at, _) | Dma::Write(at, _) if *at >= 0x40_0000)).collect();
    assert!(matches!(buffers[..], [Dma::Read(_, 16), Dma::Write(_, 512), Dma::Write(_, 1)]), "{buffers:?}");
    assert_eq!(board.half(ring.used + 2), 2);
}

#[test]
fn get_id_discard_and_write_zeroes() {
    let mut board = board();
    let (status, id) = request(&mut board, GET_ID, 0, &[], 20);
    assert_eq!((status, &id[..7]), (0, &b"dmavet\0"[..]));
    assert_eq!(request(&mut board, GET_ID, 0, &[], 19).0, 1);

    for (code, flags) in [(DISCARD, 0), (WRITE_ZEROES, 0), (WRITE_ZEROES, 1)] {
        request(&mut board, OUT, 0, &pattern(0, 40 * 512), 0);
        let ranges = [range(1, 2, flags), range(10, 20, flags)].concat();
        assert_eq!(request(&mut board, code, 0, &ranges, 0).0, 0);
        let mut expected = pattern(0, 40 * 512);
        expected[512..3 * 512].fill(0);
        expected[10 * 512..30 * 512].fill(0);
        assert_eq!(request(&mut board, IN, 0, &[], 40 * 512), (0, expected));
    }
    let before = request(&mut board, IN, 0, &[], 4096);
    for (ranges, status) in [
        (range(0, 1, 2), 2),
        (range(0, 1, 1), 2),
        ([range(0, 1, 0), range(SECTORS, 1, 0)].concat(), 1),
        (range(u64::MAX, 1, 0), 1),
        (range(0, u32::MAX, 0), 1),
        (vec![0; 15], 1),
        (range(0, 1, 0).repeat(5), 1),
        (vec![], 1),
    ] {
        assert_eq!(request(&mut board, DISCARD, 0, &ranges, 0).0, status, "{ranges:?}");
    }
    assert_eq!(request(&mut board, IN, 0, &[], 4096), before, "a request that fails changes nothing");
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut board = Board::running(VirtioBlk::new(Disk::empty(SIZE), true), 128, 0);
    assert_eq!(request(&mut board, OUT, 0, &pattern(0, 512), 0).0, 1);
    assert_eq!(request(&mut board, DISCARD, 0, &range(0, 1, 0), 0).0, 1);
    assert_eq!(request(&mut board, IN, 0, &[], 512), (0, vec![0; 512]));
    assert_ne!(board.begin() & 1 << 5, 0);
}

#[test]
fn strange_requests_end_with_an_error() {
    let mut board = board();
    assert_eq!(request(&mut board, 99, 0, &[], 0).0, 2);
    assert_eq!(board.run(0, &[Part::Out(vec![0; 4]), Part::In(1)]).bytes, [1], "no whole header");
    assert_eq!(board.run(0, &[Part::In(1)]).bytes, [1], "no header");
    assert_eq!(board.run(0, &[header(IN, 0)]).len, 0, "no room for the status");
    assert_eq!(board.run(0, &[header(IN, 0), Part::In(0)]).len, 0);
    // Longer than the limits in the configuration allow.
    let parts: Vec<Part> = std::iter::once(header(IN, 0)).chain((0..9).map(|_| Part::In(512 * 1024))).chain([Part::In(1)]).collect();
    assert_eq!(board.run(0, &parts).bytes.last(), Some(&1));
    assert_eq!(board.status(), 15);
}

#[test]
fn buffers_that_cannot_be_reached_are_io_errors() {
    let mut board = board();
    let at = board.room(8192);
    board.memory.refuse(at..at + 8192);
    let data = at + 1024;
    for (code, flags) in [(OUT, 1), (IN, 3)] {
        let Part::Out(bytes) = header(code, 0) else { unreachable!() };
        let (head, status) = (board.room(16), board.room(1));
        board.write(head, &bytes);
        board.write(status, &[0xee]);
        let table = board.rings[0].desc;
        board.descriptor(table, 100, head, 16, 1, 101);
        board.descriptor(table, 101, data, 512, flags, 102);
        board.descriptor(table, 102, status, 1, 2, 0);
        board.publish(0, 100);
        board.kick(0);
        assert_eq!(board.back(0)[0].head, 100);
        assert_eq!(board.read(status, 1), [1]);
    }
    assert_eq!(board.status(), 15, "the device goes on");
}

#[test]
fn many_requests_in_one_notification_give_one_interrupt() {
    for without in [0, EVENT_IDX] {
        let mut board = Board::running(VirtioBlk::new(Disk::empty(SIZE), false), 128, without);
        board.sink.sent();
        for i in 0..40 {
            board.offer(0, &[header(OUT, i), Part::Out(pattern(i as usize, 512)), Part::In(1)]);
        }
        board.kick(0);
        assert_eq!((board.back(0).len(), board.sink.sent()), (40, vec![0]));
        assert_eq!(request(&mut board, IN, 39, &[], 512).1, pattern(39, 512));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_disk_is_what_an_array_is(ops in prop::collection::vec((0..2_u32, 0..60_u64, 1..12_usize, any::<bool>()), 1..60)) {
        let mut board = board();
        let mut model = vec![0; 80 * 512];
        for (number, (code, sector, sectors, indirect)) in ops.into_iter().enumerate() {
            let (at, len) = (sector as usize * 512, sectors * 512);
            let data = pattern(number, len);
            let middle = if code == OUT { Part::Out(data.clone()) } else { Part::In(len as u32) };
            let parts = [header(code, sector), middle, Part::In(1)];
            if indirect { board.offer_indirect(0, &parts) } else { board.offer(0, &parts) };
            board.kick(0);
            let back = board.back(0).remove(0);
            prop_assert_eq!(back.bytes.last(), Some(&0));
            if code == OUT {
                model[at..at + len].copy_from_slice(&data);
            } else {
                prop_assert_eq!(&back.bytes[..len], &model[at..at + len]);
            }
        }
    }
}
