//! The host memory buffer: lent, used, given back and taken away.

use super::*;

const LIST: u64 = 0x180_0000;
const HOST: u64 = 0x1a0_0000;
const FEATURE: u32 = 0x0d;

fn set(board: &mut Board, flags: u32, pages: u32, list: u64, count: u32) -> u16 {
    let mut set = command(9, 0);
    set[10] = FEATURE;
    set[11] = flags;
    set[12] = pages;
    set[13] = list as u32;
    set[14] = (list >> 32) as u32;
    set[15] = count;
    board.run(0, set).status
}

fn describe(board: &Board, pieces: &[(u64, u32)]) {
    let bytes: Vec<u8> = pieces.iter().flat_map(|(at, pages)| [&at.to_le_bytes()[..], &pages.to_le_bytes(), &[0; 4]].concat()).collect();
    board.write(LIST, &bytes);
}

/// A controller with 16 pages of the host's, in two pieces.
fn lent() -> Board {
    let mut board = Board::running("nvme,size=1", 1);
    describe(&board, &[(HOST, 10), (HOST + 100 * PAGE, 6)]);
    assert_eq!(set(&mut board, 1, 16, LIST, 2), SUCCESS);
    board.memory.log();
    board
}

fn host_accesses(board: &Board) -> Vec<Dma> {
    board.memory.log().into_iter().filter(|dma| matches!(dma, Dma::Read(at, _) | Dma::Write(at, _) if *at >= HOST)).collect()
}

#[test]
fn what_is_written_is_recorded_and_looked_at() {
    let mut board = lent();
    let mut get = with_prp(command(10, 0), DATA, 0);
    get[10] = FEATURE;
    assert_eq!(board.run(0, get).result, 1);
    assert_eq!(board.read(DATA, 16), [16, LIST as u32, 0, 2].map(u32::to_le_bytes).concat());
    board.write_disk(8, &pattern(0, 512));
    board.write_disk(15 * 8, &pattern(1, 512));
    assert_eq!(host_accesses(&board), [Dma::Write(HOST + PAGE, 16), Dma::Write(HOST + 105 * PAGE, 16)]);
    assert_eq!(board.read_disk(8, 1).0, SUCCESS);
    assert_eq!(board.read_disk(16, 1).0, SUCCESS, "never written: nothing to look at");
    assert_eq!(host_accesses(&board), [Dma::Read(HOST + PAGE, 16)]);
    // What the host must not do.
    board.write(HOST + PAGE + 3, &[0x55]);
    assert_eq!(board.read_disk(8, 1).0, 0x4006);
    assert_eq!(board.read_disk(15 * 8, 1).0, SUCCESS);
    // A new write makes a new record.
    board.write_disk(8, &pattern(2, 512));
    assert_eq!(board.read_disk(8, 1), (SUCCESS, pattern(2, 512)));
    let mut health = with_prp(command(2, 0), DATA, 0);
    health[10] = 2 | 127 << 16;
    assert_eq!(board.run(0, health).status, SUCCESS);
    assert_eq!(board.read(DATA + 160, 8), 1_u64.to_le_bytes(), "an integrity error");
}

#[test]
fn it_is_not_touched_without_leave() {
    let mut board = lent();
    board.write_disk(8, &pattern(0, 512));
    assert_eq!(set(&mut board, 1, 16, LIST, 2), SEQUENCE, "enabled twice");
    host_accesses(&board);
    assert_eq!(set(&mut board, 0, 0, 0, 0), SUCCESS);
    board.read_disk(8, 1);
    board.write_disk(8, &pattern(1, 512));
    assert_eq!(host_accesses(&board), []);
    // Lent again as another one, what it held means nothing.
    board.write(HOST + PAGE, &[0; 16]);
    assert_eq!(set(&mut board, 1, 16, LIST, 2), SUCCESS);
    assert_eq!(board.read_disk(8, 1).0, SUCCESS);
    // A reset ends it.
    board.write_disk(8, &pattern(1, 512));
    board.enable();
    board.create(1, 16);
    host_accesses(&board);
    board.read_disk(8, 1);
    board.write_disk(16, &pattern(1, 512));
    assert_eq!(host_accesses(&board), []);
    // Given back as it was, it is what it was.
    assert_eq!(set(&mut board, 3, 16, LIST, 2), SUCCESS);
    assert_eq!(board.read_disk(8, 1).0, SUCCESS);
    assert_eq!(host_accesses(&board), [Dma::Read(HOST + PAGE, 16)]);
    board.enable();
    board.create(1, 16);
    board.write(HOST + PAGE, &[0; 16]);
    assert_eq!(set(&mut board, 3, 16, LIST, 2), SUCCESS);
    assert_eq!(board.read_disk(8, 1).0, 0x4006, "given back as it was not");
}

#[test]
fn memory_taken_away_is_used_no_more() {
    let mut board = lent();
    board.write_disk(8, &pattern(0, 512));
    board.memory.refuse(HOST..HOST + 200 * PAGE);
    assert_eq!(board.read_disk(8, 1), (SUCCESS, pattern(0, 512)));
    host_accesses(&board);
    assert_eq!((board.write_disk(8, &pattern(1, 512)), board.read_disk(8, 1)), (SUCCESS, (SUCCESS, pattern(1, 512))));
    assert_eq!(host_accesses(&board), []);
}

#[test]
fn buffers_that_cannot_be() {
    let mut board = Board::running("nvme,size=1", 1);
    let whole = [(HOST, 16)];
    // Pages, place and number of descriptors.
    let cases = [
        ("less than HMMIN", (15, LIST, 1), INVALID_FIELD),
        ("no descriptors", (16, LIST, 0), INVALID_FIELD),
        ("too many descriptors", (16, LIST, 257), INVALID_FIELD),
        ("four thousand million of them", (16, LIST, u32::MAX), INVALID_FIELD),
        ("a list at 8", (16, LIST + 8, 1), INVALID_FIELD),
        ("a list that cannot be reached", (16, 1 << 40, 1), DATA_TRANSFER),
    ];
    describe(&board, &whole);
    for (what, (pages, list, count), status) in cases {
        assert_eq!(set(&mut board, 1, pages, list, count), status, "{what}");
    }
    for (what, pieces) in [
        ("a piece off its page", [(HOST, 16), (HOST + 8, 16)]),
        ("an empty piece", [(HOST, 16), (HOST, 0)]),
        ("pieces less than the whole", [(HOST, 8), (HOST, 7)]),
    ] {
        describe(&board, &pieces);
        assert_eq!(set(&mut board, 1, 16, LIST, 2), INVALID_FIELD, "{what}");
    }
    // Addresses that pass the end of all addresses, and more than was asked for.
    describe(&board, &[(u64::MAX - 4095, u32::MAX), (HOST, u32::MAX)]);
    assert_eq!(set(&mut board, 1, u32::MAX, LIST, 2), SUCCESS);
    assert_eq!((board.write_disk(8, &pattern(0, 512)), board.read_disk(8, 1).0), (SUCCESS, SUCCESS));
    let mut without = Board::running("nvme,size=1,hmb=0", 1);
    describe(&without, &whole);
    assert_eq!(set(&mut without, 1, 16, LIST, 1), INVALID_FIELD);
}
