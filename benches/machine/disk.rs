//! virtio-blk: throughput, and exits for each request, without the agent, under each watch, and QEMU's.

use crate::batch;
use crate::bed::{self, Bed};
use crate::figures::{Budgets, Series};
use crate::inside::Taken;
use std::path::Path;

/// Guests of each kind, in turn. Every other one reads more, so that what dmavet counts over a whole run can be told for one read.
const ROUNDS: usize = 4;
const READS: [u64; 2] = [200, 600];
/// Reads of 1 MiB.
const LARGE: u64 = 32;
const DISK_BYTES: u64 = 64 << 20;
/// dmavet without its agent, and with it under each watch.
const BARE: &str = "dmavet without agent";
const WATCHES: [(&str, &str); 3] = [("dmavet --watch off", "off"), ("dmavet --watch auto", "auto"), ("dmavet --watch all", "all")];
const QEMU: &str = "QEMU q35";

/// Adds the machines.
pub fn gather(bed: &mut Bed<'_>, dir: &Path) {
    let disk = dir.join("disk");
    // The command line is checked here, where the run is not made.
    std::fs::File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).expect("disk");
    bed.disk(&disk, DISK_BYTES);
    let reader = bed::reader(dir);
    let more: [(&str, &[u8]); 2] = [("/bench/init", include_bytes!("guest/init")), ("/bench/reader", &reader)];
    let device = format!("virtio-blk,file={}", disk.display());
    let large = LARGE.to_string();
    let plan = |bed: &Bed<'_>, watch: &str, reads: u64| {
        let (name, reads) = (format!("disk-{watch}-{reads}"), reads.to_string());
        bed.plan(&name, &["--device", &device, "--watch", watch, "--", "/bench/reader", "/dev/vda", &reads, &large], &more)
    };
    let words = ["rdinit=/bench/init"];
    let bare_words = ["rdinit=/bench/init", "bench=bare"];
    let drive = format!("if=none,id=disk,format=raw,file={}", disk.display());
    let machine = ["-M", "q35", "-drive", &drive, "-device", "virtio-blk-pci,drive=disk"];
    let plans = READS.map(|reads| WATCHES.map(|(_, watch)| plan(bed, watch, reads)));
    for round in 0..ROUNDS {
        let plans = &plans[round % READS.len()];
        let mut bare = plans[0].clone();
        bare["agent"] = false.into();
        bed.dmavet(&format!("{BARE} disk {round}"), &bare, &bare_words, None);
        for ((name, _), plan) in WATCHES.iter().zip(plans) {
            bed.dmavet(&format!("{name} disk {round}"), plan, &words, None);
        }
        bed.qemu(&format!("{QEMU} disk {round}"), &machine, true, Bed::initrd(&plans[0]), &bare_words, None);
    }
}

/// What the reader of one guest says, and what KVM counted meanwhile.
struct Reading {
    /// Of 4 KiB and of 1 MiB: MiB/s, requests the kernel made, exits to the program beyond those of a pause.
    small: Part,
    large: Part,
}

struct Part {
    reads: f64,
    mib_per_s: f64,
    requests: f64,
    exits: f64,
    all_exits: f64,
}

fn reading(taken: &Taken) -> Reading {
    let figures = &taken.mark("figures").words;
    let numbers: Vec<f64> = figures.split_whitespace().skip(1).map(|word| word.parse().expect("a number")).collect();
    let counted = |names: &[&str], from: &str, to: &str| -> f64 {
        let at = |mark: &str| -> Option<f64> {
            let kvm = &taken.mark(mark).kvm;
            names.iter().map(|name| kvm.get(*name).map(|count| *count as f64)).sum()
        };
        at(to).zip(at(from)).map_or(f64::NAN, |(to, from)| to - from)
    };
    let part = |at: usize, mib: f64, from: &str, to: &str| {
        let beyond = |names: &[&str]| counted(names, from, to) - counted(names, "idle", "rand");
        Part {
            reads: numbers[at],
            requests: numbers[at + 1],
            mib_per_s: numbers[at] * mib / (numbers[at + 2] / 1e9),
            exits: beyond(&["io_exits", "mmio_exits"]),
            all_exits: beyond(&["exits"]),
        }
    };
    Reading { small: part(0, 4.0 / 1024.0, "rand", "next"), large: part(3, 1.0, "next", "done") }
}

/// Prints.
pub fn print(taken: &[Taken], budgets: &mut Budgets) {
    let of = |name: &str| -> Vec<&Taken> {
        let rounds = (0..ROUNDS).map(|round| format!("{name} disk {round}"));
        rounds.map(|name| taken.iter().find(|one| one.name == name).expect("a run")).collect()
    };
    let readings = |name: &str| -> Vec<Reading> { of(name).into_iter().map(reading).collect() };
    let bare = readings(BARE);
    println!(
        "\nvirtio-blk, one read at a time past the guest's page cache: median of {ROUNDS} guests (least to most), in turn; \
         times those without the agent are of the same round"
    );
    for (what, unit, part) in [
        ("4 KiB, random", "reads/s", (|reading: &Reading| &reading.small) as fn(&Reading) -> &Part),
        ("1 MiB, in sequence", "MiB/s", |reading| &reading.large),
    ] {
        println!("  {what:<22} {unit:<26} {:<22} requests per read, exits per read: to the program, all", "of without agent");
        for name in [BARE].into_iter().chain(WATCHES.map(|(name, _)| name)).chain([QEMU]) {
            let own = readings(name);
            let scale = if unit == "MiB/s" { 1.0 } else { 256.0 };
            let speed: Series = own.iter().map(|one| part(one).mib_per_s * scale).collect();
            let ratio: Series = own.iter().zip(&bare).map(|(one, bare)| part(one).mib_per_s / part(bare).mib_per_s).collect();
            let each = |of: fn(&Part) -> f64| -> Series { own.iter().map(|one| of(part(one)) / part(one).reads).collect() };
            println!(
                "  {name:<22} {speed:<26.1} {ratio:<22} {:<6.2} {:<22.1} {:.1}",
                each(|p| p.requests).median(),
                each(|p| p.exits),
                each(|p| p.all_exits)
            );
            if what.starts_with("4 KiB")
                && let Some(watch) = WATCHES.iter().position(|(other, _)| *other == name)
            {
                let added: Series = own
                    .iter()
                    .zip(&bare)
                    .map(|(one, bare)| (part(one).exits / part(one).reads) - (part(bare).exits / part(bare).reads))
                    .collect();
                println!("  {:<22} adds {added:.1} exits to the program for each read", "");
                if watch == 0 {
                    budgets.at_most("virtio-blk 4 KiB --watch off: agent calls added per read", added.median(), 8.0);
                }
            }
        }
    }
    counted(&of, budgets);
}

/// What dmavet counts itself, for one 4 KiB read: the difference between runs with more and with fewer.
fn counted<'a>(of: &dyn Fn(&str) -> Vec<&'a Taken>, budgets: &mut Budgets) {
    println!("  dmavet's own counters for one 4 KiB read");
    let per_read = |name: &str, value: &dyn Fn(&serde_json::Value) -> f64| -> f64 {
        let runs = of(name);
        let of_kind = |kind: usize| -> Series {
            runs.iter().skip(kind).step_by(READS.len()).map(|one| value(&batch::report(&one.directory)["volatile"])).collect()
        };
        (of_kind(1).median() - of_kind(0).median()) / (READS[1] - READS[0]) as f64
    };
    for name in [BARE].into_iter().chain(WATCHES.map(|(name, _)| name)) {
        print!("  {name:<22}");
        for counter in ["exits_mmio-write", "exits_mmio-read", "exits_trapped", "mappings", "unmaps", "syncs_for_cpu", "syncs_for_device"] {
            print!(
                " {} {:.2},",
                counter.trim_start_matches("exits_"),
                per_read(name, &|report| report["counters"][counter].as_f64().unwrap_or(0.0))
            );
        }
        let flips = |which: &str| per_read(name, &|report| report["watch"]["events"][which].as_f64().unwrap_or(0.0));
        println!(" flips {:.2} in {:.2} calls", flips("flips"), flips("flip_calls"));
        if name.ends_with("auto") {
            budgets.at_most("virtio-blk 4 KiB --watch auto: protection flips per read", flips("flips"), 3.0);
        }
    }
    for (name, _) in WATCHES {
        for one in of(name) {
            let report = batch::report(&one.directory);
            assert_eq!(report["verdict"]["exit_code"], 0, "{}: {}\n{}", one.name, report["verdict"], one.said());
        }
    }
}
