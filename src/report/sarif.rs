//! SARIF 2.1.0 (OASIS, Static Analysis Results Interchange Format): what code-scanning pages read.

use crate::exit::Exit;
use crate::report::symbols::SourceFrame;
use crate::report::{Report, ReportFinding, ReportSite, text};
use dmavet_coherence::catalogue::{self, Rule};
use serde_json::{Value, json};
use std::path::Path;

/// Base of the relative paths: the root of the sources.
const ROOT: &str = "SRCROOT";

/// The report as a SARIF log with one run. Absolute paths below `root` are told relative to it.
#[must_use]
pub fn document(report: &Report, root: Option<&Path>) -> Value {
    let rules: Vec<&Rule> = catalogue::rules().filter(|rule| report.findings.iter().any(|f| f.code == rule.code.to_string())).collect();
    let index = |code: &str| rules.iter().position(|rule| rule.code.to_string() == code);
    let results: Vec<Value> = report.findings.iter().map(|finding| result(report, finding, index(&finding.code), root)).collect();
    let complete = matches!(report.verdict.result, Exit::Clean | Exit::Findings | Exit::Workload);
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "dmavet",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules.iter().map(|r| rule(r)).collect::<Vec<_>>(),
            }},
            "invocations": [{
                "commandLine": shlex::try_join(report.run.command.iter().map(String::as_str)).unwrap_or_default(),
                "executionSuccessful": complete,
                "exitCode": report.verdict.exit_code,
                "exitCodeDescription": report.verdict.reason,
            }],
            "columnKind": "utf16CodeUnits",
            "results": results,
        }],
    })
}

fn rule(rule: &Rule) -> Value {
    json!({
        "id": rule.code.to_string(),
        "name": rule.slug,
        "shortDescription": { "text": rule.rule },
        "fullDescription": { "text": format!("{} Source: {}", rule.rule, rule.source) },
        "help": { "text": text::rule(rule) },
        "defaultConfiguration": { "level": rule.severity.name() },
    })
}

fn result(report: &Report, finding: &ReportFinding, rule: Option<usize>, root: Option<&Path>) -> Value {
    let made = finding.mapping.as_ref().map(|mapping| &mapping.made);
    let primary = [finding.offence.as_ref(), finding.consequence.as_ref(), finding.handover.as_ref(), made];
    let place = primary.into_iter().flatten().find_map(|site| location(site, root));
    let related = [finding.consequence.as_ref(), finding.handover.as_ref(), made].into_iter().flatten();
    let related: Vec<Value> = (0..)
        .zip(related.filter_map(|site| Some((site, location(site, root)?))))
        .map(|(id, (site, mut location))| {
            location["id"] = json!(id);
            location["message"] = json!({ "text": site.what });
            location
        })
        .collect();
    let mut result = json!({
        "ruleId": finding.code,
        "level": finding.severity.name(),
        "message": { "text": format!("{} {}", finding.volatile.message, finding.advice) },
        "locations": place.into_iter().collect::<Vec<_>>(),
        "relatedLocations": related,
        "stacks": finding.offence.iter().map(|site| stack(site, root)).collect::<Vec<_>>(),
        // No line numbers: a finding is the same one when lines above it come and go.
        "partialFingerprints": {
            "dmavet/v1": format!("{}:{}:{}:{}", finding.code, finding.driver, function(made), function(finding.offence.as_ref())),
        },
        "properties": { "device": finding.device, "driver": finding.driver, "count": finding.volatile.count, "run": report.run.title },
    });
    if let Some(accepted) = &finding.accepted {
        result["suppressions"] = json!([{ "kind": "external", "justification": accepted.to_string() }]);
    }
    if let Some(rule) = rule {
        result["ruleIndex"] = json!(rule);
    }
    result
}

fn function(site: Option<&ReportSite>) -> &str {
    site.and_then(ReportSite::top).map_or("", |frame| &frame.function)
}

fn stack(site: &ReportSite, root: Option<&Path>) -> Value {
    let frames = site.frames.iter().map(|frame| {
        let name = if frame.function.is_empty() { "(unknown)" } else { &frame.function };
        let mut location = of_frame(frame, root).unwrap_or_else(|| json!({}));
        location["logicalLocations"] = json!([{ "fullyQualifiedName": name, "kind": "function" }]);
        json!({ "location": location, "module": frame.module })
    });
    json!({ "message": { "text": site.what }, "frames": frames.collect::<Vec<_>>() })
}

fn location(site: &ReportSite, root: Option<&Path>) -> Option<Value> {
    of_frame(site.top()?, root)
}

fn of_frame(frame: &SourceFrame, root: Option<&Path>) -> Option<Value> {
    if frame.file.is_empty() || frame.line == 0 {
        return None;
    }
    let path = Path::new(&frame.file);
    let path = root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(path);
    let artifact =
        if path.is_absolute() { json!({ "uri": format!("file://{}", uri(path)) }) } else { json!({ "uri": uri(path), "uriBaseId": ROOT }) };
    Some(json!({ "physicalLocation": { "artifactLocation": artifact, "region": { "startLine": frame.line } } }))
}

/// A path as the path of a URI (RFC 3986, section 3.3).
fn uri(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.to_string_lossy().trim_start_matches("./").bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'+' | b',' | b'=' | b'@' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
