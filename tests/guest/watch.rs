//! The CPU watch on real guests: what it costs nothing to be wrong about must not be wrong, whatever the machine.

use crate::tool::{alarms, batch, findings, lab};
use serde_json::Value;
use std::path::Path;

/// Runs the self-test of every device seven times, with a new binding each time.
const AGAIN: &str = "\
for round in 1 2 3 4 5 6 7; do
	for selftest in /sys/kernel/debug/ncdma/*/selftest; do
		echo all > \"$selftest\" || exit 1
		while read -r line; do
			case \"$line\" in *FAIL*) echo \"$line\"; exit 1 ;; esac
		done < \"$selftest\"
	done
	echo \"round $round\"
	cd /sys/bus/pci/drivers/ncdma
	for device in 0000:*; do
		echo \"$device\" > unbind && echo \"$device\" > bind || exit 1
	done
done
";

fn assert_silent(line: &str, dir: &Path) -> Value {
    let result = findings(dir);
    assert_eq!(alarms(&result), Vec::<&Value>::new(), "{line}: the correct driver must stay silent");
    assert_eq!(result["verdict"]["exit_code"], 0, "{line}: {}", result["verdict"]);
    result
}

/// A figure of the watch.
fn figure(result: &Value, name: &str) -> u64 {
    result["volatile"]["watch"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {}", result["volatile"]["watch"]))
}

#[test]
fn the_correct_driver_is_silent_with_every_page_watched() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let script = dir.path().join("again.sh");
    std::fs::write(&script, AGAIN).expect("script");
    let line = |cpus: u32| format!("--module ref:ncdma --watch all --cpus {cpus} --script {}", script.display());
    // 21 runs of the self-test on two CPUs in three boots.
    let lines = [line(2), line(2), line(2), line(4)];
    for (line, dir) in lines.iter().zip(batch(dir.path(), &lines)) {
        let result = assert_silent(line, &dir);
        let log = std::fs::read_to_string(dir.join("workload.log")).expect("workload.log");
        assert!(log.contains("round 7"), "{line}:\n{log}");
        assert!(figure(&result, "watched_bytes") > figure(&result, "content_bytes"), "{line}: {}", result["volatile"]["watch"]);
        assert!(figure(&result, "accesses") > 0 && figure(&result, "refused_pages") == 0, "{line}: {}", result["volatile"]["watch"]);
    }
}

/// The codes of errors and warnings, each once.
fn codes(result: &Value) -> Vec<&str> {
    let mut codes: Vec<&str> = alarms(result).iter().filter_map(|f| f["code"].as_str()).collect();
    codes.dedup();
    codes
}

#[test]
fn every_means_gives_the_same_verdicts() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let means = ["--watch-backend userfaultfd", "--watch-step", "--watch-backend userfaultfd --watch-step --cpus 2"];
    let modules: [(&str, &[&str]); 3] =
        [("ref:ncdma", &[]), ("ref:ncdma/missing-for-cpu-data", &["DV202"]), ("ref:ncdma/write-in-flight", &["DV203"])];
    let runs: Vec<(String, &[&str])> =
        means.iter().flat_map(|by| modules.iter().map(move |(module, codes)| (format!("--module {module} {by}"), *codes))).collect();
    let lines: Vec<String> = runs.iter().map(|(line, _)| line.clone()).collect();
    for ((line, expected), dir) in runs.iter().zip(batch(dir.path(), &lines)) {
        let result = findings(&dir);
        assert_eq!(codes(&result), *expected, "{line}: {}", result["verdict"]);
        if line.contains("--watch-step") {
            let watch = &result["volatile"]["watch"];
            assert!(watch["emulated"].as_object().is_some_and(serde_json::Map::is_empty), "{line}: {watch}");
            assert!(watch["stepped"].as_object().is_some_and(|forms| !forms.is_empty()), "{line}: {watch}");
        }
    }
}

#[test]
fn without_the_watch_writes_are_found_by_content_and_reads_not_at_all() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let runs: [(&str, &[&str], u8); 5] = [
        ("ref:ncdma", &[], 0),
        ("ref:ncdma/missing-for-cpu-data", &[], 3),
        ("ref:ncdma/read-before-unmap", &[], 3),
        ("ref:ncdma/write-in-flight", &["DV203"], 1),
        ("ref:ncdma/stale-reuse", &["DV217"], 1),
    ];
    let lines = runs.map(|(module, _, _)| format!("--module {module} --watch off"));
    for ((module, expected, exit), dir) in runs.iter().zip(batch(dir.path(), &lines)) {
        let result = findings(&dir);
        assert_eq!(codes(&result), *expected, "{module}: {}", result["verdict"]);
        assert_eq!(result["verdict"]["exit_code"], *exit, "{module}: {}", result["verdict"]);
        assert_eq!(result["run"]["watch"]["policy"], "off", "{module}");
        assert!(result["volatile"]["watch"].is_null(), "{module}: {}", result["volatile"]["watch"]);
        let report = std::fs::read_to_string(dir.join("report.txt")).expect("report.txt");
        assert!(report.contains("CPU watch (off): "), "{report}");
    }
}
