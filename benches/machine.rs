//! The machine's figures of the budgets, measured in one go: what an agent call costs beside a null MMIO exit, boot time to
//! init by phase, memory beyond guest RAM. `cargo xtask bench` runs it with the release build in `DMAVET`.
//!
//! On a machine without VMX or SVM everything runs in the lab; only the ratios mean something there.

use dmavet_images::cache::Cache;
use dmavet_images::kernel::{KernelSpec, kernel};
use dmavet_images::module::{self, ModuleSource};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Boots measured; the median is printed.
const BOOTS: usize = 5;

fn main() {
    let binary = std::env::var_os("DMAVET").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_dmavet")), PathBuf::from);
    let dir = tempfile::tempdir().expect("temporary directory");
    let cache = Cache::open(None).expect("cache");
    let stock = kernel(&cache, &KernelSpec::default(), false, &|step| eprintln!("{step}")).expect("debian:6.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guest");
    let source = ModuleSource::from_dir("dmavet_bench", &source).expect("benches/guest");
    let built = module::build(&cache, &stock, &source, &|step| eprintln!("{step}")).unwrap_or_else(|e| panic!("{e}"));

    let mut lines = vec![format!("--module {} --device ncdma -- cat /sys/module/dmavet_bench/parameters/result", built.guest_ko.display())];
    lines.extend((0..BOOTS).map(|_| "--module ref:ncdma".to_owned()));
    let file = dir.path().join("batch");
    std::fs::write(&file, lines.join("\n")).expect("batch file");
    let out = dir.path().join("out");
    let status = Command::new(&binary)
        .args(["batch", "--quiet", "--out"])
        .args([&out, &file])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("dmavet starts");
    assert!(status.code().is_some(), "dmavet batch: {status}");

    calls(&out.join("001"));
    boots(&(2..BOOTS + 2).map(|n| out.join(format!("{n:03}"))).collect::<Vec<_>>());
}

fn calls(run_dir: &Path) {
    let log = std::fs::read_to_string(run_dir.join("workload.log")).expect("workload.log of the measured run");
    let mut figures = BTreeMap::new();
    for line in log.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(least), Some(median)) = (words.next(), words.next(), words.next()) {
            figures.insert(name.to_owned(), (least.parse::<f64>().expect("ns"), median.parse::<f64>().expect("ns")));
        }
    }
    let (null_least, null_median) = figures.get("null_mmio_exit").copied().expect("null_mmio_exit was measured");
    println!("agent calls, in null MMIO exits ({:.1} us each; stack walked and known)", null_median / 1e3);
    println!("  {:<24} {:>8} {:>8}", "", "median", "least");
    for (name, (least, median)) in &figures {
        println!("  {name:<24} {:>8.2} {:>8.2}", median / null_median, least / null_least);
    }
}

fn boots(run_dirs: &[PathBuf]) {
    let mut phases: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut order = Vec::new();
    let mut beyond = Vec::new();
    let mut pages = 0;
    for dir in run_dirs {
        let text = std::fs::read_to_string(dir.join("findings.json")).expect("findings.json");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        for phase in report["volatile"]["phases"].as_array().expect("phases") {
            let name = phase[0].as_str().expect("name").to_owned();
            if !order.contains(&name) {
                order.push(name.clone());
            }
            phases.entry(name).or_default().push(phase[1].as_u64().expect("ms"));
        }
        let counters = &report["volatile"]["counters"];
        beyond.extend(counters["memory_beyond_guest"].as_u64());
        pages = counters["peak_tracked_pages"].as_u64().unwrap_or(0);
    }
    println!("time from power-on until a phase began, median of {} boots", run_dirs.len());
    for name in order {
        println!("  {name:<24} {:>8.2} s", median(phases.get(&name).map_or(&[], Vec::as_slice)) as f64 / 1e3);
    }
    let live = pages * 3 * 4096;
    println!(
        "memory beyond guest RAM  {:.1} MiB resident, program text included (budget 5 MiB + 3 pages for each of {pages} live pages = {:.1} MiB)",
        median(&beyond) as f64 / f64::from(1 << 20),
        (5.0 * f64::from(1 << 20) + live as f64) / f64::from(1 << 20)
    );
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}
