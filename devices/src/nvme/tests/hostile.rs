//! A driver without manners: no panic, a bounded number of accesses for each register write, and the way back is a reset.

use super::*;
use proptest::prelude::*;

/// The controller gave up, does nothing more until it is reset, and then works again.
fn assert_gave_up(board: &mut Board, why: &str) {
    assert_eq!(board.status() & 2, 2, "{why}");
    board.memory.log();
    board.put(0x1000, 5);
    board.put(0x1008, 5);
    assert_eq!(board.memory.log(), [], "{why}");
    board.memory.allow();
    board.enable();
    board.create(1, 16);
    assert_eq!(board.write_disk(0, &pattern(0, 512)), SUCCESS, "{why}");
}

#[test]
fn queues_that_cannot_be_reached_are_fatal() {
    for (why, at) in [
        ("admin submission queue", QUEUES),
        ("admin completion queue", QUEUES + 0x8000),
        ("submission queue", QUEUES + 0x1_0000),
        ("completion queue", QUEUES + 0x1_8000),
        ("the second half of a completion", QUEUES + 0x1_8008),
    ] {
        let mut board = Board::ready("nvme,size=1");
        let pair = if at < QUEUES + 0x1_0000 { 0 } else { 1 };
        if pair == 1 {
            board.create(1, 16);
        }
        board.memory.refuse(at..at + 8);
        board.offer(pair, command(if pair == 0 { 0x0a } else { FLUSH }, 1));
        board.kick(pair);
        assert_gave_up(&mut board, why);
    }
    let mut board = Board::off("nvme,size=1");
    board.put(0x24, 31 << 16 | 31);
    board.function.write_bar(0, 0x28, &(u64::MAX - 4095).to_le_bytes());
    board.function.write_bar(0, 0x30, &(u64::MAX - 4095).to_le_bytes());
    board.put(0x14, 4 << 20 | 6 << 16 | 1);
    board.put(0x1000, 1);
    assert_gave_up(&mut board, "queues at the end of all addresses");
}

#[test]
fn a_doorbell_works_off_one_queue_and_no_more() {
    let mut board = Board::ready("nvme,size=1");
    board.create(1, 256);
    (0..255).for_each(|_| _ = board.offer(1, command(FLUSH, 1)));
    board.memory.log();
    board.kick(1);
    assert_eq!(board.memory.log().len(), 255 * 3);
    assert_eq!(board.take(1, true).len(), 255);
    // The largest admin queue.
    board.put(0x14, 0);
    board.put(0x24, 0xfff << 16 | 0xfff);
    board.put(0x14, 4 << 20 | 6 << 16 | 1);
    board.memory.log();
    board.put(0x1000, 0xfff);
    assert_eq!(board.memory.log().len(), 4095 * 3);
}

#[test]
fn a_queue_may_lie_on_the_other() {
    // Completions overwrite commands that were not fetched yet.
    let mut board = Board::running("nvme,size=1", 1);
    board.add(2, 16);
    let mut create = Board::create_command(5, 2, 256);
    create[6] = (QUEUES + 0x2_0000) as u32;
    assert_eq!(board.run(0, create).status, SUCCESS);
    assert_eq!(board.run(0, Board::create_command(1, 2, 256)).status, SUCCESS);
    board.put(0x1010, 255);
    assert_eq!(board.run(1, command(FLUSH, 1)).status, SUCCESS);
}

#[test]
fn registers_at_every_width_and_place() {
    let mut board = Board::running("nvme,size=1", 1);
    for offset in (0..0x4000).step_by(3) {
        for len in [1, 2, 3, 4, 8, 16] {
            let mut bytes = vec![0; len];
            board.function.read_bar(0, offset, &mut bytes);
            if !(0x14..0x18).contains(&offset) {
                board.function.write_bar(0, offset, &vec![0xa5; len]);
            }
        }
    }
    board.function.reset();
    board.function.write_config(4, &[6, 0]);
    board.open_vectors();
    board.enable();
}

#[derive(Clone, Debug)]
enum Act {
    Register(u64, u32),
    Doorbell(u8, u16),
    Command(u8, Command),
    Reset,
}

/// Numbers that are often at the edge of something.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![0..4_u32, Just(u32::MAX), Just(0x8000_0000), any::<u32>(), (0..0x200_u32).prop_map(|page| page * 0x1_0000)]
}

fn act() -> impl Strategy<Value = Act> {
    let any_command = (0..0x20_u32, 0..3_u32, prop::array::uniform16(word())).prop_map(|(opcode, namespace, mut command)| {
        command[0] = opcode | command[0] & 0xffff_0000;
        command[1] = namespace;
        // Pointers into memory, or nearly so.
        command[7] &= 1;
        command[9] &= 1;
        command
    });
    prop_oneof![
        1 => ((0..0x40_u64), word()).prop_map(|(at, value)| Act::Register(at, value)),
        2 => ((0..6_u8), any::<u16>()).prop_map(|(at, value)| Act::Doorbell(at, value % 40)),
        8 => ((0..3_u8), any_command).prop_map(|(pair, command)| Act::Command(pair, command)),
        1 => Just(Act::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn nothing_breaks_it(acts in prop::collection::vec(act(), 1..60)) {
        let mut board = Board::running("nvme,size=1", 2);
        for act in acts {
            match act {
                Act::Register(at, value) => board.put(at, value),
                Act::Doorbell(at, value) => board.put(0x1000 + 4 * u64::from(at), value.into()),
                Act::Command(pair, command) => {
                    board.offer(pair.into(), command);
                    board.kick(pair.into());
                }
                Act::Reset => board.put(0x14, 0),
            }
            // A queue of 32 or 16 entries, each of at most 1024 pages and what belongs to them.
            prop_assert!(board.memory.log().len() < 40 * 1100);
        }
        board.function.reset();
        board.function.write_config(4, &[6, 0]);
        board.open_vectors();
        board.enable();
        board.create(1, 16);
        prop_assert_eq!(board.write_disk(0, &pattern(0, 512)), SUCCESS);
    }
}
