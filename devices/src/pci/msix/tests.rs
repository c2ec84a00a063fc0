use super::*;
use crate::testing::Sink;

const ON: MsixControl = MsixControl { enabled: true, masked: false };

fn msix(vectors: u16) -> (Msix, Arc<Sink>) {
    let sink = Arc::new(Sink::default());
    (Msix::new(vectors, sink.clone()), sink)
}

fn set(msix: &mut Msix, offset: u64, value: u32) {
    msix.write_table(offset, &value.to_le_bytes());
}

fn program(msix: &mut Msix, vector: u64, data: u32) {
    for (offset, value) in [(0, 0xfee0_1000), (4, 0), (8, data), (12, 0)] {
        set(msix, vector * 16 + offset, value);
    }
}

fn pba(msix: &Msix) -> u64 {
    let mut data = [0; 8];
    msix.read_pba(0, &mut data);
    u64::from_le_bytes(data)
}

#[test]
fn an_open_vector_is_routed_and_sent() {
    let (mut msix, sink) = msix(4);
    msix.set_control(ON);
    program(&mut msix, 2, 0x41);
    assert_eq!(sink.route(2), Some(MsiMessage { address: 0xfee0_1000, data: 0x41 }));
    msix.raise(2);
    msix.raise(1);
    msix.raise(4);
    assert_eq!(sink.sent(), [2]);
    assert_eq!(pba(&msix), 0b10);
}

#[test]
fn a_masked_vector_waits_in_the_pending_bits() {
    let (mut msix, sink) = msix(4);
    msix.set_control(ON);
    program(&mut msix, 3, 1);
    set(&mut msix, 3 * 16 + 12, 1);
    assert_eq!(sink.route(3), None);
    msix.raise(3);
    msix.raise(3);
    assert_eq!((sink.sent(), pba(&msix)), (vec![], 0b1000));
    set(&mut msix, 3 * 16 + 12, 0);
    assert_eq!((sink.sent(), pba(&msix)), (vec![3], 0));
}

#[test]
fn the_function_mask_holds_all_vectors() {
    let (mut msix, sink) = msix(2);
    msix.set_control(MsixControl { enabled: true, masked: true });
    program(&mut msix, 0, 1);
    program(&mut msix, 1, 2);
    msix.raise(0);
    msix.raise(1);
    assert_eq!((sink.sent(), pba(&msix)), (vec![], 0b11));
    msix.set_control(ON);
    assert_eq!((sink.sent(), pba(&msix)), (vec![0, 1], 0));
}

#[test]
fn off_means_lost() {
    let (mut msix, sink) = msix(2);
    program(&mut msix, 0, 1);
    msix.raise(0);
    msix.set_control(ON);
    assert_eq!((sink.sent(), pba(&msix)), (vec![], 0));
    msix.set_control(MsixControl { enabled: true, masked: true });
    msix.raise(0);
    assert_eq!(pba(&msix), 1);
    msix.set_control(MsixControl::default());
    assert_eq!((sink.route(0), pba(&msix)), (None, 0));
}

#[test]
fn a_message_changed_while_open_is_routed_anew() {
    let (mut msix, sink) = msix(1);
    msix.set_control(ON);
    program(&mut msix, 0, 1);
    msix.write_table(4, &[0x01, 0, 0, 0, 0x77, 0, 0, 0]);
    assert_eq!(sink.route(0), Some(MsiMessage { address: 0x1_fee0_1000, data: 0x77 }));
}

#[test]
fn bytes_halves_and_straddling_accesses_work() {
    let (mut msix, sink) = msix(2);
    msix.set_control(ON);
    for (offset, byte) in [0x03, 0x10, 0xe0, 0xfe].into_iter().enumerate() {
        msix.write_table(offset as u64, &[byte]);
    }
    msix.write_table(9, &[0xab, 0xcd]);
    // Mask of vector 0 and address of vector 1 in one access.
    msix.write_table(12, &[0, 0, 0, 0, 0x00, 0x20, 0xe0, 0xfe]);
    assert_eq!(sink.route(0), Some(MsiMessage { address: 0xfee0_1000, data: 0x00cd_ab00 }));
    let mut data = [0; 6];
    msix.read_table(14, &mut data);
    assert_eq!(data, [0, 0, 0x00, 0x20, 0xe0, 0xfe]);
}

#[test]
fn the_end_of_the_table_is_its_end() {
    let (mut msix, _sink) = msix(1);
    let mut data = [0; 8];
    msix.read_table(12, &mut data);
    assert_eq!(data, [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    msix.write_table(12, &[0; 64]);
    msix.write_table(u64::MAX - 1, &[0; 8]);
    msix.read_table(u64::MAX, &mut data);
    assert_eq!(data, [0xff; 8]);
    msix.read_pba(4, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn pending_bits_reach_vector_63() {
    let (mut msix, _sink) = msix(64);
    msix.set_control(ON);
    for vector in [0, 31, 32, 63] {
        msix.raise(vector);
    }
    assert_eq!(pba(&msix), 1 << 63 | 1 << 32 | 1 << 31 | 1);
    let mut byte = [0];
    msix.read_pba(7, &mut byte);
    assert_eq!(byte, [0x80]);
}

#[test]
fn reset_takes_the_routes_away() {
    let (mut msix, sink) = msix(1);
    msix.set_control(ON);
    program(&mut msix, 0, 1);
    msix.reset();
    assert_eq!(sink.route(0), None);
    msix.set_control(ON);
    msix.raise(0);
    assert_eq!((sink.sent(), pba(&msix)), (vec![], 1), "vectors are masked after a reset");
}
