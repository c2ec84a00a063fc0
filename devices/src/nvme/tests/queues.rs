//! Registers, resets, rings and interrupts.

use super::*;

#[test]
fn the_registers_say_what_there_is() {
    let mut board = Board::off("nvme");
    let mut class = [0; 4];
    board.function.read_config(8, &mut class);
    assert_eq!(class[1..], [2, 8, 1]);
    let cap = board.get(0, 8);
    assert_eq!((cap & 0xffff, cap >> 16 & 1, cap >> 37 & 1, cap >> 48), (255, 1, 1, 0), "{cap:#x}");
    assert_ne!(cap >> 24 & 0xff, 0, "a time to become ready");
    assert_eq!(board.get(0x08, 4), 0x1_0400);
    // No controller memory buffer, and nothing in what is reserved.
    for at in (0x38..0x1000).step_by(4) {
        assert_eq!(board.get(at, 4), 0, "{at:#x}");
    }
    assert_eq!((board.get(0x1000, 4), board.get(0, 4)), (0, cap & 0xffff_ffff));
    board.put(0, 0);
    board.put(0x08, 0);
    board.put(0x1c, 0xffff_ffff);
    assert_eq!((board.get(0, 8), board.get(0x08, 4), board.status()), (cap, 0x1_0400, 0));
}

#[test]
fn enabling_resetting_and_shutting_down() {
    let mut board = Board::running("nvme,size=1", 1);
    let acq = board.get(0x30, 8);
    assert_eq!((board.get(0x24, 4), board.get(0x28, 8)), (31 << 16 | 31, QUEUES));
    board.put(0x14, 4 << 20 | 6 << 16 | 1 << 14 | 1);
    assert_eq!(board.status(), 1 | 2 << 2, "shut down");
    board.memory.log();
    board.offer(1, command(FLUSH, 1));
    board.kick(1);
    assert_eq!(board.memory.log(), [], "nothing is fetched after a shutdown");
    board.put(0x14, 0);
    assert_eq!(board.status(), 0);
    assert_eq!((board.get(0x24, 4), board.get(0x30, 8)), (31 << 16 | 31, acq), "kept over a reset");
    board.enable();
    board.kick(0);
    board.put(0x1008, 1);
    assert_eq!(board.take(0, true), [], "no I/O queue is left");
    board.create(1, 16);
    assert_eq!(board.write_disk(0, &pattern(0, 512)), SUCCESS);
    // Shut down while it is off.
    board.put(0x14, 0);
    board.put(0x14, 1 << 14);
    assert_eq!(board.status(), 2 << 2);
    board.put(0x14, 4 << 20 | 6 << 16 | 1);
    assert_eq!(board.status(), 1);
}

#[test]
fn a_configuration_that_cannot_be_is_fatal() {
    // Page size 8 KiB, another command set, weighted arbitration.
    for cc in [1 << 7 | 1, 6 << 4 | 1, 1 << 11 | 1] {
        let mut board = Board::off("nvme");
        board.put(0x24, 31 << 16 | 31);
        board.put(0x14, cc);
        assert_eq!(board.status(), 2, "{cc:#x}");
        board.enable();
    }
    for aqa in [0, 31, 31 << 16] {
        let mut board = Board::off("nvme");
        board.put(0x24, aqa);
        board.put(0x14, 4 << 20 | 6 << 16 | 1);
        assert_eq!(board.status(), 2, "{aqa:#x}");
    }
}

#[test]
fn each_queue_has_its_vector() {
    let mut board = Board::running("nvme,size=1,queues=3", 3);
    board.sink.sent();
    for pair in 1..=3 {
        board.run(pair, command(FLUSH, 1));
        assert_eq!(board.sink.sent(), [pair]);
    }
    board.run(0, command(0x06, 0));
    assert_eq!(board.sink.sent(), [0]);
    // Many commands behind one doorbell, one message.
    (0..5).for_each(|_| _ = board.offer(2, command(FLUSH, 1)));
    board.kick(2);
    assert_eq!((board.take(2, true).len(), board.sink.sent()), (5, vec![2]));
    // Without interrupts.
    let mut board = Board::ready("nvme");
    board.add(1, 16);
    let mut create = Board::create_command(5, 1, 16);
    create[11] = 1;
    board.run(0, create);
    board.run(0, Board::create_command(1, 1, 16));
    board.sink.sent();
    assert_eq!(board.run(1, command(FLUSH, 1)).status, SUCCESS);
    assert!(board.sink.sent().is_empty());
}

#[test]
fn rings_wrap_and_heads_are_told() {
    let mut board = Board::ready("nvme,size=1");
    board.create(1, 3);
    for turn in 0..20_u16 {
        let done = board.run(1, command(FLUSH, 0xffff_ffff));
        assert_eq!((done.status, done.head), (SUCCESS, (turn + 1) % 3));
    }
}

#[test]
fn a_full_completion_queue_waits_for_room() {
    let mut board = Board::ready("nvme,size=1");
    // Two submission queues of 16 entries complete in one of 4.
    board.add(1, 4);
    board.run(0, Board::create_command(5, 1, 4));
    for pair in [1, 2] {
        board.add(pair, 16);
        let mut create = Board::create_command(1, pair, 16);
        create[11] = 1 << 16 | 1;
        assert_eq!(board.run(0, create).status, SUCCESS);
    }
    board.pairs[1].size = 16;
    let offered: Vec<u16> = (0..10).map(|n| board.offer(1 + n % 2, command(FLUSH, 1))).collect();
    board.kick(1);
    board.kick(2);
    let mut seen = Vec::new();
    let (mut head, mut phase) = (0_u16, 1);
    while seen.len() < 10 {
        let mut batch = 0;
        loop {
            let bytes = board.read(QUEUES + 0x1_8000 + u64::from(head) * 16, 16);
            if u16::from(bytes[14] & 1) != phase {
                break;
            }
            seen.push(u16::from_le_bytes([bytes[12], bytes[13]]));
            head = (head + 1) % 4;
            phase ^= u16::from(head == 0);
            batch += 1;
        }
        assert!((1..=3).contains(&batch), "{batch}: never more than fit");
        board.put(0x100c, head.into());
    }
    seen.sort_unstable();
    assert_eq!(seen, offered);
}

#[test]
fn what_is_accessed_and_in_which_order() {
    let mut board = Board::running("nvme,size=1,hmb=0", 1);
    board.list(LISTS, &[DATA + PAGE, DATA + 5 * PAGE]);
    board.memory.log();
    board.offer(1, with_prp(sectors(READ, 0, 24), DATA, LISTS));
    board.kick(1);
    let at = QUEUES + 0x1_0000;
    let expected = [
        Dma::Read(at, 64),
        Dma::Read(LISTS, 16),
        Dma::Write(DATA, 8192),
        Dma::Write(DATA + 5 * PAGE, 4096),
        Dma::Write(at + 0x8000, 8),
        Dma::Write(at + 0x8008, 8),
    ];
    assert_eq!(board.memory.log(), expected);
}

#[test]
fn doorbells_of_a_queue_there_is_not_are_events() {
    let mut board = Board::running("nvme", 1);
    let asked = board.offer(0, command(0x0c, 0));
    board.kick(0);
    assert_eq!(board.take(0, true), []);
    // A queue there is not: event 0, log page 1.
    board.put(0x1000 + 8 * 7, 1);
    let told = board.take(0, true);
    assert_eq!((told.len(), told[0].id, told[0].result, told[0].status), (1, asked, 1 << 16, SUCCESS));
    // Masked until the error log is read.
    board.offer(0, command(0x0c, 0));
    board.kick(0);
    board.put(0x1008, 16);
    assert_eq!(board.take(0, true), []);
    let mut log = with_prp(command(0x02, 0), DATA, 0);
    log[10] = 0x01 | 15 << 16;
    board.offer(0, log);
    board.kick(0);
    let told = board.take(0, true);
    assert_eq!((told.len(), told[1].result), (2, 1 << 16 | 1 << 8), "a value that cannot be: event 1");
    assert_eq!(board.read(DATA, 8), 2_u64.to_le_bytes(), "two errors");
    // A head that was not posted.
    board.put(0x100c, 3);
    // Accesses of other widths, and unaligned ones, are none.
    for (offset, len) in [(0x1008, 2), (0x100a, 4), (0x1009, 1), (0x1008, 8)] {
        board.function.write_bar(0, offset, &vec![1; len]);
    }
    assert_eq!(board.status(), 1);
    assert_eq!(board.run(1, command(FLUSH, 1)).status, SUCCESS);
}

#[test]
fn a_power_cycle_forgets_everything() {
    let mut board = Board::running("nvme,size=1", 1);
    board.function.reset();
    board.function.write_config(4, &[6, 0]);
    assert_eq!((board.status(), board.get(0x14, 4), board.get(0x24, 4), board.get(0x28, 8)), (0, 0, 0, 0));
    board.open_vectors();
    board.enable();
}
