//! Configuration space, EEPROM, PHY, interrupts, reset.

use super::*;
use crate::pci::Model;

const STATION: [u8; 6] = [2, b'd', b'm', b'a', b'v', 2];

#[test]
fn it_says_who_it_is() {
    let mut board = Board::new();
    let mut id = [0; 4];
    board.function.read_config(0, &mut id);
    assert_eq!(id, [0x86, 0x80, 0x0e, 0x10]);
    board.function.read_config(8, &mut id);
    assert_eq!(id[1..], [0, 0, 2], "Ethernet");
    let bars: Vec<_> = board.function.model().bars().iter().map(|bar| (bar.index, bar.size)).collect();
    assert_eq!(bars, [(0, 0x2_0000), (2, 64)]);
    assert_eq!(board.get(0x5400).to_le_bytes(), STATION[..4], "the first receive address");
    assert_eq!(board.get(0x5404), 0x8000_0000 | u32::from(u16::from_le_bytes([STATION[4], STATION[5]])));
    assert_eq!(board.get(STATUS), 0x81, "full duplex, 1000 Mb/s, no link before it is asked for");
    board.set(CTRL, SET_LINK_UP);
    assert_eq!(board.get(STATUS), 0x83);
}

/// A clock of the EEPROM with `bit` on its input; the bit on its output.
fn clock(board: &mut Board, bit: bool) -> bool {
    let pins = 1 << 6 | 1 << 1 | u32::from(bit) << 2;
    for value in [pins, pins | 1] {
        board.set(EECD, value);
    }
    let out = board.get(EECD) & 1 << 3 != 0;
    board.set(EECD, pins);
    out
}

/// Sends a command with its start bit, leading zeros allowed; the output after its last bit.
fn command(board: &mut Board, bits: u32, count: u32) -> bool {
    board.set(EECD, 1 << 6);
    board.set(EECD, 1 << 6 | 1 << 1);
    (0..count).rev().fold(true, |_, bit| clock(board, bits >> bit & 1 != 0))
}

fn word(board: &mut Board) -> u16 {
    (0..16).fold(0, |word, _| word << 1 | u16::from(clock(board, false)))
}

#[test]
fn the_eeprom_is_read_bit_by_bit() {
    let mut board = Board::new();
    assert_eq!(board.get(EECD) & 0x3c0, 1 << 8, "there is one, of 64 words");
    board.set(EECD, 1 << 6);
    assert_ne!(board.get(EECD) & 1 << 7, 0, "granted");
    let mut sum: u16 = 0;
    let mut words = Vec::new();
    for address in 0..64 {
        assert!(!command(&mut board, 0b110 << 6 | address, 9 + address % 3), "a zero before the word");
        words.push(word(&mut board));
        sum = sum.wrapping_add(words[words.len() - 1]);
    }
    assert_eq!(sum, 0xbaba);
    assert_eq!(words[..3].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>(), STATION);
    command(&mut board, 0b110 << 6 | 62, 9);
    let following: Vec<u16> = (0..4).map(|_| word(&mut board)).collect();
    assert_eq!(following, [words[62], words[63], words[0], words[1]], "word after word while it is selected");
    // Write enable, then word 3: it says that it is ready, and is as before.
    command(&mut board, 0b1_0011 << 4, 9);
    assert!(command(&mut board, 0b101 << 6 | 3, 9));
    assert_eq!(word(&mut board), 0xffff);
    assert!(!command(&mut board, 0b110 << 6 | 3, 9));
    assert_eq!(word(&mut board), words[3]);
    // The other way to read it.
    for (address, expected) in (0..).zip(&words) {
        board.set(EERD, address << 8 | 1);
        assert_eq!(board.get(EERD), u32::from(*expected) << 16 | address << 8 | 1 << 4);
    }
}

#[test]
fn the_phy_has_a_gigabit_link() {
    let mut board = Board::running();
    assert_eq!((board.phy(2, None), board.phy(3, None) & 0xfff0), (0x0141, 0x0c20));
    assert_eq!(board.phy(1, None) & 0x24, 0x24, "negotiated, link");
    assert_eq!(board.phy(17, None) & 0xec00, 0xac00);
    assert_eq!(board.phy(10, None) & 0x0800, 0x0800);
    board.phy(1, Some(0));
    assert_eq!(board.phy(1, None) & 0x24, 0x24, "read-only");
    let control = board.phy(0, None);
    board.get(ICR);
    board.phy(0, Some(control | 1 << 11));
    assert_eq!((board.get(ICR) & 4, board.get(STATUS) & 2, board.phy(1, None) & 4), (4, 0, 0), "powered down");
    board.phy(0, Some(control));
    assert_eq!((board.get(ICR) & 4, board.get(STATUS) & 2, board.phy(1, None) & 4), (4, 2, 4));
    board.phy(0, Some(control | 1 << 15));
    assert_eq!((board.phy(0, None), board.get(ICR) & 4), (control, 4), "a reset is over at once");
    board.phy(9, Some(0));
    assert_eq!((board.get(STATUS) >> 6 & 3, board.phy(17, None) >> 14), (1, 1), "100 Mb/s");
    board.phy(0, Some(0x0100));
    assert_eq!(board.get(STATUS) >> 6 & 3, 0, "forced to 10 Mb/s");
    // CTRL resets it.
    board.set(CTRL, SET_LINK_UP | 1 << 31);
    board.set(CTRL, SET_LINK_UP);
    assert_eq!(board.phy(0, None), control);
}

#[test]
fn the_phy_answers_at_its_address_only() {
    let mut board = Board::running();
    board.get(ICR);
    for command in [2 << 26 | 2 << 21, 1 << 21, 3 << 26 | 1 << 21] {
        board.set(MDIC, command | 2 << 16);
        assert_eq!(board.get(MDIC) & (1 << 28 | 1 << 30), 1 << 28 | 1 << 30, "{command:#x}: ready, error");
    }
    assert_eq!(board.get(ICR), 0);
    board.set(MDIC, 2 << 26 | 1 << 21 | 1 << 29);
    assert_eq!(board.get(ICR), 1 << 9);
}

#[test]
fn causes_that_are_not_masked_assert_the_pin() {
    let mut board = Board::new();
    board.set(ICS, 4);
    assert!(!board.sink.pin(), "masked");
    board.set(IMS, 4 | 0x80);
    assert!(board.sink.pin());
    board.set(IMC, 4);
    assert!(!board.sink.pin());
    board.set(ICS, 0xffff_ffff);
    assert!(board.sink.pin());
    assert_eq!(board.get(IMS), 0x80);
    assert_ne!(board.get(ICR) & 0x84, 0);
    assert!(!board.sink.pin(), "reading the causes clears them");
    assert_eq!(board.get(ICR), 0);
    board.set(ICS, 0x80);
    board.set(ICR, 0x80);
    assert!(!board.sink.pin(), "so does writing ones");
    board.set(ICS, 0x80);
    assert!(board.sink.pin());
    board.function.write_config(4, &[7, 4]);
    assert!(!board.sink.pin(), "Interrupt Disable");
}

#[test]
fn a_reset_through_the_io_window_leaves_the_phy_alone() {
    let mut board = Board::running();
    board.set(IMS, 0xff);
    board.set(ICS, 1);
    board.phy(9, Some(0));
    board.set(0x5404, 0);
    board.set(0x5200, 7);
    board.function.write_bar(2, 0, &0x5200_u32.to_le_bytes());
    let mut value = [0; 4];
    board.function.read_bar(2, 4, &mut value);
    assert_eq!(value, [7, 0, 0, 0]);
    board.function.write_bar(2, 0, &(CTRL as u32).to_le_bytes());
    board.function.write_bar(2, 4, &(1_u32 << 26).to_le_bytes());
    assert!(!board.sink.pin());
    assert_eq!([CTRL, IMS, ICR, RCTL, TCTL, RX + LEN, TX + LOW, 0x5200].map(|register| board.get(register)), [0x201, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(board.get(0x5404) >> 31, 1);
    assert_eq!(board.phy(9, None), 0);
    board.function.read_bar(2, 0, &mut value);
    assert_eq!(value, [0; 4], "IOADDR is as it was");
    board.function.reset();
    assert_eq!(board.phy(9, None), 0x0300, "after power-on everything is");
}

#[test]
fn registers_are_32_bits_wide() {
    let mut board = Board::new();
    for (offset, len) in [(0x5200, 1), (0x5200, 2), (0x5200, 8), (0x5202, 4), (0x5201, 4), (0x6000, 4), (0x1_fffc, 4)] {
        board.function.write_bar(0, offset, &vec![0x55; len]);
        let mut data = vec![0; len];
        board.function.read_bar(0, offset, &mut data);
        assert_eq!(data, vec![0xff; len], "{len} bytes at {offset:#x}");
    }
    assert_eq!(board.get(0x5200), 0);
    // What keeps what is written: timers, thresholds, tables, the last receive address.
    for register in [VET, 0x00c4, 0x2820, 0x282c, 0x3820, 0x382c, 0x1000, 0x5000, 0x53fc, 0x547c, 0x57fc, 0x5900] {
        board.set(register, 0x1234_5678);
        assert_eq!(board.get(register), 0x1234_5678, "{register:#x}");
    }
}
