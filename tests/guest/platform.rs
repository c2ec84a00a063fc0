//! Platform devices: a driver that matches a devicetree string, bound through a PRP0001 node, is checked like one on PCI.

use crate::expect::{Variant, variants};
use crate::tool::{alarms, batch, findings, lab};
use crate::variants::judge;
use serde_json::Value;

/// What goes wrong with data, at the end, with a mask, and before any DMA operation is called.
const VARIANTS: [&str; 5] = ["missing-for-cpu-data", "stale-reuse", "leak", "mask-ignored", "map-vmalloc"];

#[test]
fn an_of_driver_bound_through_prp0001_is_checked_like_a_pci_driver() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let correct = [
        "--module ref:ncdma --device ncdma-platform --watch all --cpus 2",
        "--kernel debian:6.12 --module ref:ncdma --device ncdma-platform --watch all",
        "--kernel debian:7.2 --module ref:ncdma --device ncdma-platform --watch all --cpus 2",
        // Nodes and functions side by side, numbered each for itself.
        "--module ref:ncdma --device ncdma-platform --device ncdma --device ncdma-platform,mask=32",
    ];
    let all = variants();
    let broken: Vec<&Variant> =
        VARIANTS.iter().map(|name| all.iter().find(|v| v.name == *name).unwrap_or_else(|| panic!("no variant {name}"))).collect();
    let mut lines: Vec<String> = correct.map(str::to_owned).into();
    lines.extend(broken.iter().map(|variant| format!("{} --device ncdma-platform", variant.command())));
    let dirs = batch(dir.path(), &lines);

    for (line, dir) in correct.iter().zip(&dirs) {
        let result = findings(dir);
        let log = std::fs::read_to_string(dir.join("workload.log")).expect("workload.log");
        assert_eq!(alarms(&result), Vec::<&Value>::new(), "{line}");
        assert_eq!(result["verdict"]["exit_code"], 0, "{line}: {}\n{log}", result["verdict"]);
        let devices = result["run"]["devices"].as_array().expect("devices");
        assert!(devices.iter().all(|device| device["drivers"][0] == "ncdma"), "{line}: {devices:?}");
        let ok = log.lines().filter(|line| line.contains(": ok (")).count();
        assert_eq!(ok, 10 * devices.len(), "{line}: every test on every device\n{log}");
        let reached = result["coverage"][0]["sites"].as_array().expect("sites").iter().filter(|s| s["reached"] == "yes").count();
        assert!(reached >= 10, "{line}: only {reached} DMA call sites were reached");
    }
    let names: Vec<_> = findings(&dirs[3])["run"]["devices"].as_array().expect("devices").iter().map(|d| d["device"].clone()).collect();
    assert_eq!(names, ["platform:0", "0000:00:02.0", "platform:1"]);

    let wrong: String = broken
        .iter()
        .zip(&dirs[correct.len()..])
        .map(|(variant, dir)| (variant, judge(variant, "platform:0", &findings(dir))))
        .filter(|(_, problem)| !problem.is_empty())
        .map(|(variant, problem)| format!("{}:\n{problem}", variant.name))
        .collect();
    assert!(wrong.is_empty(), "{wrong}");
}
