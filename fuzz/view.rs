//! A device that reaches anywhere, over mappings that come and go.

use crate::ops::Ops;
use dmavet_coherence::*;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

const RAM: u64 = 256 << 10;
const RAM_BYTES: usize = 256 << 10;
const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));
const CALLER: Caller = Caller { requester: DEVICE, site: SiteId(0), cpu: 0 };
/// Operations of one input.
const MOST: usize = 200;
/// Longest mapping, in bytes.
const LONGEST: u64 = 20_000;

/// The operations' tags.
pub(crate) mod tag {
    /// Address (u32), length (u16), direction, how (u8).
    pub(crate) const MAP: u8 = 0;
    /// Which mapping, direction.
    pub(crate) const UNMAP: u8 = 1;
    /// Which mapping, offset, length (u16), how (u8).
    pub(crate) const SYNC: u8 = 2;
    /// Which mapping, offset (u16), length (u16), how (u8): the device.
    pub(crate) const NEAR: u8 = 3;
    /// Address (u64), length (u16), how (u8): the device.
    pub(crate) const FAR: u8 = 4;
    /// Address (u32), length (u16), value: the CPU.
    pub(crate) const STORE: u8 = 5;
    /// On or off: bus mastership.
    pub(crate) const MASTER: u8 = 6;
    pub(crate) const COUNT: u8 = 7;
}

/// A mapping: its handle, and the memory it covers.
#[derive(Clone, Copy)]
struct Live {
    iova: u64,
    len: u64,
    direction: Direction,
    attrs: Attrs,
}

struct Machine {
    core: Coherence,
    ram: Arc<GuestMemoryMmap>,
    view: DmaView,
    live: Vec<Live>,
    master: bool,
    /// What RAM holds where no device was ever allowed to write.
    shadow: Vec<u8>,
    /// Where one was.
    open: Vec<bool>,
}

/// Plays a device and a driver on a machine of 256 KiB.
///
/// # Panics
/// When the core does, when the device reaches what is not mapped for it, or when a byte of RAM changes that never was.
pub fn view(bytes: &[u8]) {
    let pattern = |at: usize| u8::try_from(at * 7 % 251).unwrap_or(0);
    let shadow: Vec<u8> = (0..RAM_BYTES).map(pattern).collect();
    let ram: Arc<GuestMemoryMmap> =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).expect("memory for a machine of 256 KiB"));
    ram.write_slice(&shadow, GuestAddress(0)).expect("RAM can be written");
    let core = Coherence::new(Config::for_ram(RAM), Arc::clone(&ram)).expect("the configuration is right");
    core.set_bus_master(DEVICE, true);
    let view = core.view(DEVICE);
    let mut machine = Machine { core, ram, view, live: Vec::new(), master: true, shadow, open: vec![false; RAM_BYTES] };
    let mut ops = Ops(bytes);
    for _ in 0..MOST {
        let Some(tag) = ops.next() else { break };
        machine.step(tag, &mut ops);
    }
    let mut now = vec![0; RAM_BYTES];
    machine.ram.read_slice(&mut now, GuestAddress(0)).expect("RAM can be read");
    for (page, (now, was)) in now.chunks(4096).zip(machine.shadow.chunks(4096)).enumerate() {
        if now != was {
            let changed = (0..4096).filter(|i| now[*i] != was[*i]).map(|i| page * 4096 + i);
            let wrong: Vec<usize> = changed.filter(|at| !machine.open[*at]).collect();
            assert!(wrong.is_empty(), "bytes of RAM changed that were never mapped for writing: {wrong:x?}");
        }
    }
    let stats = machine.core.finish().stats;
    assert_eq!(stats.live_mappings, machine.live.len() as u64);
}

impl Machine {
    fn step(&mut self, tag: u8, ops: &mut Ops<'_>) {
        match tag % tag::COUNT {
            tag::MAP => self.map(u64::from(ops.u32()) % RAM, u64::from(ops.u16()) % LONGEST, ops.u8(), ops.u8()),
            tag::UNMAP => {
                let (which, how) = (usize::from(ops.u8()), ops.u8());
                if !self.live.is_empty() {
                    let live = self.live.swap_remove(which % self.live.len());
                    // Now and then with the wrong direction.
                    let direction = if how & 0xf0 == 0xf0 { direction(how) } else { live.direction };
                    let ranges = vec![(Iova(live.iova), live.len)];
                    let call = UnmapCall { family: Family::Single, ranges, direction, attrs: live.attrs, cpu_addr: 0 };
                    assert_eq!(self.core.call(CALLER, &ApiCall::Unmap(call)), Answer::Done);
                }
            }
            tag::SYNC => {
                let (which, offset, len, how) = (ops.u8(), u64::from(ops.u16()), u64::from(ops.u16()), ops.u8());
                if let Some(live) = self.pick(which) {
                    let ranges = vec![(Iova(live.iova.wrapping_add(offset)), len)];
                    let call = SyncCall { for_cpu: how & 1 != 0, sg: false, ranges, direction: live.direction };
                    assert_eq!(self.core.call(CALLER, &ApiCall::Sync(call)), Answer::Done);
                }
            }
            tag::NEAR => {
                let (which, offset, len, how) = (ops.u8(), u64::from(ops.u16()), ops.u16(), ops.u8());
                if let Some(live) = self.pick(which) {
                    self.access(live.iova.wrapping_add(offset).wrapping_sub(64), len.into(), how);
                }
            }
            tag::FAR => {
                let (at, len, how) = (ops.u64(), ops.u16(), ops.u8());
                self.access(at, len.into(), how);
            }
            tag::STORE => {
                let (at, len, value) = (u64::from(ops.u32()) % RAM, usize::from(ops.u16()) % 9000, ops.u8());
                let at_byte = usize::try_from(at).unwrap_or(0);
                let len = len.min(RAM_BYTES - at_byte);
                self.ram.write_slice(&vec![value; len], GuestAddress(at)).expect("RAM can be written");
                self.shadow[at_byte..at_byte + len].fill(value);
            }
            _ => {
                self.master = ops.u8() & 1 != 0;
                self.core.set_bus_master(DEVICE, self.master);
            }
        }
    }

    fn pick(&self, which: u8) -> Option<Live> {
        self.live.get(usize::from(which) % self.live.len().max(1)).copied()
    }

    fn map(&mut self, gpa: u64, len: u64, way: u8, how: u8) {
        let direction = direction(way);
        let attrs = if how & 7 == 7 { Attrs::SKIP_CPU_SYNC } else { Attrs::empty() };
        let call = MapCall {
            family: Family::Single,
            extents: vec![Extent { gpa: Gpa(gpa), len }],
            direction,
            attrs,
            limits: Limits { mask: if how & 8 == 0 { u64::MAX } else { 0xffff_ffff }, ..Limits::default() },
            kind: PageKind::Slab,
            object: (0, 0),
            cpu_addr: 0,
        };
        let Answer::Handles(handles) = self.core.call(CALLER, &ApiCall::Map(call)) else { return };
        assert!(gpa + len <= RAM, "{len} bytes at {gpa:#x} were mapped");
        assert_eq!(handles.len(), 1);
        let (iova, mapped) = (handles[0].0.0, handles[0].1);
        assert_eq!((iova % 4096, mapped), (gpa % 4096, len));
        assert!(self.live.iter().all(|l| iova + len <= l.iova || l.iova + l.len <= iova), "a handle is given twice");
        self.live.push(Live { iova, len, direction, attrs });
        if direction != Direction::ToDevice {
            let at = usize::try_from(gpa).unwrap_or(0);
            self.open[at..at + usize::try_from(len).unwrap_or(0)].fill(true);
        }
    }

    fn access(&self, at: u64, len: usize, how: u8) {
        let mut data = vec![0xa5; len];
        let allowed =
            self.master && self.live.iter().any(|l| l.iova <= at && at.checked_add(len as u64).is_some_and(|end| end <= l.iova + l.len));
        let done = match how % 8 {
            0 => self.view.read_slice(&mut data, GuestAddress(at)).is_ok(),
            1 => self.view.polling().read_slice(&mut data, GuestAddress(at)).is_ok(),
            2 => self.view.prefetching().read_slice(&mut data, GuestAddress(at)).is_ok(),
            3 => self.view.consume(Iova(at), len).is_ok() && self.master,
            4 => {
                // Slices that are dropped half-way.
                let slices = self.view.get_slices(GuestAddress(at), len, Permissions::ReadWrite);
                slices.is_ok_and(|mut slices| matches!(slices.next(), Some(Ok(slice)) if slice.len() <= len))
            }
            5 => {
                let _flight = self.view.begin(Iova(at), len);
                self.view.write_slice(&data, GuestAddress(at)).is_ok()
            }
            _ => self.view.write_slice(&data, GuestAddress(at)).is_ok(),
        };
        assert!(!done || allowed || len == 0, "the device reached {len} bytes at {at:#x}");
    }
}

fn direction(n: u8) -> Direction {
    [Direction::Bidirectional, Direction::ToDevice, Direction::FromDevice][usize::from(n) % 3]
}
