//! The driver's side of virtio-net. Above the driver there is an IP stack as in a guest.
#![expect(clippy::cast_possible_truncation, reason = "tests count small things")]

use super::{VirtioNet, VirtioNetSpec};
use crate::testing::Dma;
use crate::virtio_pci::driver::{Board, Part};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;

const RX: usize = 0;
const TX: usize = 1;
const MRG_RXBUF: u64 = 1 << 15;
const GUEST_MAC: [u8; 6] = [2, b'd', b'm', b'a', b'v', 2];

fn board(without: u64) -> Board<VirtioNet> {
    Board::running(VirtioNet::new(&VirtioNetSpec::default()), 64, without)
}

/// Makes `count` receive buffers of `len` bytes available and notifies.
fn post(board: &mut Board<VirtioNet>, count: usize, len: u32) {
    for _ in 0..count {
        board.offer(RX, &[Part::In(len)]);
    }
    board.kick(RX);
}

fn send(board: &mut Board<VirtioNet>, frame: &[u8]) {
    assert_eq!(board.run(TX, &[Part::Out(vec![0; 12]), Part::Out(frame.to_vec())]).len, 0);
}

/// The frames received: headers checked, buffers put together.
fn received(board: &mut Board<VirtioNet>) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut more = 0;
    for back in board.back(RX) {
        let bytes = &back.bytes[..back.len as usize];
        if more > 0 {
            more -= 1;
            frames.last_mut().unwrap().extend_from_slice(bytes);
            continue;
        }
        assert_eq!(bytes[..10], [0; 10]);
        more = u16::from_le_bytes([bytes[10], bytes[11]]) - 1;
        frames.push(bytes[12..].to_vec());
    }
    assert_eq!(more, 0, "a frame comes with all its buffers");
    frames
}

fn arp() -> Vec<u8> {
    let mut frame = [[0xff; 6], GUEST_MAC].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(GUEST_MAC);
    frame.extend([192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    frame
}

#[test]
fn the_peer_answers_arp() {
    let mut board = board(0);
    post(&mut board, 2, 1600);
    send(&mut board, &arp());
    let answer = received(&mut board);
    assert_eq!(answer.len(), 1);
    assert_eq!((&answer[0][..6], &answer[0][20..22], &answer[0][28..32]), (&GUEST_MAC[..], &[0, 2][..], &[192, 0, 2, 1][..]));
    assert_eq!((board.bar(0x2000, 6), board.bar(0x2006, 2)), (u64::from_le_bytes([2, b'd', b'm', b'a', b'v', 2, 0, 0]), 1));
}

#[test]
fn answers_wait_for_buffers() {
    let mut board = board(0);
    for _ in 0..10 {
        send(&mut board, &arp());
    }
    assert_eq!(received(&mut board), Vec::<Vec<u8>>::new());
    post(&mut board, 4, 1600);
    assert_eq!(received(&mut board).len(), 4);
    post(&mut board, 20, 1600);
    assert_eq!(received(&mut board).len(), 6);
    // A guest that only sends: what waits is bounded, and something still comes.
    for _ in 0..3000 {
        send(&mut board, &arp());
    }
    let mut count = 0;
    loop {
        post(&mut board, 30, 1600);
        match received(&mut board).len() {
            0 => break,
            some => count += some,
        }
    }
    assert!((64..3000).contains(&count), "{count}");
    assert_eq!(board.status(), 15);
}

#[test]
fn a_frame_spans_buffers_only_when_agreed() {
    let mut board = board(0);
    post(&mut board, 6, 20);
    board.memory.log();
    send(&mut board, &arp());
    let answers = received(&mut board);
    assert_eq!((answers.len(), answers[0].len() >= 42), (1, true));
    let writes: Vec<usize> = board.memory.log().iter().filter(|dma| matches!(dma, Dma::Write(0x40_0000.., _))).map(len).collect();
    assert_eq!(writes.iter().sum::<usize>(), 12 + answers[0].len(), "no byte more than the frame: {writes:?}");

    let mut single = self::board(MRG_RXBUF);
    post(&mut single, 1, 20);
    post(&mut single, 1, 100);
    send(&mut single, &arp());
    let back = single.back(RX);
    assert_eq!((back.len(), back[0].len), (1, 0), "a buffer that is too small comes back empty");
    send(&mut single, &arp());
    assert_eq!(received(&mut single).len(), 1);
}

fn len(dma: &Dma) -> usize {
    match dma {
        Dma::Read(_, len) | Dma::Write(_, len) => *len,
    }
}

#[test]
fn frames_that_are_none_are_dropped() {
    let mut board = board(0);
    post(&mut board, 4, 1600);
    for parts in [
        vec![],
        vec![Part::Out(vec![0; 11])],
        vec![Part::Out(vec![0; 12])],
        vec![Part::Out(vec![0; 12 + 13])],
        vec![Part::Out(vec![0xff; 12 + 1515])],
        vec![Part::Out(vec![0xff; 12 + 1514])],
        vec![Part::In(100)],
    ] {
        if !parts.is_empty() {
            assert_eq!(board.run(TX, &parts).len, 0);
        }
    }
    assert_eq!(received(&mut board), Vec::<Vec<u8>>::new());
    send(&mut board, &arp());
    assert_eq!(received(&mut board).len(), 1);
}

/// The wire as the guest's stack sees it.
struct Wire {
    board: Board<VirtioNet>,
    frames: VecDeque<Vec<u8>>,
    buffer: u32,
}

struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Send<'a>(&'a mut Board<VirtioNet>);

impl TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        send(self.0, &frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Send<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Frame, Send<'_>)> {
        let used = self.board.half(self.board.rings[RX].used + 2);
        self.frames.extend(received(&mut self.board));
        let again = used.wrapping_sub(self.board.rings[RX].index).wrapping_add(24);
        post(&mut self.board, usize::from(again), self.buffer);
        let frame = self.frames.pop_front()?;
        Some((Frame(frame), Send(&mut self.board)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Send<'_>> {
        Some(Send(&mut self.board))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// Sends `len` bytes to the echo service over a connection of its own and takes what comes back.
fn echo(wire: &mut Wire, port: u16, len: usize) -> Vec<u8> {
    let mut interface = Interface::new(Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC))), wire, Instant::ZERO);
    interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(IpAddress::v4(192, 0, 2, 2), 24)).unwrap());
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(Socket::new(SocketBuffer::new(vec![0; 8192]), SocketBuffer::new(vec![0; 8192])));
    let socket = sockets.get_mut::<Socket<'_>>(handle);
    socket.connect(interface.context(), (IpAddress::v4(192, 0, 2, 1), 7), port).unwrap();
    let (mut sent, mut back) = (0, Vec::new());
    for now in 0..20_000 {
        interface.poll(Instant::from_millis(now), wire, &mut sockets);
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        if socket.can_send() && sent < len {
            let data: Vec<u8> = (sent..len).take(5000).map(|i| (i % 251) as u8).collect();
            sent += socket.send_slice(&data).unwrap();
        } else if sent == len && socket.state() == State::Established {
            socket.close();
        }
        if socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), back.extend_from_slice(bytes))).unwrap();
        }
        if matches!(socket.state(), State::TimeWait | State::Closed) {
            // The last acknowledgement.
            interface.poll(Instant::from_millis(now + 100), wire, &mut sockets);
            break;
        }
    }
    back
}

#[test]
fn the_peer_echoes_a_connection_after_the_other() {
    for (without, buffer) in [(0, 1600), (MRG_RXBUF, 1600), (0, 300)] {
        let mut wire = Wire { board: board(without), frames: VecDeque::new(), buffer };
        post(&mut wire.board, 24, buffer);
        // More of them than the peer can have at a time.
        for connection in 0..9 {
            let len = if connection == 0 { 200_000 } else { 3000 };
            let back = echo(&mut wire, 50_000 + connection, len);
            assert_eq!(back.len(), len, "connection {connection}, buffers of {buffer}");
            assert!(back.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8));
        }
        assert_eq!(wire.board.status(), 15);
    }
}

#[test]
fn a_reset_forgets_what_was_on_its_way() {
    let mut board = board(0);
    send(&mut board, &arp());
    board.start(64, 0);
    post(&mut board, 4, 1600);
    assert_eq!(received(&mut board), Vec::<Vec<u8>>::new());
    send(&mut board, &arp());
    assert_eq!(received(&mut board).len(), 1);
}
