//! One HTML page: the findings with stacks and source lines, and a picture of every mapping.
//!
//! The page is whole in itself: style, script and data are in it, its content security policy forbids everything else, and
//! the script writes text nodes only. A reader without JavaScript gets the report for people.

use crate::report::source::{Excerpt, Excerpts};
use crate::report::symbols::KERNEL_HEADERS;
use crate::report::timeline::{Actor, Kind, Timeline};
use crate::report::{Report, ReportFinding, ReportSite, text};
use dmavet_coherence::Code;
use serde::Serialize;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../resources/report/page.html");
const STYLE: &str = include_str!("../../resources/report/page.css");
const SCRIPTS: [&str; 4] = [
    include_str!("../../resources/report/page.js"),
    include_str!("../../resources/report/picture.js"),
    include_str!("../../resources/report/findings.js"),
    include_str!("../../resources/report/mappings.js"),
];

/// What the script gets.
#[derive(Serialize)]
struct Data<'a> {
    report: &'a Report,
    /// Whether notes are shown at first.
    pedantic: bool,
    timeline: &'a Timeline,
    /// What the kinds of events are called and whose doing they are, by number.
    kinds: Vec<(&'static str, Actor)>,
    /// What the names of headers have in them whose functions are not what a reader looks for.
    headers: [&'static str; 5],
    /// Source lines by `file:line`.
    sources: BTreeMap<String, Excerpt>,
    /// The rules that were broken.
    rules: BTreeMap<&'a str, Rule>,
}

#[derive(Serialize)]
struct Rule {
    rule: &'static str,
    source: &'static str,
    example: &'static str,
    fix: &'static str,
}

/// The page.
///
/// # Errors
/// When the report cannot be written as JSON.
pub fn document(report: &Report, timeline: &Timeline, pedantic: bool) -> serde_json::Result<String> {
    let data = Data {
        report,
        pedantic,
        timeline,
        kinds: Kind::ALL.into_iter().map(|kind| (kind.text(), kind.actor())).collect(),
        headers: KERNEL_HEADERS,
        sources: sources(report),
        rules: report.findings.iter().filter_map(rule).collect(),
    };
    // Nothing in it may end the element it is in, or begin a comment there.
    let data = serde_json::to_string(&data)?.replace('<', "\\u003c");
    let title = escape(&format!("dmavet: {}: {}", report.run.title, report.verdict.headline()));
    let plain = escape(&text::report(report, pedantic));
    let script = SCRIPTS.join("\n");
    let parts = [("{{title}}", &*title), ("{{style}}", STYLE), ("{{text}}", &plain), ("{{data}}", &data), ("{{script}}", &script)];
    let mut page = String::with_capacity(PAGE.len() + data.len() + plain.len() + (1 << 17));
    let mut rest = PAGE;
    for (marker, part) in parts {
        // The template is ours and has each of them once, in this order; a test looks.
        let (before, after) = rest.split_once(marker).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(part);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

fn rule(finding: &ReportFinding) -> Option<(&str, Rule)> {
    let rule = finding.code.parse::<Code>().ok()?.rule();
    Some((&finding.code, Rule { rule: rule.rule, source: rule.source, example: rule.example, fix: rule.fix }))
}

/// The lines around every frame of a finding.
fn sources(report: &Report) -> BTreeMap<String, Excerpt> {
    let mut excerpts = Excerpts::of_run(&report.run.command);
    let of_finding = |finding: &ReportFinding| {
        let made = finding.mapping.as_ref().map(|mapping| mapping.made.clone());
        [finding.offence.clone(), finding.consequence.clone(), finding.handover.clone(), made]
    };
    let untaken = report.untaken.iter().map(|untaken| [untaken.passed.clone(), Some(untaken.mapping.made.clone()), None, None]);
    let sites = report.findings.iter().map(of_finding).chain(untaken).flatten().flatten();
    sites.flat_map(|site: ReportSite| site.frames).for_each(|frame| excerpts.add(&frame));
    excerpts.finish()
}

/// Text as HTML text or attribute value.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
