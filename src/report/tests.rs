//! A finding of the CPU watch as people and programs get it.

use super::*;
use crate::exit::Exit;

fn frame(function: &str, offset: &str, line: u32) -> SourceFrame {
    let inlined = offset.is_empty();
    SourceFrame { function: function.into(), offset: offset.into(), module: "drv".into(), file: "drv/poll.c".into(), line, inlined }
}

fn site(what: &str, frames: Vec<SourceFrame>) -> ReportSite {
    ReportSite { what: what.into(), frames, guesses: Vec::new() }
}

pub(crate) fn finding(operation: Operation) -> ReportFinding {
    let kernel = SourceFrame { module: String::new(), file: String::new(), line: 0, ..frame("do_softirq", "+0x5c/0x60", 0) };
    let mut offence = site("Offence: CPU access", vec![frame("drv_len", "", 12), frame("drv_poll", "+0x1a/0x80", 40)]);
    offence.guesses.push(Guess { after: 2, frame: kernel });
    ReportFinding {
        code: "DV203".into(),
        slug: "cpu-write-device-owned".into(),
        severity: Severity::Error,
        kind: None,
        device: "0000:00:02.0".into(),
        driver: "drv".into(),
        advice: "Write before the map.".into(),
        mapping: Some(ReportMapping {
            family: "single".into(),
            size: 64,
            direction: "DMA_FROM_DEVICE".into(),
            made: site("Mapped", vec![frame("drv_map", "+0x9/0x10", 7)]),
        }),
        range: Some(ByteRange { offset: 4, len: 4 }),
        handover: None,
        offence: Some(offence),
        access: Some(ReportAccess { operation, user: false }),
        accepted: None,
        consequence: Some(site("And lost here: dma_unmap_single", vec![frame("drv_unmap", "+0x9/0x10", 55)])),
        volatile: FindingVolatile {
            message: "Bytes were written.".into(),
            bytes: Some(TwoSides {
                offset: 4,
                cpu: format!("5a5a0000{}", "00".repeat(28)),
                device: format!("01020000{}", "00".repeat(28)),
            }),
            access: Some(AccessDetail { len: 4, cpu: 1, rip: "0xffffffffc000001a".into(), at: "drv_poll+0x1a/0x80 [drv]".into() }),
            count: 1,
            first_seq: 3,
            last_seq: 3,
            handles: None,
            history: Vec::new(),
        },
    }
}

pub(crate) fn report(findings: Vec<ReportFinding>, watch: Option<WatchReport>) -> Report {
    Report {
        format: Report::FORMAT.into(),
        version: Report::VERSION,
        verdict: Verdict {
            result: Exit::Findings,
            exit_code: 1,
            reason: "1 finding".into(),
            errors: 1,
            warnings: 0,
            notes: 0,
            accepted: 0,
            fail_on: Severity::Error,
            workload: Some(0),
            stopped_at: None,
        },
        run: RunInfo {
            title: "drv.ko".into(),
            command: vec!["dmavet".into(), "run".into()],
            kernel: "6.1.0".into(),
            cpus: 2,
            memory: 1 << 28,
            line_size: 64,
            profile: "arm64".into(),
            edges: "isolate".into(),
            cache: "random".into(),
            seed: 7,
            watch: RunWatch { policy: "auto".into(), backend: "mprotect".into() },
            devices: Vec::new(),
        },
        findings,
        untaken: Vec::new(),
        baseline: None,
        coverage: Vec::new(),
        volatile: RunVolatile { watch, ..RunVolatile::default() },
    }
}

#[test]
fn an_access_reads_like_those_of_the_kernels_own_checkers() {
    let text = text::report(&report(vec![finding(Operation::Write)], None), false);
    for lines in [
        "dmavet: error: DV203 cpu-write-device-owned in drv_len (poll.c:12)\nBytes were written.\n\
         Write of size 4 at drv_poll+0x1a/0x80 [drv] by CPU 1\n",
        "  0x0004  wrote   5a 5a 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n          device  01 02 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n\
         \x20                 ^^ ^^\n\nOffence",
        "  drv_poll+0x1a/0x80 [drv] (drv/poll.c:40)\n  ? do_softirq+0x5c/0x60\n",
        "\nAnd lost here: dma_unmap_single:\n  drv_unmap+0x9/0x10 [drv] (drv/poll.c:55)\n",
        "CPU watch (off): ",
    ] {
        assert!(text.contains(lines), "no {lines:?} in\n{text}");
    }
    let text = text::report(&report(vec![finding(Operation::Read)], None), false);
    assert!(text.contains("\nRead of size 4 at ") && text.contains("  0x0004  read    5a 5a 00 00 "), "{text}");
}

#[test]
fn the_schema_knows_every_member() {
    let watch = WatchReport { summary: "CPU watch (auto): x".into(), ..WatchReport::default() };
    let full = report(vec![finding(Operation::Write), finding(Operation::Read)], Some(watch));
    assert!(text::report(&full, false).contains("\nCPU watch (auto): x\n"));
    let schema = serde_json::from_str(include_str!("../../resources/findings.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    for report in [full, report(vec![finding(Operation::Read)], None)] {
        let value = serde_json::to_value(&report).expect("a report is JSON");
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        let back: Report = serde_json::from_value(value).expect("a report reads back");
        assert_eq!(back.findings.len(), report.findings.len());
    }
}

/// A warning that fails nothing, an error that does, and one in a file below the root of the sources.
fn several() -> Report {
    let warning =
        ReportFinding { severity: Severity::Warning, code: "DV217".into(), slug: "read-of-nothing".into(), ..finding(Operation::Read) };
    let mut below = finding(Operation::Write);
    for frame in below.offence.iter_mut().flat_map(|site| &mut site.frames) {
        frame.file = "/src/a driver/poll.c".into();
    }
    report(vec![finding(Operation::Write), warning, below], None)
}

#[test]
fn ci_servers_get_a_test_case_for_each_finding() {
    let xml = junit::document(&several()).expect("XML");
    let back = quick_junit::Report::deserialize_from_str(&xml).expect("a reader of JUnit takes it");
    let suite = &back.test_suites[0];
    assert_eq!((suite.name.as_str(), suite.tests, suite.failures, suite.errors), ("dmavet drv.ko", 5, 2, 0));
    let names: Vec<&str> = suite.test_cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names[1], "DV203 cpu-write-device-owned in drv_len (poll.c:12)");
    assert!(xml.contains("Write of size 4 at drv_poll+0x1a/0x80 [drv] by CPU 1"), "{xml}");

    let mut broken = report(Vec::new(), None);
    broken.verdict.result = Exit::Timeout;
    let back = quick_junit::Report::deserialize_from_str(&junit::document(&broken).expect("XML")).expect("JUnit");
    assert_eq!((back.test_suites[0].tests, back.test_suites[0].errors), (2, 2), "a run without a whole verdict has not passed");
}

/// The grammar of Documentation/dev-tools/ktap.rst: version, plan, results numbered from 1, subtests two columns further in and before
/// their result; all else is a diagnostic line.
fn ktap_results(lines: &mut std::iter::Peekable<std::str::Lines<'_>>, indent: &str) -> Vec<(bool, String)> {
    let own = |line: &str| line.strip_prefix(indent).map(str::to_owned);
    assert_eq!(lines.next().and_then(own).as_deref(), Some("KTAP version 1"));
    while lines.peek().and_then(|line| own(line)).is_some_and(|line| line.starts_with("# ")) {
        lines.next();
    }
    let plan = lines.next().and_then(own).expect("a plan");
    let planned: usize = plan.strip_prefix("1..").and_then(|n| n.parse().ok()).expect("a plan");
    let mut results = Vec::new();
    while results.len() < planned {
        let line = *lines.peek().expect("as many results as planned");
        if line.strip_prefix(indent).is_some_and(|line| line.starts_with("  KTAP version 1")) {
            let deeper = format!("{indent}  ");
            results.extend(ktap_results(lines, &deeper).into_iter().take(0));
            continue;
        }
        let line = lines.next().and_then(own).expect("a result");
        if line.starts_with("# ") {
            continue;
        }
        let (ok, rest) =
            line.strip_prefix("ok ").map_or_else(|| (false, line.strip_prefix("not ok ").expect("a result")), |rest| (true, rest));
        let (number, name) = rest.split_once(' ').expect("number and name");
        assert_eq!(number.parse(), Ok(results.len() + 1));
        assert!(!name.contains('#'), "{name}: what follows # is a directive");
        results.push((ok, name.to_owned()));
    }
    results
}

#[test]
fn kernel_developers_get_ktap() {
    let text = ktap::document(&several());
    let inner = text.split_once("1..1\n").expect("one test").1;
    let mut lines = inner.lines().peekable();
    let results = ktap_results(&mut lines, "  ");
    assert_eq!(results.iter().map(|(ok, _)| *ok).collect::<Vec<_>>(), [true, false, true, false, true], "{text}");
    assert_eq!(lines.collect::<Vec<_>>(), ["not ok 1 drv.ko"]);
    assert_eq!(ktap_results(&mut text.lines().peekable(), ""), [(false, "drv.ko".to_owned())]);
}

#[test]
fn code_scanning_pages_get_the_source_line() {
    let log = sarif::document(&several(), Some(Path::new("/src")));
    serde_json::from_value::<serde_sarif::sarif::Sarif>(log.clone()).expect("a reader of SARIF takes it");
    let results = log["runs"][0]["results"].as_array().expect("results");
    assert_eq!(results.iter().map(|r| r["level"].as_str()).collect::<Vec<_>>(), [Some("error"), Some("warning"), Some("error")]);
    let place = |result: &serde_json::Value| result["locations"][0]["physicalLocation"].clone();
    assert_eq!(place(&results[0])["artifactLocation"]["uri"], "drv/poll.c");
    assert_eq!(place(&results[0])["region"]["startLine"], 12);
    assert_eq!(place(&results[2])["artifactLocation"]["uri"], "a%20driver/poll.c", "relative to the root of the sources");
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().expect("rules");
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("ruleIndex")).expect("small");
        assert_eq!(rules[index]["id"], result["ruleId"]);
    }
    assert_eq!(results[0]["relatedLocations"][1]["message"]["text"], "Mapped");
}

#[test]
fn only_reports_of_this_version_are_read() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join(Report::FILE);
    let message = |path: &Path| Report::load(path).map(|_| ()).expect_err("it cannot be read").to_string();
    assert!(message(&path).contains("there is no such file"));
    for (text, what) in [
        ("{", "not the findings of a run"),
        (r#"{"format":"other","version":4}"#, "its format is \"other\""),
        (r#"{"format":"dmavet-findings","version":99}"#, "version 99; this dmavet reads version"),
    ] {
        std::fs::write(&path, text).expect("write");
        assert!(message(&path).contains(what), "{}", message(&path));
    }
    std::fs::write(&path, serde_json::to_vec(&several()).expect("JSON")).expect("write");
    assert_eq!(Report::load(&path).expect("a report").findings.len(), 3);
}
