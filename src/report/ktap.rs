//! KTAP, the Kernel Test Anything Protocol, version 1 (Documentation/dev-tools/ktap.rst): what kunit.py and kselftest read.

use crate::report::Report;
use crate::report::cases::{self, Outcome};
use std::fmt::Write as _;

/// The report as a test with a subtest for each case.
#[must_use]
pub fn document(report: &Report) -> String {
    let cases = cases::of(report);
    let mut out = format!("KTAP version 1\n1..1\n  KTAP version 1\n  # Subtest: {}\n  1..{}\n", line(&report.run.title), cases.len());
    let mut well = true;
    for (number, case) in (1..).zip(&cases) {
        let word = match &case.outcome {
            Outcome::Passed | Outcome::Accepted(_) => "ok",
            Outcome::Failed(message) | Outcome::Broken(message) => {
                well = false;
                let _ = writeln!(out, "  # {}", line(message));
                "not ok"
            }
        };
        for detail in case.detail.lines() {
            let _ = writeln!(out, "  # {}", line(detail));
        }
        let directive = match &case.outcome {
            Outcome::Accepted(why) => format!(" # SKIP {}", line(why)),
            _ => String::new(),
        };
        let _ = writeln!(out, "  {word} {number} {}{directive}", line(&case.name));
    }
    let _ = writeln!(out, "{} 1 {}", if well { "ok" } else { "not ok" }, line(&report.run.title));
    out
}

/// Text that stays on one line and starts no directive.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('#', "no. ")
}
