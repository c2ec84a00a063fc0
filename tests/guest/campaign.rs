//! Campaigns on real guests: bugs on error paths, which a plain run does not show.

use crate::expect::{Variant, variants};
use crate::tool::{Ran, alarms, command, findings, nightly};
use crate::variants::matches;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What is enough to find each variant's bug: faults around the place, and the one test of the self-test that comes by there; and whether
/// it is tried every day.
const NARROW: [(&str, &str, &str, bool); 5] = [
    ("error-leak", "map,nth=20..21", "copy", true),
    ("error-unchecked-map", "map,nth=8", "rx", false),
    ("error-retry-no-sync", "irq-lost,nth=1", "checksum", true),
    ("error-timeout-no-unmap", "irq-lost,nth=1", "fill", false),
    ("error-double-completion", "irq-twice,nth=1", "fill", true),
];

fn campaign(dir: &Path, module: &str, arguments: &[&str], test: &str) -> Ran {
    let workload = format!("for t in /sys/kernel/debug/ncdma/*/selftest; do echo {test} > $t; done");
    let mut command = command(["campaign", "--module", module, "--device", "ncdma", "--run-dir"]);
    command.arg(dir).args(arguments).args(["--", "sh", "-c", &workload]);
    command.output().expect("dmavet starts").into()
}

/// What is wrong with the report of a campaign, empty if nothing.
fn judge(variant: &Variant, report: &Value) -> String {
    let mut wrong = String::new();
    let alarms = alarms(report);
    for expect in &variant.alarms {
        if !alarms.iter().any(|f| matches(variant, expect, "0000:00:02.0", f)) {
            let _ = writeln!(wrong, "  missing: {} with {} at {:?}", expect.code, expect.site, expect.text);
        }
    }
    for finding in alarms.iter().filter(|f| !variant.alarms.iter().any(|e| matches(variant, e, "0000:00:02.0", f))) {
        let _ = writeln!(wrong, "  not expected: {} {}", finding["code"], finding["volatile"]["message"]);
    }
    wrong
}

#[test]
fn bugs_on_error_paths_are_found_and_told_with_the_command_that_repeats_them() {
    let _lab = crate::tool::lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let variants = variants();
    let mut wrong = String::new();
    for (name, fault, test, _) in NARROW.into_iter().filter(|(.., daily)| *daily || nightly()) {
        let variant = variants.iter().find(|v| v.name == name).unwrap_or_else(|| panic!("no variant {name}"));
        let out = dir.path().join(name);
        let ran = campaign(&out, &format!("ref:ncdma/{name}"), &["--fault", fault, "-q"], test);
        assert_eq!(ran.code, 1, "{name}: {}", ran.all());
        let problem = judge(variant, &findings(&out));
        if !problem.is_empty() {
            let _ = writeln!(wrong, "{name}:\n{problem}");
        }
        // The last command printed shows it again, alone.
        let line = ran.stdout.lines().find(|line| line.trim_start().starts_with("dmavet run ")).unwrap_or_else(|| panic!("{}", ran.all()));
        let words = shlex::split(line.trim()).expect("words");
        assert_eq!(words.iter().filter(|word| *word == "--fault").count(), 1, "{line}");
        if name == "error-leak" {
            let again = dir.path().join("again");
            let mut again_words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
            let end = again_words.iter().position(|word| *word == "--").expect("a workload");
            let again_dir = again.to_str().expect("UTF-8").to_owned();
            again_words.splice(end..end, ["--run-dir", &again_dir]);
            let ran: Ran = command(&again_words).output().expect("dmavet starts").into();
            assert_eq!(ran.code, 1, "{}", ran.all());
            let problem = judge(variant, &findings(&again));
            assert!(problem.is_empty(), "{line}:\n{problem}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let known: Vec<&str> = variants.iter().filter(|v| v.campaign.is_some()).map(|v| v.name.as_str()).collect();
    assert!(known.iter().all(|name| NARROW.iter().any(|(narrow, ..)| narrow == name)), "{known:?}");
}

#[test]
fn the_correct_driver_is_silent_under_faults_and_after_a_kill() {
    let _lab = crate::tool::lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let cases = if nightly() { 300 } else { 10 };
    let limit = cases.to_string();
    let faults = ["--fault", "map,nth=1..280", "--fault", "alloc,nth=1..6", "--fault", "irq-lost,nth=1..3", "--cases", &limit, "-q"];
    let silent = |ran: &Ran| assert_eq!(ran.code, 0, "{}", ran.all());

    // Killed at some moment of the cases; then on to the end.
    let killed = dir.path().join("killed");
    let workload = "for t in /sys/kernel/debug/ncdma/*/selftest; do echo copy > $t; done";
    let mut arguments = vec!["campaign", "--module", "ref:ncdma", "--device", "ncdma", "--run-dir", killed.to_str().expect("UTF-8")];
    arguments.extend(faults);
    arguments.extend(["--", "sh", "-c", workload]);
    let mut child = command(&arguments).stdout(Stdio::null()).spawn().expect("dmavet starts");
    let results = killed.join("results.jsonl");
    let lines = || std::fs::read_to_string(&results).map_or(0, |text| text.lines().count());
    let limit = Instant::now() + Duration::from_secs(180);
    while lines() < 3 {
        assert!(Instant::now() < limit && child.try_wait().expect("the child").is_none(), "no case was done in time");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("the child");
    let before = lines();
    assert!(before <= cases, "it was to be killed in the middle");
    let resumed: Ran = command(["campaign", "-q", "--resume"]).arg(&killed).output().expect("dmavet starts").into();
    silent(&resumed);
    assert_eq!(lines(), cases + 1, "the run without faults and each case once");
    findings(&killed);
}
