//! The hot paths of the core against plain guest memory. `cargo bench -p dmavet-coherence`
//!
//! Budgets (design, section 12): a view access of 16 bytes at most 60 ns more than plain memory; 4 KiB at half the throughput
//! or more; map + unmap and a sync pair of 4 KiB at most three copies of 4 KiB plus 300 ns, flat from 1 to 1,000,000 mappings; memory
//! at most three pages for each live mapped page.

use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use dmavet_coherence::*;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 256 << 20;
const RAM_BYTES: usize = 256 << 20;
const BUF: u64 = 0x10_0000;
const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));
const CALLER: Caller = Caller { requester: DEVICE, site: SiteId(0), cpu: 0 };

fn memory() -> Arc<GuestMemoryMmap> {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).expect("memory for the benchmark"))
}

fn core(ram: &Arc<GuestMemoryMmap>) -> Coherence {
    let core = Coherence::new(Config::for_ram(RAM), Arc::clone(ram)).expect("a core");
    core.set_bus_master(DEVICE, true);
    core
}

fn map_call(gpa: u64, len: u64, direction: Direction) -> ApiCall {
    ApiCall::Map(MapCall {
        family: Family::Single,
        extents: vec![Extent { gpa: Gpa(gpa), len }],
        direction,
        attrs: Attrs::empty(),
        limits: Limits { mask: u64::MAX, ..Limits::default() },
        kind: PageKind::Slab,
        object: (0, 0),
        cpu_addr: 0,
    })
}

fn map(core: &Coherence, call: &ApiCall) -> Iova {
    match core.call(CALLER, call) {
        Answer::Handles(handles) => handles[0].0,
        other => panic!("{other:?}"),
    }
}

fn unmap_call(iova: Iova, len: u64, direction: Direction) -> ApiCall {
    ApiCall::Unmap(UnmapCall { family: Family::Single, ranges: vec![(iova, len)], direction, attrs: Attrs::empty(), cpu_addr: 0 })
}

fn sync_call(for_cpu: bool, iova: Iova, len: u64, direction: Direction) -> ApiCall {
    ApiCall::Sync(SyncCall { for_cpu, sg: false, ranges: vec![(iova, len)], direction })
}

fn view(c: &mut Criterion) {
    let ram = memory();
    let core = core(&ram);
    core.call(CALLER, &ApiCall::Bound { driver: "bench".into() });
    let dma = map(&core, &map_call(BUF, 4096, Direction::Bidirectional));
    let view = core.view(DEVICE);
    for len in [16usize, 4096] {
        let mut group = c.benchmark_group(format!("view/{len}"));
        group.throughput(Throughput::Bytes(len as u64));
        let mut data = vec![0u8; len];
        group.bench_function("plain_read", |b| b.iter(|| ram.read_slice(black_box(&mut data), GuestAddress(BUF))));
        group.bench_function("view_read", |b| b.iter(|| view.read_slice(black_box(&mut data), GuestAddress(dma.0))));
        group.bench_function("plain_write", |b| b.iter(|| ram.write_slice(black_box(&data), GuestAddress(2 * BUF))));
        group.bench_function("view_write", |b| b.iter(|| view.write_slice(black_box(&data), GuestAddress(dma.0))));
        core.call(CALLER, &sync_call(true, dma, 4096, Direction::Bidirectional));
        group.finish();
    }
    assert_eq!(core.finish().findings.iter().filter(|f| f.severity != Severity::Note).count(), 0);
}

fn calls(c: &mut Criterion) {
    // Making a million mappings takes a while: leave it out when only views are of interest.
    if std::env::args().any(|arg| arg.starts_with("view")) {
        return;
    }
    let ram = memory();
    let core = core(&ram);
    let mut group = c.benchmark_group("copy");
    let mut page = vec![0u8; 4096];
    group.bench_function("4096", |b| b.iter(|| ram.read_slice(black_box(&mut page), GuestAddress(BUF))));
    group.finish();
    let mut live = 0u64;
    for target in [1u64, 1_000, 100_000, 1_000_000] {
        while live + 1 < target {
            // 64 mappings of 64 bytes in every page of the second half of RAM.
            map(&core, &map_call(RAM / 2 + live * 64 % (RAM / 2), 64, Direction::ToDevice));
            live += 1;
        }
        let mut group = c.benchmark_group(format!("calls/{target}"));
        for (name, direction) in [("to_device", Direction::ToDevice), ("from_device", Direction::FromDevice)] {
            let call = map_call(BUF, 4096, direction);
            group.bench_function(format!("map_unmap_4k_{name}"), |b| {
                b.iter(|| {
                    let dma = map(&core, &call);
                    core.call(CALLER, &unmap_call(dma, 4096, direction))
                });
            });
        }
        let dma = map(&core, &map_call(2 * BUF, 4096, Direction::Bidirectional));
        let (for_cpu, for_device) =
            (sync_call(true, dma, 4096, Direction::Bidirectional), sync_call(false, dma, 4096, Direction::Bidirectional));
        group.bench_function("sync_pair_4k_untouched", |b| {
            b.iter(|| {
                core.call(CALLER, &for_cpu);
                core.call(CALLER, &for_device)
            });
        });
        let view = core.view(DEVICE);
        let mut n = 0u8;
        group.bench_function("sync_pair_4k_both_write_all", |b| {
            b.iter_batched(
                || {
                    n = n.wrapping_add(1);
                    view.write_slice(&[n; 4096], GuestAddress(dma.0)).expect("a device write");
                    n
                },
                |n| {
                    core.call(CALLER, &for_cpu);
                    ram.write_slice(&[!n; 4096], GuestAddress(2 * BUF)).expect("a CPU write");
                    core.call(CALLER, &for_device)
                },
                BatchSize::PerIteration,
            );
        });
        core.call(CALLER, &unmap_call(dma, 4096, Direction::Bidirectional));
        group.finish();
    }
}

/// Lists of 1,000 pages, each entry a page of its own, beside one page.
fn lists(c: &mut Criterion) {
    const ENTRIES: u64 = 1000;
    let ram = memory();
    let core = core(&ram);
    let extents: Vec<Extent> = (0..ENTRIES).map(|n| Extent { gpa: Gpa(BUF + n * 8192), len: 4096 }).collect();
    let ApiCall::Map(single) = map_call(BUF, 4096, Direction::Bidirectional) else { return };
    let list = ApiCall::Map(MapCall { family: Family::Sg, extents, ..single });
    let mut group = c.benchmark_group("lists");
    group.bench_function("map_unmap_1000_pages", |b| {
        b.iter(|| {
            let Answer::Handles(ranges) = core.call(CALLER, &list) else { panic!("the list is not mapped") };
            let direction = Direction::Bidirectional;
            core.call(CALLER, &ApiCall::Unmap(UnmapCall { family: Family::Sg, ranges, direction, attrs: Attrs::empty(), cpu_addr: 0 }))
        });
    });
    let Answer::Handles(ranges) = core.call(CALLER, &list) else { panic!("the list is not mapped") };
    let sync = |for_cpu| ApiCall::Sync(SyncCall { for_cpu, sg: true, ranges: ranges.clone(), direction: Direction::Bidirectional });
    let (for_cpu, for_device) = (sync(true), sync(false));
    group.bench_function("sync_pair_1000_pages", |b| {
        b.iter(|| {
            core.call(CALLER, &for_cpu);
            core.call(CALLER, &for_device)
        });
    });
    group.finish();
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

/// What live mappings cost in memory: not a matter of time, so Criterion has no part in it.
const CASES: [(u64, &str); 2] = [(1, "one mapping of 4 KiB in each page"), (64, "64 mappings of 64 bytes in each page")];
/// Names the case a child of this program measures.
const CASE: &str = "DMAVET_BENCH_MEMORY";
const PAGES: u64 = 32_768;

/// Bytes `each` mappings of every page take.
fn memory_of_mappings(each: u64) -> u64 {
    let ram = memory();
    // Guest RAM is there in any case.
    for page in 0..PAGES {
        ram.write_obj(1u8, GuestAddress(RAM / 2 + page * 4096)).expect("a page of RAM");
    }
    let core = core(&ram);
    let before = resident();
    for n in 0..PAGES * each {
        map(&core, &map_call(RAM / 2 + n * 4096 / each, 4096 / each, Direction::Bidirectional));
    }
    assert_eq!(core.stats().live_mappings, PAGES * each);
    resident().saturating_sub(before)
}

/// Measures each case in a process of its own, which has no memory left from before, and leaves the figures for `cargo xtask bench`.
fn measure_memory() {
    let mut lines = String::new();
    for (number, (_, name)) in CASES.iter().enumerate() {
        let program = std::env::current_exe().expect("this program");
        let child = std::process::Command::new(program).env(CASE, number.to_string()).output().expect("a child");
        lines += &format!("{} {PAGES} {name}\n", String::from_utf8_lossy(&child.stdout).trim());
    }
    print!("{lines}");
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/core-memory"), lines).expect("the target folder can be written");
}

fn short() -> Criterion {
    Criterion::default().sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700))
}

criterion_group! { name = benches; config = short(); targets = view, calls, lists }

fn main() {
    if let Ok(case) = std::env::var(CASE) {
        let (each, _) = CASES[case.parse::<usize>().expect("the number of a case")];
        println!("{}", memory_of_mappings(each));
        return;
    }
    measure_memory();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
