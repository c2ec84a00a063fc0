//! The other side: a driver and its CPU.

use crate::*;
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;
use std::cell::Cell;
use std::fs::File;
use std::panic::Location;
use std::sync::Arc;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

pub(super) const PAGE: u64 = 4096;
pub(super) const RAM: u64 = 8 << 20;
/// A buffer's place in guest RAM.
pub(super) const BUF: u64 = 0x10_0000;

pub(super) use crate::ids::Direction::{Bidirectional, FromDevice, ToDevice};

thread_local! {
    /// What [`World::new`] plays on in this test.
    static SETTINGS: Cell<(Profile, Edges, Cache, u64)> = const { Cell::new((Profile::Arm64, Edges::Isolate, Cache::Quiet, 0)) };
}

/// Makes every [`World`] of this test from now on such a machine.
pub(super) fn play_on(profile: Profile, edges: Edges, cache: Cache, seed: u64) {
    SETTINGS.set((profile, edges, cache, seed));
}

/// RAM from address 0 on. A file without a disk: tests make thousands.
pub(super) fn new_ram(bytes: u64) -> Arc<GuestMemoryMmap> {
    let file = File::from(rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(bytes).unwrap();
    let range = (GuestAddress(0), usize::try_from(bytes).unwrap(), Some(FileOffset::new(file, 0)));
    Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).unwrap())
}

/// A machine with one device under test, bound and bus master.
pub(super) struct World {
    pub(super) core: Coherence,
    pub(super) ram: Arc<GuestMemoryMmap>,
    pub(super) device: Requester,
    pub(super) view: DmaView,
    _kept: super::Kept,
}

pub(super) const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));
pub(super) const OTHER: Requester = Requester::Pci(Bdf::new(0, 3, 0));

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let ram = new_ram(RAM);
        let mut config = Config::for_ram(RAM);
        (config.profile, config.edges, config.cache, config.seed) = SETTINGS.get();
        change(&mut config);
        let (core, kept) = super::core_over(config, Arc::clone(&ram));
        core.add_device(DEVICE, "test");
        core.set_bus_master(DEVICE, true);
        let world = Self { view: core.view(DEVICE), core, ram, device: DEVICE, _kept: kept };
        world.call(&ApiCall::Bound { driver: "testdrv".into() });
        world
    }

    /// The line of the test as a call stack.
    #[track_caller]
    pub(super) fn here(&self) -> SiteId {
        self.site(&format!("test+{:#x}", Location::caller().line()))
    }

    pub(super) fn site(&self, symbol: &str) -> SiteId {
        self.core.intern_site(vec![Frame::new(0xffff_ffff_8100_0000, symbol.into())])
    }

    #[track_caller]
    pub(super) fn call(&self, call: &ApiCall) -> Answer {
        let site = self.here();
        self.core.call(Caller { requester: self.device, site, cpu: 0 }, call)
    }

    #[track_caller]
    pub(super) fn call_as(&self, requester: Requester, call: &ApiCall) -> Answer {
        let site = self.here();
        self.core.call(Caller { requester, site, cpu: 0 }, call)
    }

    #[track_caller]
    pub(super) fn map_call(&self, call: MapCall) -> Vec<(Iova, u64)> {
        match self.call(&ApiCall::Map(call)) {
            Answer::Handles(handles) => handles,
            other => panic!("map failed: {other:?}"),
        }
    }

    /// dma_map_single
    #[track_caller]
    pub(super) fn map(&self, gpa: u64, len: u64, direction: Direction) -> Iova {
        self.map_call(single(gpa, len, direction))[0].0
    }

    #[track_caller]
    pub(super) fn map_skip(&self, gpa: u64, len: u64, direction: Direction) -> Iova {
        self.map_call(MapCall { attrs: Attrs::SKIP_CPU_SYNC, ..single(gpa, len, direction) })[0].0
    }

    /// dma_alloc_pages
    #[track_caller]
    pub(super) fn alloc_pages(&self, gpa: u64, len: u64, direction: Direction) -> Iova {
        self.map_call(MapCall { family: Family::Pages, cpu_addr: gpa, ..single(gpa, len, direction) })[0].0
    }

    #[track_caller]
    pub(super) fn alloc_coherent(&self, gpa: u64, len: u64) -> Iova {
        self.map_call(MapCall { family: Family::Coherent, cpu_addr: gpa, ..single(gpa, len, Bidirectional) })[0].0
    }

    #[track_caller]
    pub(super) fn unmap(&self, iova: Iova, len: u64, direction: Direction) {
        self.unmap_call(unmap(Family::Single, iova, len, direction));
    }

    #[track_caller]
    pub(super) fn unmap_skip(&self, iova: Iova, len: u64, direction: Direction) {
        self.unmap_call(UnmapCall { attrs: Attrs::SKIP_CPU_SYNC, ..unmap(Family::Single, iova, len, direction) });
    }

    #[track_caller]
    pub(super) fn free_pages(&self, iova: Iova, gpa: u64, len: u64, direction: Direction) {
        self.unmap_call(UnmapCall { cpu_addr: gpa, ..unmap(Family::Pages, iova, len, direction) });
    }

    #[track_caller]
    pub(super) fn unmap_call(&self, call: UnmapCall) {
        assert_eq!(self.call(&ApiCall::Unmap(call)), Answer::Done);
    }

    #[track_caller]
    pub(super) fn for_cpu(&self, iova: Iova, len: u64, direction: Direction) {
        self.sync_call(SyncCall { for_cpu: true, sg: false, ranges: vec![(iova, len)], direction });
    }

    #[track_caller]
    pub(super) fn for_device(&self, iova: Iova, len: u64, direction: Direction) {
        self.sync_call(SyncCall { for_cpu: false, sg: false, ranges: vec![(iova, len)], direction });
    }

    #[track_caller]
    pub(super) fn sync_call(&self, call: SyncCall) {
        assert_eq!(self.call(&ApiCall::Sync(call)), Answer::Done);
    }

    pub(super) fn cpu_write(&self, gpa: u64, data: &[u8]) {
        self.ram.write_slice(data, GuestAddress(gpa)).unwrap();
    }

    pub(super) fn cpu_read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.ram.read_slice(&mut data, GuestAddress(gpa)).unwrap();
        data
    }

    pub(super) fn kick(&self) {
        self.core.kick(self.device, self.site("kick+0x1"));
    }

    pub(super) fn try_read(&self, iova: Iova, len: usize) -> Option<Vec<u8>> {
        let mut data = vec![0; len];
        self.view.read_slice(&mut data, GuestAddress(iova.0)).ok().map(|()| data)
    }

    pub(super) fn read(&self, iova: Iova, len: usize) -> Vec<u8> {
        self.try_read(iova, len).expect("the device may read")
    }

    pub(super) fn try_write(&self, iova: Iova, data: &[u8]) -> bool {
        self.view.write_slice(data, GuestAddress(iova.0)).is_ok()
    }

    pub(super) fn write(&self, iova: Iova, data: &[u8]) {
        assert!(self.try_write(iova, data), "the device may write");
    }

    /// Codes of the findings so far, notes included, with the severity's first letter: `DV201e`.
    pub(super) fn codes(&self) -> Vec<String> {
        let letter = |f: &Finding| f.severity.name().chars().next().unwrap_or('?');
        self.core.finish().findings.iter().map(|f| format!("{}{}", f.code, letter(f))).collect()
    }

    /// The same without notes.
    pub(super) fn bad(&self) -> Vec<String> {
        self.codes().into_iter().filter(|code| !code.ends_with('n')).collect()
    }

    /// The one finding of that code.
    #[track_caller]
    pub(super) fn finding(&self, code: Code) -> Finding {
        let mut found = self.core.finish().findings;
        found.retain(|f| f.code == code);
        assert_eq!(found.len(), 1, "{code}: {found:#?}");
        found.remove(0)
    }

    #[track_caller]
    pub(super) fn silent(&self) {
        let findings = self.core.finish().findings;
        let bad: Vec<_> = findings.iter().filter(|f| f.severity != Severity::Note).map(|f| (f.code, &f.message)).collect();
        assert!(bad.is_empty(), "{bad:?}");
    }
}

pub(super) fn single(gpa: u64, len: u64, direction: Direction) -> MapCall {
    MapCall {
        family: Family::Single,
        extents: vec![Extent { gpa: Gpa(gpa), len }],
        direction,
        attrs: Attrs::empty(),
        limits: Limits { mask: u64::MAX, ..Limits::default() },
        kind: PageKind::Slab,
        object: (0, 0),
        cpu_addr: 0,
    }
}

pub(super) fn list(entries: &[(u64, u64)], direction: Direction) -> MapCall {
    let extents = entries.iter().map(|(gpa, len)| Extent { gpa: Gpa(*gpa), len: *len }).collect();
    MapCall { family: Family::Sg, extents, ..single(0, 0, direction) }
}

pub(super) fn unmap(family: Family, iova: Iova, len: u64, direction: Direction) -> UnmapCall {
    UnmapCall { family, ranges: vec![(iova, len)], direction, attrs: Attrs::empty(), cpu_addr: 0 }
}

/// Settings of a property test: the same cases in every run, unless `PROPTEST_RNG_SEED` asks for others. `cargo xtask model` looks further.
pub fn property(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(asked.unwrap_or(1)), ..ProptestConfig::default() }
}
