//! The main job on the real thing: a stock kernel in a real guest, the correct driver and every buggy variant of it.

use crate::expect::{Expect, Variant, variants};
use crate::tool::{alarms, batch, findings, nightly};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Every so many variants with findings one is run twice: findings must be the same both times. Nightly all are.
const TWICE_EVERY: usize = 6;

/// The innermost frame of a site that lies in `file`: its source line.
fn line_in(site: &Value, file: &str) -> Option<u64> {
    site["frames"]
        .as_array()?
        .iter()
        .find(|f| f["file"].as_str().is_some_and(|p| Path::new(p).file_name().is_some_and(|n| n == file)))?["line"]
        .as_u64()
}

/// Whether `finding` is what `expect` says of `device`, with the source line of the patched driver.
pub fn matches(variant: &Variant, expect: &Expect, device: &str, finding: &Value) -> bool {
    let site = match expect.site.as_str() {
        "offence" => &finding["offence"],
        "consequence" => &finding["consequence"],
        "handover" => &finding["handover"],
        _ => &finding["mapping"]["made"],
    };
    finding["code"] == expect.code.as_str() && finding["device"] == device && line_in(site, &expect.file) == Some(variant.line(expect))
}

/// What is wrong with the result of a variant run on `device`, empty if nothing.
pub fn judge(variant: &Variant, device: &str, result: &Value) -> String {
    let mut wrong = String::new();
    let alarms = alarms(result);
    for expect in variant.plain() {
        if !alarms.iter().any(|f| matches(variant, expect, device, f)) {
            let _ = writeln!(wrong, "  missing: {} with {} at {:?}", expect.code, expect.site, expect.text);
        }
    }
    for finding in &alarms {
        if !variant.plain().iter().any(|e| matches(variant, e, device, finding)) {
            let offence = line_in(&finding["offence"], "ncdma.c");
            let _ = writeln!(wrong, "  not expected: {} at line {offence:?}: {}", finding["code"], finding["volatile"]["message"]);
        }
    }
    let notes: Vec<&Value> = result["findings"].as_array().expect("findings").iter().filter(|f| f["severity"] == "note").collect();
    if variant.legal && !notes.is_empty() {
        let _ = writeln!(wrong, "  legal, and noted: {} {}", notes[0]["code"], notes[0]["volatile"]["message"]);
    }
    for expect in &variant.notes {
        if !notes.iter().any(|f| matches(variant, expect, device, f)) {
            let _ = writeln!(wrong, "  missing note: {} with {} at {:?}", expect.code, expect.site, expect.text);
        }
    }
    let verdict = &result["verdict"];
    if (verdict["workload"] != 0) != variant.workload_fails {
        let _ = writeln!(wrong, "  the self-test ended with {}", verdict["workload"]);
    }
    // A warning does not fail a run by itself.
    let exit = match (alarms.iter().any(|f| f["severity"] == "error"), variant.workload_fails) {
        (true, _) => 1,
        (false, true) => 3,
        (false, false) => 0,
    };
    if verdict["exit_code"] != exit {
        let _ = writeln!(wrong, "  exit code {} instead of {exit}: {}", verdict["exit_code"], verdict["reason"]);
    }
    if variant.notes.iter().any(|e| e.code == "DV221") && result["untaken"].as_array().is_none_or(Vec::is_empty) {
        let _ = writeln!(wrong, "  the report shows no device-written bytes nobody took");
    }
    wrong
}

/// A result without what may differ between two runs.
fn stable(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "volatile" | "command"))
            .map(|(name, member)| (name.clone(), stable(member)))
            .collect(),
        Value::Array(items) => items.iter().map(stable).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_correct_driver_is_silent_and_every_variant_gives_exactly_its_findings() {
    let _lab = crate::tool::lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let variants = variants();
    assert!(variants.len() >= 14, "{} variants", variants.len());
    let mut lines = vec!["--module ref:ncdma".to_owned(), "--module ref:ncdma --cpus 2".to_owned()];
    lines.extend(variants.iter().map(Variant::command));
    let every = if nightly() { 1 } else { TWICE_EVERY };
    let twice: Vec<usize> = (0..variants.len()).filter(|index| !variants[*index].plain().is_empty()).step_by(every).collect();
    lines.extend(twice.iter().map(|index| variants[*index].command()));
    let dirs = batch(dir.path(), &lines);
    let (good, rest) = dirs.split_at(2);

    for dir in good {
        let result = findings(dir);
        assert_eq!(alarms(&result), Vec::<&Value>::new(), "the correct driver must stay silent");
        assert_eq!(result["verdict"]["exit_code"], 0, "{}", result["verdict"]);
        let reached = result["coverage"][0]["sites"].as_array().expect("sites").iter().filter(|s| s["reached"] == "yes").count();
        assert!(reached >= 10, "only {reached} DMA call sites of ncdma were reached");
    }

    let mut wrong = String::new();
    for (index, variant) in variants.iter().enumerate() {
        let result = findings(&rest[index]);
        let problem = judge(variant, "0000:00:02.0", &result);
        if !problem.is_empty() {
            let _ = writeln!(wrong, "{}:\n{problem}", variant.name);
        }
    }
    for (index, dir) in twice.iter().zip(&rest[variants.len()..]) {
        let (first, second) = (stable(&findings(&rest[*index])), stable(&findings(dir)));
        if first != second {
            let _ = writeln!(wrong, "{}: two runs differ:\n{first}\n{second}", variants[*index].name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");

    the_two_copies_are_real(&variants, rest);
}

/// A missing hand-over is not only flagged, it happens: the other side works on the old bytes.
fn the_two_copies_are_real(variants: &[Variant], dirs: &[PathBuf]) {
    let log = |name: &str| {
        let index = variants.iter().position(|v| v.name == name).unwrap_or_else(|| panic!("no variant {name}"));
        std::fs::read_to_string(dirs[index].join("workload.log")).expect("workload.log")
    };
    let device = log("stale-reuse");
    assert!(device.contains("checksum of the previous contents"), "the device must work on the old bytes:\n{device}");
    let cpu = log("missing-for-cpu-data");
    assert!(cpu.contains("previous contents"), "the guest must read the old bytes:\n{cpu}");
    let codes: BTreeSet<&str> = variants.iter().flat_map(|v| v.alarms.iter().map(|e| e.code.as_str())).collect();
    assert!(codes.len() >= 14, "{codes:?}");
}
