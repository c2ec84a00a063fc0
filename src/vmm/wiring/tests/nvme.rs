//! An NVMe controller and a scripted driver with the coherence core between them: what a correct driver does is silent, and each mistake
//! of a driver gets its code. Offsets and bits are those of NVM Express 1.4.

use super::bench::{self, DEVICE};
use dmavet_coherence::{Code, Direction, Family, Iova};

/// Guest physical addresses of the queues, of a PRP list, of data on pages of their own, and of memory lent to the controller.
const QUEUES: u64 = 0x1_0000;
const LIST: u64 = 0x2_0000;
const DATA: u64 = 0x10_0000;
const HOST: u64 = 0x20_0000;
const DATA_LEN: usize = 3 * 4096;

struct Bench {
    bench: bench::Bench,
    queues: Iova,
    /// Commands so far of the admin and the I/O queue.
    sent: [u16; 2],
}

impl Bench {
    /// A controller with one I/O queue pair; all four queues are one coherent allocation, a page each.
    fn new() -> Self {
        let bench = bench::Bench::new("nvme,size=1,hmb=1", "nvme");
        let queues = bench.map(Family::Coherent, QUEUES, 0x4000, Direction::Bidirectional);
        let mut bench = Self { bench, queues, sent: [0; 2] };
        bench.put(0x24, 31 << 16 | 31);
        bench.bench.function.write_bar(0, 0x28, &queues.0.to_le_bytes());
        bench.bench.function.write_bar(0, 0x30, &(queues.0 + 0x1000).to_le_bytes());
        bench.put(0x14, 4 << 20 | 6 << 16 | 1);
        assert_eq!(bench.run(0, &[5, 0, 0, 0, 0, 0, 0x3000, 0, 0, 0, 31 << 16 | 1, 1], true), 0);
        assert_eq!(bench.run(0, &[1, 0, 0, 0, 0, 0, 0x2000, 0, 0, 0, 31 << 16 | 1, 1 << 16 | 1], true), 0);
        bench
    }

    fn put(&mut self, at: u64, value: u32) {
        self.bench.function.write_bar(0, at, &value.to_le_bytes());
    }

    /// The status of a command; with `of_queues` PRP entry 1 is an offset in the queues' memory.
    fn run(&mut self, queue: u16, command: &[u32], of_queues: bool) -> u16 {
        let mut command = command.to_vec();
        command.resize(16, 0);
        let mut bytes: Vec<u8> = command.into_iter().flat_map(u32::to_le_bytes).collect();
        if of_queues {
            let first = self.queues.0 + u64::from(u16::from_le_bytes([bytes[24], bytes[25]]));
            bytes[24..32].copy_from_slice(&first.to_le_bytes());
        }
        let sent = &mut self.sent[usize::from(queue)];
        let slot = u64::from(*sent);
        *sent += 1;
        assert!(*sent < 32, "rings do not wrap here");
        let tail = *sent;
        let base = QUEUES + u64::from(queue) * 0x2000;
        self.bench.write(base + slot * 64, &bytes);
        self.put(0x1000 + u64::from(queue) * 8, tail.into());
        let done = self.bench.read(base + 0x1000 + slot * 16 + 14, 2);
        assert_eq!(done[0] & 1, 1, "it completes");
        u16::from_le_bytes([done[0], done[1]]) >> 1 & 0x7ff
    }
}

fn halves(address: u64) -> [u32; 2] {
    [0, 32].map(|shift| u32::try_from(address >> shift & 0xffff_ffff).unwrap())
}

/// A transfer of three pages with a PRP list, all of it streaming mappings; `spoil` runs between the map calls and the doorbell. The
/// status, what lies in memory then, and the codes.
fn transfer(opcode: u32, direction: Direction, spoil: impl FnOnce(&Bench)) -> (u16, Vec<u8>, Vec<Code>) {
    let mut bench = Bench::new();
    bench.bench.write(DATA, &[7; DATA_LEN]);
    let data = bench.bench.map(Family::Single, DATA, DATA_LEN as u64, direction).0;
    bench.bench.write(LIST, &[data + 4096, data + 8192].map(u64::to_le_bytes).concat());
    let list = bench.bench.map(Family::Single, LIST, 16, Direction::ToDevice).0;
    spoil(&bench);
    let ([d0, d1], [l0, l1]) = (halves(data), halves(list));
    let status = bench.run(1, &[opcode, 1, 0, 0, 0, 0, d0, d1, l0, l1, 0, 0, 23], false);
    bench.bench.unmap(Iova(list), 16, Direction::ToDevice);
    bench.bench.unmap(Iova(data), DATA_LEN as u64, direction);
    let memory = bench.bench.read(DATA, DATA_LEN);
    (status, memory, bench.bench.codes())
}

#[test]
fn a_correct_driver_is_silent() {
    let (status, memory, codes) = transfer(1, Direction::ToDevice, |_| ());
    assert_eq!((status, codes), (0, vec![]));
    assert!(memory == [7; DATA_LEN]);
    let (status, memory, codes) = transfer(2, Direction::FromDevice, |_| ());
    assert_eq!((status, codes), (0, vec![]));
    assert!(memory == [0; DATA_LEN], "an empty disk, once it is unmapped");
}

#[test]
fn each_mistake_has_its_code() {
    let codes = |opcode, direction, spoil: fn(&Bench)| transfer(opcode, direction, spoil).2;
    let changed = codes(1, Direction::ToDevice, |bench| bench.bench.write(DATA + 5000, &[8]));
    assert_eq!(changed, [Code::DV201], "data changed after the map");
    let changed = codes(1, Direction::ToDevice, |bench| bench.bench.write(LIST + 8, &[0]));
    assert!(changed.is_empty(), "the same byte again is no change");
    let (status, _, wrong) = transfer(2, Direction::ToDevice, |_| ());
    assert_eq!((status, wrong), (0, vec![Code::DV205]), "the wrong direction");
}

#[test]
fn a_list_is_judged_like_data() {
    let mut bench = Bench::new();
    let data = bench.bench.map(Family::Single, DATA, DATA_LEN as u64, Direction::FromDevice).0;
    let list = bench.bench.map(Family::Single, LIST, 16, Direction::ToDevice).0;
    // Only now: the controller's copy is the old one.
    bench.bench.write(LIST, &[data + 4096, data + 8192].map(u64::to_le_bytes).concat());
    let ([d0, d1], [l0, l1]) = (halves(data), halves(list));
    assert_ne!(bench.run(1, &[2, 1, 0, 0, 0, 0, d0, d1, l0, l1, 0, 0, 23], false), 0);
    let codes = bench.bench.codes();
    assert!(codes.contains(&Code::DV201), "{codes:?}");
}

#[test]
fn lent_memory_is_used_and_must_stay() {
    let mut bench = Bench::new();
    let host = bench.bench.map(Family::Coherent, HOST, 0x10_0000, Direction::Bidirectional).0;
    let list = bench.bench.map(Family::Coherent, LIST, 4096, Direction::Bidirectional).0;
    bench.bench.write(LIST, &[&host.to_le_bytes()[..], &256_u32.to_le_bytes(), &[0; 4]].concat());
    let [l0, l1] = halves(list);
    assert_eq!(bench.run(0, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 1, 256, l0, l1, 1], false), 0);
    bench.bench.write(HOST, &[0; 16]);
    let zeroes = [8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bench.run(1, &zeroes, false), 0);
    assert_ne!(bench.bench.read(HOST, 16), [0; 16], "coherent memory: there at once");
    // Given away while the controller has it.
    bench.bench.free_coherent(Iova(host), HOST, 0x10_0000);
    assert_eq!(bench.run(1, &zeroes, false), 0);
    assert_eq!(bench.bench.codes(), [Code::DV208]);
}

#[test]
fn without_bus_mastering_the_controller_is_lost() {
    let mut bench = Bench::new();
    bench.bench.core.set_bus_master(DEVICE, false);
    bench.put(0x1008, 1);
    let mut status = [0; 4];
    bench.bench.function.read_bar(0, 0x1c, &mut status);
    assert_eq!(status[0], 3, "CSTS: ready, fatal");
    assert_eq!(bench.bench.codes(), [Code::DV501]);
}
