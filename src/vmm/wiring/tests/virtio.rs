//! virtio devices and a scripted driver with the coherence core between them: what a correct driver does is silent, and each mistake of a
//! driver gets its code. Offsets and bits are those of virtio 1.2.

use super::bench::{self, DEVICE};
use dmavet_coherence::{Code, Direction, Family, Iova};
use std::ops::{Deref, DerefMut};

/// Guest physical addresses of the rings and of buffers on pages of their own.
const RINGS: u64 = 0x1_0000;
const A: u64 = 0x10_0000;
const B: u64 = 0x11_0000;
const C: u64 = 0x12_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

struct Bench {
    bench: bench::Bench,
    rings: Iova,
    index: u16,
}

impl Deref for Bench {
    type Target = bench::Bench;

    fn deref(&self) -> &Self::Target {
        &self.bench
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.bench
    }
}

impl Bench {
    /// A device that runs with a queue of 8 entries; its rings are coherent memory.
    fn new(spec: &str) -> Self {
        let bench = bench::Bench::new(spec, "virtio-pci");
        let rings = bench.map(Family::Coherent, RINGS, 0x4000, Direction::Bidirectional);
        let mut bench = Self { bench, rings, index: 0 };
        bench.start();
        bench
    }

    fn start(&mut self) {
        self.put(0x14, 1, 3);
        for half in [0, 1] {
            self.put(0x00, 4, half);
            let mut offered = [0; 4];
            self.function.read_bar(0, 0x04, &mut offered);
            self.put(0x08, 4, half);
            self.put(0x0c, 4, u64::from(u32::from_le_bytes(offered)));
        }
        self.put(0x14, 1, 11);
        self.put(0x18, 2, 8);
        for (at, by) in [(0x20, 0), (0x28, 0x1000), (0x30, 0x2000)] {
            self.put(at, 8, self.rings.0 + by);
        }
        self.put(0x1c, 2, 1);
        self.put(0x14, 1, 15);
        let mut status = [0];
        self.function.read_bar(0, 0x14, &mut status);
        assert_eq!(status, [15]);
    }

    fn put(&mut self, at: u64, len: usize, value: u64) {
        self.function.write_bar(0, at, &value.to_le_bytes()[..len]);
    }

    /// Makes a chain of handles, lengths and flags available.
    fn offer(&mut self, chain: &[(Iova, u32, u16)]) {
        for (number, (iova, len, flags)) in (0..).zip(chain) {
            let next = if usize::from(number) + 1 < chain.len() { NEXT } else { 0 };
            let mut bytes = iova.0.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend((flags | next).to_le_bytes());
            bytes.extend((number + 1_u16).to_le_bytes());
            self.write(RINGS + 16 * u64::from(number), &bytes);
        }
        self.write(RINGS + 0x1000 + 4 + 2 * u64::from(self.index % 8), &[0, 0]);
        self.index += 1;
        self.write(RINGS + 0x1002, &self.index.to_le_bytes());
    }

    fn kick(&mut self) {
        self.function.write_bar(0, 0x3000, &[0, 0]);
        assert_eq!(self.read(RINGS + 0x2002, 2), self.index.to_le_bytes(), "the chain comes back");
    }
}

#[test]
fn a_correct_driver_is_silent_and_gets_its_bytes_at_the_unmap() {
    let mut bench = Bench::new("virtio-rng");
    for _ in 0..20 {
        bench.write(A, &[0; 64]);
        let buffer = bench.map(Family::Single, A, 64, Direction::FromDevice);
        bench.offer(&[(buffer, 64, WRITE)]);
        bench.kick();
        assert_eq!(bench.read(A, 64), [0; 64], "the device's bytes are not the CPU's yet");
        bench.unmap(buffer, 64, Direction::FromDevice);
        assert_ne!(bench.read(A, 64), [0; 64]);
    }
    assert_eq!(bench.bench.codes(), []);
}

#[test]
fn each_mistake_has_its_code() {
    let mut bench = Bench::new("virtio-rng");
    let buffer = bench.map(Family::Single, A, 64, Direction::ToDevice);
    bench.offer(&[(buffer, 64, WRITE)]);
    bench.kick();
    bench.unmap(buffer, 64, Direction::ToDevice);
    assert_eq!(bench.bench.codes(), [Code::DV205], "the wrong direction");

    let mut bench = Bench::new("virtio-rng");
    let buffer = bench.map(Family::Single, A, 32, Direction::FromDevice);
    bench.offer(&[(buffer, 64, WRITE)]);
    bench.kick();
    bench.unmap(buffer, 32, Direction::FromDevice);
    assert_eq!(bench.bench.codes(), [Code::DV207], "half of it mapped");

    let mut bench = Bench::new("virtio-rng");
    let buffer = bench.map(Family::Single, A, 64, Direction::FromDevice);
    bench.unmap(buffer, 64, Direction::FromDevice);
    bench.offer(&[(buffer, 64, WRITE)]);
    bench.kick();
    assert_eq!(bench.bench.codes(), [Code::DV208], "unmapped too early");

    let mut bench = Bench::new("virtio-rng");
    bench.offer(&[(Iova(A), 64, WRITE)]);
    bench.kick();
    assert_eq!(bench.bench.codes(), [Code::DV209], "a physical address");
}

/// A write request of a sector; `spoil` runs between the map calls and the notification.
fn write_request(spoil: impl FnOnce(&Bench)) -> (Vec<u8>, Vec<Code>) {
    let mut bench = Bench::new("virtio-blk,size=1");
    bench.write(A, &[1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    bench.write(B, &[7; 512]);
    bench.write(C, &[0xff]);
    let header = bench.map(Family::Single, A, 16, Direction::ToDevice);
    let data = bench.map(Family::Single, B, 512, Direction::ToDevice);
    let status = bench.map(Family::Single, C, 1, Direction::FromDevice);
    bench.offer(&[(header, 16, 0), (data, 512, 0), (status, 1, WRITE)]);
    spoil(&bench);
    bench.kick();
    bench.unmap(header, 16, Direction::ToDevice);
    bench.unmap(data, 512, Direction::ToDevice);
    bench.unmap(status, 1, Direction::FromDevice);
    (bench.read(C, 1), bench.bench.codes())
}

#[test]
fn a_request_is_judged_by_what_the_device_reads() {
    assert_eq!(write_request(|_| ()), (vec![0], vec![]));
    assert_eq!(write_request(|bench| bench.write(B + 100, &[8])), (vec![0], vec![Code::DV201]), "data changed after the map");
    assert_eq!(write_request(|bench| bench.write(A + 8, &[6])), (vec![0], vec![Code::DV201]), "the header, too");
    assert_eq!(write_request(|bench| bench.write(B + 512, &[8])), (vec![0], vec![]), "a neighbour's byte is nobody's business");
}

#[test]
fn without_bus_mastering_nothing_moves() {
    let mut bench = Bench::new("virtio-rng");
    let buffer = bench.map(Family::Single, A, 64, Direction::FromDevice);
    bench.offer(&[(buffer, 64, WRITE)]);
    bench.core.set_bus_master(DEVICE, false);
    bench.function.write_bar(0, 0x3000, &[0, 0]);
    assert_eq!(bench.read(RINGS + 0x2002, 2), [0, 0]);
    assert_eq!(bench.bench.codes(), [Code::DV501]);
}
