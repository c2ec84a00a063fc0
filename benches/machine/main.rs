//! The figures of the budgets that need a machine, each kind in one boot of the lab where KVM here cannot run Linux:
//!
//! - `calls`: an agent call, a trapped access and an ownership flip beside a null MMIO exit,
//! - `work`: how much slower work is under the watch,
//! - `boot`: from the start of the process to init beside QEMU, by phase, and memory beyond guest RAM,
//! - `disk`: virtio-blk without the agent, under each watch, and QEMU's.
//!
//! `cargo xtask bench` runs it with the release build in `DMAVET`. In the lab only the ratios mean something.

mod batch;
mod bed;
mod boot;
mod calls;
mod disk;
mod figures;
mod inside;
#[path = "../../src/lab/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the program uses more of it")]
mod lab;
mod work;

use bed::Bed;
use dmavet_images::cache::Cache;
use dmavet_images::kernel::{KernelSpec, kernel};
use figures::Budgets;
use std::path::{Path, PathBuf};
use std::time::Instant;

const PARTS: [&str; 4] = ["calls", "work", "boot", "disk"];

fn main() {
    // Cargo adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [inside, job] = args.as_slice()
        && inside == "inside"
    {
        return inside::main(Path::new(job));
    }
    if let Some(other) = args.iter().find(|arg| !PARTS.contains(&arg.as_str())) {
        eprintln!("machine: {other:?} is none of {}", PARTS.join(", "));
        std::process::exit(2);
    }
    let wanted = |part: &str| args.is_empty() || args.iter().any(|arg| arg == part);
    let start = Instant::now();
    let binary = std::env::var_os("DMAVET").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_dmavet")), PathBuf::from);
    let dir = tempfile::tempdir().expect("temporary directory");
    let cache = Cache::open(None).expect("cache");
    let stock = kernel(&cache, &KernelSpec::default(), false, &|step| eprintln!("{step}")).expect("debian:6.1");
    let mut budgets = Budgets::default();
    if wanted("calls") {
        calls::measure(&binary, &cache, &stock, &dir.path().join("calls"), &mut budgets);
    }
    if wanted("work") {
        work::measure(&binary, &dir.path().join("work"));
    }
    let mut parts = Vec::new();
    // One boot of the lab for both.
    let beside = dir.path().join("beside");
    std::fs::create_dir_all(&beside).expect("directory");
    let mut bed = Bed::new(&binary, &cache, &stock, &beside);
    if wanted("boot") {
        boot::gather(&mut bed);
        parts.push("boot");
    }
    if wanted("disk") {
        disk::gather(&mut bed, dir.path());
        parts.push("disk");
    }
    if !parts.is_empty() {
        let taken = bed.run();
        if parts.contains(&"boot") {
            boot::print(&taken, &mut budgets);
        }
        if parts.contains(&"disk") {
            disk::print(&taken, &mut budgets);
        }
    }
    budgets.print();
    println!("\nmeasured in {:.0} s", start.elapsed().as_secs_f64());
}
