//! A driver without manners: no panic, a bounded number of accesses for each register write, and the way back is a reset.

use super::super::driver::{INDIRECT, Ring};
use super::*;
use proptest::prelude::*;

const NEEDS_RESET: u64 = 64;

/// The device gave up, told so once, and does nothing more until it is reset; then it works again.
fn assert_gave_up(board: &mut Board<Echo>, why: &str) {
    assert_eq!(board.status() & NEEDS_RESET, NEEDS_RESET, "{why}");
    assert_eq!(board.sink.sent().last(), Some(&2), "{why}: a configuration interrupt");
    board.memory.log();
    board.kick(0);
    board.set_status(15);
    assert_eq!((board.memory.log(), board.sink.sent()), (vec![], vec![]), "{why}");
    board.memory.allow();
    board.start(64, 0);
    assert_eq!(board.run(0, &[out(b"alive"), Part::In(5)]).bytes, b"alive", "{why}");
}

/// Publishes a head whose descriptors `make` lays out, and kicks.
fn chain(make: impl FnOnce(&mut Board<Echo>, &Ring)) -> Board<Echo> {
    let mut board = running();
    let ring = board.rings[0].clone();
    make(&mut board, &ring);
    board.publish(0, 0);
    board.sink.sent();
    board.memory.log();
    board.kick(0);
    board
}

#[test]
fn chains_that_are_none() {
    const B: u64 = 0x50_0000;
    type Make = fn(&mut Board<Echo>, &Ring);
    let cases: [(&str, Make); 11] = [
        ("a loop of one", |board, ring| board.descriptor(ring.desc, 0, B, 4, NEXT, 0)),
        ("a loop of two", |board, ring| {
            board.descriptor(ring.desc, 0, B, 4, NEXT, 1);
            board.descriptor(ring.desc, 1, B, 4, NEXT | WRITE, 0);
        }),
        ("a next that is not in the table", |board, ring| board.descriptor(ring.desc, 0, B, 4, NEXT, 64)),
        ("readable behind writable", |board, ring| {
            board.descriptor(ring.desc, 0, B, 4, NEXT | WRITE, 1);
            board.descriptor(ring.desc, 1, B, 4, 0, 0);
        }),
        ("a table in a table", |board, ring| {
            board.descriptor(ring.desc, 0, B, 16, INDIRECT, 0);
            board.descriptor(B, 0, B, 16, INDIRECT, 0);
        }),
        ("an empty table", |board, ring| board.descriptor(ring.desc, 0, B, 0, INDIRECT, 0)),
        ("a table of a descriptor and a half", |board, ring| board.descriptor(ring.desc, 0, B, 24, INDIRECT, 0)),
        ("a table beyond memory", |board, ring| board.descriptor(ring.desc, 0, u64::MAX - 15, 16, INDIRECT, 0)),
        ("a huge table that is a loop", |board, ring| {
            board.descriptor(ring.desc, 0, B, 0xfff0 * 16, INDIRECT, 0);
            board.descriptor(B, 0, B, 4, NEXT, 0);
        }),
        ("more than 4 GiB", |board, ring| {
            board.descriptor(ring.desc, 0, B, u32::MAX, NEXT | WRITE, 1);
            board.descriptor(ring.desc, 1, B, u32::MAX, WRITE, 0);
        }),
        ("a table longer than the queue", |board, ring| {
            board.descriptor(ring.desc, 0, B, 65 * 16, INDIRECT, 0);
            for i in 0..65 {
                board.descriptor(B, i, B, 1, if i < 64 { NEXT } else { 0 }, i + 1);
            }
        }),
    ];
    for (why, make) in cases {
        let mut board = chain(make);
        assert!(board.memory.log().len() < 200, "{why}");
        assert_gave_up(&mut board, why);
    }
}

#[test]
fn rings_that_are_none() {
    let mut board = running();
    let ring = board.rings[0].clone();
    board.write(ring.avail + 2, &65_u16.to_le_bytes());
    board.kick(0);
    assert_gave_up(&mut board, "an index 65 ahead in a ring of 64");

    let mut board = running();
    board.publish(0, 64);
    board.kick(0);
    assert_gave_up(&mut board, "a head that is not in the table");

    for (why, at, len) in [("avail", 0x8000, 0x200), ("descriptors", 0, 0x400), ("used", 0xc000, 0x400), ("index", 0x8002, 2)] {
        let mut board = running();
        board.offer(0, &[out(b"x"), Part::In(1)]);
        board.sink.sent();
        board.memory.refuse(RINGS + at..RINGS + at + len);
        board.kick(0);
        assert_gave_up(&mut board, why);
    }
}

#[test]
fn queues_no_driver_sets_up() {
    for (why, at, len, value) in [
        ("size 0", 0x18, 2, 0),
        ("size 3", 0x18, 2, 3),
        ("size 128", 0x18, 2, 128),
        ("size 65535", 0x18, 2, 0xffff),
        ("misaligned descriptors", 0x20, 4, RINGS + 8),
        ("misaligned avail ring", 0x28, 4, RINGS + 1),
        ("misaligned used ring", 0x30, 4, RINGS + 2),
    ] {
        let mut board = Board::new(Echo::default());
        let offered = board.begin();
        board.accept(offered);
        board.set_status(11);
        board.put(at, len, value);
        board.put(0x1c, 2, 1);
        assert_eq!((board.get(0x1c, 2), board.status()), (0, 11 | NEEDS_RESET), "{why}");
        board.memory.log();
        board.set_status(15);
        board.kick(0);
        assert_eq!(board.memory.log(), [], "{why}");
        board.start(64, 0);
    }
    // Addresses nobody set: a ring at 0 is not one.
    let mut board = Board::new(Echo::default());
    let offered = board.begin();
    board.accept(offered);
    board.set_status(11);
    board.put(0x1c, 2, 1);
    board.set_status(15);
    board.kick(0);
    assert_eq!(board.status() & NEEDS_RESET, NEEDS_RESET);
}

/// Another CPU adds a chain whenever the device looks.
#[derive(Debug, Default)]
struct Endless(usize);

impl VirtioDevice<Memory> for Endless {
    fn kind(&self) -> Kind {
        Kind { id: 42, class: 0, queues: &[16] }
    }
    fn features(&self) -> u64 {
        0
    }
    fn config(&self) -> &[u8] {
        &[]
    }
    fn activate(&mut self, _features: u64) {}
    fn notified(&mut self, queue: usize, queues: &mut Queues<'_, Memory>) {
        use vm_memory::{Bytes, GuestAddress};
        while let Some(chain) = queues.pop(queue) {
            queues.push(queue, chain, 0);
            self.0 += 1;
            let index = (self.0 + 4) as u16;
            queues.memory().used.ram.write_obj(index.to_le(), GuestAddress(RINGS + 0x8002)).unwrap();
        }
    }
    fn reset(&mut self) {}
}

#[test]
fn an_endless_ring_ends_and_goes_on_with_the_next_notification() {
    let mut board = Board::running(Endless::default(), 16, 0);
    board.offer(0, &[out(b"x")]);
    board.kick(0);
    assert_eq!((board.function.model().device().0, board.status()), (8 * 16, 15));
    // The device asks to be told of a chain behind all it knows of.
    assert_eq!(board.half(RINGS + 0xc000 + 4 + 8 * 16), 8 * 16 + 4);
    board.kick(0);
    assert_eq!(board.function.model().device().0, 2 * 8 * 16);
}

#[derive(Clone, Debug)]
enum Op {
    Put(u64, Vec<u8>),
    Get(u64, usize),
    Config(usize, Vec<u8>),
    Memory(u64, Vec<u8>),
    Descriptor(u16, u64, u32, u16, u16),
    Publish(usize, u16),
    Kick(usize),
    Start(u16, u64),
    Refuse(u64, u64),
    Allow,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0..0x2_0000_u64).prop_map(|by| RINGS + by),
        4 => 0x40_0000..0x41_0000_u64,
        1 => any::<u64>(),
        1 => prop::sample::select(vec![0, u64::MAX, u64::MAX - 15, 0xff_fff8]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop::collection::vec(any::<u8>(), 0..9);
    let at = prop_oneof![6 => 0..0x40_u64, 1 => 0..0x4010_u64, 1 => any::<u64>()];
    prop_oneof![
        3 => (at.clone(), bytes.clone()).prop_map(|(at, data)| Op::Put(at, data)),
        1 => (at, 0..9_usize).prop_map(|(at, len)| Op::Get(at, len)),
        1 => (0x40..0x100_usize, bytes).prop_map(|(at, data)| Op::Config(at, data)),
        3 => (address(), prop::collection::vec(any::<u8>(), 1..5)).prop_map(|(at, data)| Op::Memory(at, data)),
        8 => (0..64_u16, address(), prop_oneof![8 => 0..100_u32, 1 => any::<u32>()], 0..8_u16, 0..66_u16)
            .prop_map(|(index, at, len, flags, next)| Op::Descriptor(index, at, len, flags, next)),
        6 => (0..2_usize, 0..66_u16).prop_map(|(queue, head)| Op::Publish(queue, head)),
        6 => (0..4_usize).prop_map(Op::Kick),
        2 => (prop::sample::select(vec![1, 2, 16, 64]), prop::sample::select(vec![0, EVENT_IDX])).prop_map(|(size, not)| Op::Start(size, not)),
        1 => (address(), 1..0x200_u64).prop_map(|(at, len)| Op::Refuse(at, len)),
        1 => Just(Op::Allow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_driver_is_survived(ops in prop::collection::vec(op(), 1..100)) {
        // At most ROUNDS times 64 chains of at most 64 descriptors, each of these read once and its buffer once or twice.
        const MOST: usize = 8 * 64 * (64 * 3 + 8);
        let mut board = running();
        for op in ops {
            board.memory.log();
            let dead = board.status() & NEEDS_RESET != 0;
            match op {
                Op::Put(at, data) => board.function.write_bar(0, at, &data),
                Op::Get(at, len) => board.function.read_bar(0, at, &mut vec![0; len]),
                Op::Config(at, data) => { board.function.write_config(at, &data); }
                Op::Memory(at, data) => { let _ = vm_memory::Bytes::write_slice(&board.memory.ram, &data, vm_memory::GuestAddress(at)); }
                Op::Descriptor(index, at, len, flags, next) => {
                    let table = board.rings[usize::from(index % 2)].desc;
                    board.descriptor(table, index, at, len, flags, next);
                }
                Op::Publish(queue, head) => board.publish(queue, head),
                Op::Kick(queue) => {
                    board.kick(queue);
                    if dead {
                        prop_assert_eq!(board.memory.log(), vec![]);
                    }
                }
                Op::Start(size, without) => {
                    // The BAR may be gone or the function reset by now: only the attempt counts.
                    let offered = board.begin();
                    board.accept(offered & !without);
                    board.set_status(11);
                    if board.status() == 11 && board.get(0x12, 2) == 2 {
                        board.queues(size);
                    }
                    board.set_status(15);
                }
                Op::Refuse(at, len) => board.memory.refuse(at..at.saturating_add(len)),
                Op::Allow => board.memory.allow(),
            }
            let accesses = board.memory.log().len();
            prop_assert!(accesses <= MOST, "{} accesses", accesses);
            board.sink.sent();
        }
    }
}
