//! The admin queue: identify, features, logs, events, and making and deleting queues.

use super::*;

fn identify(board: &mut Board, what: u32, namespace: u32) -> (u16, Vec<u8>) {
    board.write(DATA, &[0xee; 4096]);
    let mut identify = with_prp(command(0x06, namespace), DATA, 0);
    identify[10] = what;
    let status = board.run(0, identify).status;
    (status, board.read(DATA, 4096))
}

fn feature(board: &mut Board, opcode: u32, id: u32, value: u32) -> (u16, u32) {
    let mut command = with_prp(command(opcode, 0), DATA, 0);
    command[10] = id;
    command[11] = value;
    let done = board.run(0, command);
    (done.status, done.result)
}

fn log(board: &mut Board, id: u32, dwords: u32, offset: u32) -> (u16, Vec<u8>) {
    board.write(DATA, &[0xee; 8192]);
    let mut log = with_prp(command(0x02, 0xffff_ffff), DATA, DATA + PAGE);
    log[10] = id | (dwords - 1) << 16;
    log[12] = offset;
    let status = board.run(0, log).status;
    (status, board.read(DATA, 8192))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[test]
fn identify_says_who_and_what() {
    let mut board = Board::ready("nvme,size=1,hmb=3");
    let (status, it) = identify(&mut board, 1, 0);
    assert_eq!(status, SUCCESS);
    assert_eq!((number(&it[0..2]), &it[4..24], &it[24..31]), (0xda5e, &b"DMAVET0000          "[..], &b"dmavet "[..]));
    assert_eq!((it[77], number(&it[80..84]), it[111], it[259]), (10, 0x1_0400, 1, 3));
    assert_eq!((number(&it[266..268]), number(&it[268..270])), (343, 353));
    assert_eq!((number(&it[272..276]), number(&it[276..280]), number(&it[336..338])), (768, 16, 256), "host memory buffer");
    assert_eq!((it[512], it[513], number(&it[516..520]), number(&it[520..522]), it[525]), (0x66, 0x44, 1, 0xc, 7));
    assert!(it[768..].starts_with(b"nqn.2014-08.org.nvmexpress:uuid:646d6176-6574-4000-8000-4e564d650080\0"));
    let (status, it) = identify(&mut board, 0, 1);
    assert_eq!((status, number(&it[0..8]), it[25], it[26], it[130], it[99]), (SUCCESS, SECTORS, 0, 0, 9, 0));
    assert_eq!(identify(&mut Board::ready("nvme,readonly=on"), 0, 1).1[99], 1);
    let (status, it) = identify(&mut board, 2, 0);
    assert_eq!((status, &it[..8]), (SUCCESS, &[1, 0, 0, 0, 0, 0, 0, 0][..]));
    assert_eq!(identify(&mut board, 2, 1).1, [0; 4096]);
    let (status, it) = identify(&mut board, 3, 1);
    assert_eq!((status, &it[..4], it[20..24].iter().sum()), (SUCCESS, &[3, 16, 0, 0][..], 0_u8));
    for (what, namespace, expected) in [(0, 0, INVALID_NAMESPACE), (0, 2, INVALID_NAMESPACE), (3, 9, INVALID_NAMESPACE)] {
        assert_eq!(identify(&mut board, what, namespace).0, expected);
    }
    assert_eq!(identify(&mut board, 2, 0xffff_fffe).0, INVALID_NAMESPACE);
    assert_eq!(identify(&mut board, 6, 0).0, INVALID_FIELD);
}

/// Linux refuses a second controller that says it is the first one.
#[test]
fn no_two_controllers_are_the_same() {
    let mut boards = [Board::number("nvme", 0), Board::number("nvme", 1)];
    let mut told = Vec::new();
    for board in &mut boards {
        board.enable();
        let it = identify(board, 1, 0).1;
        told.push((it[4..24].to_vec(), it[768..1024].to_vec(), identify(board, 3, 1).1));
    }
    assert!(told[0].0 != told[1].0 && told[0].1 != told[1].1 && told[0].2 != told[1].2);
}

#[test]
fn features_are_kept_until_a_reset() {
    let mut board = Board::ready("nvme,queues=5");
    for asked in [0, 1 << 16 | 1, 200 << 16 | 3] {
        assert_eq!(feature(&mut board, 9, 7, asked), (SUCCESS, 4 << 16 | 4));
    }
    assert_eq!(feature(&mut board, 9, 7, 0xffff), (INVALID_FIELD, 0));
    assert_eq!(feature(&mut board, 10, 7, 0), (SUCCESS, 4 << 16 | 4));
    for (id, value) in
        [(1, 0x0102_0304), (4, 350), (4, 1 << 20 | 260), (5, 7), (6, 0), (8, 0x0203), (9, 1 << 16 | 3), (0x0a, 1), (0x0b, 0x100)]
    {
        assert_eq!(feature(&mut board, 9, id, value).0, SUCCESS, "{id:#x}");
        let select = if id == 4 { value & !0xffff } else { value & 0xffff };
        let expected = if id == 4 { value & 0xffff } else { value };
        assert_eq!(feature(&mut board, 10, id, select), (SUCCESS, expected), "{id:#x}");
    }
    assert_eq!(feature(&mut board, 10, 9, 2), (SUCCESS, 2));
    for (id, value) in [(2, 1), (4, 2 << 16), (4, 3 << 20), (5, 1 << 16), (9, 6), (0x0c, 0), (0x10, 0), (0xff, 0)] {
        assert_eq!(feature(&mut board, 9, id, value).0, INVALID_FIELD, "{id:#x} {value:#x}");
    }
    assert_eq!(feature(&mut board, 9, 6 | 1 << 31, 0).0, 0x410d, "nothing is saved");
    board.create(1, 16);
    assert_eq!(feature(&mut board, 9, 7, 0).0, SEQUENCE);
    board.enable();
    assert_eq!((feature(&mut board, 10, 6, 0), feature(&mut board, 10, 4, 0)), ((SUCCESS, 1), (SUCCESS, 343)));
}

#[test]
fn log_pages() {
    let mut board = Board::running("nvme,size=1", 1);
    board.write_disk(0, &[1; 512]);
    board.read_disk(0, 1);
    board.transfer(READ, SECTORS + 5, 1);
    let (status, page) = log(&mut board, 1, 64, 0);
    assert_eq!(
        (status, number(&page[..8]), number(&page[8..10]), number(&page[16..24]), number(&page[24..28])),
        (SUCCESS, 1, 1, SECTORS + 5, 1)
    );
    assert_eq!((number(&page[12..14]), page[256]), (u64::from(OUT_OF_RANGE) << 1, 0xee));
    let (status, page) = log(&mut board, 2, 128, 0);
    assert_eq!(
        (status, number(&page[1..3]), page[3], number(&page[32..48]), number(&page[64..80]), number(&page[80..96])),
        (SUCCESS, 313, 100, 1, 1, 1)
    );
    assert_eq!((number(&page[176..184]), page[0]), (1, 0));
    let (status, page) = log(&mut board, 3, 128, 0);
    assert_eq!((status, page[0], page[8]), (SUCCESS, 1, b'1'));
    let (status, page) = log(&mut board, 5, 1024, 0);
    assert_eq!(
        (status, page[4 * 6], page[4 * 0x0d], page[1024], page[1024 + 4], page[1024 + 8], page[1024 + 12]),
        (SUCCESS, 1, 0, 1, 3, 1, 0)
    );
    // By offset; what lies behind the end is not written.
    let (status, page) = log(&mut board, 2, 2048, 176);
    assert_eq!((status, number(&page[..8]), page[512 - 176]), (SUCCESS, 1, 0xee));
    assert_eq!((log(&mut board, 2, 1, 513).0, log(&mut board, 2, 1, 2).0), (INVALID_FIELD, INVALID_FIELD));
    assert_eq!(log(&mut board, 0x70, 1, 0).0, 0x4109);
}

#[test]
fn events_wait_and_are_aborted() {
    let mut board = Board::ready("nvme");
    let ids: Vec<u16> = (0..5).map(|_| board.offer(0, command(0x0c, 0))).collect();
    board.kick(0);
    let done = board.take(0, true);
    assert_eq!((done.len(), done[0].id, done[0].status), (1, ids[4], 0x4105), "four are enough");
    let mut abort = command(0x08, 0);
    abort[10] = u32::from(ids[2]) << 16;
    board.offer(0, abort);
    board.kick(0);
    let done = board.take(0, true);
    assert_eq!(done.iter().map(|done| (done.result, done.status)).collect::<Vec<_>>(), [(0, 0), (0, 0x4007)]);
    assert_eq!(done[1].id, ids[2]);
    assert_eq!(board.run(0, abort).result, 1, "not aborted: it ended");
}

#[test]
fn queues_that_cannot_be_made() {
    let mut board = Board::ready("nvme,queues=3");
    let cases: [(&str, u32, u16, u32, u64, u16); 14] = [
        ("a completion queue 0", 5, 0, 15, 0, 0x4101),
        ("a completion queue 4 of 3", 5, 4, 15, 0, 0x4101),
        ("one of 65535", 5, 0xffff, 15, 0, 0x4101),
        ("one of one entry", 5, 1, 0, 0, 0x4102),
        ("one of 257 entries", 5, 1, 256, 0, 0x4102),
        ("one of 65536 entries", 5, 1, 0xffff, 0, 0x4102),
        ("one off its page", 5, 1, 15, 8, INVALID_OFFSET),
        ("one in pieces", 5, 1, 15, u64::MAX, INVALID_FIELD),
        ("a vector there is not", 5, 1, 15, 4 << 32, 0x4108),
        ("a submission queue 0", 1, 0, 15, 0, 0x4101),
        ("a submission queue 4 of 3", 1, 4, 15, 0, 0x4101),
        ("one without a completion queue", 1, 1, 15, 0, 0x4100),
        ("one with the admin completion queue", 1, 1, 15, 0xffff << 32, 0x4101),
        ("one with completion queue 9 of 3", 1, 1, 15, 9 << 32, 0x4101),
    ];
    for (what, opcode, queue, size, strange, expected) in cases {
        let mut create = Board::create_command(opcode, queue, 2);
        create[10] = size << 16 | u32::from(queue);
        match strange {
            0 if opcode == 1 => create[11] = 1 << 16 | 1,
            0 => create[11] = 3,
            u64::MAX => create[11] = 2,
            offset @ 1..4096 => create[6] += offset as u32,
            other => create[11] = ((other >> 32 & 0xf) as u32 % 15) << 16 | 1,
        }
        assert_eq!(board.run(0, create).status, expected, "{what}");
    }
    board.create(1, 16);
    for opcode in [5, 1] {
        assert_eq!(board.run(0, Board::create_command(opcode, 1, 16)).status, 0x4101, "made twice");
    }
    let mut delete = |opcode, queue: u32| {
        let mut delete = command(opcode, 0);
        delete[10] = queue;
        board.run(0, delete).status
    };
    assert_eq!((delete(4, 1), delete(4, 0), delete(0, 0), delete(0, 2), delete(4, 2)), (0x410c, 0x4101, 0x4101, 0x4101, 0x4101));
    assert_eq!((delete(0, 9), delete(4, 0xffff)), (0x4101, 0x4101));
    assert_eq!((delete(0, 1), delete(0, 1), delete(4, 1), delete(4, 1)), (SUCCESS, 0x4101, SUCCESS, 0x4101));
    board.put(0x1008, 1);
    board.create(1, 256);
    assert_eq!(board.run(1, command(FLUSH, 1)).status, SUCCESS);
    // Entry sizes that are not those of the entries.
    board.put(0x14, 0);
    board.put(0x14, 1);
    board.add(0, 32);
    board.add(2, 16);
    assert_eq!(board.run(0, Board::create_command(5, 2, 16)).status, 0x4102);
}

#[test]
fn admin_commands_there_are_not() {
    let mut board = Board::ready("nvme");
    for opcode in [3, 7, 0x0b, 0x0d, 0x10, 0x11, 0x14, 0x15, 0x18, 0x7c, 0x80, 0xff] {
        assert_eq!(board.run(0, command(opcode, 0)).status, INVALID_OPCODE, "{opcode:#x}");
    }
}
