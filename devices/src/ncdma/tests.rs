//! The driver's side of ncdma, played against the datasheet: offsets and bits are written out here on purpose, not taken from `spec`.

mod errors;
mod fuzz;
mod interrupts;
mod platform;
mod work;

use super::Ncdma;
use crate::bus::{DeviceContext, DeviceMemory, PciFunction};
use crate::pci::Function;
use crate::testing::{Dma, Memory, Sink};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

const RAM: usize = 0x20_0000;
const CMD: u64 = 0x100;
const TX: u64 = 0x140;
const RX: u64 = 0x180;
/// Bus addresses of the rings, the status block and two buffers.
const CMD_RING: u64 = 0x1_0000;
const TX_RING: u64 = 0x2_0000;
const RX_RING: u64 = 0x3_0000;
const BLOCK: u64 = 0x4_0000;
const SRC: u64 = 0x5_0000;
const DST: u64 = 0x12_0000;

const CTRL: u64 = 0x0c;
const STATUS: u64 = 0x10;
const ERROR: u64 = 0x14;
const INT_STATUS: u64 = 0x20;
const INT_MASK: u64 = 0x24;
const GEN_SEED: u64 = 0x60;
const GEN_LEN: u64 = 0x64;
const GEN_COUNT: u64 = 0x68;
const GEN_DONE: u64 = 0x6c;
const GEN_DROPPED: u64 = 0x70;
const TX_CTRL: u64 = 0x74;
const LOOP_DROPPED: u64 = 0x78;

const OWN: u32 = 1 << 31;
const IRQ: u32 = 1 << 30;
const COPY: u32 = 1;
const FILL: u32 = 2;
const CHECKSUM: u32 = 3;
const SEND: u32 = 0x10;
const RECEIVE: u32 = 0x20;

/// What the driver writes of a descriptor.
#[derive(Clone, Copy, Debug, Default)]
struct Desc {
    flags: u32,
    len: u32,
    src: u64,
    dst: u64,
    param: u32,
    reserved: u32,
}

/// What the device writes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Back {
    flags: u32,
    status: u32,
    result: u32,
    written: u32,
}

/// A board with one ncdma on it.
struct Board {
    function: Function<Ncdma<Memory>>,
    memory: Memory,
    sink: Arc<Sink>,
}

impl Board {
    /// A device after power-on, MSI-X on and all vectors open.
    fn new(spec: &str, ranges: &[(u64, usize)]) -> Self {
        let crate::DeviceSpec::Ncdma(spec) = spec.parse().unwrap() else { panic!("{spec}") };
        let (memory, sink) = (Memory::new(ranges), Arc::new(Sink::default()));
        let views = DeviceMemory { used: memory.clone(), poll: memory.clone() };
        let mut function = super::new(DeviceContext { memory: views, msi: sink.clone(), number: 0 }, &spec);
        function.write_config(4, &[6, 0]);
        function.write_config(0x48 + 3, &[0x80]);
        for vector in 0..4 {
            function.write_bar(1, vector * 16, &[0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
        }
        Self { function, memory, sink }
    }

    /// A running device with three rings of `size` and a status block.
    fn running(size: u32) -> Self {
        let mut board = Self::new("ncdma", &[(0, RAM)]);
        board.set(0x40, 0x4_0000);
        board.rings(size);
        board
    }

    fn rings(&mut self, size: u32) {
        for (ring, base) in [(CMD, CMD_RING), (TX, TX_RING), (RX, RX_RING)] {
            self.ring(ring, base, size);
        }
        self.set(INT_MASK, 0xf);
        self.set(CTRL, 5);
    }

    fn ring(&mut self, ring: u64, base: u64, size: u32) {
        self.set(ring, low(base));
        self.set(ring + 4, (base >> 32) as u32);
        self.set(ring + 8, size);
        self.set(ring + 0x14, 1);
    }

    fn get(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.function.read_bar(0, offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn set(&mut self, offset: u64, value: u32) {
        self.function.write_bar(0, offset, &value.to_le_bytes());
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn take(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn word(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.take(address, 4).try_into().unwrap())
    }

    fn desc(&self, address: u64, desc: Desc) {
        let mut bytes = Vec::new();
        bytes.extend(desc.flags.to_le_bytes());
        bytes.extend(desc.len.to_le_bytes());
        bytes.extend(desc.src.to_le_bytes());
        bytes.extend(desc.dst.to_le_bytes());
        bytes.extend(desc.param.to_le_bytes());
        bytes.extend(desc.reserved.to_le_bytes());
        bytes.resize(0x80, 0xee);
        self.put(address, &bytes);
    }

    fn back(&self, address: u64) -> Back {
        let word = |offset| self.word(address + offset);
        Back { flags: word(0), status: word(0x40), result: word(0x44), written: word(0x48) }
    }

    /// Runs one command at index 0 of a fresh command ring.
    fn command(&mut self, desc: Desc) -> Back {
        self.desc(CMD_RING, desc);
        self.set(CMD + 0x14, 1);
        self.set(CMD + 0x10, 1);
        self.back(CMD_RING)
    }

    fn err_addr(&mut self) -> u64 {
        u64::from(self.get(0x18)) | u64::from(self.get(0x1c)) << 32
    }
}

/// The low half of an address, for a register.
fn low(address: u64) -> u32 {
    u32::try_from(address & 0xffff_ffff).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251).to_le_bytes()[0]).collect()
}

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[test]
fn a_fresh_device_shows_the_reset_values() {
    let mut board = Board::new("ncdma", &[(0, RAM)]);
    let mut id = [0; 16];
    board.function.read_config(0, &mut id);
    assert_eq!(id, [0x5e, 0xda, 0x10, 0, 6, 0, 0x10, 0, 1, 0, 1, 8, 0, 0, 0, 0]);
    assert_eq!((board.get(0), board.get(4), board.get(8)), (0x4e43_4d41, 0x0001_0000, 0x0400_0840));
    let zero = [0x0c, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x40, 0x44, 0x60, 0x64, 0x68, 0x6c, 0x70, 0x74, 0x78];
    for offset in zero.into_iter().chain([CMD, TX, RX].into_iter().flat_map(|ring| (0..6).map(move |reg| ring + reg * 4))) {
        assert_eq!(board.get(offset), 0, "{offset:#x}");
    }
    for offset in [0x28, 0x48, 0x7c, 0x118, 0x198, 0xffc] {
        assert_eq!(board.get(offset), u32::MAX, "{offset:#x}");
    }
    assert_eq!(Board::new("ncdma,mask=36", &[(0, RAM)]).get(8), 0x0400_0824);
}

#[test]
fn only_aligned_32_bit_accesses_reach_registers() {
    let mut board = Board::new("ncdma", &[(0, RAM)]);
    for (offset, len) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 4), (GEN_SEED, 8), (GEN_SEED, 3)] {
        let mut data = vec![0; len];
        board.function.read_bar(0, offset, &mut data);
        assert_eq!(data, vec![0xff; len], "{offset:#x}+{len}");
        board.function.write_bar(0, offset, &data);
    }
    assert_eq!((board.get(GEN_SEED), board.get(GEN_LEN)), (0, 0));
}

#[test]
fn registers_keep_only_their_bits() {
    let mut board = Board::new("ncdma", &[(0, RAM)]);
    for (offset, expected) in [
        (0x00, 0x4e43_4d41),
        (0x0c, 0),
        (0x24, 0xf),
        (0x40, 0xffff_ffc0),
        (0x44, u32::MAX),
        (0x60, u32::MAX),
        (0x64, u32::MAX),
        (0x68, 0),
        (0x6c, 0),
        (0x74, 1),
        (CMD, u32::MAX),
        (CMD + 0x0c, 0),
        (CMD + 0x10, 0),
    ] {
        board.set(offset, u32::MAX);
        board.set(0x24, if offset == 0x24 { u32::MAX } else { 0 });
        assert_eq!(board.get(offset), expected, "{offset:#x}");
        board.set(CTRL, 2);
    }
}
