//! A scripted driver for tests, played against the specification: offsets and bits are written out here on purpose.
#![expect(clippy::cast_possible_truncation, reason = "tests count small things")]

use super::{Transport, VirtioDevice};
use crate::bus::{DeviceContext, DeviceMemory, PciFunction};
use crate::pci::Function;
use crate::testing::{Memory, Sink};
use std::collections::BTreeMap;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

pub(crate) const RAM: usize = 0x100_0000;
/// Where the rings of queue 0 lie; those of the next queue lie 64 KiB on.
pub(crate) const RINGS: u64 = 0x10_0000;
/// Where chains begin to be laid out.
const BUFFERS: u64 = 0x40_0000;
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;

/// A part of a chain.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Bytes for the device.
    Out(Vec<u8>),
    /// Room for the device's.
    In(u32),
}

/// What came back of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Back {
    pub(crate) head: u32,
    /// Bytes the device says it wrote.
    pub(crate) len: u32,
    /// What lies in all its rooms now.
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    pub(crate) next_desc: u16,
    pub(crate) index: u16,
    seen: u16,
    rooms: BTreeMap<u32, Vec<(u64, u32)>>,
}

/// A machine with one virtio device in it.
pub(crate) struct Board<D: VirtioDevice<Memory>> {
    pub(crate) function: Function<Transport<D, Memory>>,
    pub(crate) memory: Memory,
    pub(crate) sink: Arc<Sink>,
    pub(crate) rings: Vec<Ring>,
    next_buffer: u64,
}

impl<D: VirtioDevice<Memory>> Board<D> {
    /// A device after power-on; MSI-X is on, all vectors are open.
    pub(crate) fn new(device: D) -> Self {
        let memory = Memory::new(&[(0, RAM)]);
        let sink = Arc::new(Sink::default());
        let views = DeviceMemory { used: memory.clone(), poll: memory.clone() };
        let mut function = super::function(device, DeviceContext { memory: views, msi: sink.clone(), number: 0 });
        function.write_config(4, &[6, 0]);
        let mut board = Self { function, memory, sink, rings: Vec::new(), next_buffer: BUFFERS };
        board.open_vectors();
        board
    }

    /// One that runs with all features but those in `without`, queues of `size` entries; queue n interrupts with vector n, the
    /// configuration with the last one.
    pub(crate) fn running(device: D, size: u16, without: u64) -> Self {
        let mut board = Self::new(device);
        board.start(size, without);
        board
    }

    pub(crate) fn start(&mut self, size: u16, without: u64) {
        let offered = self.begin();
        self.accept(offered & !without);
        assert_eq!(self.set_status(11), 11, "FEATURES_OK");
        self.queues(size);
        let status = self.set_status(15);
        assert_eq!(status, 15);
    }

    /// ACKNOWLEDGE and DRIVER; the features offered.
    pub(crate) fn begin(&mut self) -> u64 {
        self.set_status(0);
        self.set_status(1);
        self.set_status(3);
        let low = self.with(0x00, 0).get(0x04, 4);
        low | self.with(0x00, 1).get(0x04, 4) << 32
    }

    pub(crate) fn accept(&mut self, features: u64) {
        self.with(0x08, 0).put(0x0c, 4, features & 0xffff_ffff);
        self.with(0x08, 1).put(0x0c, 4, features >> 32);
    }

    pub(crate) fn queues(&mut self, size: u16) {
        let count = self.get(0x12, 2) as u16;
        self.put(0x10, 2, u64::from(count));
        self.rings = Vec::new();
        for number in 0..count {
            self.put(0x16, 2, u64::from(number));
            let size = size.min(self.get(0x18, 2) as u16);
            let base = RINGS + u64::from(number) * 0x1_0000;
            let ring = Ring { size, desc: base, avail: base + 0x8000, used: base + 0xc000, ..Ring::default() };
            self.memory.ram.write_slice(&vec![0; 0x1_0000], GuestAddress(base)).unwrap();
            self.put(0x18, 2, u64::from(size));
            self.put(0x1a, 2, u64::from(number));
            for (at, address) in [(0x20, ring.desc), (0x28, ring.avail), (0x30, ring.used)] {
                self.put(at, 4, address & 0xffff_ffff);
                self.put(at + 4, 4, address >> 32);
            }
            self.put(0x1c, 2, 1);
            assert_eq!(self.get(0x1c, 2), 1);
            self.rings.push(ring);
        }
    }

    fn open_vectors(&mut self) {
        let at = self.capability(0x11);
        self.function.write_config(at + 3, &[0x80]);
        for vector in 0..8 {
            self.function.write_bar(1, vector * 16, &[0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    /// Where the first capability with that id lies.
    pub(crate) fn capability(&mut self, id: u8) -> usize {
        self.capabilities().into_iter().find(|(seen, _)| *seen == id).expect("capability").1
    }

    /// Ids and offsets of the capabilities.
    pub(crate) fn capabilities(&mut self) -> Vec<(u8, usize)> {
        let mut list = Vec::new();
        let mut pointer = [0];
        self.function.read_config(0x34, &mut pointer);
        while pointer[0] != 0 {
            let at = usize::from(pointer[0]);
            let mut head = [0; 2];
            self.function.read_config(at, &mut head);
            list.push((head[0], at));
            pointer = [head[1]];
        }
        list
    }

    /// Reads the common configuration.
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> u64 {
        self.bar(offset, len)
    }

    pub(crate) fn bar(&mut self, offset: u64, len: usize) -> u64 {
        let mut bytes = [0; 8];
        self.function.read_bar(0, offset, &mut bytes[..len]);
        u64::from_le_bytes(bytes)
    }

    /// Writes the common configuration.
    pub(crate) fn put(&mut self, offset: u64, len: usize, value: u64) {
        self.function.write_bar(0, offset, &value.to_le_bytes()[..len]);
    }

    fn with(&mut self, select: u64, value: u64) -> &mut Self {
        self.put(select, 4, value);
        self
    }

    pub(crate) fn set_status(&mut self, status: u64) -> u64 {
        self.put(0x14, 1, status);
        self.get(0x14, 1)
    }

    pub(crate) fn status(&mut self) -> u64 {
        self.get(0x14, 1)
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(crate) fn half(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address, 2).try_into().unwrap())
    }

    /// Writes a descriptor into a table.
    pub(crate) fn descriptor(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = Vec::new();
        bytes.extend(address.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.write(table + u64::from(index) * 16, &bytes);
    }

    /// Room in memory that nobody uses; there is a hole behind it.
    pub(crate) fn room(&mut self, len: u32) -> u64 {
        let at = self.next_buffer;
        self.next_buffer = (at + u64::from(len) + 64).next_multiple_of(64);
        assert!(self.next_buffer < RAM as u64);
        at
    }

    /// Lays out a chain; its head and the rooms of the device.
    fn lay_out(&mut self, queue: usize, parts: &[Part], indirect: bool) -> u16 {
        let head = self.rings[queue].next_desc;
        let (table, first) = if indirect { (self.room(16 * parts.len() as u32), 0) } else { (self.rings[queue].desc, head) };
        let mut rooms = Vec::new();
        for (number, part) in (0u16..).zip(parts) {
            let size = self.rings[queue].size;
            let wrap = |index: u16| if indirect { index } else { index % size };
            let index = wrap(first + number);
            let more = if usize::from(number) + 1 < parts.len() { NEXT } else { 0 };
            let (address, len, write) = match part {
                Part::Out(bytes) => {
                    let at = self.room(bytes.len() as u32);
                    self.write(at, bytes);
                    (at, bytes.len() as u32, 0)
                }
                Part::In(len) => {
                    let at = self.room(*len);
                    rooms.push((at, *len));
                    (at, *len, WRITE)
                }
            };
            self.descriptor(table, index, address, len, more | write, wrap(first + number + 1));
        }
        let ring = &mut self.rings[queue];
        let taken = if indirect { 1 } else { parts.len() as u16 };
        ring.next_desc = (head + taken) % ring.size;
        ring.rooms.insert(u32::from(head), rooms);
        if indirect {
            let desc = ring.desc;
            self.descriptor(desc, head, table, 16 * parts.len() as u32, INDIRECT, 0);
        }
        head
    }

    /// Makes a chain available, without a notification.
    pub(crate) fn offer(&mut self, queue: usize, parts: &[Part]) -> u16 {
        let head = self.lay_out(queue, parts, false);
        self.publish(queue, head);
        head
    }

    pub(crate) fn offer_indirect(&mut self, queue: usize, parts: &[Part]) -> u16 {
        let head = self.lay_out(queue, parts, true);
        self.publish(queue, head);
        head
    }

    pub(crate) fn publish(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let slot = ring.avail + 4 + 2 * u64::from(ring.index % ring.size);
        ring.index = ring.index.wrapping_add(1);
        let (avail, index) = (ring.avail, ring.index);
        self.write(slot, &head.to_le_bytes());
        self.write(avail + 2, &index.to_le_bytes());
    }

    /// Notifies the device.
    pub(crate) fn kick(&mut self, queue: usize) {
        self.function.write_bar(0, 0x3000 + 4 * queue as u64, &(queue as u16).to_le_bytes());
    }

    /// What came back since the last call.
    pub(crate) fn back(&mut self, queue: usize) -> Vec<Back> {
        let mut list = Vec::new();
        let ring = self.rings[queue].clone();
        let index = self.half(ring.used + 2);
        let mut seen = ring.seen;
        while seen != index {
            let entry = self.read(ring.used + 4 + 8 * u64::from(seen % ring.size), 8);
            let head = u32::from_le_bytes(entry[..4].try_into().unwrap());
            let len = u32::from_le_bytes(entry[4..].try_into().unwrap());
            let rooms = ring.rooms.get(&head).cloned().unwrap_or_default();
            let bytes = rooms.iter().flat_map(|(at, len)| self.read(*at, *len as usize)).collect();
            list.push(Back { head, len, bytes });
            seen = seen.wrapping_add(1);
        }
        self.rings[queue].seen = seen;
        list
    }

    /// One chain there and back.
    pub(crate) fn run(&mut self, queue: usize, parts: &[Part]) -> Back {
        let head = self.offer(queue, parts);
        self.kick(queue);
        let mut back = self.back(queue);
        assert_eq!((back.len(), back.first().map(|back| back.head)), (1, Some(u32::from(head))), "{back:?}");
        back.remove(0)
    }
}
