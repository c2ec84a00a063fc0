//! A guest without manners: whatever it writes, no panic, and a bounded number of accesses for each register write.

use super::*;
use proptest::prelude::*;

/// Descriptors of one doorbell (255) with a looped-back receive each, at up to 6 accesses a descriptor plus status blocks of errors.
const MOST_ACCESSES: usize = 255 * 2 * 8 + 8;

#[derive(Clone, Debug)]
enum Op {
    Register(u64, u32),
    Write(usize, u64, Vec<u8>),
    Read(usize, u64, usize),
    WriteConfig(usize, Vec<u8>),
    Descriptor(u64, Desc),
    Refuse(u64, u64),
    Allow,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        // Inside the rings themselves, the status block, buffers, the end of memory, nowhere.
        6 => (prop::sample::select(vec![CMD_RING, TX_RING, RX_RING, BLOCK, SRC, DST]), 0..0x400_u64).prop_map(|(base, by)| base + by),
        1 => (RAM as u64 - 64)..(RAM as u64 + 64),
        1 => any::<u64>(),
        1 => prop::sample::select(vec![0, u64::MAX, u64::MAX - 127, 1 << 32, 1 << 63]),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..0x800_u32, 1 => any::<u32>(), 1 => prop::sample::select(vec![1 << 20, (1 << 20) + 1, u32::MAX])]
}

fn descriptor() -> impl Strategy<Value = Desc> {
    let opcode = prop::sample::select(vec![COPY, FILL, CHECKSUM, SEND, RECEIVE]);
    let flags = prop_oneof![12 => (opcode, any::<bool>()).prop_map(|(op, irq)| op | OWN | if irq { IRQ } else { 0 }), 1 => any::<u32>()];
    let reserved = prop_oneof![20 => Just(0), 1 => any::<u32>()];
    (flags, length(), address(), address(), any::<u32>(), reserved).prop_map(|(flags, len, src, dst, param, reserved)| Desc {
        flags,
        len,
        src,
        dst,
        param,
        reserved,
    })
}

fn register() -> impl Strategy<Value = (u64, u32)> {
    let ring = prop::sample::select(vec![CMD, TX, RX]);
    let base = prop_oneof![6 => prop::sample::select(vec![CMD_RING, TX_RING, RX_RING]), 1 => address()];
    prop_oneof![
        6 => (ring.clone(), 0..9_u32).prop_map(|(ring, tail)| (ring + 0x10, tail)),
        2 => (ring.clone(), 0..2_u32).prop_map(|(ring, on)| (ring + 0x14, on)),
        1 => (ring.clone(), prop::sample::select(vec![2, 4, 8, 256, 3, 0, u32::MAX])).prop_map(|(ring, size)| (ring + 8, size)),
        1 => (ring, base).prop_map(|(ring, base)| (ring, low(base))),
        2 => (1..8_u32).prop_map(|ctrl| (CTRL, ctrl)),
        1 => Just((CTRL, 5)),
        2 => length().prop_map(|len| (GEN_LEN, len)),
        2 => (0..20_u32).prop_map(|count| (GEN_COUNT, count)),
        1 => (0..2_u32).prop_map(|on| (TX_CTRL, on)),
        1 => address().prop_map(|block| (0x40, low(block))),
        2 => (0..0x80_u64, any::<u32>()).prop_map(|(index, value)| (index * 4, value)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop::collection::vec(any::<u8>(), 0..17);
    prop_oneof![
        12 => register().prop_map(|(offset, value)| Op::Register(offset, value)),
        8 => (prop::sample::select(vec![CMD_RING, TX_RING, RX_RING]), 0..8_u64, descriptor())
            .prop_map(|(ring, index, desc)| Op::Descriptor(ring + index * 128, desc)),
        2 => (0..3_usize, 0..0x1010_u64, bytes.clone()).prop_map(|(bar, offset, data)| Op::Write(bar, offset, data)),
        1 => (0..3_usize, any::<u64>(), 0..17_usize).prop_map(|(bar, offset, len)| Op::Read(bar, offset, len)),
        1 => (0..3_usize, 0..0x1010_u64, 0..17_usize).prop_map(|(bar, offset, len)| Op::Read(bar, offset, len)),
        1 => (0..0x110_usize, bytes).prop_map(|(offset, data)| Op::WriteConfig(offset, data)),
        1 => (address(), 1..0x100_u64).prop_map(|(base, len)| Op::Refuse(base, len)),
        1 => Just(Op::Allow),
    ]
}

fn play(board: &mut Board, op: Op) {
    match op {
        Op::Register(offset, value) => board.set(offset, value),
        Op::Write(bar, offset, data) => board.function.write_bar(bar, offset, &data),
        Op::Read(bar, offset, len) => board.function.read_bar(bar, offset, &mut vec![0; len]),
        Op::WriteConfig(offset, data) => {
            board.function.write_config(offset, &data);
        }
        Op::Descriptor(at, desc) => board.desc(at, desc),
        Op::Refuse(base, len) => board.memory.refuse(base..base.saturating_add(len)),
        Op::Allow => board.memory.allow(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_guest_is_survived(bits in prop::sample::select(vec![24, 32, 64]), ops in prop::collection::vec(op(), 1..120)) {
        let mut board = Board::new(&format!("ncdma,mask={bits}"), &[(0, RAM)]);
        board.set(0x40, 0x4_0000);
        board.rings(8);
        for op in ops {
            board.memory.log();
            let before = board.get(STATUS);
            let resets = matches!(op, Op::Register(CTRL, _) | Op::Write(..) | Op::WriteConfig(..));
            play(&mut board, op);
            let accesses = board.memory.log().len();
            prop_assert!(accesses <= MOST_ACCESSES, "{} accesses", accesses);
            if before & 2 != 0 && !resets {
                prop_assert_eq!(accesses, 0, "a halted device touched memory");
            }
            for ring in [CMD, TX, RX] {
                prop_assert!(board.get(ring + 0xc) < 256 && board.get(ring + 0x10) < 256);
            }
            board.sink.sent();
        }
    }
}

#[test]
fn rings_that_write_themselves_come_to_an_end() {
    // Every descriptor copies a fresh, owned descriptor over all others of the ring, its own included.
    let mut board = Board::running(256);
    let desc = Desc { flags: COPY | OWN, len: 256 * 128, src: DST, dst: CMD_RING, ..Desc::default() };
    for i in 0..256 {
        board.desc(CMD_RING + i * 128, desc);
        board.desc(DST + i * 128, desc);
    }
    board.memory.log();
    board.set(CMD + 0x10, 255);
    assert_eq!((board.get(CMD + 0xc), board.get(ERROR)), (255, 0));
    assert_eq!(board.memory.log().len(), 255 * 6);
}

#[test]
fn all_rings_on_one_piece_of_memory_are_survived() {
    let mut board = Board::running(256);
    for ring in [TX, RX] {
        board.ring(ring, CMD_RING, 256);
    }
    board.set(0x40, 0x1_0000);
    board.set(TX_CTRL, 1);
    for i in 0..256 {
        let flags = if i % 2 == 0 { SEND } else { RECEIVE } | OWN;
        board.desc(CMD_RING + i * 128, Desc { flags, len: 0x8000, src: CMD_RING, dst: CMD_RING, ..Desc::default() });
    }
    for ring in [RX, TX, CMD] {
        board.set(ring + 0x10, 255);
    }
    board.set(GEN_LEN, 65536);
    board.set(GEN_COUNT, 256);
    assert!(board.memory.log().len() < MOST_ACCESSES);
}
