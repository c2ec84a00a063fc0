//! A machine without CPUs: memory, the coherence core and one device, for scripted drivers that call the DMA API themselves.

use dmavet_coherence::{
    Answer, ApiCall, Attrs, Bdf, Caller, Code, Coherence, Config, Direction, Extent, Family, Gpa, Iova, Limits, MapCall, PageKind,
    Requester, SiteId, UnmapCall,
};
use dmavet_devices::bus::{DeviceContext, DeviceMemory, PciFunction};
use dmavet_devices::pci::NoInterrupts;
use std::sync::Arc;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 4 << 20;
pub(super) const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

pub(super) struct Bench {
    pub(super) core: Coherence,
    ram: Arc<GuestMemoryMmap>,
    pub(super) function: Box<dyn PciFunction>,
}

impl Bench {
    /// The device of a specification, decoding and mastering the bus, its driver bound.
    pub(super) fn new(spec: &str, driver: &str) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(RAM).unwrap();
        let range = (GuestAddress(0), usize::try_from(RAM).unwrap(), Some(FileOffset::new(file, 0)));
        let ram = Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).unwrap());
        let core = Coherence::new(Config::for_ram(RAM), ram.clone()).unwrap();
        core.add_device(DEVICE, spec);
        let view = core.view(DEVICE);
        let context = DeviceContext { memory: DeviceMemory { poll: view.polling(), used: view }, msi: Arc::new(NoInterrupts), number: 0 };
        let function = dmavet_devices::build(&spec.parse().unwrap(), context).unwrap();
        let mut bench = Self { core, ram, function };
        bench.call(&ApiCall::Bound { driver: driver.into() });
        bench.function.write_config(4, &[6, 0]);
        bench.core.set_bus_master(DEVICE, true);
        bench
    }

    pub(super) fn call(&self, call: &ApiCall) -> Answer {
        self.core.call(Caller { requester: DEVICE, site: SiteId::default(), cpu: 0 }, call)
    }

    pub(super) fn map(&self, family: Family, gpa: u64, len: u64, direction: Direction) -> Iova {
        let answer = self.call(&ApiCall::Map(MapCall {
            family,
            extents: vec![Extent { gpa: Gpa(gpa), len }],
            direction,
            attrs: Attrs::empty(),
            limits: Limits { mask: u64::MAX, ..Limits::default() },
            kind: PageKind::Slab,
            object: (0, 0),
            cpu_addr: if family == Family::Coherent { gpa } else { 0 },
        }));
        match answer {
            Answer::Handles(handles) => handles[0].0,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn unmap(&self, iova: Iova, len: u64, direction: Direction) {
        let call = UnmapCall { family: Family::Single, ranges: vec![(iova, len)], direction, attrs: Attrs::empty(), cpu_addr: 0 };
        assert_eq!(self.call(&ApiCall::Unmap(call)), Answer::Done);
    }

    pub(super) fn free_coherent(&self, iova: Iova, cpu_addr: u64, len: u64) {
        let (family, direction) = (Family::Coherent, Direction::Bidirectional);
        let call = UnmapCall { family, ranges: vec![(iova, len)], direction, attrs: Attrs::empty(), cpu_addr };
        assert_eq!(self.call(&ApiCall::Unmap(call)), Answer::Done);
    }

    pub(super) fn write(&self, gpa: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    pub(super) fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    /// The codes of all findings.
    pub(super) fn codes(self) -> Vec<Code> {
        self.core.finish().findings.iter().map(|finding| finding.code).collect()
    }
}
