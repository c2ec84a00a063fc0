//! The guest's end of the wire for tests: an IP stack above a network device's driver.
#![expect(clippy::cast_possible_truncation, reason = "tests count small things")]

use super::{ADDRESS, ECHO_PORT, GUEST_MAC, Incoming, MOST_FRAME};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;

/// A network device with its driver.
pub(crate) trait Nic {
    /// Sends a frame.
    fn send(&mut self, frame: &[u8]);
    /// The frames that came since the last call; the device gets new buffers for as many.
    fn received(&mut self) -> Vec<Vec<u8>>;
}

/// Asks for the peer's hardware address.
pub(crate) fn arp() -> Vec<u8> {
    let mut frame = [[0xff; 6], GUEST_MAC].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(GUEST_MAC);
    frame.extend([192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    frame
}

/// That a frame is the peer's answer to [`arp`].
pub(crate) fn assert_answers_arp(frame: &[u8]) {
    assert_eq!((&frame[..6], &frame[20..22], &frame[28..32]), (&GUEST_MAC[..], &[0, 2][..], &[192, 0, 2, 1][..]));
}

/// The device as the stack sees it.
struct Wire<'a, N> {
    nic: &'a mut N,
    frames: VecDeque<Vec<u8>>,
}

struct Send<'a, N>(&'a mut N);

impl<N: Nic> TxToken for Send<'_, N> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl<N: Nic> Device for Wire<'_, N> {
    type RxToken<'a>
        = Incoming
    where
        Self: 'a;
    type TxToken<'a>
        = Send<'a, N>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Send<'_, N>)> {
        self.frames.extend(self.nic.received());
        let frame = self.frames.pop_front()?;
        Some((Incoming(frame), Send(self.nic)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Send<'_, N>> {
        Some(Send(self.nic))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MOST_FRAME;
        capabilities
    }
}

/// Sends `len` bytes to the echo service over a connection of its own and checks what comes back.
pub(crate) fn assert_echoes(nic: &mut impl Nic, port: u16, len: usize) {
    let wire = &mut Wire { nic, frames: VecDeque::new() };
    let mut interface = Interface::new(Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC))), wire, Instant::ZERO);
    interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(IpAddress::v4(192, 0, 2, 2), 24)).unwrap());
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(Socket::new(SocketBuffer::new(vec![0; 8192]), SocketBuffer::new(vec![0; 8192])));
    let socket = sockets.get_mut::<Socket<'_>>(handle);
    socket.connect(interface.context(), (ADDRESS, ECHO_PORT), port).unwrap();
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
    assert_eq!(back.len(), len, "connection from port {port}");
    assert!(back.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8));
}
