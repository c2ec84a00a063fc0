//! The transport against a scripted driver, with a device that gives every chain's readable bytes back in its writable ones.
#![expect(clippy::cast_possible_truncation, reason = "tests count small things")]

mod hostile;

use super::driver::{ACCESS_PLATFORM, Board, EVENT_IDX, NEXT, Part, RINGS, VERSION_1, WRITE};
use super::{Kind, Queues, VirtioDevice};
use crate::bus::PciFunction;
use crate::testing::{Dma, Memory};

/// Echoes chains on both of its queues.
#[derive(Debug, Default)]
struct Echo {
    activated: Vec<u64>,
    resets: usize,
}

impl VirtioDevice<Memory> for Echo {
    fn kind(&self) -> Kind {
        Kind { id: 42, class: 0xff_00_00, queues: &[64, 16] }
    }
    fn features(&self) -> u64 {
        1 << 5
    }
    fn config(&self) -> &[u8] {
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    }
    fn activate(&mut self, features: u64) {
        self.activated.push(features);
    }
    fn notified(&mut self, queue: usize, queues: &mut Queues<'_, Memory>) {
        while let Some(chain) = queues.pop(queue) {
            let len = chain.readable().min(chain.writable()).min(0x1_0000) as usize;
            let mut bytes = vec![0; len];
            let memory = queues.memory();
            let done = chain.read(memory, 0, &mut bytes).and_then(|()| chain.write(memory, 0, &bytes));
            queues.push(queue, chain, done.map_or(0, |()| len as u32));
        }
    }
    fn reset(&mut self) {
        self.resets += 1;
    }
}

fn running() -> Board<Echo> {
    Board::running(Echo::default(), 64, 0)
}

fn out(text: &[u8]) -> Part {
    Part::Out(text.to_vec())
}

#[test]
fn the_function_is_a_modern_virtio_device() {
    let mut board = Board::new(Echo::default());
    let mut head = [0; 16];
    board.function.read_config(0, &mut head);
    assert_eq!((&head[..4], head[8]), (&[0xf4, 0x1a, 0x6a, 0x10][..], 1));
    // Each structure once; bar 0, offset and length.
    let mut seen = Vec::new();
    for (id, at) in board.capabilities() {
        if id == 9 {
            let mut cap = [0; 20];
            board.function.read_config(at, &mut cap);
            let word = |at: usize| u32::from_le_bytes(cap[at..at + 4].try_into().unwrap());
            seen.push((cap[3], cap[2], cap[4], word(8), word(12)));
            if cap[3] == 2 {
                assert_eq!(word(16), 4, "notify_off_multiplier");
            }
        }
    }
    assert_eq!(seen, [(1, 16, 0, 0, 0x38), (2, 20, 0, 0x3000, 8), (3, 16, 0, 0x1000, 1), (4, 16, 0, 0x2000, 10), (5, 20, 0, 0, 0)]);
    assert_eq!(board.get(0x12, 2), 2);
}

#[test]
fn negotiation_needs_what_the_dma_api_needs() {
    let mut board = Board::new(Echo::default());
    let offered = board.begin();
    assert_eq!(offered, 1 << 5 | 1 << 28 | EVENT_IDX | VERSION_1 | ACCESS_PLATFORM);
    for wrong in [0, VERSION_1, ACCESS_PLATFORM, offered | 1 << 40, offered | 1] {
        board.begin();
        board.accept(wrong);
        assert_eq!(board.set_status(11), 3, "{wrong:#x}");
        assert_eq!(board.set_status(15), 3, "no DRIVER_OK without FEATURES_OK");
    }
    board.begin();
    board.accept(VERSION_1 | ACCESS_PLATFORM);
    assert_eq!(board.set_status(11), 11);
    board.accept(0);
    assert_eq!(board.set_status(15), 15);
    assert_eq!(board.function.model().device().activated, [VERSION_1 | ACCESS_PLATFORM], "features are final with FEATURES_OK");
}

#[test]
fn chains_go_there_and_back_with_an_interrupt() {
    let mut board = running();
    board.sink.sent();
    let back = board.run(0, &[out(b"some"), out(b"thing"), Part::In(3), Part::In(20)]);
    assert_eq!((back.len, &back.bytes[..9]), (9, &b"something"[..]));
    assert_eq!(board.sink.sent(), [0]);
    assert_eq!(board.run(1, &[out(b"x"), Part::In(1)]).bytes, b"x");
    assert_eq!(board.sink.sent(), [1]);
    for _ in 0..200 {
        assert_eq!(board.run(1, &[out(b"round"), Part::In(5)]).bytes, b"round");
        board.offer_indirect(0, &[out(b"and round"), Part::In(9)]);
        board.kick(0);
        assert_eq!(board.back(0)[0].bytes, b"and round");
    }
    assert_eq!(board.status(), 15);
}

#[test]
fn nothing_is_touched_before_driver_ok_and_nothing_missed() {
    let mut board = Board::new(Echo::default());
    let offered = board.begin();
    board.accept(offered);
    board.set_status(11);
    board.queues(16);
    board.offer(0, &[out(b"early"), Part::In(5)]);
    board.memory.log();
    board.kick(0);
    assert_eq!(board.memory.log(), []);
    board.set_status(15);
    assert_eq!(board.back(0)[0].bytes, b"early");
}

#[test]
fn the_driver_chooses_when_it_is_told() {
    let mut board = running();
    let ring = board.rings[0].clone();
    let used_event = ring.avail + 4 + 2 * u64::from(ring.size);
    let avail_event = ring.used + 4 + 8 * u64::from(ring.size);
    board.sink.sent();
    // Tell me when the third is used.
    board.write(used_event, &2_u16.to_le_bytes());
    for sent in [vec![], vec![], vec![0], vec![]] {
        board.run(0, &[out(b"x"), Part::In(1)]);
        assert_eq!(board.sink.sent(), sent);
    }
    assert_eq!(board.half(avail_event), 4, "the device asks to be told of the next chain");
    let log = {
        board.memory.log();
        board.run(0, &[out(b"x"), Part::In(1)]);
        board.memory.log()
    };
    assert!(log.contains(&Dma::Read(used_event, 2)) && log.contains(&Dma::Read(ring.avail + 2, 2)));

    let mut plain = Board::running(Echo::default(), 64, EVENT_IDX);
    plain.sink.sent();
    for _ in 0..3 {
        plain.run(0, &[out(b"x"), Part::In(1)]);
        assert_eq!(plain.sink.sent(), [0]);
    }
}

#[test]
fn a_reset_forgets_everything() {
    let mut board = running();
    board.run(0, &[out(b"x"), Part::In(1)]);
    assert_eq!(board.set_status(0), 0);
    assert_eq!(board.function.model().device().resets, 2, "the one before the start, too");
    for (at, len, value) in [(0x0c, 4, 0), (0x10, 2, 0xffff), (0x16, 2, 0), (0x18, 2, 64), (0x1a, 2, 0xffff), (0x1c, 2, 0), (0x20, 8, 0)] {
        assert_eq!(board.get(at, len), value, "{at:#x}");
    }
    board.memory.log();
    board.kick(0);
    assert_eq!(board.memory.log(), []);
    board.start(64, 0);
    assert_eq!(board.run(0, &[out(b"again"), Part::In(5)]).bytes, b"again");
    // A function reset is one too.
    board.function.reset();
    assert_eq!((board.status(), board.get(0x1c, 2)), (0, 0));
}

#[test]
fn an_enabled_queue_keeps_its_setup() {
    let mut board = running();
    board.put(0x16, 2, 0);
    for (at, len) in [(0x18, 2), (0x1a, 2), (0x20, 4), (0x24, 4), (0x28, 4), (0x30, 4), (0x1c, 2)] {
        let before = board.get(at, len);
        board.put(at, len, 0);
        assert_eq!(board.get(at, len), before, "{at:#x}");
    }
    assert_eq!(board.run(0, &[out(b"x"), Part::In(1)]).bytes, b"x");
    // A queue there is not.
    board.put(0x16, 2, 2);
    assert_eq!((board.get(0x18, 2), board.get(0x1a, 2), board.get(0x1c, 2)), (0, 0xffff, 0));
    board.put(0x1c, 2, 1);
    board.put(0x18, 2, 4);
    assert_eq!((board.get(0x18, 2), board.status()), (0, 15));
}

#[test]
fn vectors_there_are_not_read_back_as_none() {
    let mut board = Board::new(Echo::default());
    board.begin();
    for (vector, back) in [(2, 2), (3, 0xffff), (0xfffe, 0xffff), (0, 0)] {
        board.put(0x10, 2, vector);
        board.put(0x1a, 2, vector);
        assert_eq!((board.get(0x10, 2), board.get(0x1a, 2)), (back, back));
    }
}

#[test]
fn the_isr_clears_when_it_is_read() {
    let mut board = running();
    board.run(0, &[out(b"x"), Part::In(1)]);
    assert_eq!((board.bar(0x1000, 1), board.bar(0x1000, 1)), (1, 0));
}

#[test]
fn the_window_reaches_the_bar() {
    let mut board = Board::new(Echo::default());
    let at = board.capabilities().into_iter().filter(|(id, _)| *id == 9).map(|(_, at)| at).next_back().unwrap();
    let window = |board: &mut Board<Echo>, offset: u32, length: u32| {
        board.function.write_config(at + 4, &[0]);
        board.function.write_config(at + 8, &offset.to_le_bytes());
        board.function.write_config(at + 12, &length.to_le_bytes());
    };
    let read = |board: &mut Board<Echo>| {
        let mut data = [0; 4];
        board.function.read_config(at + 16, &mut data);
        u32::from_le_bytes(data)
    };
    window(&mut board, 0x2000, 4);
    assert_eq!(read(&mut board), 0x0403_0201);
    window(&mut board, 0x2006, 2);
    assert_eq!(read(&mut board) & 0xffff, 0x0807);
    window(&mut board, 0x14, 1);
    board.function.write_config(at + 16, &[1, 0, 0, 0]);
    assert_eq!(board.status(), 1);
    // Not aligned, too long, behind the end.
    for (offset, length) in [(0x15, 2), (0x14, 3), (0x14, 0), (0x14, 8), (0xffff_fffc, 4)] {
        window(&mut board, offset, length);
        board.function.write_config(at + 16, &[9, 9, 9, 9]);
        read(&mut board);
        assert_eq!(board.status(), 1, "{offset:#x} {length}");
    }
}
