//! Reads, writes and what PRP entries describe.

use super::*;
use proptest::prelude::*;

#[test]
fn what_was_written_is_read() {
    let mut board = Board::running("nvme,size=1", 2);
    let data = pattern(0, 3 * 512);
    assert_eq!(board.write_disk(7, &data), SUCCESS);
    assert_eq!(board.run(2, command(FLUSH, 1)).status, SUCCESS);
    assert_eq!(board.read_disk(7, 3), (SUCCESS, data.clone()));
    let (status, around) = board.read_disk(6, 5);
    assert_eq!((status, &around[512..4 * 512]), (SUCCESS, &data[..]));
    assert!(around[..512].iter().chain(&around[4 * 512..]).all(|byte| *byte == 0));
    // The end of the disk, and one sector more.
    assert_eq!(board.write_disk(SECTORS - 1, &pattern(1, 512)), SUCCESS);
    assert_eq!(board.write_disk(SECTORS - 1, &pattern(1, 1024)), OUT_OF_RANGE);
    assert_eq!(board.transfer(READ, SECTORS, 1), OUT_OF_RANGE);
    assert_eq!(board.transfer(READ, u64::MAX, 1), OUT_OF_RANGE);
    assert_eq!(board.transfer(WRITE, u64::MAX / 512, 1), OUT_OF_RANGE);
}

#[test]
fn a_list_goes_on_in_the_next_page() {
    let mut board = Board::running("nvme,size=8", 1);
    let len = 4 << 20;
    let data = pattern(3, len as usize);
    board.write(DATA, &data);
    // 1024 pages: one in PRP entry 1, then lists that each end with a pointer to the next; the first begins with its last four entries.
    let mut pages = (1..1024).map(|page| DATA + page * PAGE);
    let mut first: Vec<u64> = pages.by_ref().take(3).collect();
    first.push(LISTS + PAGE);
    board.list(LISTS + PAGE - 32, &first);
    let mut second: Vec<u64> = pages.by_ref().take(511).collect();
    second.push(LISTS + 7 * PAGE);
    board.list(LISTS + PAGE, &second);
    board.list(LISTS + 7 * PAGE, &pages.collect::<Vec<_>>());
    let write = with_prp(sectors(WRITE, 0, len / 512), DATA, LISTS + PAGE - 32);
    board.memory.log();
    assert_eq!(board.run(1, write).status, SUCCESS);
    let lists: Vec<Dma> =
        board.memory.log().into_iter().filter(|dma| matches!(dma, Dma::Read(at, _) if (LISTS..DATA).contains(at))).collect();
    let expected = [Dma::Read(LISTS + PAGE - 32, 32), Dma::Read(LISTS + PAGE, 4096), Dma::Read(LISTS + 7 * PAGE, 509 * 8)];
    assert_eq!(lists, expected, "no entry more than there are pages");
    board.write(DATA, &vec![0; len as usize]);
    let read = with_prp(sectors(READ, 0, len / 512), DATA, LISTS + PAGE - 32);
    assert_eq!(board.run(1, read).status, SUCCESS);
    assert!(board.read(DATA, len as usize) == data);
    // A list that is all used up needs no next one.
    let exact: Vec<u64> = (1..=512).map(|page| DATA + page * PAGE).collect();
    board.list(LISTS, &exact);
    assert_eq!(board.run(1, with_prp(sectors(READ, 0, 513 * 8), DATA, LISTS)).status, SUCCESS);
    assert!(board.read(DATA, 513 * 4096) == data[..513 * 4096]);
}

#[test]
fn entries_that_cannot_be() {
    let mut board = Board::running("nvme,size=8", 1);
    let mut status = |prp1, prp2, count| board.run(1, with_prp(sectors(WRITE, 0, count), prp1, prp2)).status;
    assert_eq!(status(DATA + 2, 0, 1), INVALID_OFFSET, "entry 1 at a multiple of 4");
    assert_eq!(status(DATA, DATA + 4, 16), INVALID_OFFSET, "entry 2 as a page");
    assert_eq!(status(DATA, LISTS + 4, 24), INVALID_OFFSET, "a list at a multiple of 8");
    assert_eq!(status(0x1_0000_0000, 0, 1), DATA_TRANSFER, "no memory there");
    assert_eq!(status(DATA, 0x1_0000_0000, 24), DATA_TRANSFER, "no list there");
    assert_eq!(status(u64::MAX - 3, 0, 1), DATA_TRANSFER);
    assert_eq!(status(u64::MAX - 511, 0, 1), DATA_TRANSFER);
    assert_eq!(status(DATA, u64::MAX - 7, 24), DATA_TRANSFER);
    // More than MDTS.
    assert_eq!(status(DATA, LISTS, 8193), INVALID_FIELD);
    assert_eq!(status(DATA, LISTS, 65536), INVALID_FIELD);
    board.list(LISTS, &[DATA + PAGE, DATA + 2 * PAGE + 8]);
    assert_eq!(board.run(1, with_prp(sectors(READ, 0, 24), DATA, LISTS)).status, INVALID_OFFSET);
    // A list that names itself as the next one ends where the data does.
    let mut entries = vec![LISTS; 512];
    entries[..511].fill(DATA);
    board.list(LISTS, &entries);
    board.memory.log();
    assert_eq!(board.run(1, with_prp(sectors(READ, 0, 8192), DATA, LISTS)).status, SUCCESS);
    assert!(board.memory.log().len() < 1100);
    entries.fill(LISTS + 4088);
    board.list(LISTS, &entries);
    assert_eq!(board.run(1, with_prp(sectors(READ, 0, 8192), DATA, LISTS + 4088)).status, INVALID_OFFSET);
}

#[test]
fn deallocating_and_writing_zeroes() {
    let mut board = Board::running("nvme,size=1", 1);
    let before = pattern(0, 40 * 512);
    let mut after = before.clone();
    after[512..3 * 512].fill(0);
    after[10 * 512..30 * 512].fill(0);
    let ranges = |ranges: &[(u64, u32)]| -> Vec<u8> {
        ranges.iter().flat_map(|(first, count)| [&[0; 4][..], &count.to_le_bytes(), &first.to_le_bytes()].concat()).collect()
    };
    let dataset = |count: u32, deallocate: bool| {
        let mut dataset = with_prp(command(DATASET, 1), DATA + 0x10_0000, 0);
        dataset[10] = count - 1;
        dataset[11] = u32::from(deallocate) << 2;
        dataset
    };
    board.write_disk(0, &before);
    board.write(DATA + 0x10_0000, &ranges(&[(1, 2), (10, 20)]));
    assert_eq!(board.run(1, dataset(2, false)).status, SUCCESS, "a hint");
    assert_eq!(board.read_disk(0, 40), (SUCCESS, before.clone()));
    board.memory.log();
    assert_eq!(board.run(1, dataset(2, true)).status, SUCCESS);
    assert!(board.memory.log().contains(&Dma::Read(DATA + 0x10_0000, 32)), "the ranges and no more");
    assert_eq!(board.read_disk(0, 40), (SUCCESS, after.clone()));
    // All or nothing.
    board.write(DATA + 0x10_0000, &ranges(&[(0, 8), (SECTORS, 1)]));
    assert_eq!(board.run(1, dataset(2, true)).status, OUT_OF_RANGE);
    board.write(DATA + 0x10_0000, &ranges(&[(0, 8), (1, u32::MAX)]));
    assert_eq!(board.run(1, dataset(2, true)).status, OUT_OF_RANGE);
    assert_eq!(board.read_disk(0, 40), (SUCCESS, after.clone()));
    board.write_disk(0, &before);
    for (deallocate, first, count) in [(0, 1, 2), (1 << 25, 10, 20)] {
        let mut zeroes = sectors(WRITE_ZEROES, first, count);
        zeroes[12] |= deallocate;
        assert_eq!(board.run(1, zeroes).status, SUCCESS);
    }
    assert_eq!(board.read_disk(0, 40), (SUCCESS, after));
    assert_eq!(board.run(1, sectors(WRITE_ZEROES, 0, SECTORS)).status, SUCCESS, "not bounded by what can be moved");
    assert_eq!(board.run(1, sectors(WRITE_ZEROES, 1, SECTORS)).status, OUT_OF_RANGE);
    assert_eq!(board.read_disk(0, 40), (SUCCESS, vec![0; 40 * 512]));
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut board = Board::running("nvme,size=1,readonly=on", 1);
    for opcode in [WRITE, WRITE_ZEROES, DATASET] {
        assert_eq!(board.run(1, with_prp(sectors(opcode, 0, 1), DATA, 0)).status, 0x4020);
    }
    assert_eq!(board.read_disk(0, 1), (SUCCESS, vec![0; 512]));
}

#[test]
fn commands_there_are_not() {
    let mut board = Board::running("nvme,size=1", 1);
    for opcode in [4, 5, 0x0d, 0x0e, 0x11, 0x7f, 0x80, 0xff] {
        assert_eq!(board.run(1, command(opcode, 1)).status, INVALID_OPCODE, "{opcode:#x}");
    }
    for namespace in [0, 2, u32::MAX] {
        assert_eq!(board.run(1, command(READ, namespace)).status, INVALID_NAMESPACE);
    }
    // Fused operations and scatter gather lists.
    for flags in [1 << 8, 2 << 8, 1 << 14, 1 << 15] {
        assert_eq!(board.run(1, command(FLUSH | flags, 1)).status, INVALID_FIELD);
    }
}

#[test]
fn data_that_cannot_be_reached_ends_that_command_only() {
    let mut board = Board::running("nvme,size=1", 1);
    assert_eq!(board.write_disk(0, &pattern(0, 8192)), SUCCESS);
    board.memory.refuse(DATA + PAGE..DATA + PAGE + 1);
    for opcode in [READ, WRITE] {
        assert_eq!(board.transfer(opcode, 0, 16), DATA_TRANSFER);
        assert_eq!(board.transfer(opcode, 0, 8), SUCCESS);
    }
    assert_eq!(board.status(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_disk_is_what_an_array_is(ops in prop::collection::vec((1..3_u32, 0..1000_u64, 1..200_u64, 0..1024_u64, any::<u64>()), 1..30)) {
        let mut board = Board::running("nvme,size=1,hmb=1", 1);
        let mut model = vec![0; SECTORS as usize * 512];
        for (number, (opcode, first, count, offset, scatter)) in ops.into_iter().enumerate() {
            let (at, len) = (first as usize * 512, count as usize * 512);
            let offset = offset * 4;
            // Pages in any order, some next to each other, some not.
            let pages = (offset + len as u64).div_ceil(PAGE);
            let places: Vec<u64> = (0..pages).map(|page| DATA + (page ^ (scatter % 4)) * 2 * PAGE + (page % 2) * PAGE).collect();
            let prp2 = if pages > 2 { LISTS + 8 * (scatter % 500) } else { *places.get(1).unwrap_or(&0) };
            if pages > 2 {
                let room = ((PAGE - prp2 % PAGE) / 8) as usize;
                let mut entries = places[1..].to_vec();
                if entries.len() > room {
                    let rest = entries.split_off(room - 1);
                    board.list(LISTS + PAGE, &rest);
                    entries.push(LISTS + PAGE);
                }
                board.list(prp2, &entries);
            }
            let data = pattern(number, len);
            let spots: Vec<u64> = (0..len as u64).step_by(4).map(|i| (offset + i) / PAGE).zip((0..len as u64).step_by(4))
                .map(|(page, i)| places[page as usize] + (offset + i) % PAGE).collect();
            if opcode == WRITE {
                spots.iter().zip(data.chunks(4)).for_each(|(at, piece)| board.write(*at, piece));
            }
            let done = board.run(1, with_prp(sectors(opcode, first, count), places[0] + offset, prp2));
            prop_assert_eq!(done.status, SUCCESS);
            if opcode == WRITE {
                model[at..at + len].copy_from_slice(&data);
            } else {
                let read: Vec<u8> = spots.iter().flat_map(|at| board.read(*at, 4)).collect();
                prop_assert!(read == model[at..at + len]);
            }
        }
    }
}
