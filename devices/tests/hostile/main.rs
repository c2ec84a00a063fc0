//! Guests that misprogram devices: whatever they write, no panic, no hang, a bounded number of accesses to memory for each register access,
//! and a reset brings the device back.
//!
//! Every model is attacked with every case of the families it belongs to. A new model is in the first two without a line here; its own family
//! is one line in [`FAMILIES`].

mod bench;
mod ncdma;
mod pci;
mod registers;
mod virtio;

use bench::Bench;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A name and what the guest does.
type Case = (&'static str, fn(&mut Bench));

/// Cases that go for the same devices.
struct Family {
    name: &'static str,
    /// Whether a device belongs to it.
    fits: fn(&str, &Bench) -> bool,
    cases: &'static [Case],
}

const FAMILIES: [Family; 4] = [
    Family { name: "registers", fits: |_, _| true, cases: registers::CASES },
    Family { name: "pci", fits: |_, bench| bench.is_pci(), cases: pci::CASES },
    Family { name: "virtio", fits: |name, _| name.starts_with("virtio-"), cases: virtio::CASES },
    Family { name: "ncdma", fits: |name, _| name.starts_with("ncdma"), cases: ncdma::CASES },
];

#[test]
fn every_device_survives_every_case() {
    let mut names = BTreeSet::new();
    let (mut runs, mut failed) = (0, Vec::new());
    for model in dmavet_devices::models() {
        for family in FAMILIES.iter().filter(|family| (family.fits)(model.name, &Bench::new(model.name))) {
            for (name, attack) in family.cases {
                names.insert((family.name, *name));
                runs += 1;
                let attacked = catch_unwind(AssertUnwindSafe(|| {
                    let mut bench = Bench::new(model.name);
                    attack(&mut bench);
                    bench.finish();
                }));
                if attacked.is_err() {
                    failed.push(format!("{}, {}: {name}", model.name, family.name));
                }
            }
        }
    }
    for (number, (family, name)) in (1..).zip(&names) {
        println!("{number:3} {family}: {name}");
    }
    println!("{} cases, {runs} attacks on {} devices", names.len(), dmavet_devices::models().len());
    assert!(failed.is_empty(), "{} attacks were not survived:\n{}", failed.len(), failed.join("\n"));
    let all: usize = FAMILIES.iter().map(|family| family.cases.len()).sum();
    assert_eq!(names.len(), all, "two cases of a family have the same name, or a family has no device");
    assert!(names.len() >= 60, "only {} cases", names.len());
}
