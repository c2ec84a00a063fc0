//! The other end of a network device's wire: an IP stack at 192.0.2.1/24 (a network for documentation, RFC 5737) that answers ARP and pings and
//! echoes what comes on TCP port 7 (RFC 862).
//!
//! It runs only when the device has something for it or from it, and its clock counts such occasions: runs do not depend on time. The
//! wire loses nothing, so no timer is needed; frames wait until the guest has buffers for them.

#[cfg(test)]
pub(crate) mod guest;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::fmt;

/// The longest Ethernet frame the peer sends and takes, and the shortest; without the frame check sequence.
pub(crate) const MOST_FRAME: usize = 1514;
pub(crate) const LEAST_FRAME: usize = 14;

/// The hardware address of the interface at the guest's end, locally administered.
pub(crate) const GUEST_MAC: [u8; 6] = [0x02, b'd', b'm', b'a', b'v', 0x02];

const ADDRESS: IpAddress = IpAddress::v4(192, 0, 2, 1);
const MAC: EthernetAddress = EthernetAddress([0x02, b'd', b'm', b'a', b'v', 0x01]);
const ECHO_PORT: u16 = 7;
/// Connections at a time.
const CONNECTIONS: usize = 4;
const BUFFER: usize = 64 * 1024;
/// Frames that may wait on the way to the guest; the stack stops sending above.
const WAITING: usize = 64;
/// Frames that may wait on the way from a guest that has no buffers for the answers; more are lost, as in a switch.
const MOST_WAITING: usize = 1024;

/// Frames on their way.
#[derive(Debug, Default)]
struct Wire {
    to_peer: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
}

/// The peer.
pub struct Peer {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// Occasions so far.
    clock: i64,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("wire", &self.wire).field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Default for Peer {
    fn default() -> Self {
        let mut wire = Wire::default();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ethernet(MAC)), &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for at least one.
            let _ = addresses.push(IpCidr::new(ADDRESS, 24));
        });
        let mut sockets = SocketSet::new(Vec::new());
        for _ in 0..CONNECTIONS {
            let mut socket = Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]));
            socket.set_ack_delay(None);
            socket.set_nagle_enabled(false);
            sockets.add(socket);
        }
        Self { wire, interface, sockets, clock: 0 }
    }
}

impl Peer {
    /// Takes a frame from the guest. One that is none is lost, as on a real wire.
    pub fn take(&mut self, frame: Vec<u8>) {
        if self.wire.to_peer.len() < MOST_WAITING && (LEAST_FRAME..=MOST_FRAME).contains(&frame.len()) {
            self.wire.to_peer.push_back(frame);
        }
        self.run();
    }

    /// The next frame for the guest.
    pub fn pull(&mut self) -> Option<Vec<u8>> {
        if self.wire.to_guest.is_empty() {
            self.run();
        }
        self.wire.to_guest.pop_front()
    }

    /// Puts the frame [`pull`](Self::pull) gave back where it was.
    pub fn put_back(&mut self, frame: Vec<u8>) {
        self.wire.to_guest.push_front(frame);
    }

    /// Lets the stack work until it has nothing to do or no room for what it sends.
    fn run(&mut self) {
        self.clock += 1;
        let now = Instant::from_micros(self.clock);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for (_, socket) in self.sockets.iter_mut() {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            echo(socket);
        }
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }
}

/// Sends back what came in, and closes when the other side has.
fn echo(socket: &mut Socket<'_>) {
    if matches!(socket.state(), State::Closed | State::TimeWait) {
        socket.abort();
        // Refused only for port 0 and for a socket that is open.
        let _ = socket.listen(ECHO_PORT);
    }
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let mut taken = Vec::new();
        let received = socket.recv(|bytes| {
            let len = bytes.len().min(room);
            taken.extend_from_slice(bytes.get(..len).unwrap_or_default());
            (len, len)
        });
        if !matches!(received, Ok(1..)) || socket.send_slice(&taken).is_err() {
            break;
        }
    }
    if socket.state() == State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        // A frame may ask for an answer, so it waits until there is room for one.
        if self.to_guest.len() >= WAITING {
            return None;
        }
        let frame = self.to_peer.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.to_guest)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        (self.to_guest.len() < WAITING).then_some(Outgoing(&mut self.to_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MOST_FRAME;
        capabilities
    }
}

/// A frame for the peer.
pub(crate) struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame to the guest.
pub(crate) struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
