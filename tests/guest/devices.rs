//! Devices whose drivers are the kernel's own: unmodified drivers of a stock kernel bind, their data is right, and nothing is found.

use crate::tool::{alarms, batch, findings, lab, nightly};
use serde_json::Value;
use std::path::Path;

/// What the default workload of a device prints when all was well, and whether it does so for each of them.
const SAID: [(&str, &str, bool); 6] = [
    ("e1000", "pinged and echoed", true),
    ("nvme", "written, read back and compared", true),
    ("virtio-blk", "written, read back and compared", true),
    ("virtio-console", "written and read back", false),
    ("virtio-net", "pinged and echoed", true),
    ("virtio-rng", "read and compared", false),
];

fn assert_clean(line: &str, dir: &Path) {
    let result = findings(dir);
    let log = std::fs::read_to_string(dir.join("workload.log")).expect("workload.log");
    assert_eq!(alarms(&result), Vec::<&Value>::new(), "{line}: a stock driver must stay silent");
    assert_eq!(result["verdict"]["exit_code"], 0, "{line}: {}\n{log}", result["verdict"]);
    for (model, said, each) in SAID {
        let devices = line.matches(&format!("--device {model}")).count();
        if devices > 0 {
            let said = log.lines().filter(|l| l.starts_with(model) && l.ends_with(said)).count();
            assert_eq!(said, if each { devices } else { 1 }, "{line}:\n{log}");
            assert!(!log.contains("no file system was made"), "{line}:\n{log}");
        }
    }
    let devices = result["run"]["devices"].as_array().expect("devices");
    assert_eq!(devices.len(), line.matches("--device ").count(), "{line}: {devices:?}");
    for device in devices {
        let model = device["model"].as_str().expect("model");
        let driver = if model.starts_with("virtio-") { "virtio-pci" } else { model };
        assert_eq!(device["drivers"][0], driver, "{line}: {device}");
    }
}

#[test]
fn stock_drivers_are_silent_and_their_data_is_right() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = dir.path().join("disk");
    let contents: Vec<u8> = (0..=255_u8).cycle().take(2 << 20).collect();
    std::fs::write(&disk, &contents).expect("disk");
    let everything = "--device virtio-blk --device virtio-console --device virtio-net --device virtio-rng";
    let mut lines = vec![
        format!("--watch all --cpus 2 {everything}"),
        format!("--watch all --kernel debian:6.12 {everything}"),
        format!("--watch auto --kernel debian:7.2 --cpus 2 {everything}"),
        "--watch all --sg merge --device nvme,size=8 --device virtio-net,mergeable=off".to_owned(),
    ];
    if nightly() {
        let alone = ["virtio-rng", "virtio-blk,size=8", "virtio-net", "virtio-console"];
        lines.extend(alone.iter().map(|device| format!("--watch all --device {device}")));
        for kernel in ["debian:6.1", "debian:6.12", "debian:7.2"] {
            lines.extend(["auto", "all"].map(|watch| format!("--watch {watch} --kernel {kernel} --cpus 2 {everything} --device nvme")));
        }
    }
    lines.push(
        // A read-only disk beside one that is not: the guest reads what the file holds, and the file stays as it was.
        format!(
            "--device virtio-blk,file={0},readonly=on --device virtio-blk,file={0} --script {1}",
            disk.display(),
            script(dir.path()).display()
        ),
    );
    let dirs = batch(dir.path(), &lines);
    let (last, others) = lines.split_last().expect("lines");
    for (line, dir) in others.iter().zip(&dirs) {
        assert_clean(line, dir);
    }
    let result = findings(&dirs[others.len()]);
    let log = std::fs::read_to_string(dirs[others.len()].join("workload.log")).expect("workload.log");
    assert_eq!(result["verdict"]["exit_code"], 0, "{last}: {}\n{log}", result["verdict"]);
    assert_eq!(alarms(&result), Vec::<&Value>::new(), "{last}");
    assert!(log.contains("as it should be"), "{log}");
    assert!(std::fs::read(&disk).expect("disk") == contents, "the file was changed");
}

#[test]
fn general_purpose_kernels_drive_old_hardware() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    // Slots 2 and 6 share an interrupt line.
    let shared = format!("--device e1000{} --device e1000", " --device virtio-rng".repeat(3));
    let mut lines = vec![format!("--watch all --kernel debian:6.1/generic --cpus 2 {shared}")];
    if nightly() {
        for kernel in ["debian:6.1/generic", "debian:6.12/generic", "debian:7.2/generic"] {
            lines.extend(
                ["auto", "all"].map(|watch| format!("--watch {watch} --kernel {kernel} --cpus 2 --device e1000 --device virtio-net")),
            );
        }
    }
    for (line, dir) in lines.iter().zip(batch(dir.path(), &lines)) {
        assert_clean(line, &dir);
    }
}

/// The unmodified NVMe driver of three kernels: nothing is found, the data is right, and the kernel has nothing to say about the controller.
#[test]
fn the_stock_nvme_driver_is_silent_and_does_not_complain() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = dir.path().join("disk");
    std::fs::write(&disk, (0..=255_u8).cycle().take(2 << 20).collect::<Vec<_>>()).expect("disk");
    // Warnings of the kernel on its console, too.
    let lines = [
        "--watch all --cpus 2 --append loglevel=5 --device nvme".to_owned(),
        "--watch auto --kernel debian:6.12 --cpus 2 --append loglevel=5 --device nvme,hmb=8".to_owned(),
        "--watch all --kernel debian:7.2 --cpus 2 --append loglevel=5 --device nvme --device nvme,size=20,queues=1,hmb=0".to_owned(),
        format!("--append loglevel=5 --device nvme,file={},readonly=on", disk.display()),
    ];
    let dirs = batch(dir.path(), &lines);
    let said: Vec<usize> = lines
        .iter()
        .zip(&dirs)
        .map(|(line, dir)| {
            let result = findings(dir);
            let log = std::fs::read_to_string(dir.join("workload.log")).expect("workload.log");
            let console = std::fs::read_to_string(dir.join("console.log")).expect("console.log");
            assert_eq!(alarms(&result), Vec::<&Value>::new(), "{line}: a stock driver must stay silent");
            assert_eq!(result["verdict"]["exit_code"], 0, "{line}: {}\n{log}", result["verdict"]);
            assert_eq!(result["run"]["devices"][0]["drivers"][0], "nvme", "{line}");
            assert!(!console.contains("nvme"), "{line}: the kernel complains:\n{console}");
            log.lines().filter(|l| l.starts_with("nvme: ") && (l.ends_with("and compared") || l.ends_with("read twice"))).count()
        })
        .collect();
    assert_eq!(said, [1, 1, 2, 1], "every disk was used");
}

/// Compares two disks with the same contents, one of them read-only, and overwrites what can be.
fn script(dir: &Path) -> std::path::PathBuf {
    const SCRIPT: &str = "\
set -e
[ $(cat /sys/block/vda/ro) = 1 ] && [ $(cat /sys/block/vdb/ro) = 0 ]
[ $(cat /sys/block/vda/size) = 4096 ]
cmp /dev/vda /dev/vdb
! dd if=/dev/zero of=/dev/vda bs=4096 count=1 2>/dev/null
dd if=/dev/zero of=/dev/vdb bs=65536 count=32 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
! cmp -s /dev/vda /dev/vdb
echo as it should be
";
    let path = dir.join("disks.sh");
    std::fs::write(&path, SCRIPT).expect("script");
    path
}
