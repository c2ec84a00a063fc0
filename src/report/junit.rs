//! JUnit XML, as CI servers read it: a test suite for the run, a test case for each finding.

use crate::report::Report;
use crate::report::cases::{self, Outcome};
use quick_junit::{NonSuccessKind, SerializeError, TestCase, TestCaseStatus, TestSuite};

/// The report as a JUnit document.
///
/// # Errors
/// When the XML cannot be written.
pub fn document(report: &Report) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new(format!("dmavet {}", report.run.title));
    for (name, value) in [
        ("kernel", report.run.kernel.clone()),
        ("profile", report.run.profile.clone()),
        ("cache", report.run.cache.clone()),
        ("seed", report.run.seed.to_string()),
        ("verdict", report.verdict.reason.clone()),
    ] {
        suite.add_property((name, value.as_str()));
    }
    for case in cases::of(report) {
        let status = match &case.outcome {
            Outcome::Passed => TestCaseStatus::success(),
            Outcome::Accepted(why) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(why);
                status
            }
            Outcome::Failed(message) => not_well(NonSuccessKind::Failure, message, &case.detail),
            Outcome::Broken(message) => not_well(NonSuccessKind::Error, message, &case.detail),
        };
        let passed = matches!(case.outcome, Outcome::Passed | Outcome::Accepted(_));
        let mut test = TestCase::new(case.name, status);
        test.set_classname(format!("dmavet.{}", report.run.title));
        if passed && !case.detail.is_empty() {
            test.set_system_out(case.detail);
        }
        suite.add_test_case(test);
    }
    let mut document = quick_junit::Report::new("dmavet");
    document.add_test_suite(suite);
    document.to_string()
}

fn not_well(kind: NonSuccessKind, message: &str, detail: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(message);
    if !detail.is_empty() {
        status.set_description(detail);
    }
    status
}
