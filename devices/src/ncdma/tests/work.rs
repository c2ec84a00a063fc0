//! What the rings do when everything is right.

use super::*;

#[test]
fn copy_moves_bytes_in_whole_transfers_and_writes_back_in_order() {
    let mut board = Board::running(4);
    board.put(SRC, &pattern(4096));
    board.memory.log();
    let back = board.command(Desc { flags: COPY | OWN | IRQ, len: 4096, src: SRC, dst: DST, ..Desc::default() });
    assert_eq!(back, Back { flags: COPY | IRQ, status: 1, result: 0, written: 4096 });
    assert_eq!(board.take(DST, 4096), pattern(4096));
    let expected = [
        Dma::Read(CMD_RING, 32),
        Dma::Read(SRC, 4096),
        Dma::Write(DST, 4096),
        Dma::Write(CMD_RING + 0x40, 12),
        Dma::Write(CMD_RING, 4),
        Dma::Write(BLOCK, 64),
    ];
    assert_eq!(board.memory.log(), expected);
    assert_eq!(board.take(CMD_RING + 0x20, 0x20), [0xee; 0x20], "the driver's part of the descriptor");
    assert_eq!(board.take(CMD_RING + 0x4c, 0x34), [0xee; 0x34]);
    assert_eq!((board.get(CMD + 0xc), board.get(CMD + 0x10)), (1, 1));
}

#[test]
fn copy_reads_everything_before_it_writes() {
    let mut board = Board::running(4);
    board.put(SRC, &pattern(1000));
    board.command(Desc { flags: COPY | OWN, len: 1000, src: SRC, dst: SRC + 10, ..Desc::default() });
    assert_eq!(board.take(SRC + 10, 1000), pattern(1000));
}

#[test]
fn fill_repeats_the_pattern_and_cuts_it() {
    let mut board = Board::running(4);
    let back = board.command(Desc { flags: FILL | OWN, len: 7, dst: DST, param: 0x4433_2211, ..Desc::default() });
    assert_eq!((back.status, back.written), (1, 7));
    assert_eq!(board.take(DST, 8), [0x11, 0x22, 0x33, 0x44, 0x11, 0x22, 0x33, 0]);
}

#[test]
fn checksum_is_fnv1a() {
    let mut board = Board::running(4);
    board.put(SRC, b"foobar");
    let back = board.command(Desc { flags: CHECKSUM | OWN, len: 6, src: SRC, ..Desc::default() });
    assert_eq!(back, Back { flags: CHECKSUM, status: 1, result: 0xbf9c_f968, written: 0 });
}

#[test]
fn one_mebibyte_is_one_transfer() {
    let mut board = Board::running(4);
    board.memory.log();
    let back = board.command(Desc { flags: FILL | OWN, len: 1 << 20, dst: 0x10_0000, ..Desc::default() });
    assert_eq!((back.status, back.written), (1, 1 << 20));
    assert!(board.memory.log().contains(&Dma::Write(0x10_0000, 1 << 20)));
}

#[test]
fn a_ring_wraps_and_holds_one_less_than_its_size() {
    let mut board = Board::running(4);
    let (mut tail, mut done) = (0, 0_u32);
    for round in 0..10 {
        let count = 1 + round % 3;
        for i in 0..count {
            let at = CMD_RING + u64::from((tail + i) % 4) * 128;
            board.desc(at, Desc { flags: FILL | OWN, len: 4, dst: DST, param: done + i, ..Desc::default() });
        }
        tail = (tail + count) % 4;
        done += count;
        board.set(CMD + 0x10, tail);
        assert_eq!((board.get(CMD + 0xc), board.word(DST), board.word(BLOCK)), (tail, done - 1, done));
    }
    // The same tail again hands nothing over.
    board.memory.log();
    board.set(CMD + 0x10, tail);
    assert_eq!(board.memory.log(), []);
}

#[test]
fn send_checksums_the_frame() {
    let mut board = Board::running(8);
    board.put(SRC, &pattern(1514));
    board.desc(TX_RING, Desc { flags: SEND | OWN, len: 1514, src: SRC, ..Desc::default() });
    board.set(TX + 0x10, 1);
    assert_eq!(board.back(TX_RING), Back { flags: SEND, status: 1, result: fnv(&pattern(1514)), written: 0 });
    assert_eq!((board.word(BLOCK + 4), board.get(LOOP_DROPPED)), (1, 0));
}

#[test]
fn the_generator_fills_posted_buffers() {
    let mut board = Board::running(8);
    for i in 0..3 {
        board.desc(RX_RING + i * 128, Desc { flags: RECEIVE | OWN, len: 2048, dst: DST + i * 2048, ..Desc::default() });
    }
    board.memory.log();
    board.set(RX + 0x10, 3);
    assert_eq!(board.memory.log(), [], "posting reads nothing");
    board.set(GEN_SEED, 0xfe);
    board.set(GEN_LEN, 600);
    board.set(GEN_COUNT, 5);
    for frame in 0..3_u64 {
        let expected: Vec<u8> = (0..600_u64).map(|i| ((0xfe + frame + i + (i >> 8)) & 0xff) as u8).collect();
        assert_eq!(board.take(DST + frame * 2048, 600), expected, "frame {frame}");
        assert_eq!(board.take(DST + frame * 2048 + 600, 8), [0; 8]);
        assert_eq!(board.back(RX_RING + frame * 128), Back { flags: RECEIVE, status: 1, result: 0, written: 600 });
    }
    assert_eq!((board.get(GEN_DONE), board.get(GEN_DROPPED), board.get(RX + 0xc)), (3, 2, 3));
    assert_eq!((board.word(BLOCK + 8), board.word(BLOCK + 0x10)), (3, 600));
    // Dropped frames have numbers too: the next one is frame 5.
    board.desc(RX_RING + 3 * 128, Desc { flags: RECEIVE | OWN, len: 600, dst: DST, ..Desc::default() });
    board.set(RX + 0x10, 4);
    board.set(GEN_COUNT, 1);
    assert_eq!(board.take(DST, 1), [0xfe_u8.wrapping_add(5)]);
}

#[test]
fn the_generator_makes_at_most_256_frames() {
    let mut board = Board::running(8);
    board.set(GEN_LEN, 1);
    board.set(GEN_COUNT, u32::MAX);
    assert_eq!((board.get(GEN_DONE), board.get(GEN_DROPPED)), (0, 256));
}

#[test]
fn loopback_delivers_before_send_completes() {
    let mut board = Board::running(8);
    board.set(TX_CTRL, 1);
    board.put(SRC, &pattern(300));
    board.desc(RX_RING, Desc { flags: RECEIVE | OWN, len: 300, dst: DST, ..Desc::default() });
    board.set(RX + 0x10, 1);
    for i in 0..2 {
        board.desc(TX_RING + i * 128, Desc { flags: SEND | OWN, len: 300, src: SRC, ..Desc::default() });
    }
    board.memory.log();
    board.set(TX + 0x10, 2);
    assert_eq!(board.take(DST, 300), pattern(300));
    let log = board.memory.log();
    let at = |dma| log.iter().position(|entry| *entry == dma);
    assert!(at(Dma::Write(RX_RING, 4)) < at(Dma::Write(TX_RING, 4)));
    assert_eq!(board.get(LOOP_DROPPED), 1, "the second frame found no buffer");
    assert_eq!((board.back(TX_RING + 128).status, board.get(ERROR), board.get(GEN_DROPPED)), (1, 0, 0));
}

#[test]
fn a_disabled_device_remembers_its_doorbells() {
    let mut board = Board::running(8);
    board.set(CTRL, 0);
    assert_eq!(board.get(STATUS), 0);
    board.memory.log();
    board.desc(CMD_RING, Desc { flags: FILL | OWN, len: 4, dst: DST, param: 7, ..Desc::default() });
    board.desc(TX_RING, Desc { flags: SEND | OWN, len: 4, src: DST, ..Desc::default() });
    board.set(CMD + 0x10, 1);
    board.set(TX + 0x10, 1);
    board.desc(RX_RING, Desc { flags: RECEIVE | OWN, len: 4, dst: SRC, ..Desc::default() });
    board.set(RX + 0x10, 1);
    board.set(GEN_LEN, 1);
    board.set(GEN_COUNT, 1);
    assert_eq!((board.memory.log(), board.get(GEN_DROPPED), board.get(RX + 0xc)), (vec![], 1, 0));
    board.set(CTRL, 1);
    assert_eq!((board.get(STATUS), board.word(DST), board.back(TX_RING).status), (1, 7, 1));
}

#[test]
fn a_ring_uses_what_was_latched() {
    let mut board = Board::running(4);
    board.set(CMD, 0xdead_be80);
    board.set(CMD + 8, 3);
    let back = {
        board.desc(CMD_RING, Desc { flags: FILL | OWN, len: 4, dst: DST, ..Desc::default() });
        board.set(CMD + 0x10, 1);
        board.back(CMD_RING)
    };
    assert_eq!(back.status, 1);
    board.set(CMD + 0x14, 0);
    board.memory.log();
    board.set(CMD + 0x10, 3);
    assert_eq!((board.get(CMD + 0x10), board.get(CMD + 0x14), board.memory.log()), (1, 0, vec![]), "off: doorbells are ignored");
}

#[test]
fn reset_stops_everything_and_clears_every_register() {
    let mut board = Board::running(4);
    board.command(Desc { flags: FILL | OWN | IRQ, len: 4, dst: DST, ..Desc::default() });
    board.set(GEN_LEN, 9);
    board.set(TX_CTRL, 1);
    board.set(CTRL, 7);
    for offset in [CTRL, STATUS, ERROR, INT_STATUS, INT_MASK, 0x40, GEN_LEN, TX_CTRL, CMD, CMD + 8, CMD + 0xc, CMD + 0x10, CMD + 0x14] {
        assert_eq!(board.get(offset), 0, "{offset:#x}");
    }
    board.memory.log();
    board.set(CTRL, 5);
    board.set(CMD + 0x10, 1);
    board.set(GEN_LEN, 4);
    board.set(GEN_COUNT, 1);
    assert_eq!(board.memory.log(), []);
    // And it starts again, counters from 0.
    board.set(0x40, 0x4_0000);
    board.rings(4);
    assert_eq!(board.command(Desc { flags: FILL | OWN, len: 4, dst: DST, ..Desc::default() }).status, 1);
    assert_eq!(board.word(BLOCK), 1);
}

#[test]
fn a_function_reset_is_a_reset_too() {
    for way in 0..2 {
        let mut board = Board::running(4);
        board.desc(RX_RING, Desc { flags: RECEIVE | OWN | IRQ, len: 64, dst: DST, ..Desc::default() });
        board.set(RX + 0x10, 1);
        if way == 0 {
            board.function.reset();
        } else {
            board.function.write_config(0x44, &[3]);
            board.function.write_config(0x44, &[0]);
        }
        assert_eq!((board.get(STATUS), board.get(CMD + 0x14)), (0, 0));
        assert!(!board.function.bus_master());
        // Until it is set up again nothing starts it: no access, no interrupt (DV502).
        board.memory.log();
        board.sink.sent();
        for register in [CMD + 0x10, TX + 0x10, RX + 0x10, GEN_LEN, GEN_COUNT] {
            board.set(register, 1);
        }
        assert_eq!((board.memory.log(), board.sink.sent()), (Vec::new(), Vec::new()));
    }
}

#[test]
fn high_addresses_work_and_unwired_bits_do_not() {
    const HIGH: u64 = 0x10_0000_0000;
    let mut board = Board::new("ncdma", &[(0, RAM), (HIGH, RAM)]);
    board.rings(4);
    board.ring(CMD, HIGH, 4);
    let desc = Desc { flags: FILL | OWN, len: 4, dst: HIGH + 0x1000, param: 5, ..Desc::default() };
    board.desc(HIGH, desc);
    board.set(CMD + 0x10, 1);
    assert_eq!((board.back(HIGH).status, board.word(HIGH + 0x1000)), (1, 5));

    let mut board = Board::new("ncdma,mask=32", &[(0, RAM), (HIGH, RAM)]);
    board.rings(4);
    let back = board.command(desc);
    assert_eq!((back.status, board.word(0x1000), board.word(HIGH + 0x1000)), (1, 5, 0), "the bus never saw bit 36");
}

#[test]
fn a_narrow_device_reaches_its_last_byte() {
    let mut board = Board::new("ncdma,mask=24", &[(0, 0x100_0000)]);
    board.rings(4);
    let desc = Desc { flags: FILL | OWN, len: 16, dst: 0xff_fff0, ..Desc::default() };
    assert_eq!(board.command(desc).status, 1);
    assert_eq!(board.command(Desc { len: 17, ..desc }).status, 0x8000_0004);
    assert_eq!(board.err_addr(), 0xff_fff0);
}
