//! One device and the memory it reaches, as a guest without manners sees them.

use dmavet_devices::bus::{DeviceContext, DeviceMemory, LineSink, PciFunction, PlatformContext, PlatformDevice};
use dmavet_devices::pci::NoInterrupts;
use dmavet_devices::{DeviceSpec, build, build_platform};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

/// Bytes of memory the device reaches, from address 0 on.
pub const RAM: usize = 4 << 20;
/// The most accesses to memory one register write may cost: eight times a ring of 256 chains of 256 descriptors each.
const MOST_ACCESSES: usize = 8 * 256 * (256 * 3 + 8);
/// The longest one access may take. A hang takes for ever; this leaves room for a busy machine.
const HANG: Duration = Duration::from_secs(20);
/// Bytes of configuration space.
pub const CONFIG: usize = 4096;

/// Memory that counts accesses.
#[derive(Clone, Debug)]
pub struct Counted {
    ram: GuestMemoryMmap,
    accesses: Arc<AtomicUsize>,
}

impl GuestMemory for Counted {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        GuestMemory::check_range(&self.ram, addr, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        GuestMemory::get_slices(&self.ram, addr, count, access)
    }
}

struct NoLine;

impl LineSink for NoLine {
    fn set(&self, _high: bool) {}
}

enum Seat {
    Pci(Box<dyn PciFunction>),
    Platform(Box<dyn PlatformDevice>),
}

/// A device after power-on.
pub struct Bench {
    seat: Seat,
    memory: Counted,
    spec: DeviceSpec,
    /// What its registers read as then.
    fresh: Vec<u8>,
}

impl Bench {
    /// The device `name`, with default settings.
    pub fn new(name: &str) -> Self {
        let spec: DeviceSpec = name.parse().expect("a model's name is a specification");
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).expect("memory");
        let memory = Counted { ram, accesses: Arc::default() };
        let mut bench = Self { seat: seat(&spec, &memory), memory, spec, fresh: Vec::new() };
        // Finding the BARs writes them, so another one is asked, and reading may change what is read, so the dump is another's, too.
        bench.fresh = bench.dump();
        bench.seat = seat(&bench.spec, &bench.memory);
        bench
    }

    /// Whether it is a PCI function.
    pub fn is_pci(&self) -> bool {
        matches!(self.seat, Seat::Pci(_))
    }

    /// Reads configuration space; all-ones where there is none.
    pub fn config(&mut self, offset: usize, len: usize) -> u64 {
        let mut data = [0xff; 8];
        if let Seat::Pci(function) = &mut self.seat {
            function.read_config(offset, &mut data[..len]);
            data[len..].fill(0);
        }
        u64::from_le_bytes(data)
    }

    /// Writes configuration space, and asks for what a bus asks for then.
    pub fn set_config(&mut self, offset: usize, data: &[u8]) {
        self.watched(|seat| {
            if let Seat::Pci(function) = seat {
                function.write_config(offset, data);
                let _ = (function.ranges(), function.bus_master());
            }
        });
    }

    /// Reads a BAR; the registers of a platform device are BAR 0.
    pub fn read(&mut self, bar: usize, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xa5; len];
        self.watched(|seat| match seat {
            Seat::Pci(function) => function.read_bar(bar, offset, &mut data),
            Seat::Platform(device) if bar == 0 => device.read(offset, &mut data),
            Seat::Platform(_) => data.fill(0xff),
        });
        data
    }

    /// Writes a BAR.
    pub fn write(&mut self, bar: usize, offset: u64, data: &[u8]) {
        self.watched(|seat| match seat {
            Seat::Pci(function) => function.write_bar(bar, offset, data),
            Seat::Platform(device) if bar == 0 => device.write(offset, data),
            Seat::Platform(_) => {}
        });
    }

    /// Reads up to eight bytes of BAR 0 as a number.
    pub fn get(&mut self, offset: u64, len: usize) -> u64 {
        let mut data = self.read(0, offset, len);
        data.resize(8, 0);
        u64::from_le_bytes(data.try_into().expect("eight bytes"))
    }

    /// Writes the lowest `len` bytes of a number to BAR 0.
    pub fn put(&mut self, offset: u64, len: usize, value: u64) {
        self.write(0, offset, &value.to_le_bytes()[..len]);
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.watched(|seat| match seat {
            Seat::Pci(function) => function.reset(),
            Seat::Platform(device) => device.reset(),
        });
    }

    /// Writes memory; what lies beyond it is left out.
    pub fn store(&self, address: u64, data: &[u8]) {
        let _ = self.memory.ram.write(data, GuestAddress(address));
    }

    /// The BARs and their sizes in bytes, found as a kernel does it. Leaves them written.
    pub fn bars(&mut self) -> Vec<(usize, u64)> {
        if !self.is_pci() {
            return vec![(0, 0x1000)];
        }
        let mut bars = Vec::new();
        let mut index = 0;
        while index < 6 {
            let at = 0x10 + 4 * index;
            self.set_config(at, &[0xff; 4]);
            let low = self.config(at, 4);
            let (is_io, is_64) = (low & 1 != 0, low & 7 == 4);
            let mut mask = low & if is_io { !3 } else { !0xf };
            mask |= if is_64 {
                self.set_config(at + 4, &[0xff; 4]);
                self.config(at + 4, 4) << 32
            } else {
                0xffff_ffff_0000_0000
            };
            if low != 0 {
                bars.push((index, (!mask).wrapping_add(1)));
            }
            index += if is_64 { 2 } else { 1 };
        }
        bars
    }

    /// Where the first capability with that id lies.
    pub fn capability(&mut self, id: u8) -> Option<usize> {
        let mut at = usize::try_from(self.config(0x34, 1)).ok()?;
        for _ in 0..48 {
            if at == 0 || at == 0xff {
                return None;
            }
            if self.config(at, 1) == u64::from(id) {
                return Some(at);
            }
            at = usize::try_from(self.config(at + 1, 1)).ok()?;
        }
        panic!("a loop in the list of capabilities");
    }

    /// The end of a case: the device is there, and a reset makes it as new.
    pub fn finish(mut self) {
        for (bar, size) in self.bars() {
            for offset in (0..size.min(0x4000)).step_by(4) {
                self.read(bar, offset, 4);
            }
        }
        self.reset();
        let dump = self.dump();
        let differs = dump.iter().zip(&self.fresh).position(|(now, then)| now != then);
        assert_eq!(differs, None, "a register does not read as after power-on, byte of the dump");
    }

    /// Configuration space and the first 16 KiB of every BAR.
    fn dump(&mut self) -> Vec<u8> {
        let mut dump: Vec<u8> = (0..CONFIG).step_by(4).flat_map(|at| self.config(at, 4).to_le_bytes()).collect();
        for (bar, size) in self.bars() {
            for offset in (0..size.min(0x4000)).step_by(4) {
                dump.extend(self.read(bar, offset, 4));
            }
        }
        dump
    }

    /// One access, which may cost only so much.
    fn watched(&mut self, access: impl FnOnce(&mut Seat)) {
        self.memory.accesses.store(0, Ordering::Relaxed);
        let start = Instant::now();
        access(&mut self.seat);
        let (time, accesses) = (start.elapsed(), self.memory.accesses.load(Ordering::Relaxed));
        assert!(time < HANG, "one access took {time:?}");
        assert!(accesses <= MOST_ACCESSES, "one access made the device access memory {accesses} times");
    }
}

fn seat(spec: &DeviceSpec, memory: &Counted) -> Seat {
    let memory = DeviceMemory { used: memory.clone(), poll: memory.clone() };
    if spec.is_platform() {
        Seat::Platform(build_platform(spec, PlatformContext { memory, line: Arc::new(NoLine) }).expect("a platform device"))
    } else {
        Seat::Pci(build(spec, DeviceContext { memory, msi: Arc::new(NoInterrupts), number: 0 }).expect("a PCI function"))
    }
}
