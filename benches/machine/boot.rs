//! From the start of the process to the guest's first process, beside QEMU with the same kernel, command line and initramfs.

use crate::batch;
use crate::bed::Bed;
use crate::figures::{Budgets, Series};
use crate::inside::Taken;

/// Boots of each machine, in turn.
const ROUNDS: usize = 5;
const OURS: &str = "dmavet";
/// QEMU's machines: name, options, whether it boots the kernel unpacked on the host, as dmavet does.
const MACHINES: [(&str, &str, bool); 4] = [
    ("QEMU microvm, bzImage", "microvm", false),
    ("QEMU microvm, vmlinux", "microvm", true),
    ("QEMU q35, bzImage", "q35", false),
    ("QEMU q35, vmlinux", "q35", true),
];
/// The guest's first process.
const WORDS: [&str; 1] = ["rdinit=/bench/init"];

/// Adds the machines.
pub fn gather(bed: &mut Bed<'_>) {
    let plan = bed.plan("boot", &["--module", "ref:ncdma"], &[("/bench/init", include_bytes!("guest/init"))]);
    let initrd = Bed::initrd(&plan).to_owned();
    for round in 0..ROUNDS {
        bed.dmavet(&format!("{OURS} boot {round}"), &plan, &WORDS, None);
        for (name, machine, elf) in MACHINES {
            bed.qemu(&format!("{name} boot {round}"), &["-M", machine], elf, &initrd, &WORDS, Some("init"));
        }
    }
}

/// Prints.
pub fn print(taken: &[Taken], budgets: &mut Budgets) {
    let of = |name: &str| -> Vec<&Taken> {
        let rounds = (0..ROUNDS).map(|round| format!("{name} boot {round}"));
        rounds.map(|name| taken.iter().find(|one| one.name == name).expect("a boot")).collect()
    };
    let reached = |boots: &[&Taken]| -> Series { boots.iter().map(|one| one.mark("init").after_ns as f64 / 1e9).collect() };
    let resident = |boots: &[&Taken]| -> Series { boots.iter().map(|one| one.mark("init").resident as f64 / f64::from(1 << 20)).collect() };
    let exits = |boots: &[&Taken], name: &str| -> Series {
        boots.iter().map(|one| one.mark("init").kvm.get(name).map_or(f64::NAN, |count| *count as f64 / 1e3)).collect()
    };
    let ours = of(OURS);
    println!("\nstart of the process to init, same kernel, command line and initramfs: median of {ROUNDS} (least to most), in turn");
    println!("  {:<24} {:<24} {:<10} {:<24} {:<24} thousand exits, of them to the program", "", "seconds", "of ours", "memory, MiB", "");
    let mut best = f64::INFINITY;
    for name in std::iter::once(OURS).chain(MACHINES.map(|(name, ..)| name)) {
        let boots = of(name);
        let time = reached(&boots);
        if name != OURS {
            best = best.min(time.median());
        }
        println!(
            "  {name:<24} {time:<24} {:<10.2} {:<24.1} {:<24.1} port {:.1}, memory {:.1}",
            time.median() / reached(&ours).median(),
            resident(&boots),
            exits(&boots, "exits"),
            exits(&boots, "io_exits"),
            exits(&boots, "mmio_exits"),
        );
    }
    budgets.at_most("boot to init, of the best QEMU's", reached(&ours).median() / best, 1.0);
    let reports: Vec<_> = ours.iter().map(|one| batch::report(&one.directory)).collect();
    println!("phases of those runs of dmavet, seconds from power-on");
    let names: Vec<String> =
        reports[0]["volatile"]["phases"].as_array().expect("phases").iter().map(|p| p[0].as_str().expect("name").to_owned()).collect();
    for name in names {
        println!("  {name:<24} {}", reports.iter().map(|report| batch::phase(report, &name)).collect::<Series>());
    }
    let counter = |name: &str| -> Series { reports.iter().map(|r| r["volatile"]["counters"][name].as_f64().expect("counter")).collect() };
    let (beyond, pages) = (counter("memory_beyond_guest").scaled(1.0 / f64::from(1 << 20)), counter("peak_tracked_pages"));
    println!(
        "memory beyond guest RAM at their end {beyond:.1} MiB, with the program's text; {pages:.0} pages were mapped at most at one time"
    );
    budgets.at_most("memory beyond guest RAM, MiB", beyond.median(), 5.0 + pages.median() * 3.0 * 4096.0 / f64::from(1 << 20));
}
