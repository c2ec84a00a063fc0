//! What goes wrong, and what the device does then.

use super::*;

const FILL_OK: Desc = Desc { flags: FILL | OWN, len: 4, src: 0, dst: DST, param: 1, reserved: 0 };

impl Board {
    fn expect_halt(&mut self, code: u32, address: u64) {
        assert_eq!((self.get(ERROR), self.err_addr(), self.get(STATUS)), (code, address, 3));
        assert_eq!((self.get(INT_STATUS) & 8, self.sink.sent().contains(&3)), (8, true));
        // Nothing works until RESET.
        self.memory.log();
        for ring in [CMD, TX, RX] {
            self.set(ring + 0x14, 1);
            self.set(ring + 0x10, 1);
        }
        self.set(CTRL, 0);
        self.set(CTRL, 5);
        self.set(GEN_LEN, 1);
        self.set(GEN_COUNT, 1);
        assert_eq!((self.memory.log(), self.get(STATUS), self.get(GEN_DROPPED)), (vec![], 3, 0));
        self.set(CTRL, 2);
        assert_eq!((self.get(STATUS), self.get(ERROR)), (0, 0));
        self.memory.allow();
        self.rings(4);
        assert_eq!(self.command(FILL_OK).status, 1);
    }
}

#[test]
fn a_descriptor_that_cannot_be_read_halts() {
    let mut board = Board::running(4);
    board.memory.refuse(CMD_RING + 0x10..CMD_RING + 0x11);
    board.command(FILL_OK);
    assert_eq!((board.get(CMD + 0xc), board.word(BLOCK), board.word(BLOCK + 0xc)), (0, 0, 1));
    board.expect_halt(1, CMD_RING);
}

#[test]
fn a_descriptor_that_cannot_be_written_back_halts() {
    for offset in [0x48, 0x43] {
        let mut board = Board::running(4);
        board.memory.refuse(CMD_RING + offset..CMD_RING + offset + 1);
        board.command(FILL_OK);
        assert_eq!((board.get(CMD + 0xc), board.word(CMD_RING) & OWN, board.word(DST)), (0, OWN, 1));
        board.expect_halt(1, CMD_RING);
    }
}

#[test]
fn a_ring_in_no_memory_halts() {
    let mut board = Board::running(4);
    board.ring(CMD, 0xffff_ffff_ffff_ff80, 4);
    board.set(CMD + 0x10, 2);
    board.expect_halt(1, 0xffff_ffff_ffff_ff80);
}

#[test]
fn bad_descriptors_halt() {
    for desc in [
        Desc { flags: FILL, ..FILL_OK },
        Desc { flags: OWN, ..FILL_OK },
        Desc { flags: OWN | 4, ..FILL_OK },
        Desc { flags: OWN | SEND, ..FILL_OK },
        Desc { flags: OWN | RECEIVE, ..FILL_OK },
        Desc { flags: OWN | FILL | 1 << 8, ..FILL_OK },
        Desc { flags: OWN | FILL | 1 << 29, ..FILL_OK },
        Desc { reserved: 1, ..FILL_OK },
    ] {
        let mut board = Board::running(4);
        let back = board.command(desc);
        assert_eq!((back.flags, back.status, board.word(DST)), (desc.flags, 0xeeee_eeee, 0), "{desc:x?}");
        board.expect_halt(2, CMD_RING);
    }
}

#[test]
fn descriptors_before_the_bad_one_complete() {
    let mut board = Board::running(4);
    board.desc(CMD_RING, FILL_OK);
    board.desc(CMD_RING + 128, Desc { flags: FILL, ..FILL_OK });
    board.desc(CMD_RING + 256, FILL_OK);
    board.set(CMD + 0x10, 3);
    assert_eq!((board.back(CMD_RING).status, board.back(CMD_RING + 256).flags), (1, FILL | OWN));
    assert_eq!(board.get(CMD + 0xc), 1);
    board.expect_halt(2, CMD_RING + 128);
}

#[test]
fn bad_rings_halt() {
    for (base, size) in [(CMD_RING + 64, 4), (CMD_RING, 0), (CMD_RING, 1), (CMD_RING, 3), (CMD_RING, 512), (CMD_RING, 1 << 31)] {
        let mut board = Board::running(4);
        board.ring(CMD, base, size);
        assert_eq!(board.get(CMD + 0x14), 0, "{base:#x} {size}");
        board.expect_halt(3, base);
    }
}

#[test]
fn a_tail_outside_the_ring_halts() {
    for (ring, base) in [(CMD, CMD_RING), (RX, RX_RING)] {
        let mut board = Board::running(4);
        board.set(ring + 0x10, 4);
        assert_eq!(board.get(ring + 0x10), 0);
        board.expect_halt(3, base);
    }
}

#[test]
fn a_data_fault_ends_its_descriptor_only() {
    let mut board = Board::running(4);
    board.memory.refuse(SRC + 99..SRC + 100);
    let copy = Desc { flags: COPY | OWN, len: 200, src: SRC, dst: DST, ..Desc::default() };
    board.desc(CMD_RING, copy);
    board.desc(CMD_RING + 128, Desc { src: DST, dst: SRC, ..copy });
    board.desc(CMD_RING + 256, FILL_OK);
    board.set(CMD + 0x10, 3);
    let failed = Back { flags: COPY, status: 0x8000_0004, result: 0, written: 0 };
    assert_eq!((board.back(CMD_RING), board.back(CMD_RING + 128)), (failed, failed));
    assert_eq!(board.back(CMD_RING + 256).status, 1);
    assert_eq!((board.get(ERROR), board.err_addr(), board.get(STATUS)), (4, SRC, 1));
    assert_eq!((board.get(INT_STATUS), board.sink.sent()), (8, vec![3]), "one message for both");
    assert_eq!((board.word(BLOCK), board.word(BLOCK + 0xc)), (3, 2));
}

#[test]
fn buffers_outside_all_memory_fault() {
    for address in [u64::MAX, u64::MAX - 3, RAM as u64 - 2, 1 << 63] {
        let mut board = Board::running(4);
        for desc in [
            Desc { dst: address, ..FILL_OK },
            Desc { flags: COPY | OWN, src: address, ..FILL_OK },
            Desc { flags: CHECKSUM | OWN, src: address, ..FILL_OK },
        ] {
            assert_eq!(board.command(desc).status, 0x8000_0004, "{desc:x?}");
            assert_eq!((board.get(ERROR), board.err_addr()), (4, address));
        }
    }
}

#[test]
fn bad_lengths_end_their_descriptor_only() {
    for len in [0, (1 << 20) + 1, u32::MAX] {
        let mut board = Board::running(4);
        board.memory.log();
        assert_eq!(board.command(Desc { len, ..FILL_OK }).status, 0x8000_0005);
        assert!(board.memory.log().iter().all(|dma| !matches!(dma, Dma::Write(DST, _))));
        assert_eq!((board.get(ERROR), board.err_addr(), board.get(STATUS)), (5, CMD_RING, 1));
        assert_eq!(board.command(FILL_OK).status, 1);
    }
}

#[test]
fn the_generator_refuses_bad_lengths() {
    for len in [0, 65537, u32::MAX] {
        let mut board = Board::running(4);
        board.set(GEN_LEN, len);
        board.set(GEN_COUNT, 1);
        assert_eq!((board.get(ERROR), board.err_addr(), board.get(GEN_DROPPED)), (5, 0, 0));
    }
}

#[test]
fn frames_that_do_not_fit_are_lost() {
    let mut board = Board::running(4);
    let post = |dst, len| Desc { flags: RECEIVE | OWN, len, dst, ..Desc::default() };
    board.desc(RX_RING, post(DST, 99));
    board.desc(RX_RING + 128, post(SRC, 100));
    board.desc(RX_RING + 256, post(DST, 100));
    board.memory.refuse(SRC..SRC + 1);
    board.set(RX + 0x10, 3);
    board.set(GEN_LEN, 100);
    board.set(GEN_COUNT, 3);
    let status = |i: u64| board.back(RX_RING + i * 128).status;
    assert_eq!([status(0), status(1), status(2)], [0x8000_0005, 0x8000_0004, 1]);
    assert_eq!((board.get(GEN_DONE), board.get(GEN_DROPPED), board.get(STATUS)), (1, 2, 1));
    assert_eq!(board.take(DST, 1), [2], "the frame in the buffer is frame 2");
}

#[test]
fn a_bad_receive_descriptor_stops_the_generator() {
    let mut board = Board::running(4);
    board.desc(RX_RING, Desc { flags: RECEIVE | OWN, len: 4, dst: DST, ..Desc::default() });
    board.desc(RX_RING + 128, Desc { flags: RECEIVE, len: 4, dst: DST, ..Desc::default() });
    board.set(RX + 0x10, 2);
    board.set(GEN_LEN, 4);
    board.set(GEN_COUNT, 10);
    assert_eq!((board.get(GEN_DONE), board.get(GEN_DROPPED), board.get(RX + 0xc)), (1, 0, 1));
    board.expect_halt(2, RX_RING + 128);
}

#[test]
fn a_halt_in_loopback_stops_the_send_as_well() {
    let mut board = Board::running(4);
    board.set(TX_CTRL, 1);
    board.desc(RX_RING, Desc { flags: RECEIVE, len: 4, dst: DST, ..Desc::default() });
    board.set(RX + 0x10, 1);
    board.desc(TX_RING, Desc { flags: SEND | OWN, len: 4, src: SRC, ..Desc::default() });
    board.set(TX + 0x10, 1);
    assert_eq!((board.back(TX_RING).flags, board.get(TX + 0xc)), (SEND | OWN, 0));
    board.expect_halt(2, RX_RING);
}

#[test]
fn a_lost_status_block_does_not_stop_the_ring() {
    let mut board = Board::running(4);
    board.memory.refuse(BLOCK + 63..BLOCK + 64);
    assert_eq!(board.command(FILL_OK).status, 1);
    assert_eq!((board.get(ERROR), board.err_addr(), board.get(STATUS)), (4, BLOCK, 1));
    assert_eq!(board.command(FILL_OK).status, 1);
}

#[test]
fn memory_that_refuses_everything_is_survived() {
    let mut board = Board::running(256);
    board.memory.refuse(0..u64::MAX);
    board.set(CMD + 0x10, 255);
    assert_eq!((board.get(ERROR), board.err_addr(), board.get(STATUS)), (1, CMD_RING, 3), "not hidden by the status block's fault");
    assert_eq!(board.memory.log(), [Dma::Read(CMD_RING, 32), Dma::Write(BLOCK, 64)]);
}
