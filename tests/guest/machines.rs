//! Other machines and other stock kernels: the verdicts do not depend on them.

use crate::tool::{alarms, batch, findings, lab};

#[test]
fn newer_stock_kernels_give_the_same_verdicts() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut lines = Vec::new();
    for kernel in ["debian:6.12", "debian:7.2"] {
        for module in ["ref:ncdma --cpus 2", "ref:ncdma/stale-reuse", "ref:ncdma/short-sync"] {
            lines.push(format!("--kernel {kernel} --module {module}"));
        }
    }
    let dirs = batch(dir.path(), &lines);
    for (line, dir) in lines.iter().zip(&dirs) {
        let result = findings(dir);
        let mut codes: Vec<&str> = alarms(&result).iter().filter_map(|f| f["code"].as_str()).collect();
        codes.dedup();
        let expected: &[&str] = match line {
            l if l.ends_with("stale-reuse") => &["DV217"],
            l if l.ends_with("short-sync") => &["DV214"],
            _ => &[],
        };
        assert_eq!(codes, expected, "{line}: {}", result["verdict"]);
        // Slab memory must not pass for user memory, where differences are not judged.
        assert_eq!(result["volatile"]["counters"]["foreign_offences"], 0, "{line}");
    }
}

#[test]
fn the_correct_driver_is_silent_on_other_machines() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let lines = [
        "--module ref:ncdma --sg merge",
        "--module ref:ncdma --line-size 128",
        // RAM above 4 GiB and more CPUs.
        "--module ref:ncdma --line-size 32 --memory 4096 --cpus 4",
        // Handles below 256 MiB, which is where RAM is.
        "--module ref:ncdma --device ncdma --device ncdma,mask=28",
    ];
    let dirs = batch(dir.path(), &lines.map(str::to_owned));
    for (line, dir) in lines.iter().zip(&dirs) {
        let result = findings(dir);
        assert_eq!(alarms(&result), Vec::<&serde_json::Value>::new(), "{line}");
        assert_eq!(result["verdict"]["exit_code"], 0, "{line}: {}", result["verdict"]);
        let devices = result["run"]["devices"].as_array().expect("devices");
        assert!(devices.iter().all(|d| d["drivers"][0] == "ncdma"), "{line}: {devices:?}");
    }
}

#[test]
fn the_correct_driver_is_silent_whatever_the_caches_do() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let lines = [
        "--module ref:ncdma --profile riscv --cache evict",
        "--module ref:ncdma --profile arm --cache prefetch",
        "--module ref:ncdma --profile mips --edges line",
        "--module ref:ncdma --profile parisc --cache random --seed 7",
        "--module ref:ncdma --profile swiotlb",
        "--module ref:ncdma --profile worst --edges line --cache random --seed 7",
        // The same bug is an error where for_cpu does nothing, and shows as old data.
        "--module ref:ncdma/rearm-without-sync",
        "--module ref:ncdma/rearm-without-sync --profile mips",
    ];
    let dirs = batch(dir.path(), &lines.map(str::to_owned));
    for (line, dir) in lines.iter().zip(&dirs) {
        let result = findings(dir);
        let codes: Vec<&str> = alarms(&result).iter().filter_map(|f| f["code"].as_str()).collect();
        let broken = line.ends_with("rearm-without-sync --profile mips");
        assert_eq!(codes, Vec::from_iter(broken.then_some("DV222")), "{line}: {}", result["verdict"]);
        assert_eq!(result["verdict"]["exit_code"], u64::from(broken), "{line}: {}", result["verdict"]);
        let profile = line.split("--profile ").nth(1).map_or("arm64", |rest| rest.split(' ').next().unwrap_or(rest));
        assert_eq!(result["run"]["profile"], profile, "{line}");
    }
}
