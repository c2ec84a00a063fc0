//! Frames there and back.

use super::*;
use crate::peer::guest::{arp, assert_answers_arp, assert_echoes};
use crate::testing::Dma;
use smoltcp::wire::{EthernetFrame, IpAddress, Ipv4Packet, TcpPacket, UdpPacket};

const SRC: [u8; 4] = [192, 0, 2, 2];
const DST: [u8; 4] = [192, 0, 2, 1];
const SOURCE: IpAddress = IpAddress::v4(192, 0, 2, 2);
const DESTINATION: IpAddress = IpAddress::v4(192, 0, 2, 1);

#[test]
fn the_peer_answers_arp() {
    let mut board = Board::running();
    board.set(IMS, 0x80);
    board.memory.log();
    board.transmit(&arp(), 0, 0);
    assert!(board.sink.pin());
    assert_eq!(board.get(ICR) & 0x83, 0x83, "written back, queue empty, received");
    let writes: Vec<Dma> = board.memory.log().into_iter().filter(|dma| matches!(dma, Dma::Write(..))).collect();
    let expected = [Dma::Write(RX_BUFFERS, 64), Dma::Write(RX_RING + 8, 8), Dma::Write(TX_RING + 12, 4)];
    assert_eq!(writes, expected, "not a byte more than the frame and the results");
    let got = board.got();
    assert_eq!((got.len(), got[0].status, got[0].errors, got[0].special), (1, 7, 0, 0));
    let frame = checked(got[0].bytes.clone());
    assert_eq!(frame.len(), 60, "padded to the shortest frame");
    assert_answers_arp(&frame);
    // One frame of 64 bytes each way; reading clears.
    for (register, count) in
        [(0x4074, 1), (0x40d0, 1), (0x405c, 1), (0x4088, 64), (0x4080, 1), (0x40d4, 1), (0x40d8, 1), (0x40f4, 1), (0x4078, 0)]
    {
        assert_eq!(board.get(register), count, "{register:#x}");
    }
    assert_eq!((board.get(0x4088), board.get(0x408c), board.get(0x4088)), (64, 0, 0), "a low half is cleared with its high half");
    assert_eq!(board.get(0x4074), 0);
}

#[test]
fn the_peer_echoes() {
    for (rctl, buffer) in [(0, 2048), (3 << 16, 256)] {
        let mut board = Board::new();
        board.buffer = buffer;
        board.start(RX_BROADCAST | rctl);
        assert_echoes(&mut board, 50_000, 100_000);
        assert_echoes(&mut board, 50_001, 3000);
    }
}

#[test]
fn answers_wait_for_descriptors() {
    let mut board = Board::running();
    for _ in 0..70 {
        board.transmit(&arp(), 0, 0);
    }
    assert_eq!(board.get(RX + HEAD), SIZE - 1, "all that the driver handed over");
    assert_ne!(board.get(ICR) & 0x10, 0, "running low");
    let (first, second) = (board.frames().len(), board.frames().len());
    assert_eq!((first, second), (63, 7));
}

#[test]
fn nothing_moves_while_it_is_switched_off() {
    for (register, off, on) in [(TCTL, 0, TX_ENABLE_PAD), (RCTL, RX_BROADCAST, RX_BROADCAST | RX_ENABLE), (CTRL, 0, SET_LINK_UP)] {
        let mut board = Board::running();
        board.set(register, off);
        board.memory.log();
        board.write(TX_DATA, &arp());
        board.describe(TX_DATA, 42 | LAST, 0);
        board.kick();
        let touched = board.memory.log();
        let receive = |dma: &Dma| matches!(dma, Dma::Read(at, _) | Dma::Write(at, _) if (RX_RING..TX_DATA).contains(at));
        assert!(!touched.iter().any(receive), "{register:#x}: {touched:?}");
        assert_eq!(touched.is_empty(), register != RCTL, "{register:#x}: {touched:?}");
        assert_eq!(board.frames().len(), 0);
        board.set(register, on);
        let frames = board.frames();
        assert_eq!(frames.len(), 1, "{register:#x}");
        assert_answers_arp(&frames[0]);
    }
}

#[test]
fn a_packet_in_pieces_is_one_frame() {
    let mut board = Board::running();
    let frame = arp();
    board.write(TX_DATA, &frame);
    for (from, len, command) in [(0, 10, 0), (10, 0, 0), (10, 1, REPORT), (11, 31, LAST)] {
        board.describe(TX_DATA + from, len | command, 0);
    }
    board.kick();
    assert_eq!([0, 1, 2, 3].map(|index| board.status_of(index)), [0, 0, 1, 1], "done where it was asked for");
    assert_answers_arp(&board.frames()[0]);
}

#[test]
fn a_frame_with_its_own_check_sequence_is_taken_as_it_is() {
    let mut board = Board::looping(1 << 3);
    let mut frame: Vec<u8> = (0..80).collect();
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    board.write(TX_DATA, &frame);
    board.describe(TX_DATA, frame.len() as u32 | END | REPORT, 0);
    board.kick();
    assert_eq!(board.frames(), [(0..80).collect::<Vec<u8>>()]);
    // Stripped on the way in.
    let mut board = Board::looping(1 << 3 | 1 << 26);
    board.transmit(&frame, 0, 0);
    assert_eq!(board.got()[0].bytes, frame);
}

/// An IPv4 packet in a frame, with the checksums as a driver leaves them for the device: the TCP or UDP one holds the pseudo-header, whose
/// length is `counted`; the IP one is 0.
fn packet(protocol: u8, header: &[u8], field: usize, payload: &[u8], counted: u16) -> Vec<u8> {
    let mut frame = [[2, b'd', b'm', b'a', b'v', 1], [2, b'd', b'm', b'a', b'v', 2]].concat();
    let len = (20 + header.len() + payload.len()) as u16;
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
    frame.extend(SRC);
    frame.extend(DST);
    let mut header = header.to_vec();
    let pairs = [SRC, DST].concat();
    let mut sum: u32 = pairs.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum += u32::from(protocol) + u32::from(counted);
    let seed = (sum & 0xffff) + (sum >> 16);
    header[field..field + 2].copy_from_slice(&(seed as u16).to_be_bytes());
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// A TCP header: sequence number, flags, no options.
fn tcp(sequence: u32, flags: u8) -> Vec<u8> {
    let mut header = vec![0x30, 0x39, 0, 7];
    header.extend(sequence.to_be_bytes());
    header.extend([0, 0, 0, 9, 0x50, flags, 4, 0, 0, 0, 0, 0]);
    header
}

/// A context for IPv4 in Ethernet: the TCP or UDP checksum field and the last byte of the IP header's are given.
fn context(board: &mut Board, field: u8, header: u8, mss: u16, command: u32) {
    let [ip, tcp] = [14, 34];
    let low = u64::from_le_bytes([ip, ip + 10, tcp - 1, 0, tcp, tcp + field, 0, 0]);
    board.describe(low, EXTENDED | command, u32::from(mss) << 16 | u32::from(header) << 8);
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn checksums_are_inserted() {
    let data = payload(333);
    let mut udp = vec![0x30, 0x39, 0, 7];
    udp.extend((8 + data.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    for (protocol, header, field) in [(6, tcp(5, 0x18), 16), (17, udp, 6)] {
        let mut board = Board::looping(1 << 3);
        let frame = packet(protocol, &header, field, &data, (header.len() + data.len()) as u16);
        board.write(TX_DATA, &frame);
        context(&mut board, field as u8, 0, 0, 0);
        // The options are those of the first piece.
        board.describe(TX_DATA, 50 | DATA, 3 << 8);
        board.describe(TX_DATA + 50, (frame.len() as u32 - 50) | DATA | LAST, 0);
        board.kick();
        let frames = board.frames();
        let ethernet = EthernetFrame::new_checked(&frames[0]).unwrap();
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        assert!(ip.verify_checksum());
        if protocol == 6 {
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            assert!(tcp.verify_checksum(&SOURCE, &DESTINATION));
            assert_eq!(tcp.payload(), data);
        } else {
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            assert!(udp.verify_checksum(&SOURCE, &DESTINATION));
            assert_eq!(udp.payload(), data);
        }
    }
}

#[test]
fn the_old_descriptor_inserts_a_checksum_too() {
    let mut board = Board::looping(1 << 3);
    let data = payload(100);
    let frame = packet(6, &tcp(5, 0x18), 16, &data, 120);
    board.write(TX_DATA, &frame);
    board.describe(TX_DATA, frame.len() as u32 | 50 << 16 | INSERT_CHECKSUM | LAST, 34 << 8);
    board.kick();
    let frames = board.frames();
    let tcp = TcpPacket::new_checked(&frames[0][34..]).unwrap();
    assert!(tcp.verify_checksum(&SOURCE, &DESTINATION));
    assert_eq!(tcp.payload(), data);
}

#[test]
fn a_large_packet_becomes_segments() {
    for (len, mss) in [(10_000, 1460), (2920, 1460), (1, 1460), (65_000, 536)] {
        let mut board = Board::looping(1 << 3);
        let data = payload(len);
        // FIN, PSH, ACK; the sequence numbers wrap. A driver leaves the lengths out.
        let first: u32 = 0xffff_f000;
        let mut frame = packet(6, &tcp(first, 0x19), 16, &data, 0);
        frame[16..18].fill(0);
        board.write(TX_DATA, &frame);
        context(&mut board, 16, 54, mss, SEGMENT | 3 << 24);
        let (mut from, mut frames) = (0, Vec::new());
        while from < frame.len() {
            let piece = (frame.len() - from).min(4096);
            let last = if from + piece == frame.len() { LAST } else { 0 };
            board.describe(TX_DATA + from as u64, piece as u32 | DATA | SEGMENT | last, 3 << 8);
            from += piece;
        }
        if len > 60_000 {
            // More frames than descriptors: what does not fit is lost in a loop, so the ring is made shorter work of.
            board.set(RX + LEN, 0);
        }
        board.kick();
        assert_eq!(board.get(0x40f8), 1, "a segmentation context used");
        if len > 60_000 {
            assert_eq!(board.get(0x4010) as usize, len.div_ceil(mss.into()), "frames missed");
            continue;
        }
        frames.extend(board.frames());
        assert_eq!(frames.len(), len.div_ceil(mss.into()));
        let mut joined = Vec::new();
        for (number, bytes) in frames.iter().enumerate() {
            let ip = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!(ip.ident(), 0x1234 + number as u16);
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            assert!(tcp.verify_checksum(&SOURCE, &DESTINATION));
            assert_eq!(tcp.seq_number().0.cast_unsigned(), first.wrapping_add(joined.len() as u32));
            let last = number + 1 == frames.len();
            assert_eq!((tcp.fin(), tcp.psh(), tcp.ack()), (last, last, true));
            joined.extend_from_slice(tcp.payload());
        }
        assert!(joined == data);
    }
}

#[test]
fn tags_go_in_and_out() {
    const VME: u32 = 1 << 30;
    let tagged = |frame: &[u8], tag: [u8; 2]| [&frame[..12], &[0x81, 0], &tag, &frame[12..]].concat();
    let frame = payload(100);
    let mut board = Board::looping(1 << 3);
    board.transmit(&frame, VLAN, 0x2005 << 16);
    assert_eq!(board.frames(), std::slice::from_ref(&frame), "not in VLAN mode");
    board.set(CTRL, SET_LINK_UP | VME);
    board.set(VET, 0x8100);
    board.transmit(&frame, VLAN, 0x2005 << 16);
    let got = board.got().remove(0);
    assert_eq!((got.status & 8, got.special, &got.bytes[..100]), (8, 0x2005, &frame[..]));
    assert_eq!(got.bytes[100..], crc32fast::hash(&tagged(&frame, [0x20, 5])).to_le_bytes(), "of the frame on the wire");
    // The filter: VLAN 5 only.
    board.set(RCTL, board_rctl() | 1 << 18);
    board.transmit(&frame, VLAN, 0x2005 << 16);
    assert_eq!(board.got().len(), 0);
    board.set(0x5600, 1 << 5);
    board.transmit(&frame, VLAN, 0x2005 << 16);
    board.transmit(&frame, VLAN, 0x2006 << 16);
    board.transmit(&frame, 0, 0);
    assert_eq!(board.got().iter().map(|got| got.special).collect::<Vec<_>>(), [0x2005, 0]);
    // Without VLAN mode a tag stays where it is.
    board.set(CTRL, SET_LINK_UP);
    board.transmit(&tagged(&frame, [0, 5]), 0, 0);
    assert_eq!(board.frames(), [tagged(&frame, [0, 5])]);
}

const fn board_rctl() -> u32 {
    RX_ENABLE | RX_LOOPBACK | 1 << 3
}

#[test]
fn the_phy_loops_too() {
    let mut board = Board::new();
    board.start(1 << 3);
    let control = board.phy(0, None);
    board.phy(0, Some(control | 1 << 14));
    board.transmit(&payload(64), 0, 0);
    assert_eq!(board.frames(), [payload(64)]);
    board.phy(0, Some(control));
    board.transmit(&arp(), 0, 0);
    assert_eq!(board.frames().len(), 1, "the peer's answer, not the question");
}

#[test]
fn frames_for_others_are_not_received() {
    // 01:aa:00:12:34:56 has hash 0x563 with shift 0, and so on (SDM section 13.5.1).
    let multicast = [1, 0xaa, 0, 0x12, 0x34, 0x56];
    let hashes = [0x563, 0xac6, 0x58d, 0x634];
    let to = |address: [u8; 6]| [&address[..], &payload(60)[6..]].concat();
    let others = [[4, 4, 4, 4, 4, 4], multicast, [0xff; 6]];
    let received = |rctl: u32, setup: &[(u64, u32)]| {
        let mut board = Board::looping(rctl);
        setup.iter().for_each(|(register, value)| board.set(*register, *value));
        for address in others {
            board.transmit(&to(address), 0, 0);
        }
        board.got().iter().map(|got| (got.bytes[0], got.status & 0x80)).collect::<Vec<_>>()
    };
    assert_eq!(received(0, &[]), []);
    assert_eq!(received(1 << 3, &[]), [(4, 0)]);
    assert_eq!(received(1 << 4, &[]), [(1, 0), (0xff, 0)]);
    assert_eq!(received(RX_BROADCAST, &[]), [(0xff, 0)]);
    assert_eq!(received(0, &[(0x5408, 0x0404_0404), (0x540c, 0x8000_0404)]), [(4, 0)]);
    assert_eq!(received(0, &[(0x5408, 0x0404_0404), (0x540c, 0x0404)]), [], "an address that is not valid");
    assert_eq!(received(0, &[(0x5408, 0x1200_aa01), (0x540c, 0x8000_5634)]), [(1, 0)]);
    for (offset, hash) in (0..).zip(hashes) {
        let bit = [(0x5200 + hash / 32 * 4, 1 << (hash % 32))];
        assert_eq!(received(offset << 12, &bit), [(1, 0x80)], "multicast offset {offset}");
    }
}

#[test]
fn long_frames_need_permission_and_several_buffers() {
    let frame = payload(9000);
    let mut board = Board::looping(1 << 3);
    board.transmit(&frame, 0, 0);
    assert_eq!((board.got().len(), board.get(0x40ac)), (0, 1), "too long");
    for (rctl, buffer) in [
        (0, 2048),
        (1 << 16, 1024),
        (2 << 16, 512),
        (3 << 16, 256),
        (3 << 16 | 1 << 25, 4096),
        (2 << 16 | 1 << 25, 8192),
        (1 << 16 | 1 << 25, 16384),
    ] {
        let mut board = Board::looping(1 << 3 | 1 << 5 | rctl);
        board.buffer = buffer;
        board.transmit(&frame, 0, 0);
        assert_eq!(board.get(RX + HEAD), 9004_u32.div_ceil(buffer as u32));
        assert_eq!(board.frames(), std::slice::from_ref(&frame), "buffers of {buffer}");
    }
}

#[test]
fn a_loop_without_descriptors_loses_frames() {
    let mut board = Board::looping(1 << 3);
    for _ in 0..65 {
        board.transmit(&payload(60), 0, 0);
    }
    assert_eq!((board.get(0x4010), board.get(ICR) & 0x40), (2, 0x40));
    assert_eq!(board.frames().len(), 63);
}

#[test]
fn a_frame_is_delivered_as_a_whole_or_not_at_all() {
    let mut board = Board::looping(1 << 3 | 3 << 16);
    board.buffer = 256;
    board.set(RX + TAIL, 2);
    board.transmit(&payload(600), 0, 0);
    assert_eq!((board.get(RX + HEAD), board.get(0x4010)), (0, 1), "three buffers are needed");
    board.set(RX + TAIL, 3);
    board.transmit(&payload(600), 0, 0);
    assert_eq!(board.get(RX + HEAD), 3);
    assert_eq!(board.frames(), [payload(600)]);
}

#[test]
fn frames_are_counted_by_size() {
    let mut board = Board::looping(1 << 3);
    // With their check sequences: 64, 65 and 127, 128 and 255, 256 and 511, 512 and 1023, 1024 bytes.
    for len in [60, 61, 123, 124, 251, 252, 507, 508, 1019, 1020] {
        board.transmit(&payload(len), 0, 0);
    }
    for first in [0x405c, 0x40d8] {
        let bins: Vec<u32> = (0..6).map(|bin| board.get(first + bin * 4)).collect();
        assert_eq!(bins, [1, 2, 2, 2, 2, 1], "{first:#x}");
    }
}
