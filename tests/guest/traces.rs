//! Histories that no driver of ncdma can make: played on the core by hand, recorded, and judged by `dmavet replay` as a user would.
//!
//! ncdma works while the doorbell is written and never on after that, and a device model that comes with dmavet stops at a reset. What
//! another one may do is played here.

use crate::tool::dmavet;
use dmavet_coherence::{
    Answer, ApiCall, Attrs, Bdf, Caller, Code, Coherence, Config, Direction, DmaView, Extent, Family, Frame, Gpa, Iova, Limits, MapCall,
    PageKind, Requester, UnmapCall,
};
use dmavet_trace::Recorder;
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 8 << 20;
const BUFFER: Gpa = Gpa(1 << 20);
const LENGTH: u64 = 256;
const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

/// A history and what is to come of it.
pub struct Scenario {
    pub name: &'static str,
    /// What is found, all of it.
    pub expect: &'static [Code],
    /// The function of the first finding's offence.
    pub offender: &'static str,
    /// The rules it comes near to.
    pub near_misses: &'static [Code],
    play: fn(&Bench),
}

/// Every history.
pub fn scenarios() -> Vec<Scenario> {
    let bad = |name, code: &'static [Code], offender, play| Scenario { name, expect: code, offender, near_misses: &[], play };
    let good = |name, near: &'static [Code], play| Scenario { name, expect: &[], offender: "", near_misses: near, play };
    vec![
        bad("unmap-in-flight", &[Code::DV115], "remove", |bench| {
            let dma = bench.map();
            bench.kick("start");
            let _transfer = bench.view.begin(dma, 64);
            bench.unmap(dma, "remove");
            assert!(bench.view.write_slice(&[1; 64], GuestAddress(dma.0)).is_err());
        }),
        good("stopped-before-unmap", &[Code::DV115, Code::DV208], |bench| {
            let dma = bench.map();
            bench.kick("start");
            let transfer = bench.view.begin(dma, 64);
            bench.write(dma);
            // The driver stops the device: it drops what it was doing.
            bench.kick("stop");
            drop(transfer);
            bench.unmap(dma, "remove");
        }),
        bad("dma-after-reset", &[Code::DV502], "", |bench| {
            let dma = bench.map();
            bench.kick("start");
            bench.write(dma);
            bench.core.reset_device(DEVICE);
            assert!(bench.view.write_slice(&[1; 64], GuestAddress(dma.0)).is_err());
            bench.unmap(dma, "remove");
        }),
        good("set-up-after-reset", &[Code::DV502, Code::DV501], |bench| {
            let dma = bench.map();
            bench.core.reset_device(DEVICE);
            bench.core.set_bus_master(DEVICE, true);
            bench.kick("start");
            bench.write(dma);
            bench.unmap(dma, "remove");
        }),
        bad("mapping-table-full", &[Code::DV901], "", |bench| {
            let handles: Vec<Iova> = (1..=MAPPINGS).map(|page| bench.map_at(BUFFER.0 + page * 4096)).collect();
            assert_eq!(bench.try_map(BUFFER.0), Answer::Failed);
            handles.into_iter().for_each(|dma| bench.unmap(dma, "remove"));
        }),
        good("mapping-table-just-full", &[Code::DV901], |bench| {
            let handles: Vec<Iova> = (1..=MAPPINGS).map(|page| bench.map_at(BUFFER.0 + page * 4096)).collect();
            bench.kick("start");
            bench.write(handles[0]);
            handles.into_iter().for_each(|dma| bench.unmap(dma, "remove"));
        }),
    ]
}

/// The most mappings of the machine.
const MAPPINGS: u64 = 64;

/// A machine without a guest.
struct Bench {
    core: Coherence,
    view: DmaView,
}

impl Bench {
    fn new(recorder: &Arc<Recorder>) -> Self {
        let file = tempfile::tempfile().expect("file");
        file.set_len(RAM).expect("room");
        let range = (GuestAddress(0), usize::try_from(RAM).expect("fits"), Some(FileOffset::new(file, 0)));
        let ram = Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).expect("memory"));
        let mut config = Config::for_ram(RAM);
        config.max_mappings = u32::try_from(MAPPINGS).expect("fits");
        let core = Coherence::with_tap(config, ram, Some(recorder.clone())).expect("core");
        core.add_device(DEVICE, "model");
        core.set_bus_master(DEVICE, true);
        let bench = Self { view: core.view(DEVICE), core };
        bench.call("probe", &ApiCall::Bound { driver: "driver".into() });
        bench
    }

    fn call(&self, function: &str, call: &ApiCall) -> Answer {
        let site = self.core.intern_site(vec![Frame::new(0xffff_ffff_c000_0000, format!("{function}+0x10/0x40 [driver]"))]);
        self.core.call(Caller { requester: DEVICE, site, cpu: 0 }, call)
    }

    fn kick(&self, function: &str) {
        self.core.kick(DEVICE, self.core.intern_site(vec![Frame::new(0xffff_ffff_c000_1000, format!("{function}+0x20/0x40 [driver]"))]));
    }

    fn try_map(&self, gpa: u64) -> Answer {
        self.call(
            "probe",
            &ApiCall::Map(MapCall {
                family: Family::Single,
                extents: vec![Extent { gpa: Gpa(gpa), len: LENGTH }],
                direction: Direction::FromDevice,
                attrs: Attrs::empty(),
                limits: Limits::default(),
                kind: PageKind::Slab,
                object: (0, 0),
                cpu_addr: 0,
            }),
        )
    }

    fn map_at(&self, gpa: u64) -> Iova {
        let Answer::Handles(handles) = self.try_map(gpa) else { panic!("not mapped") };
        handles[0].0
    }

    fn map(&self) -> Iova {
        self.map_at(BUFFER.0)
    }

    fn write(&self, dma: Iova) {
        self.view.write_slice(&[7; 64], GuestAddress(dma.0)).expect("the device may");
    }

    fn unmap(&self, dma: Iova, function: &str) {
        let ranges = vec![(dma, LENGTH)];
        let call = UnmapCall { family: Family::Single, ranges, direction: Direction::FromDevice, attrs: Attrs::empty(), cpu_addr: 0 };
        self.call(function, &ApiCall::Unmap(call));
    }
}

/// Plays a history and writes its trace, with the plan and the verdict of a guest that `dmavet replay` looks for.
fn record(scenario: &Scenario, path: &Path) {
    let recorder = Arc::new(Recorder::new(Box::new(File::create(path).expect("trace"))));
    let plan = json!({
        "version": 3, "command": [], "title": scenario.name, "kernel": "", "release": "", "initrd": "", "append": [], "memory": RAM, "cpus": 1,
        "devices": ["ncdma"], "modules": [], "sg_merge": false,
        "machine": {"profile": "arm64", "edges": "isolate", "cache": "quiet", "line_size": 64, "seed": 0},
        "watch": {"policy": "off", "backend": "mprotect", "stress": null, "step": false},
        "limits": {"boot": 0, "command": 0, "silence": 0},
        "policy": {"fail_on": "warning", "pedantic": false, "require_coverage": null}, "run_dir": "",
    });
    recorder.note("plan", plan.to_string().as_bytes());
    let bench = Bench::new(&recorder);
    (scenario.play)(&bench);
    bench.call("remove", &ApiCall::Unbound);
    let _ = bench.core.finish();
    let told = json!({
        "stop": "power-off", "workload": 0, "setup_failed": null, "phases": [], "counters": {}, "watch": dmavet_vmm::WatchStats::default(),
    });
    recorder.note("told", told.to_string().as_bytes());
    recorder.finish().expect("a whole trace");
}

#[test]
fn histories_replay_to_their_findings() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for scenario in scenarios() {
        let path = dir.path().join(scenario.name);
        record(&scenario, &path);
        let ran = dmavet(["replay", "--format", "json", path.to_str().expect("UTF-8")]);
        assert_eq!(ran.code, i32::from(!scenario.expect.is_empty()), "{}: {}", scenario.name, ran.all());
        let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let findings = report["findings"].as_array().expect("findings");
        let codes: Vec<Code> = findings.iter().map(|f| f["code"].as_str().expect("code").parse().expect("a code")).collect();
        assert_eq!(codes, scenario.expect, "{}: {}", scenario.name, ran.stdout);
        if let Some(finding) = findings.first().filter(|_| !scenario.offender.is_empty()) {
            let function = finding["offence"]["frames"][0]["function"].as_str().unwrap_or_default();
            assert_eq!(function, scenario.offender, "{}: {finding}", scenario.name);
        }
    }
}
