//! A machine without a guest: the core, recorded, with calls and accesses made by hand.

use dmavet_coherence::{
    Answer, ApiCall, Attrs, Bdf, Caller, Coherence, Config, Direction, DmaView, Extent, Family, Frame, Gpa, Iova, Limits, MapCall,
    PageKind, Requester, UnmapCall,
};
use dmavet_trace::Recorder;
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// Bytes of memory.
pub const RAM: u64 = 8 << 20;
/// Where buffers may lie.
pub const BUFFER: Gpa = Gpa(1 << 20);
/// Bytes of a buffer.
pub const LENGTH: u64 = 256;
/// The only device.
pub const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

/// The machine.
pub struct Bench {
    pub core: Coherence,
    pub view: DmaView,
    pub ram: Arc<GuestMemoryMmap>,
}

impl Bench {
    fn new(recorder: &Arc<Recorder>, adjust: impl FnOnce(&mut Config)) -> Self {
        let file = tempfile::tempfile().expect("file");
        file.set_len(RAM).expect("room");
        let range = (GuestAddress(0), usize::try_from(RAM).expect("fits"), Some(FileOffset::new(file, 0)));
        let ram = Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).expect("memory"));
        let mut config = Config::for_ram(RAM);
        adjust(&mut config);
        let core = Coherence::with_tap(config, Arc::clone(&ram), Some(recorder.clone())).expect("core");
        core.add_device(DEVICE, "model");
        core.set_bus_master(DEVICE, true);
        Self { view: core.view(DEVICE), core, ram }
    }

    pub fn call(&self, function: &str, call: &ApiCall) -> Answer {
        let site = self.core.intern_site(vec![Frame::new(0xffff_ffff_c000_0000, format!("{function}+0x10/0x40 [driver]"))]);
        self.core.call(Caller { requester: DEVICE, site, cpu: 0 }, call)
    }

    pub fn kick(&self, function: &str) {
        self.core.kick(DEVICE, self.core.intern_site(vec![Frame::new(0xffff_ffff_c000_1000, format!("{function}+0x20/0x40 [driver]"))]));
    }

    pub fn try_map(&self, gpa: u64) -> Answer {
        self.call("probe", &ApiCall::Map(map_call(gpa, LENGTH)))
    }

    pub fn map_at(&self, gpa: u64) -> Iova {
        let Answer::Handles(handles) = self.try_map(gpa) else { panic!("not mapped") };
        handles[0].0
    }

    pub fn map(&self) -> Iova {
        self.map_at(BUFFER.0)
    }

    pub fn write(&self, dma: Iova) {
        self.view.write_slice(&[7; 64], GuestAddress(dma.0)).expect("the device may");
    }

    pub fn unmap(&self, dma: Iova, function: &str) {
        let ranges = vec![(dma, LENGTH)];
        let call = UnmapCall { family: Family::Single, ranges, direction: Direction::FromDevice, attrs: Attrs::empty(), cpu_addr: 0 };
        self.call(function, &ApiCall::Unmap(call));
    }
}

/// `dma_map_single()` of a buffer the device writes.
pub fn map_call(gpa: u64, len: u64) -> MapCall {
    MapCall {
        family: Family::Single,
        extents: vec![Extent { gpa: Gpa(gpa), len }],
        direction: Direction::FromDevice,
        attrs: Attrs::empty(),
        limits: Limits::default(),
        kind: PageKind::Slab,
        object: (0, 0),
        cpu_addr: 0,
    }
}

/// Plays a history and writes its trace, with the plan and the verdict of a guest that `dmavet replay` looks for. `modules` are
/// those of the plan.
pub fn record(title: &str, modules: &Value, path: &Path, adjust: impl FnOnce(&mut Config), play: impl FnOnce(&Bench)) {
    let recorder = Arc::new(Recorder::new(Box::new(File::create(path).expect("trace"))));
    let plan = json!({
        "version": 3, "command": ["dmavet", "run"], "title": title, "kernel": "", "release": "", "initrd": "", "append": [], "memory": RAM,
        "cpus": 1, "devices": ["ncdma"], "modules": modules, "sg_merge": false,
        "machine": {"profile": "arm64", "edges": "isolate", "cache": "quiet", "line_size": 64, "seed": 0},
        "watch": {"policy": "off", "backend": "mprotect", "stress": null, "step": false},
        "limits": {"boot": 0, "command": 0, "silence": 0},
        "policy": {"fail_on": "warning", "pedantic": false, "require_coverage": null}, "run_dir": "",
    });
    recorder.note("plan", plan.to_string().as_bytes());
    let bench = Bench::new(&recorder, adjust);
    bench.call("probe", &ApiCall::Bound { driver: "driver".into() });
    play(&bench);
    bench.call("remove", &ApiCall::Unbound);
    let _ = bench.core.finish();
    let told = json!({
        "stop": "power-off", "workload": 0, "setup_failed": null, "phases": [], "counters": {}, "watch": dmavet_vmm::WatchStats::default(),
    });
    recorder.note("told", told.to_string().as_bytes());
    recorder.finish().expect("a whole trace");
}
