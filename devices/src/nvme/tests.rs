//! The driver's side of NVMe. Opcodes, offsets and bits are written out from the specification, not taken from `spec`.
#![expect(clippy::cast_possible_truncation, reason = "tests count small things")]

mod admin;
mod data;
mod host_memory;
mod hostile;
mod queues;

use super::Nvme;
use crate::bus::{DeviceContext, DeviceMemory, PciFunction};
use crate::pci::Function;
use crate::testing::{Dma, Memory, Sink};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

const RAM: usize = 0x200_0000;
/// Queue pair n has its submission queue at `QUEUES + n * 0x10000` and its completion queue 0x8000 behind.
const QUEUES: u64 = 0x10_0000;
/// Where data and lists are laid out.
const DATA: u64 = 0x80_0000;
const LISTS: u64 = 0x60_0000;
const PAGE: u64 = 4096;
/// A 1 MiB disk has so many sectors.
const SECTORS: u64 = 2048;

const FLUSH: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;
const WRITE_ZEROES: u32 = 8;
const DATASET: u32 = 9;

const SUCCESS: u16 = 0;
const INVALID_OPCODE: u16 = 0x4001;
const INVALID_FIELD: u16 = 0x4002;
const DATA_TRANSFER: u16 = 0x4004;
const INVALID_NAMESPACE: u16 = 0x400b;
const SEQUENCE: u16 = 0x400c;
const INVALID_OFFSET: u16 = 0x4013;
const OUT_OF_RANGE: u16 = 0x4080;

/// A submission queue entry.
type Command = [u32; 16];

/// What a completion says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Completion {
    result: u32,
    head: u16,
    queue: u16,
    id: u16,
    /// Without the phase tag.
    status: u16,
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    size: u16,
    tail: u16,
    head: u16,
    phase: u16,
}

/// A machine with one controller in it.
struct Board {
    function: Function<Nvme<Memory>>,
    memory: Memory,
    sink: Arc<Sink>,
    pairs: Vec<Pair>,
    next_id: u16,
}

fn command(opcode: u32, namespace: u32) -> Command {
    let mut command = [0; 16];
    command[0] = opcode;
    command[1] = namespace;
    command
}

/// With PRP entries.
fn with_prp(mut command: Command, first: u64, second: u64) -> Command {
    for (at, entry) in [(6, first), (8, second)] {
        command[at] = entry as u32;
        command[at + 1] = (entry >> 32) as u32;
    }
    command
}

/// A command of the NVM set about sectors.
fn sectors(opcode: u32, first: u64, count: u64) -> Command {
    let mut command = command(opcode, 1);
    command[10] = first as u32;
    command[11] = (first >> 32) as u32;
    command[12] = (count - 1) as u32;
    command
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 7 + seed) % 253) as u8 + 1).collect()
}

impl Board {
    fn off(spec: &str) -> Self {
        Self::number(spec, 0)
    }

    /// A controller after power-on; MSI-X is on and all vectors are open.
    fn number(spec: &str, number: u8) -> Self {
        let crate::DeviceSpec::Nvme(spec) = spec.parse().unwrap() else { panic!("{spec}") };
        let memory = Memory::new(&[(0, RAM)]);
        let sink = Arc::new(Sink::default());
        let views = DeviceMemory { used: memory.clone(), poll: memory.clone() };
        let mut function = super::new(DeviceContext { memory: views, msi: sink.clone(), number }, &spec).unwrap();
        function.write_config(4, &[6, 0]);
        let mut board = Self { function, memory, sink, pairs: Vec::new(), next_id: 0 };
        board.open_vectors();
        board
    }

    fn open_vectors(&mut self) {
        let mut at = [0];
        self.function.read_config(0x34, &mut at);
        let mut head = [0; 2];
        self.function.read_config(at[0].into(), &mut head);
        while head[0] != 0x11 {
            at = [head[1]];
            self.function.read_config(at[0].into(), &mut head);
        }
        self.function.write_config(usize::from(at[0]) + 3, &[0x80]);
        for vector in 0..64 {
            self.function.write_bar(0, 0x2000 + vector * 16, &[0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    /// A controller that is ready.
    fn ready(spec: &str) -> Self {
        let mut board = Self::off(spec);
        board.enable();
        board
    }

    /// One with `pairs` I/O queue pairs of 16 entries, pair n interrupting with vector n.
    fn running(spec: &str, pairs: u16) -> Self {
        let mut board = Self::ready(spec);
        for pair in 1..=pairs {
            board.create(pair, 16);
        }
        board
    }

    fn get(&mut self, offset: u64, len: usize) -> u64 {
        let mut bytes = [0; 8];
        self.function.read_bar(0, offset, &mut bytes[..len]);
        u64::from_le_bytes(bytes)
    }

    fn put(&mut self, offset: u64, value: u32) {
        self.function.write_bar(0, offset, &value.to_le_bytes());
    }

    fn status(&mut self) -> u64 {
        self.get(0x1c, 4)
    }

    fn enable(&mut self) {
        self.put(0x14, 0);
        assert_eq!(self.status(), 0);
        self.put(0x24, 31 << 16 | 31);
        self.function.write_bar(0, 0x28, &QUEUES.to_le_bytes());
        self.put(0x30, (QUEUES + 0x8000) as u32);
        self.put(0x34, 0);
        self.pairs.clear();
        self.add(0, 32);
        self.put(0x14, 4 << 20 | 6 << 16 | 1);
        assert_eq!(self.status(), 1);
    }

    fn add(&mut self, pair: u16, size: u16) {
        let at = QUEUES + u64::from(pair) * 0x1_0000;
        self.memory.ram.write_slice(&vec![0; 0x1_0000], GuestAddress(at)).unwrap();
        self.pairs.resize(self.pairs.len().max(usize::from(pair) + 1), Pair { size: 0, tail: 0, head: 0, phase: 1 });
        self.pairs[usize::from(pair)] = Pair { size, tail: 0, head: 0, phase: 1 };
    }

    fn create_command(opcode: u32, pair: u16, size: u16) -> Command {
        let base = QUEUES + u64::from(pair) * 0x1_0000;
        let (base, dw11) = if opcode == 5 { (base + 0x8000, u32::from(pair) << 16 | 3) } else { (base, u32::from(pair) << 16 | 1) };
        let mut create = with_prp(command(opcode, 0), base, 0);
        create[10] = u32::from(size - 1) << 16 | u32::from(pair);
        create[11] = dw11;
        create
    }

    fn create(&mut self, pair: u16, size: u16) {
        self.add(pair, size);
        for opcode in [5, 1] {
            assert_eq!(self.run(0, Self::create_command(opcode, pair, size)).status, SUCCESS);
        }
    }

    /// Puts a command into a queue; its id.
    fn offer(&mut self, pair: u16, mut command: Command) -> u16 {
        self.next_id += 1;
        command[0] |= u32::from(self.next_id) << 16;
        let state = &mut self.pairs[usize::from(pair)];
        let at = QUEUES + u64::from(pair) * 0x1_0000 + u64::from(state.tail) * 64;
        state.tail = (state.tail + 1) % state.size;
        self.write(at, &command.map(u32::to_le_bytes).concat());
        self.next_id
    }

    /// Rings the tail doorbell.
    fn kick(&mut self, pair: u16) {
        let tail = self.pairs[usize::from(pair)].tail;
        self.put(0x1000 + u64::from(pair) * 8, tail.into());
    }

    /// Takes the completions there are and rings the head doorbell if `ring`.
    fn take(&mut self, pair: u16, ring: bool) -> Vec<Completion> {
        let mut taken = Vec::new();
        loop {
            let state = self.pairs[usize::from(pair)];
            let bytes = self.read(QUEUES + u64::from(pair) * 0x1_0000 + 0x8000 + u64::from(state.head) * 16, 16);
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            if half(14) & 1 != state.phase {
                break;
            }
            let result = u32::from(half(0)) | u32::from(half(2)) << 16;
            taken.push(Completion { result, head: half(8), queue: half(10), id: half(12), status: half(14) >> 1 });
            let state = &mut self.pairs[usize::from(pair)];
            state.head = (state.head + 1) % state.size;
            state.phase ^= u16::from(state.head == 0);
        }
        if ring && !taken.is_empty() {
            let head = self.pairs[usize::from(pair)].head;
            self.put(0x1000 + u64::from(pair) * 8 + 4, head.into());
        }
        taken
    }

    /// One command from its doorbell to its completion.
    fn run(&mut self, pair: u16, command: Command) -> Completion {
        let id = self.offer(pair, command);
        self.kick(pair);
        let taken = self.take(pair, true);
        assert_eq!(taken.len(), 1, "{command:x?}: {taken:?}, CSTS {:#x}", self.status());
        assert_eq!((taken[0].id, taken[0].queue), (id, pair));
        taken[0]
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// Writes a PRP list.
    fn list(&self, at: u64, entries: &[u64]) {
        self.write(at, &entries.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<_>>());
    }

    /// PRP entries for `len` bytes at `DATA`, the first page begun at `offset`, with all pages behind one another.
    fn flat(&self, offset: u64, len: u64) -> (u64, u64) {
        let pages = (offset + len).div_ceil(PAGE);
        match pages {
            1 => (DATA + offset, 0xdead_0001),
            2 => (DATA + offset, DATA + PAGE),
            _ => {
                let entries: Vec<u64> = (1..pages).map(|page| DATA + page * PAGE).collect();
                self.list(LISTS, &entries);
                (DATA + offset, LISTS)
            }
        }
    }

    /// Status of a read or write of so many sectors at `DATA`.
    fn transfer(&mut self, opcode: u32, first: u64, count: u64) -> u16 {
        let (prp1, prp2) = self.flat(0, count * 512);
        self.run(1, with_prp(sectors(opcode, first, count), prp1, prp2)).status
    }

    fn write_disk(&mut self, first: u64, data: &[u8]) -> u16 {
        self.write(DATA, data);
        self.transfer(WRITE, first, data.len() as u64 / 512)
    }

    fn read_disk(&mut self, first: u64, count: u64) -> (u16, Vec<u8>) {
        self.write(DATA, &vec![0xee; count as usize * 512]);
        let status = self.transfer(READ, first, count);
        (status, self.read(DATA, count as usize * 512))
    }
}
