//! A recorded run of a real guest, judged again without one.

use crate::tool::{batch, dmavet, findings, lab};
use serde_json::Value;
use std::path::Path;

#[test]
fn a_recorded_guest_run_replays_to_the_same_findings() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let stopped = "--record --module ref:ncdma/stale-reuse --stop-on DV101,error";
    let lines = ["--record --module ref:ncdma/stale-reuse", "--record --module ref:ncdma", stopped];
    let dirs = batch(dir.path(), &lines.map(str::to_owned));
    for (dir, code) in dirs.iter().zip([1, 0, 1]) {
        let recorded = findings(dir);
        let json = |path: &str| -> Value {
            let ran = dmavet(["replay", "--format", "json", path]);
            assert_eq!((ran.code, ran.stderr.as_str()), (code, ""), "{}", ran.all());
            serde_json::from_str(&ran.stdout).expect("JSON")
        };
        assert_eq!(json(dir.to_str().unwrap()), recorded, "the run directory");
        // The modules' debug objects are still in the cache: even the file alone gives all of it.
        let trace = dir.join("trace");
        assert_eq!(json(trace.to_str().unwrap()), recorded, "the trace alone");
    }

    assert_report_formats(&dirs[0]);
    assert_compared(&dirs[0], &dirs[1]);
    assert_stopped(&findings(&dirs[2]));

    let whole = std::fs::read(dirs[0].join("trace")).unwrap();
    let broken = dir.path().join("broken");
    let replay = |bytes: &[u8]| {
        std::fs::write(&broken, bytes).unwrap();
        dmavet(["replay", broken.to_str().unwrap()])
    };
    let cut = replay(&whole[..whole.len() - 10]);
    assert!([1, 4].contains(&cut.code) && cut.stderr.contains("has no end"), "{}", cut.all());
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let damaged = replay(&damaged);
    assert!(damaged.code == 2 && damaged.stderr.contains("damaged at offset "), "{}", damaged.all());
    let mut newer = whole;
    newer[8] += 1;
    let newer = replay(&newer);
    assert!(newer.code == 2 && newer.stderr.contains("version 2"), "{}", newer.all());
}

/// The buggy driver and the correct one, either way: what is gone in one is new in the other, and the device got other bytes.
fn assert_compared(buggy: &Path, good: &Path) {
    let compare = |old: &Path, new: &Path, code: i32| -> Value {
        let args = |format: &'static str| ["compare".as_ref(), old.as_os_str(), new.as_os_str(), "--format".as_ref(), format.as_ref()];
        let text = dmavet(args("text"));
        assert!(text.code == code && text.stderr.is_empty() && text.stdout.contains("hand-overs per device access"), "{}", text.all());
        serde_json::from_str(&dmavet(args("json")).stdout).expect("JSON")
    };
    let codes = |list: &Value| -> Vec<String> {
        list.as_array()
            .expect("a list")
            .iter()
            .map(|f| f["code"].as_str().expect("code").to_owned())
            .filter(|code| code == "DV217")
            .collect()
    };
    let fixed = compare(buggy, good, 0);
    assert_eq!((codes(&fixed["gone"]).len(), codes(&fixed["appeared"]).len()), (2, 0), "{fixed}");
    let broken = compare(good, buggy, 1);
    assert_eq!((codes(&broken["gone"]).len(), codes(&broken["appeared"]).len()), (0, 2), "{broken}");
    let read = &broken["data"]["compared"]["read"];
    assert!(read["both"].as_u64() > Some(0) && read["new_only"].as_u64() > Some(0), "the device read stale bytes: {broken}");
    let same = compare(good, good, 0);
    let data = &same["data"]["compared"];
    assert_eq!((&data["read"]["old_only"], &data["written"]["new_only"]), (&Value::from(0), &Value::from(0)), "{same}");
    assert!(data["written"]["both"].as_u64() > Some(0), "{same}");
}

/// The run ended with its first error, before the workload did.
fn assert_stopped(report: &Value) {
    let (verdict, found) = (&report["verdict"], report["findings"].as_array().expect("findings"));
    assert_eq!((&verdict["exit_code"], &verdict["workload"]), (&Value::from(1), &Value::Null), "{verdict}");
    assert!(verdict["reason"].as_str().expect("a reason").contains("stopped at"), "{verdict}");
    let errors: Vec<&Value> = found.iter().filter(|finding| finding["severity"] == "error").collect();
    assert!(errors.len() == 1 && errors[0]["code"] == verdict["stopped_at"], "{found:?}");
}

/// `dmavet report` gives the run's own text, and every other format names the finding at its source line.
fn assert_report_formats(dir: &Path) {
    let report = |format: &str| {
        let ran = dmavet(["report".as_ref(), dir.as_os_str(), "--format".as_ref(), format.as_ref()]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.all());
        ran.stdout
    };
    let text = report("text");
    assert_eq!(text, std::fs::read_to_string(dir.join("report.txt")).expect("report.txt"));
    let title = text.lines().find_map(|line| line.strip_prefix("dmavet: error: ")).expect("an error");
    let json = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    assert_eq!(json(&report("json")), findings(dir));
    let (code, line) = (title.split(' ').next().expect("a code"), title.trim_end_matches(')').rsplit(':').next().expect("a line"));
    let result = &json(&report("sarif"))["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], code);
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"].to_string(), line);
    assert!(report("ktap").lines().any(|line| line.starts_with("  not ok") && line.ends_with(title)), "{}", report("ktap"));
    assert!(report("junit").contains(&format!("name=\"{title}\"")), "{}", report("junit"));
    let page = report("html");
    assert!(page.contains("\"whole\":true") && page.contains(&format!("<noscript><pre>{}", text.lines().next().expect("a line"))));
    let offences = json(&report("perfetto"))["traceEvents"].as_array().expect("events").iter().filter(|e| e["cat"] == "offence").count();
    assert!(offences >= 1, "the findings are in the trace");
}

#[test]
fn what_is_no_trace_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ran = dmavet(["replay".as_ref(), dir.path().as_os_str()]);
    assert!(ran.code == 2 && ran.stderr.contains("--record"), "{}", ran.all());
    let text = dir.path().join("text");
    std::fs::write(&text, "not a trace").unwrap();
    let ran = dmavet(["replay".as_ref(), text.as_os_str()]);
    assert!(ran.code == 2 && ran.stderr.contains("text: this is not a trace of dmavet"), "{}", ran.all());
    let ran = dmavet(["replay", "/nowhere/trace"]);
    assert!(ran.code == 2 && ran.stderr.contains("/nowhere/trace"), "{}", ran.all());
}
