//! The machine's figures of the budgets, measured in one go: what an agent call, a trapped access and an ownership flip cost beside a
//! null MMIO exit, how much slower work is under the watch, boot time to init by phase, memory beyond guest RAM. `cargo xtask bench` runs it with the release build in `DMAVET`.
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
/// Runs of each workload.
const WORK: usize = 3;
/// Ways to watch, by name and options.
const WATCHES: [(&str, &str); 5] = [
    ("off", "--watch off"),
    ("auto", "--watch auto"),
    ("all", "--watch all"),
    ("step", "--watch all --watch-step"),
    ("userfaultfd", "--watch all --watch-backend userfaultfd"),
];
/// Places in [`WATCHES`].
const ALL: usize = 2;
const STEP: usize = 3;
const USERFAULTFD: usize = 4;
const POLICIES: [&str; 3] = ["off", "auto", "all"];

fn main() {
    let binary = std::env::var_os("DMAVET").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_dmavet")), PathBuf::from);
    let dir = tempfile::tempdir().expect("temporary directory");
    let cache = Cache::open(None).expect("cache");
    let stock = kernel(&cache, &KernelSpec::default(), false, &|step| eprintln!("{step}")).expect("debian:6.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guest");
    let source = ModuleSource::from_dir("dmavet_bench", &source).expect("benches/guest");
    let built = module::build(&cache, &stock, &source, &|step| eprintln!("{step}")).unwrap_or_else(|e| panic!("{e}"));

    let innocent = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guest/innocent.sh");
    let mut lines: Vec<String> = WATCHES
        .iter()
        .map(|(_, watch)| {
            let result = "cat /sys/module/dmavet_bench/parameters/result";
            format!("--module {} --device ncdma {watch} -- {result}", built.guest_ko.display())
        })
        .collect();
    for policy in POLICIES {
        for _ in 0..WORK {
            lines.push(format!("--module ref:ncdma --watch {policy}"));
            lines.push(format!("--module ref:ncdma --watch {policy} --script {}", innocent.display()));
        }
    }
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

    let mut run_dirs = (1..=lines.len()).map(|n| out.join(format!("{n:03}")));
    calls(&run_dirs.by_ref().take(WATCHES.len()).collect::<Vec<_>>());
    work(&run_dirs.by_ref().take(POLICIES.len() * WORK * 2).collect::<Vec<_>>());
    boots(&run_dirs.collect::<Vec<_>>());
}

/// The figures of `dmavet_bench.c` in one run: least and median, ns.
fn figures(run_dir: &Path) -> BTreeMap<String, (f64, f64)> {
    let log = std::fs::read_to_string(run_dir.join("workload.log")).expect("workload.log of the measured run");
    let mut figures = BTreeMap::new();
    for line in log.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(least), Some(median)) = (words.next(), words.next(), words.next()) {
            figures.insert(name.to_owned(), (least.parse::<f64>().expect("ns"), median.parse::<f64>().expect("ns")));
        }
    }
    figures
}

fn calls(run_dirs: &[PathBuf]) {
    let runs: Vec<_> = run_dirs.iter().map(|dir| figures(dir)).collect();
    let in_exits = |run: usize, name: &str| runs[run][name].1 / runs[run]["null_mmio_exit"].1;
    println!("in null MMIO exits ({:.1} us each), medians; by --watch", runs[0]["null_mmio_exit"].1 / 1e3);
    print!("  {:<24}", "");
    WATCHES.iter().for_each(|(name, _)| print!(" {name:>11}"));
    println!();
    for name in runs[0].keys() {
        print!("  {name:<24}");
        (0..runs.len()).for_each(|run| print!(" {:>11.2}", in_exits(run, name)));
        println!();
    }
    println!("  one agent call, stack walked and known {:>5.2}   (budget: at most 1.6)", in_exits(0, "sync_for_device_64"));
    for name in ["trapped_read", "trapped_write", "trapped_lock_inc"] {
        println!(
            "  {name:<24} emulated {:>5.2} (budget: at most 3)   stepped {:>5.2}",
            in_exits(ALL, name) - in_exits(0, name),
            in_exits(STEP, name) - in_exits(0, name)
        );
    }
    for (name, what) in [("map_and_unmap_4096", "without"), ("map_and_unmap_and_touch", "with")] {
        println!(
            "  a flip there and back, {what} the next access: mprotect {:.2}, userfaultfd {:.2}",
            in_exits(ALL, name) - in_exits(0, name),
            in_exits(USERFAULTFD, name) - in_exits(0, name)
        );
    }
}

/// Seconds from the phase `workload` to the phase `teardown`.
fn worked(run_dir: &Path) -> f64 {
    let text = std::fs::read_to_string(run_dir.join("findings.json")).expect("findings.json");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["verdict"]["exit_code"], 0, "{}", report["verdict"]);
    let phases = report["volatile"]["phases"].as_array().expect("phases");
    let at = |name: &str| phases.iter().find(|p| p[0] == name).and_then(|p| p[1].as_f64()).expect("ms");
    (at("teardown") - at("workload")) / 1e3
}

fn work(run_dirs: &[PathBuf]) {
    println!("work beside the same with --watch off, medians of {WORK}");
    for (index, what) in ["ncdma's self-test", "file work, ncdma idle"].iter().enumerate() {
        let seconds: Vec<f64> = run_dirs
            .chunks(WORK * 2)
            .map(|runs| {
                let mut times: Vec<f64> = runs.iter().skip(index).step_by(2).map(|dir| worked(dir)).collect();
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            })
            .collect();
        print!("  {what:<24}");
        POLICIES.iter().zip(&seconds).for_each(|(policy, s)| print!(" {policy} {s:.2} s ({:.2})", s / seconds[0]));
        println!();
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
