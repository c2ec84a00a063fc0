//! The driver's side of virtio-net. Above the driver there is an IP stack as in a guest.

use super::{VirtioNet, VirtioNetSpec};
use crate::peer::guest::{Nic, arp, assert_answers_arp, assert_echoes};
use crate::testing::Dma;
use crate::virtio_pci::driver::{Board, Part};

const RX: usize = 0;
const TX: usize = 1;
const MRG_RXBUF: u64 = 1 << 15;

fn board(without: u64) -> Board<VirtioNet> {
    Board::running(VirtioNet::new(&VirtioNetSpec::default()), 64, without)
}

/// Makes `count` receive buffers of `len` bytes available and notifies.
fn post(board: &mut Board<VirtioNet>, count: usize, len: u32) {
    for _ in 0..count {
        board.offer(RX, &[Part::In(len)]);
    }
    board.kick(RX);
}

fn send(board: &mut Board<VirtioNet>, frame: &[u8]) {
    assert_eq!(board.run(TX, &[Part::Out(vec![0; 12]), Part::Out(frame.to_vec())]).len, 0);
}

/// The frames received: headers checked, buffers put together.
fn received(board: &mut Board<VirtioNet>) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut more = 0;
    for back in board.back(RX) {
        let bytes = &back.bytes[..back.len as usize];
        if more > 0 {
            more -= 1;
            frames.last_mut().unwrap().extend_from_slice(bytes);
            continue;
        }
        assert_eq!(bytes[..10], [0; 10]);
        more = u16::from_le_bytes([bytes[10], bytes[11]]) - 1;
        frames.push(bytes[12..].to_vec());
    }
    assert_eq!(more, 0, "a frame comes with all its buffers");
    frames
}

#[test]
fn the_peer_answers_arp() {
    let mut board = board(0);
    post(&mut board, 2, 1600);
    send(&mut board, &arp());
    let answer = received(&mut board);
    assert_eq!(answer.len(), 1);
    assert_answers_arp(&answer[0]);
    assert_eq!((board.bar(0x2000, 6), board.bar(0x2006, 2)), (u64::from_le_bytes([2, b'd', b'm', b'a', b'v', 2, 0, 0]), 1));
}

#[test]
fn answers_wait_for_buffers() {
    let mut board = board(0);
    for _ in 0..10 {
        send(&mut board, &arp());
    }
    assert_eq!(received(&mut board), Vec::<Vec<u8>>::new());
    post(&mut board, 4, 1600);
    assert_eq!(received(&mut board).len(), 4);
    post(&mut board, 20, 1600);
    assert_eq!(received(&mut board).len(), 6);
    // A guest that only sends: what waits is bounded, and something still comes.
    for _ in 0..3000 {
        send(&mut board, &arp());
    }
    let mut count = 0;
    loop {
        post(&mut board, 30, 1600);
        match received(&mut board).len() {
            0 => break,
            some => count += some,
        }
    }
    assert!((64..3000).contains(&count), "{count}");
    assert_eq!(board.status(), 15);
}

#[test]
fn a_frame_spans_buffers_only_when_agreed() {
    let mut board = board(0);
    post(&mut board, 6, 20);
    board.memory.log();
    send(&mut board, &arp());
    let answers = received(&mut board);
    assert_eq!((answers.len(), answers[0].len() >= 42), (1, true));
    let writes: Vec<usize> = board.memory.log().iter().filter(|dma| matches!(dma, Dma::Write(0x40_0000.., _))).map(len).collect();
    assert_eq!(writes.iter().sum::<usize>(), 12 + answers[0].len(), "no byte more than the frame: {writes:?}");

    let mut single = self::board(MRG_RXBUF);
    post(&mut single, 1, 20);
    post(&mut single, 1, 100);
    send(&mut single, &arp());
    let back = single.back(RX);
    assert_eq!((back.len(), back[0].len), (1, 0), "a buffer that is too small comes back empty");
    send(&mut single, &arp());
    assert_eq!(received(&mut single).len(), 1);
}

fn len(dma: &Dma) -> usize {
    match dma {
        Dma::Read(_, len) | Dma::Write(_, len) => *len,
    }
}

#[test]
fn frames_that_are_none_are_dropped() {
    let mut board = board(0);
    post(&mut board, 4, 1600);
    for parts in [
        vec![],
        vec![Part::Out(vec![0; 11])],
        vec![Part::Out(vec![0; 12])],
        vec![Part::Out(vec![0; 12 + 13])],
        vec![Part::Out(vec![0xff; 12 + 1515])],
        vec![Part::Out(vec![0xff; 12 + 1514])],
        vec![Part::In(100)],
    ] {
        if !parts.is_empty() {
            assert_eq!(board.run(TX, &parts).len, 0);
        }
    }
    assert_eq!(received(&mut board), Vec::<Vec<u8>>::new());
    send(&mut board, &arp());
    assert_eq!(received(&mut board).len(), 1);
}

/// A driver that keeps 24 receive buffers of one size posted.
struct Driver {
    board: Board<VirtioNet>,
    buffer: u32,
}

impl Nic for Driver {
    fn send(&mut self, frame: &[u8]) {
        send(&mut self.board, frame);
    }
    fn received(&mut self) -> Vec<Vec<u8>> {
        let used = self.board.half(self.board.rings[RX].used + 2);
        let frames = received(&mut self.board);
        let again = used.wrapping_sub(self.board.rings[RX].index).wrapping_add(24);
        post(&mut self.board, usize::from(again), self.buffer);
        frames
    }
}

#[test]
fn the_peer_echoes_a_connection_after_the_other() {
    for (without, buffer) in [(0, 1600), (MRG_RXBUF, 1600), (0, 300)] {
        let mut driver = Driver { board: board(without), buffer };
        post(&mut driver.board, 24, buffer);
        // More of them than the peer can have at a time.
        for connection in 0..9 {
            let len = if connection == 0 { 200_000 } else { 3000 };
            assert_echoes(&mut driver, 50_000 + connection, len);
        }
        assert_eq!(driver.board.status(), 15);
    }
}

#[test]
fn a_reset_forgets_what_was_on_its_way() {
    let mut board = board(0);
    send(&mut board, &arp());
    board.start(64, 0);
    post(&mut board, 4, 1600);
    assert_eq!(received(&mut board), Vec::<Vec<u8>>::new());
    send(&mut board, &arp());
    assert_eq!(received(&mut board).len(), 1);
}
