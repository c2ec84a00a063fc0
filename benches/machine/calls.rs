//! What an agent call, a trapped access and an ownership flip cost beside a null MMIO exit.

use crate::batch;
use crate::figures::{Budgets, Series};
use dmavet_images::cache::Cache;
use dmavet_images::kernel::KernelFiles;
use dmavet_images::module::{self, ModuleSource};
use std::collections::BTreeMap;
use std::path::Path;

/// Guests for each way to watch, in turn.
const ROUNDS: usize = 3;
/// Ways to watch, by name and options.
const WATCHES: [(&str, &str); 5] = [
    ("off", "--watch off"),
    ("auto", "--watch auto"),
    ("all", "--watch all"),
    ("step", "--watch all --watch-step"),
    ("userfaultfd", "--watch all --watch-backend userfaultfd"),
];
/// Places in [`WATCHES`].
const OFF: usize = 0;
const ALL: usize = 2;
const STEP: usize = 3;
const USERFAULTFD: usize = 4;
/// What every other figure of a guest is divided by.
const EXIT: &str = "null_mmio_exit";

/// Medians of one guest in ns, by what was measured.
type Figures = BTreeMap<String, f64>;

/// Measures and prints.
pub fn measure(binary: &Path, cache: &Cache, kernel: &KernelFiles, dir: &Path, budgets: &mut Budgets) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guest");
    let source = ModuleSource::from_dir("dmavet_bench", &source).expect("benches/guest");
    let built = module::build(cache, kernel, &source, &|step| eprintln!("{step}")).unwrap_or_else(|e| panic!("{e}"));
    // A run in which no device reaches memory checks nothing: behind the measurement, which is over when the module is loaded, another
    // one does.
    let command = "sh -c 'cat /sys/module/dmavet_bench/parameters/result && dd if=/dev/hwrng of=/dev/null bs=16 count=1'";
    let module = built.guest_ko.display();
    let line = |watch: &str| format!("--module {module} --device ncdma --device virtio-rng {watch} -- {command}");
    let lines: Vec<String> = (0..ROUNDS).flat_map(|_| WATCHES.iter().map(|(_, watch)| line(watch))).collect();
    let all: Vec<Figures> = batch::run(binary, dir, &lines).iter().map(|dir| figures(dir)).collect();
    print(&all.chunks(WATCHES.len()).collect::<Vec<_>>(), budgets);
}

/// The figures of `dmavet_bench.c` in one run: least and median, of which the median counts.
fn figures(run_dir: &Path) -> Figures {
    let log = std::fs::read_to_string(run_dir.join("workload.log")).expect("workload.log of the measured run");
    let mut figures = Figures::new();
    for line in log.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(_), Some(median)) = (words.next(), words.next(), words.next()) {
            figures.insert(name.to_owned(), median.parse::<f64>().expect("ns"));
        }
    }
    figures
}

fn print(rounds: &[&[Figures]], budgets: &mut Budgets) {
    let in_exits = |guest: &Figures, name: &str| guest[name] / guest[EXIT];
    // Both guests of a difference are of one round, and each figure is counted in its own guest's exits.
    let beside_off = |watch: usize, name: &str| -> Series {
        rounds.iter().map(|guests| in_exits(&guests[watch], name) - in_exits(&guests[OFF], name)).collect()
    };
    let exit: Series = rounds.iter().map(|guests| guests[OFF][EXIT] / 1e3).collect();
    println!("\nin null MMIO exits ({exit:.1} us each): median of {ROUNDS} guests (least to most), by --watch");
    print!("  {:<24}", "");
    WATCHES.iter().for_each(|(name, _)| print!(" {name:<22}"));
    println!();
    for name in rounds[0][OFF].keys() {
        print!("  {name:<24}");
        for watch in 0..WATCHES.len() {
            let series: Series = rounds.iter().map(|guests| in_exits(&guests[watch], name)).collect();
            print!(" {series:<22}");
        }
        println!();
    }
    let call: Series = rounds.iter().map(|guests| in_exits(&guests[OFF], "sync_for_device_64")).collect();
    budgets.at_most("agent call with a stack seen before, in null MMIO exits", call.median(), 1.6);
    for name in ["trapped_read", "trapped_write", "trapped_lock_inc"] {
        let emulated = beside_off(ALL, name);
        println!("  {name:<24} emulated {emulated:<22} stepped {}", beside_off(STEP, name));
        budgets.at_most(&format!("{name} emulated, in null MMIO exits"), emulated.median(), 3.0);
    }
    for (name, what) in [("map_and_unmap_4096", "without"), ("map_and_unmap_and_touch", "with")] {
        let (mprotect, userfaultfd) = (beside_off(ALL, name), beside_off(USERFAULTFD, name));
        println!("  a flip there and back, {what} the next access: mprotect {mprotect}, userfaultfd {userfaultfd}");
    }
}
