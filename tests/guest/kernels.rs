//! The other stock kernels: the agent and the driver are built for them, and the verdicts are those of 6.1.

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
