//! The driver's side of the 82540EM, played against the manual: offsets and bits are written out here on purpose.
#![expect(clippy::cast_possible_truncation, reason = "tests count small things")]

mod frames;
mod hostile;
mod registers;

use super::E1000;
use crate::bus::{DeviceContext, DeviceMemory, PciFunction};
use crate::pci::Function;
use crate::peer::guest::Nic;
use crate::testing::{Memory, Sink};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

const RAM: usize = 0x40_0000;
const CTRL: u64 = 0x0000;
const STATUS: u64 = 0x0008;
const EECD: u64 = 0x0010;
const EERD: u64 = 0x0014;
const MDIC: u64 = 0x0020;
const VET: u64 = 0x0038;
const ICR: u64 = 0x00c0;
const ICS: u64 = 0x00c8;
const IMS: u64 = 0x00d0;
const IMC: u64 = 0x00d8;
const RCTL: u64 = 0x0100;
const TCTL: u64 = 0x0400;
/// The receive ring's registers; the transmit ring's lie as far from [`TX`].
const RX: u64 = 0x2800;
const TX: u64 = 0x3800;
const LOW: u64 = 0;
const LEN: u64 = 8;
const HEAD: u64 = 0x10;
const TAIL: u64 = 0x18;

const SET_LINK_UP: u32 = 1 << 6;
const RX_ENABLE: u32 = 1 << 1;
const RX_BROADCAST: u32 = 1 << 15;
const RX_LOOPBACK: u32 = 1 << 6;
const TX_ENABLE_PAD: u32 = 1 << 1 | 1 << 3;

// Commands of a transmit descriptor, in its third dword.
const END: u32 = 1 << 24;
const INSERT_CRC: u32 = 1 << 25;
const INSERT_CHECKSUM: u32 = 1 << 26;
const SEGMENT: u32 = 1 << 26;
const REPORT: u32 = 1 << 27;
const EXTENDED: u32 = 1 << 29;
const DATA: u32 = 1 << 20 | EXTENDED;
const VLAN: u32 = 1 << 30;
const LAST: u32 = END | INSERT_CRC | REPORT;

const TX_RING: u64 = 0x1_0000;
const RX_RING: u64 = 0x2_0000;
/// Receive buffers, 16 KiB apart, and behind them room for what is sent.
const RX_BUFFERS: u64 = 0x10_0000;
const TX_DATA: u64 = 0x30_0000;
const SIZE: u32 = 64;

/// A frame received: status, errors and special of the last descriptor, and the bytes with the check sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    status: u8,
    errors: u8,
    special: u16,
    bytes: Vec<u8>,
}

/// A machine with one e1000 in it.
struct Board {
    function: Function<E1000<Memory>>,
    memory: Memory,
    sink: Arc<Sink>,
    tx_tail: u32,
    /// The next receive descriptor to look at.
    rx_next: u32,
    buffer: u64,
}

impl Board {
    /// After power-on.
    fn new() -> Self {
        let memory = Memory::new(&[(0, RAM)]);
        let sink = Arc::new(Sink::default());
        let views = DeviceMemory { used: memory.clone(), poll: memory.clone() };
        let mut function = super::new(DeviceContext { memory: views, msi: sink.clone(), number: 0 });
        function.write_config(4, &[7, 0]);
        Self { function, memory, sink, tx_tail: 0, rx_next: 0, buffer: 2048 }
    }

    /// One that runs: link up, rings of 64, 63 receive buffers handed over.
    fn running() -> Self {
        let mut board = Self::new();
        board.start(RX_BROADCAST);
        board
    }

    /// One whose frames come back.
    fn looping(rctl: u32) -> Self {
        let mut board = Self::new();
        board.start(rctl | RX_LOOPBACK);
        board
    }

    fn start(&mut self, rctl: u32) {
        self.set(CTRL, SET_LINK_UP);
        for (ring, base) in [(TX, TX_RING), (RX, RX_RING)] {
            self.set(ring + LOW, base as u32);
            self.set(ring + LEN, SIZE * 16);
            self.set(ring + HEAD, 0);
            self.set(ring + TAIL, 0);
        }
        for index in 0..u64::from(SIZE) {
            let descriptor = [RX_BUFFERS + index * 0x4000, 0];
            self.write(RX_RING + index * 16, &descriptor.map(u64::to_le_bytes).concat());
        }
        self.set(RCTL, rctl | RX_ENABLE);
        self.set(TCTL, TX_ENABLE_PAD);
        self.set(RX + TAIL, SIZE - 1);
    }

    fn get(&mut self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.function.read_bar(0, register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn set(&mut self, register: u64, value: u32) {
        self.function.write_bar(0, register, &value.to_le_bytes());
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// Reads or writes a register of the PHY.
    fn phy(&mut self, register: u32, write: Option<u16>) -> u16 {
        let command = write.map_or(2 << 26, |value| 1 << 26 | u32::from(value));
        self.set(MDIC, 1 << 21 | register << 16 | command);
        let result = self.get(MDIC);
        assert_eq!(result >> 28, 1, "ready, no error");
        result as u16
    }

    /// Lays a transmit descriptor out, without handing it over.
    fn describe(&mut self, low: u64, command: u32, upper: u32) {
        let at = TX_RING + u64::from(self.tx_tail) * 16;
        self.write(at, &low.to_le_bytes());
        self.write(at + 8, &(u64::from(upper) << 32 | u64::from(command)).to_le_bytes());
        self.tx_tail = (self.tx_tail + 1) % SIZE;
    }

    fn kick(&mut self) {
        let tail = self.tx_tail;
        self.set(TX + TAIL, tail);
    }

    /// Sends a frame by one old descriptor, and checks that it is given back.
    fn transmit(&mut self, frame: &[u8], command: u32, upper: u32) {
        self.write(TX_DATA, frame);
        let at = self.tx_tail;
        self.describe(TX_DATA, frame.len() as u32 | command | LAST, upper);
        self.kick();
        assert_eq!(self.status_of(at), 1, "descriptor done");
        let tail = self.tx_tail;
        assert_eq!(self.get(TX + HEAD), tail);
    }

    /// The status of a transmit descriptor.
    fn status_of(&self, index: u32) -> u8 {
        self.read(TX_RING + u64::from(index) * 16 + 12, 1)[0]
    }

    /// What was received since the last call; the buffers are handed over again.
    fn got(&mut self) -> Vec<Got> {
        let mut list = Vec::new();
        let mut bytes = Vec::new();
        loop {
            let at = RX_RING + u64::from(self.rx_next) * 16;
            let descriptor = self.read(at, 16);
            let address = u64::from_le_bytes(descriptor[..8].try_into().unwrap());
            let len = u16::from_le_bytes([descriptor[8], descriptor[9]]);
            let (status, errors) = (descriptor[12], descriptor[13]);
            if status & 1 == 0 {
                break;
            }
            assert_eq!(descriptor[10..12], [0, 0], "no packet checksum");
            bytes.extend(self.read(address, len.into()));
            self.write(at + 12, &[0]);
            self.rx_next = (self.rx_next + 1) % SIZE;
            if status & 2 != 0 {
                let special = u16::from_le_bytes([descriptor[14], descriptor[15]]);
                list.push(Got { status, errors, special, bytes: std::mem::take(&mut bytes) });
            } else {
                assert_eq!(u64::from(len), self.buffer, "a piece that is not the last is full");
            }
        }
        assert_eq!(bytes, [0; 0], "a frame comes with all its buffers");
        let tail = (self.rx_next + SIZE - 1) % SIZE;
        self.set(RX + TAIL, tail);
        list
    }

    /// The frames received, with their check sequences checked and taken off.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        self.got().into_iter().map(|got| checked(got.bytes)).collect()
    }
}

/// Takes the check sequence off, after a look at it.
fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = bytes.split_off(bytes.len() - 4);
    assert_eq!(crc32fast::hash(&bytes).to_le_bytes()[..], crc);
    bytes
}

impl Nic for Board {
    fn send(&mut self, frame: &[u8]) {
        self.transmit(frame, 0, 0);
    }
    fn received(&mut self) -> Vec<Vec<u8>> {
        self.frames()
    }
}
