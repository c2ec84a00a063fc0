//! Recorded runs to draw: a small driver with bugs, and a busy one without.

use crate::bench::{self, BUFFER, Bench, DEVICE, map_call};
use crate::tool::dmavet;
use dmavet_coherence::{
    Answer, ApiCall, Attrs, CpuAccess, CpuOp, Direction, Extent, Family, Frame, Gate, Gpa, Guard, Iova, MapCall, SyncCall, UnmapCall,
    WatchPolicy, Witness,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use vm_memory::{Bytes as _, GuestAddress};

/// What the busy run does to each of its mappings: as many events.
pub const EVENTS_EACH: u64 = 8;

/// The run directory of a recorded run.
pub struct Run {
    pub dir: TempDir,
}

impl Run {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What `dmavet report` prints of it.
    pub fn report(&self, format: &str) -> String {
        report(self.path(), format)
    }
}

/// What `dmavet report` prints of a run directory or of findings.
pub fn report(path: &Path, format: &str) -> String {
    let ran = dmavet(["report".as_ref(), path.as_os_str(), "--format".as_ref(), format.as_ref()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.all());
    ran.stdout
}

/// Lets the core watch every page.
#[derive(Debug)]
struct Open;

impl Gate for Open {
    fn apply(&self, _: &[(Gpa, Guard)], _: &mut Vec<Gpa>) {}
}

/// The CPU in a function of the driver.
struct In(&'static str);

impl Witness for In {
    fn stack(&mut self) -> Vec<Frame> {
        vec![Frame::at(0xffff_ffff_c000_0010, format!("{}+0x10/0x40 [driver]", self.0))]
    }
    fn in_driver(&mut self, _: &str) -> bool {
        true
    }
    fn allocator(&mut self) -> Option<String> {
        None
    }
}

fn ranges(dma: Iova, len: u64) -> Vec<(Iova, u64)> {
    vec![(dma, len)]
}

fn map(bench: &Bench, function: &str, call: MapCall) -> Iova {
    let Answer::Handles(handles) = bench.call(function, &ApiCall::Map(call)) else { panic!("not mapped") };
    handles[0].0
}

fn sync(bench: &Bench, function: &str, for_cpu: bool, (dma, len): (Iova, u64), direction: Direction) {
    bench.call(function, &ApiCall::Sync(SyncCall { for_cpu, sg: false, ranges: ranges(dma, len), direction }));
}

fn unmap(bench: &Bench, family: Family, function: &str, (dma, len): (Iova, u64), direction: Direction) {
    let call = UnmapCall { family, ranges: ranges(dma, len), direction, attrs: Attrs::empty(), cpu_addr: 0 };
    bench.call(function, &ApiCall::Unmap(call));
}

fn cpu(bench: &Bench, function: &'static str, gpa: u64, len: u32, write: bool) {
    let accesses = [CpuAccess { gpa: Gpa(gpa), len, read: !write, write }];
    let op = CpuOp { accesses: &accesses, cpu: 0, user: false, rip: 0xffff_ffff_c000_0010 };
    bench.core.cpu_access(&op, &mut In(function), &mut || ());
}

const DIRECTIONS: [Direction; 3] = [Direction::ToDevice, Direction::FromDevice, Direction::Bidirectional];

/// A bit of everything, with three bugs: a buffer used again without a sync, a read without one, and a write after the unmap.
fn story(bench: &Bench) {
    let [to, from, _] = DIRECTIONS;
    bench.core.set_gate(std::sync::Arc::new(Open));
    let ring = MapCall { family: Family::Coherent, direction: Direction::Bidirectional, ..map_call(BUFFER.0 + 0x10_0000, 4096) };
    let ring = map(bench, "drv_probe", ring);
    let tx = map(bench, "drv_tx", MapCall { direction: to, ..map_call(BUFFER.0, 4096) });
    bench.kick("drv_tx");
    let read = |dma: Iova, len: usize| bench.view.read_slice(&mut vec![0; len], GuestAddress(dma.0)).expect("the device may");
    read(ring, 16);
    read(tx, 256);
    sync(bench, "drv_tx", true, (tx, 4096), to);
    bench.ram.write_slice(&[0x5a; 64], GuestAddress(BUFFER.0)).expect("RAM");
    bench.kick("drv_tx");
    read(tx, 256);

    let rx = map(bench, "drv_rx_refill", map_call(BUFFER.0 + 4096, 4096));
    bench.kick("drv_rx_refill");
    for frame in 0..2 {
        bench.view.write_slice(&[0x40 + frame; 64], GuestAddress(rx.0)).expect("the device may");
        bench.core.signalled(DEVICE);
        if frame == 0 {
            cpu(bench, "drv_rx_poll", BUFFER.0 + 4096, 8, false);
        }
        sync(bench, "drv_rx_poll", true, (rx, 64), from);
        cpu(bench, "drv_rx_poll", BUFFER.0 + 4096, 8, false);
        sync(bench, "drv_rx_poll", false, (rx, 64), from);
    }

    let list = MapCall {
        family: Family::Sg,
        extents: (0..3).map(|n| Extent { gpa: Gpa(BUFFER.0 + 0x4000 + n * 0x2000), len: 1024 }).collect(),
        ..map_call(0, 0)
    };
    let Answer::Handles(entries) = bench.call("drv_probe", &ApiCall::Map(list)) else { panic!("not mapped") };
    bench.view.write_slice(&[1; 1024], GuestAddress(entries[1].0.0)).expect("the device may");
    let call = SyncCall { for_cpu: true, sg: true, ranges: entries.clone(), direction: from };
    bench.call("drv_rx_poll", &ApiCall::Sync(call));
    let call = UnmapCall { family: Family::Sg, ranges: entries, direction: from, attrs: Attrs::empty(), cpu_addr: 0 };
    bench.call("drv_remove", &ApiCall::Unmap(call));

    unmap(bench, Family::Single, "drv_remove", (rx, 4096), from);
    bench.kick("drv_remove");
    assert!(bench.view.write_slice(&[1; 64], GuestAddress(rx.0)).is_err());
    unmap(bench, Family::Single, "drv_remove", (tx, 4096), to);
    unmap(bench, Family::Coherent, "drv_remove", (ring, 4096), Direction::Bidirectional);
}

/// `mappings` buffers, each filled by the device, taken, given back, filled again and unmapped; one of the first is
/// read too early.
fn busy(bench: &Bench, mappings: u64) {
    bench.core.set_gate(std::sync::Arc::new(Open));
    for n in 0..mappings {
        let gpa = BUFFER.0 + n % 512 * 4096;
        let dma = map(bench, "drv_rx_refill", map_call(gpa, 4096));
        bench.view.write_slice(&[1; 64], GuestAddress(dma.0)).expect("the device may");
        bench.core.signalled(DEVICE);
        if n == 10 {
            cpu(bench, "drv_rx_poll", gpa, 8, false);
        }
        sync(bench, "drv_rx_poll", true, (dma, 64), Direction::FromDevice);
        cpu(bench, "drv_rx_poll", gpa, 8, false);
        sync(bench, "drv_rx_poll", false, (dma, 64), Direction::FromDevice);
        bench.view.write_slice(&[2; 64], GuestAddress(dma.0)).expect("the device may");
        unmap(bench, Family::Single, "drv_rx_poll", (dma, 4096), Direction::FromDevice);
    }
}

/// The driver's source: what is at an offset does not matter, that there is a line does.
const SOURCE: &str = r"/* A driver to look at: only its functions are of interest. */
extern volatile int registers[64];
#define STEP registers[0] = registers[1] + registers[2]; registers[3] ^= registers[4]; registers[5] = registers[6];
int drv_probe(void)
{
	STEP
	return registers[7];
}
int drv_tx(void)
{
	STEP
	return registers[8]; /* </script><b>no markup</b> */
}
int drv_rx_refill(void)
{
	STEP
	return registers[9];
}
int drv_rx_poll(void)
{
	STEP
	return registers[10];
}
int drv_remove(void)
{
	STEP
	return registers[11];
}
";

/// Compiles the driver; the modules of a plan that has it.
fn driver(dir: &Path) -> Value {
    let (source, object) = (dir.join("driver.c"), dir.join("driver.ko"));
    std::fs::write(&source, SOURCE).expect("source");
    let status = Command::new("gcc")
        .args(["-g", "-O1", "-fno-pic", "-fcf-protection=none", "-c", "-o"])
        .args([&object, &source])
        .status()
        .expect("gcc is needed for this test");
    assert!(status.success());
    json!([{"name": "driver", "debug": object, "under_test": true}])
}

fn run(title: &str, play: impl FnOnce(&Bench)) -> Run {
    let dir = tempfile::tempdir().expect("temporary directory");
    let trace: PathBuf = dir.path().join("trace");
    bench::record(title, &driver(dir.path()), &trace, |config| config.watch = WatchPolicy::All, play);
    let ran = dmavet(["replay".as_ref(), "--format".as_ref(), "json".as_ref(), trace.as_os_str()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""), "{}", ran.all());
    std::fs::write(dir.path().join("findings.json"), ran.stdout).expect("findings.json");
    Run { dir }
}

/// The small driver with bugs. Its title is not what a page would want.
pub fn small() -> Run {
    run("</script><script>alert(1)</script> & \"driver\"", story)
}

/// The busy driver.
pub fn large(mappings: u64) -> Run {
    run("busy", |bench| busy(bench, mappings))
}
