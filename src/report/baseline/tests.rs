//! What is accepted, what is not any more, and what is told about it.

use super::*;
use crate::report::tests::{finding, report};
use crate::report::{Format, Operation, text};

const TODAY: &str = "2026-11-22";

fn parse(text: &str) -> Result<Baseline, String> {
    Baseline::parse(Path::new("base.toml"), text, TODAY).map_err(|e| e.to_string())
}

fn apply(text: &str, whole: bool) -> (ReportFinding, BaselineReport) {
    // DV203 of driver drv in drv_len (drv/poll.c).
    let mut findings = [finding(Operation::Write)];
    let told = parse(&format!("version = 1\n{text}")).unwrap().apply(&mut findings, &["drv".into()], whole);
    let [finding] = findings;
    (finding, told)
}

#[test]
fn a_finding_is_recognised_whatever_moved() {
    let known = "[[known]]\ncode = \"DV203\"\ndriver = \"drv\"\nfunction = \"drv_len\"\nfile = \"poll.c\"\n";
    let (finding, told) = apply(known, true);
    assert_eq!(finding.accepted, Some(Accepted { by: AcceptedBy::Known, reason: None }));
    assert_eq!((told.accepted, told.unmatched.len(), told.expired.len()), (1, 0, 0));
    for other in ["DV202", "\"drv\"", "drv_len", "poll.c"].into_iter().zip(["DV203", "\"drw\"", "drv_lem", "oll.c"]) {
        let (from, to) = if other.0 == "DV202" { ("DV203", "DV202") } else { other };
        assert_eq!(apply(&known.replace(from, to), true).0.accepted, None, "{to}");
    }
}

#[test]
fn a_suppression_says_why_and_holds_until_its_day() {
    let until = |day: &str| {
        apply(&format!("[[suppress]]\ncode = \"DV203\"\ndriver = \"drv\"\nreason = \"seen by the vendor\"\nexpires = {day}\n"), true)
    };
    for day in ["2026-11-22", "\"2026-11-22\"", "2030-01-01"] {
        let (finding, told) = until(day);
        assert_eq!(finding.accepted.unwrap().to_string(), "suppressed: seen by the vendor", "{day}: its last day counts");
        assert!(told.expired.is_empty());
    }
    let (finding, told) = until("2026-11-21");
    assert_eq!(finding.accepted, None, "active again");
    assert_eq!(told.expired, ["DV203 driver drv: seen by the vendor (until 2026-11-21)"]);
    assert!(told.unmatched.is_empty(), "it matched");
}

#[test]
fn what_is_no_longer_found_is_told_where_it_could_have_been() {
    let gone = |driver: &str| format!("[[suppress]]\ncode = \"DV101\"\n{driver}function = \"gone\"\nreason = \"r\"\n");
    assert_eq!(apply(&gone("driver = \"drv\"\n"), true).1.unmatched, ["DV101 driver drv function gone: r"]);
    assert_eq!(apply(&gone(""), true).1.unmatched.len(), 1);
    assert_eq!(apply(&gone("driver = \"other\"\n"), true).1.unmatched.len(), 0, "that driver was not there");
    assert_eq!(apply(&gone(""), false).1.unmatched.len(), 0, "the run did not come to its end");
}

#[test]
fn a_mistake_is_told_where_it_stands() {
    for (text, place, word) in [
        ("version = 2\n", "base.toml:1:11: ", "this dmavet reads version 1"),
        ("version = 1\n[[suppress]]\ncode = \"DV203\"\n", "base.toml:2:1: ", "reason"),
        ("version = 1\n[[suppress]]\ncode = \"DV203\"\nreason = \" \"\n", "base.toml:4:10: ", "needs a reason"),
        ("version = 1\n[[suppress]]\ncode = \"DV999\"\nreason = \"r\"\n", "base.toml:3:8: ", "no rule \"DV999\""),
        ("version = 1\n[[suppress]]\ncode = \"DV203\"\nreason = \"r\"\nexpires = \"soon\"\n", "base.toml:5:11: ", "YYYY-MM-DD"),
        ("version = 1\n[[suppress]]\ncode = \"DV203\"\nreason = \"r\"\nexpires = 2026-02-30\n", "base.toml:5:11: ", ""),
        ("version = 1\n[[suppress]]\ncode = \"DV203\"\nreason = \"r\"\nline = 7\n", "base.toml:5:1: ", "line"),
        ("version = 1\n[[known]]\ncode = \"DV203\"\n", "base.toml:2:1: ", "driver"),
        ("", "base.toml:1:1: ", "version"),
    ] {
        let told = parse(text).unwrap_err();
        assert!(told.starts_with(place) && told.contains(word), "{text}: {told}");
    }
}

#[test]
fn what_is_written_accepts_what_was_found_and_keeps_what_people_wrote() {
    let mut of_notes = finding(Operation::Read);
    of_notes.severity = Severity::Note;
    of_notes.code = "DV218".into();
    let report = report(vec![finding(Operation::Write), finding(Operation::Write), of_notes], None);
    let taken = Taken::from([&report], None);
    assert_eq!(taken.len(), 1);
    let fresh = taken.document(None).unwrap();
    let (found, told) = apply(fresh.split_once("version = 1\n").unwrap().1, true);
    assert_eq!((found.accepted.map(|a| a.by), told.unmatched.len()), (Some(AcceptedBy::Known), 0));
    assert_eq!(crate::run::render(&report, false, Format::Baseline, None).unwrap(), fresh);

    let old = "# ours\nversion = 1\n\n[[suppress]] # ask them\ncode = \"DV101\"\nreason = \"r\"\n\n[[known]]\ncode = \"DV105\"\ndriver = \"x\"\nfunction = \"\"\nfile = \"\"\n";
    let again = taken.document(Some(old)).unwrap();
    assert!(again.starts_with("# ours\nversion = 1\n\n[[suppress]] # ask them\n"), "{again}");
    let codes: Vec<String> = parse(&again).unwrap().entries.into_iter().map(|entry| entry.code).collect();
    assert_eq!(codes, ["DV203", "DV101"], "{again}");
    assert_eq!(taken.document(Some(&again)).unwrap(), again, "nothing new, nothing changes");
    assert!(!Taken::from([], None).document(Some(&again)).unwrap().contains("known"));
}

#[test]
fn names_of_files_do_not_depend_on_the_machine() {
    let kept = |file: &str| Key { code: "", driver: "", function: "", file }.kept_file(Some(Path::new("/home/a/src")));
    assert_eq!(kept("/home/a/src/drivers/x.c"), "drivers/x.c");
    assert_eq!(kept("/home/b/x.c"), "x.c");
    assert_eq!(kept("./drivers/x.c"), "drivers/x.c");
    assert_eq!(kept(""), "");
}

#[test]
fn every_format_tells_what_is_accepted() {
    let mut accepted = finding(Operation::Write);
    accepted.accepted = Some(Accepted { by: AcceptedBy::Suppression, reason: Some("the vendor knows #7".into()) });
    let mut report = report(vec![accepted], None);
    report.baseline =
        Some(BaselineReport { file: "b.toml".into(), accepted: 1, expired: vec!["DV1".into()], unmatched: vec!["DV2".into()] });
    let text = text::report(&report, false);
    assert!(
        text.contains("Accepted by b.toml: DV203 cpu-write-device-owned in drv_len (poll.c:12): suppressed: the vendor knows #7\n"),
        "{text}"
    );
    assert!(text.contains("Expired in b.toml: DV1\nNo longer found in b.toml: DV2\n") && !text.contains("To fix:"), "{text}");
    let render = |format| crate::run::render(&report, false, format, None).unwrap();
    assert!(
        render(Format::Ktap)
            .contains("  ok 2 DV203 cpu-write-device-owned in drv_len (poll.c:12) # SKIP suppressed: the vendor knows no. 7\n")
    );
    let junit = quick_junit::Report::deserialize_from_str(&render(Format::Junit)).unwrap();
    let suite = &junit.test_suites[0];
    assert_eq!((suite.failures, suite.errors), (0, 0));
    assert!(matches!(suite.test_cases[1].status, quick_junit::TestCaseStatus::Skipped { .. }));
    let sarif: serde_json::Value = serde_json::from_str(&render(Format::Sarif)).unwrap();
    serde_json::from_value::<serde_sarif::sarif::Sarif>(sarif.clone()).unwrap();
    assert_eq!(sarif["runs"][0]["results"][0]["suppressions"][0]["justification"], "suppressed: the vendor knows #7");
    let schema = serde_json::from_str(include_str!("../../../resources/findings.schema.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap().validate(&serde_json::to_value(&report).unwrap()).unwrap();
}
