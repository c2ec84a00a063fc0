//! The driver's side of virtio-console.
#![expect(clippy::cast_possible_truncation, reason = "tests count small things")]

use super::VirtioConsole;
use crate::testing::Dma;
use crate::virtio_pci::driver::{Board, Part};

const RX: usize = 0;
const TX: usize = 1;

fn board() -> Board<VirtioConsole> {
    Board::running(VirtioConsole::default(), 64, 0)
}

fn send(board: &mut Board<VirtioConsole>, text: &[u8]) {
    assert_eq!(board.run(TX, &[Part::Out(text.to_vec())]).len, 0);
}

fn received(board: &mut Board<VirtioConsole>) -> Vec<u8> {
    board.back(RX).iter().flat_map(|back| back.bytes[..back.len as usize].to_vec()).collect()
}

#[test]
fn what_is_sent_comes_back() {
    let mut board = board();
    for _ in 0..3 {
        board.offer(RX, &[Part::In(100)]);
    }
    board.kick(RX);
    board.sink.sent();
    board.memory.log();
    send(&mut board, b"hello");
    assert_eq!((received(&mut board), board.sink.sent()), (b"hello".to_vec(), vec![RX as u16, TX as u16]));
    let written: Vec<Dma> = board.memory.log().into_iter().filter(|dma| matches!(dma, Dma::Write(0x40_0000.., _))).collect();
    assert!(matches!(written[..], [Dma::Write(_, 5)]), "{written:?}");
    send(&mut board, &[7; 150]);
    assert_eq!(received(&mut board), [7; 150]);
    assert_eq!(board.status(), 15);
}

#[test]
fn bytes_wait_for_buffers_and_not_for_ever() {
    let mut board = board();
    send(&mut board, b"early");
    board.offer(RX, &[Part::In(2), Part::In(2)]);
    board.kick(RX);
    assert_eq!(received(&mut board), b"earl");
    board.offer(RX, &[Part::In(100)]);
    board.kick(RX);
    assert_eq!(received(&mut board), b"y");

    let at = board.room(0x1_0000);
    let table = board.rings[TX].desc;
    for _ in 0..40 {
        board.descriptor(table, 5, at, 0x1_0000, 0, 0);
        board.publish(TX, 5);
        board.kick(TX);
    }
    let mut count = 0;
    loop {
        board.offer(RX, &[Part::In(0x1_0000)]);
        board.kick(RX);
        match received(&mut board).len() {
            0 => break,
            some => count += some,
        }
    }
    assert_eq!(count, 1 << 20, "a megabyte waits, the rest is lost");
}

#[test]
fn a_reset_forgets_what_waits() {
    let mut board = board();
    send(&mut board, b"gone");
    board.start(64, 0);
    board.offer(RX, &[Part::In(8)]);
    board.kick(RX);
    assert_eq!(received(&mut board), b"");
    assert_eq!((board.bar(0x2000, 2), board.bar(0x2002, 2)), (80, 25));
}

#[test]
fn buffers_that_cannot_be_reached_are_given_back() {
    let mut board = board();
    let at = board.room(4096);
    board.memory.refuse(at..at + 4096);
    for (queue, flags) in [(TX, 0), (RX, 2)] {
        send(&mut board, b"lost");
        let table = board.rings[queue].desc;
        board.descriptor(table, 9, at, 100, flags, 0);
        board.publish(queue, 9);
        board.kick(queue);
        assert_eq!(board.back(queue)[0].len, 0);
    }
    assert_eq!(board.status(), 15);
}
