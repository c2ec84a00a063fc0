//! A stock kernel at work while random pages of its memory are closed: data stay intact, the kernel stays content, and nothing is found.

use crate::tool::{alarms, batch, findings, lab};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The guest's work.
fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/stress.sh")
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("workload.log")).expect("workload.log")
}

#[test]
fn a_stock_kernel_works_on_while_random_pages_are_closed() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    // How it is stressed, and at least how many instructions that must have stopped.
    let ways = [
        ("--watch off", 0),
        ("--watch all --watch-stress 100:1", 500),
        ("--watch all --watch-stress 1000:2", 2000),
        ("--watch all --watch-stress 500:3 --cpus 2", 1000),
        ("--watch all --watch-stress 100:4 --watch-step", 500),
        ("--watch all --watch-stress 300:5 --watch-backend userfaultfd", 500),
        ("--watch all --watch-stress 300:6 --kernel debian:6.12", 500),
    ];
    let line = |way: &str| format!("--module ref:ncdma --memory 128 --timeout 900 --script {} {way}", script().display());
    let dirs = batch(dir.path(), &ways.map(|(way, _)| line(way)));
    let undisturbed = log(&dirs[0]);
    assert!(undisturbed.contains("the kernel is content"), "{undisturbed}");
    for ((way, least), dir) in ways.iter().zip(&dirs) {
        let result = findings(dir);
        let watch = &result["volatile"]["watch"];
        println!("{way}: {}", watch["summary"]);
        assert_eq!(alarms(&result), Vec::<&Value>::new(), "{way}");
        assert_eq!(result["verdict"]["exit_code"], 0, "{way}: {}\n{}", result["verdict"], log(dir));
        assert_eq!(log(dir), undisturbed, "{way}");
        if *least == 0 {
            continue;
        }
        let traps: u64 = watch["traps"].as_object().expect("traps").values().filter_map(Value::as_u64).sum();
        assert!(traps >= *least, "{way}: {watch}");
        assert!(watch["events"]["stress_pages"].as_u64() > Some(0), "{way}: {watch}");
        assert_eq!(watch["events"]["watchdog"], 0, "{way}: {watch}");
    }
}
