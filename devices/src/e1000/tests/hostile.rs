//! What no driver does.

use super::*;
use crate::peer::guest::{arp, assert_answers_arp};
use crate::testing::Dma;
use proptest::prelude::*;

/// Whether the board still works after a reset.
fn assert_alive(board: &mut Board) {
    board.memory.allow();
    board.function.write_bar(2, 0, &[0; 4]);
    board.function.write_bar(2, 4, &(1_u32 << 26).to_le_bytes());
    board.function.write_config(4, &[7, 0]);
    board.phy(0, Some(0x1140));
    board.phy(9, Some(0x0300));
    (board.tx_tail, board.rx_next, board.buffer) = (0, 0, 2048);
    board.start(RX_BROADCAST);
    board.transmit(&arp(), 0, 0);
    let frames = board.frames();
    assert_eq!(frames.len(), 1);
    assert_answers_arp(&frames[0]);
}

#[test]
fn rings_that_are_none_stand_still() {
    for (len, head, tail) in
        [(0, 0, 5), (0, 0, 0xffff), (1024, 64, 5), (1024, 5, 64), (1024, 0xffff, 0xffff), (0x7f, 0, 1), (1024, 0xffff, 0)]
    {
        let mut board = Board::running();
        board.memory.log();
        for ring in [TX, RX] {
            board.set(ring + LEN, len);
            board.set(ring + HEAD, head);
            board.set(ring + TAIL, tail);
        }
        assert_eq!(board.memory.log(), [], "{len} {head} {tail}");
        assert_eq!(board.get(TX + HEAD), head & 0xffff);
        assert_alive(&mut board);
    }
}

#[test]
fn a_ring_that_cannot_be_reached_stands_still() {
    let mut board = Board::running();
    board.memory.refuse(TX_RING..TX_RING + 16);
    board.describe(TX_DATA, 60 | LAST, 0);
    board.kick();
    assert_eq!((board.get(TX + HEAD), board.get(ICR) & 3), (0, 0));
    board.memory.allow();
    board.write(TX_DATA, &arp());
    board.kick();
    assert_eq!(board.frames().len(), 1);
    // The receive ring: the frame waits.
    board.memory.refuse(RX_RING..RX_RING + 0x1000);
    board.transmit(&arp(), 0, 0);
    board.memory.allow();
    board.rx_next = 1;
    assert_eq!(board.frames().len(), 0);
    assert_eq!(board.frames().len(), 1);
    // A base at the end of the address space.
    for ring in [TX, RX] {
        board.set(ring + LOW, 0xffff_fff0);
        board.set(ring + 4, 0xffff_ffff);
        board.set(ring + HEAD, 0);
        board.set(ring + TAIL, 63);
    }
    assert_eq!(board.get(TX + HEAD), 0);
    assert_alive(&mut board);
}

#[test]
fn a_buffer_that_cannot_be_reached_loses_its_frame() {
    let mut board = Board::running();
    board.memory.refuse(TX_DATA..TX_DATA + 1);
    board.describe(TX_DATA, 60 | LAST, 0);
    board.kick();
    assert_eq!((board.status_of(0), board.frames().len()), (1, 0), "given back all the same");
    board.memory.allow();
    board.transmit(&arp(), 0, 0);
    assert_eq!(board.frames().len(), 1);
    board.memory.refuse(RX_BUFFERS + 0x4000..RX_BUFFERS + 0x4001);
    board.transmit(&arp(), 0, 0);
    let got = board.got();
    assert_eq!((got.len(), got[0].errors), (1, 0x80), "data error");
    assert_alive(&mut board);
}

#[test]
fn packets_that_are_too_long_are_dropped_and_cost_little() {
    for (piece, command, upper) in [(0xffff, 0, 0), (0xf_ffff, DATA, 0), (0xf_ffff, DATA | SEGMENT, 0), (0x4000, DATA | SEGMENT, 3 << 8)] {
        let mut board = Board::running();
        board.memory.log();
        // Sixty of them, none the last; then one that is.
        for _ in 0..60 {
            board.describe(TX_DATA, piece | command, upper);
        }
        board.describe(TX_DATA, 60 | LAST, 0);
        board.kick();
        let read: usize = board.memory.log().iter().map(|dma| if let Dma::Read(_, len) = dma { *len } else { 0 }).sum();
        assert!(read < 256 << 10, "{read} bytes read");
        assert_eq!((board.status_of(60), board.frames().len()), (1, 0));
        board.transmit(&arp(), 0, 0);
        assert_eq!(board.frames().len(), 1, "the next one is as good as any");
    }
}

#[test]
fn segmentation_that_makes_no_sense_is_refused() {
    // Header length, MSS: no header, longer than the packet, no MSS, a flood of frames, frames too long.
    for (header, mss, len) in [(0, 1460, 2000), (255, 1460, 200), (54, 0, 2000), (54, 1, 60_000), (54, 16_380, 60_000), (54, 1460, 54)] {
        let mut board = Board::running();
        board.describe(u64::MAX, EXTENDED | SEGMENT | 3 << 24, mss << 16 | header << 8);
        board.describe(TX_DATA, len | DATA | SEGMENT | LAST, 3 << 8);
        board.kick();
        assert_eq!((board.status_of(1), board.get(0x40fc), board.get(0x40d4)), (1, 1, 0), "header {header}, MSS {mss}, {len} bytes");
        // Offsets far outside of what is sent do nothing.
        board.describe(u64::MAX, EXTENDED | SEGMENT | 3 << 24, 200 << 16 | 20 << 8);
        board.describe(TX_DATA, 500 | DATA | SEGMENT | LAST, 3 << 8);
        board.describe(TX_DATA, 500 | DATA | LAST, 3 << 8);
        board.describe(TX_DATA, 0xff << 16 | 500 | INSERT_CHECKSUM | LAST, 0xff << 8);
        board.kick();
        assert_eq!(board.get(0x40d4), 3 + 1 + 1);
        assert_alive(&mut board);
    }
}

#[test]
fn one_write_does_only_so_much() {
    let mut board = Board::running();
    // The largest ring there is, all of it one descriptor that sends 64 KiB in 2000 frames.
    let at = 0x20_0000;
    board.describe(u64::from_le_bytes([14, 24, 33, 0, 34, 50, 0, 0]), EXTENDED | SEGMENT | 3 << 24, 32 << 16 | 54 << 8);
    board.kick();
    for index in 0..65_528_u64 {
        let descriptor = [TX_DATA.to_le_bytes(), (u64::from(0xffff | DATA | SEGMENT | LAST) | 3 << 40).to_le_bytes()].concat();
        if at + index * 16 + 16 <= TX_DATA {
            board.write(at + index * 16, &descriptor);
        }
    }
    board.set(TX + LOW, at as u32);
    board.set(TX + LEN, 0xf_ff80);
    board.set(TX + HEAD, 0);
    board.memory.log();
    board.set(TX + TAIL, 65_527);
    let done = board.get(TX + HEAD);
    assert!((10..200).contains(&done), "{done} packets in one register write");
    board.set(TX + TAIL, 65_527);
    assert!(board.get(TX + HEAD) > done, "the rest waits for the next one");
    assert_alive(&mut board);
}

#[derive(Clone, Debug)]
enum Op {
    Bar(usize, u64, u8, u64),
    Memory(u64, [u8; 16]),
    Refuse(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let known = prop::sample::select(vec![
        CTRL, STATUS, EECD, EERD, MDIC, ICR, ICS, IMS, IMC, RCTL, TCTL, 0x2800, 0x2804, 0x2808, 0x2810, 0x2818, 0x3800, 0x3804, 0x3808,
        0x3810, 0x3818, 0x5000, 0x5200, 0x5400, 0x5404, 0x5600, 0x4074,
    ]);
    let value =
        prop_oneof![any::<u64>(), 0..0x400_u64, Just(TX_RING), Just(RX_RING), Just(0xffff_ffff), (0..64_u32).prop_map(|bit| 1 << bit)];
    let offset = prop_oneof![4 => known, 1 => 0..0x2_0010_u64];
    prop_oneof![
        8 => (offset, prop::sample::select(vec![1_u8, 2, 4, 4, 4, 4, 4, 8]), value.clone()).prop_map(|(at, len, value)| Op::Bar(0, at, len, value)),
        1 => (0..70_u64, prop::sample::select(vec![1_u8, 4, 4, 8]), value).prop_map(|(at, len, value)| Op::Bar(2, at, len, value)),
        3 => (0..128_u64, any::<[u8; 16]>()).prop_map(|(index, bytes)| Op::Memory(TX_RING + index / 64 * (RX_RING - TX_RING) + index % 64 * 16, bytes)),
        1 => (0..RAM as u64).prop_map(Op::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_written_it_lives(ops in prop::collection::vec(op(), 1..200)) {
        let mut board = Board::running();
        for op in ops {
            match op {
                Op::Bar(bar, at, len, value) => {
                    let len = usize::from(len);
                    board.function.write_bar(bar, at, &value.to_le_bytes()[..len]);
                    board.function.read_bar(bar, at, &mut [0; 8][..len]);
                }
                Op::Memory(at, bytes) => board.write(at, &bytes),
                Op::Refuse(at) => board.memory.refuse(at..at + 64),
            }
        }
        assert_alive(&mut board);
    }
}
