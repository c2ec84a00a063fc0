//! A guest program that misprograms every device there is, in one boot: the machine survives, stays responsive, and ends with a verdict.

use crate::tool::{batch, build, findings, lab};
use dmavet_images::module::ModuleSource;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The most one case may take, in milliseconds: a thousand exits in software emulation.
const MOST_MS: u64 = 20_000;

#[test]
fn every_device_survives_a_driver_without_manners() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let module = build(&ModuleSource::from_dir("hostile", &source).expect("tests/hostile")).ko;
    let script = dir.path().join("show.sh");
    std::fs::write(&script, "cat /sys/kernel/debug/hostile\necho still here\n").expect("script");
    let models: Vec<&str> = dmavet_devices::models().iter().map(|model| model.name).filter(|name| attacked(name)).collect();
    let devices: String = models.iter().map(|model| format!(" --device {model}")).collect();
    let line = format!("--module {} --script {} --cpus 2 --silence-timeout 120{devices}", module.display(), script.display());
    let dirs = batch(dir.path(), &[line]);

    let result = findings(&dirs[0]);
    let log = std::fs::read_to_string(dirs[0].join("workload.log")).expect("workload.log");
    // A broken driver is what it is; the machine ended in good order and says what it saw.
    assert_eq!(result["verdict"]["exit_code"], 1, "{}\n{log}", result["verdict"]);
    assert!(log.lines().any(|line| line == "still here"), "the guest did not get that far:\n{log}");
    assert!(result["findings"].as_array().is_some_and(|findings| !findings.is_empty()), "nothing was found");

    let (mut cases, mut by_device, mut slowest) = (BTreeSet::new(), BTreeMap::<&str, usize>::new(), 0);
    for line in log.lines().filter(|line| line.ends_with(" ms")) {
        let mut parts = line.splitn(2, ": ");
        let (device, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (name, time) = rest.rsplit_once(": ").unwrap_or_else(|| panic!("{line}"));
        let time: u64 = time.trim_end_matches(" ms").parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        slowest = slowest.max(time);
        assert!(time < MOST_MS, "{line}");
        cases.insert(name);
        *by_device.entry(device).or_default() += 1;
    }
    println!("{} cases on {} devices, the slowest took {slowest} ms: {by_device:?}\n{cases:#?}", cases.len(), by_device.len());
    assert_eq!(by_device.len(), models.len(), "{by_device:?}");
    assert!(by_device.values().all(|count| *count >= 40), "{by_device:?}");
    assert!(cases.len() >= 60, "only {} cases", cases.len());
}

/// The devices tests/hostile binds to.
fn attacked(model: &str) -> bool {
    model.starts_with("ncdma") || model.starts_with("virtio-")
}
