//! When messages go out.

use super::*;

const FILL_IRQ: Desc = Desc { flags: FILL | OWN | IRQ, len: 4, src: 0, dst: DST, param: 1, reserved: 0 };
const FILL_POLLED: Desc = Desc { flags: FILL | OWN, ..FILL_IRQ };

#[test]
fn each_ring_has_its_vector() {
    let mut board = Board::running(4);
    board.command(FILL_IRQ);
    assert_eq!((board.sink.sent(), board.get(INT_STATUS)), (vec![0], 1));
    board.desc(TX_RING, Desc { flags: SEND | OWN | IRQ, len: 4, src: SRC, ..Desc::default() });
    board.set(TX + 0x10, 1);
    assert_eq!((board.sink.sent(), board.get(INT_STATUS)), (vec![1], 3));
    board.desc(RX_RING, Desc { flags: RECEIVE | OWN | IRQ, len: 4, dst: DST, ..Desc::default() });
    board.set(RX + 0x10, 1);
    assert_eq!(board.sink.sent(), Vec::<u16>::new());
    board.set(GEN_LEN, 4);
    board.set(GEN_COUNT, 1);
    assert_eq!((board.sink.sent(), board.get(INT_STATUS)), (vec![2], 7));
    board.set(INT_STATUS, 0b101);
    assert_eq!(board.get(INT_STATUS), 0b010);
}

#[test]
fn a_descriptor_without_irq_is_silent() {
    let mut board = Board::running(4);
    board.command(FILL_POLLED);
    assert_eq!((board.sink.sent(), board.get(INT_STATUS)), (vec![], 0));
}

#[test]
fn the_next_message_does_not_wait_for_the_acknowledge() {
    let mut board = Board::running(4);
    board.command(FILL_IRQ);
    board.command(FILL_IRQ);
    assert_eq!(board.sink.sent(), [0, 0]);
}

#[test]
fn one_doorbell_sends_one_message_a_vector() {
    let mut board = Board::running(8);
    for i in 0..5 {
        board.desc(CMD_RING + i * 128, FILL_IRQ);
    }
    board.set(CMD + 0x10, 5);
    assert_eq!(board.sink.sent(), [0]);
}

#[test]
fn taking_the_mask_off_sends_what_waited() {
    let mut board = Board::running(4);
    board.set(INT_MASK, 0);
    board.command(FILL_IRQ);
    assert_eq!((board.sink.sent(), board.get(INT_STATUS)), (vec![], 1));
    board.set(INT_MASK, 0xe);
    assert_eq!(board.sink.sent(), Vec::<u16>::new());
    board.set(INT_MASK, 1);
    assert_eq!(board.sink.sent(), [0]);
    board.set(INT_MASK, 1);
    assert_eq!(board.sink.sent(), Vec::<u16>::new(), "nothing new was let through");
    board.set(CTRL, 1);
    board.set(CTRL, 5);
    assert_eq!(board.sink.sent(), [0], "INT_ENABLE lets it through again");
    board.set(INT_STATUS, 1);
    board.set(INT_MASK, 0);
    board.set(INT_MASK, 1);
    assert_eq!(board.sink.sent(), Vec::<u16>::new(), "acknowledged");
}

#[test]
fn int_enable_off_holds_messages() {
    let mut board = Board::running(4);
    board.set(CTRL, 1);
    board.command(FILL_IRQ);
    assert_eq!((board.sink.sent(), board.get(INT_STATUS)), (vec![], 1));
}

#[test]
fn a_masked_vector_is_pending_until_unmasked() {
    let mut board = Board::running(4);
    board.function.write_bar(1, 12, &[1, 0, 0, 0]);
    board.command(FILL_IRQ);
    let mut pba = [0; 8];
    board.function.read_bar(1, 0x800, &mut pba);
    assert_eq!((board.sink.sent(), pba[0]), (vec![], 1));
    board.function.write_bar(1, 12, &[0, 0, 0, 0]);
    board.function.read_bar(1, 0x800, &mut pba);
    assert_eq!((board.sink.sent(), pba[0]), (vec![0], 0));
}

#[test]
fn memory_is_complete_when_the_message_goes_out() {
    // The sink is only called after the register write was worked off: the last access is the status block of the last descriptor.
    let mut board = Board::running(8);
    for i in 0..2 {
        board.desc(CMD_RING + i * 128, FILL_IRQ);
    }
    board.set(CMD + 0x10, 2);
    assert_eq!(board.memory.log().last(), Some(&Dma::Write(BLOCK, 64)));
    assert_eq!((board.sink.sent(), board.word(BLOCK)), (vec![0], 2));
}

#[test]
fn reset_takes_back_what_waited() {
    let mut board = Board::running(4);
    board.set(INT_MASK, 0);
    board.command(FILL_IRQ);
    board.set(CTRL, 2);
    board.set(INT_MASK, 0xf);
    board.set(CTRL, 5);
    assert_eq!((board.sink.sent(), board.get(INT_STATUS)), (vec![], 0));
}
