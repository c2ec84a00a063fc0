//! The report for people.

use crate::report::coverage::Reached;
use crate::report::symbols::{self, SourceFrame};
use crate::report::{ByteRange, Operation, Report, ReportFinding, ReportMapping, ReportSite, RunInfo, TwoSides, Untaken};
use dmavet_coherence::catalogue::Rule;
use dmavet_coherence::{Cache, Severity};
use std::fmt::Write as _;

const RULER: &str = "==================================================================";

/// The whole report.
#[must_use]
pub fn report(report: &Report, pedantic: bool) -> String {
    let mut out = String::new();
    write_header(&mut out, &report.run);
    let counts = |f: &&ReportFinding| pedantic || (f.severity != Severity::Note && f.accepted.is_none());
    let shown: Vec<&ReportFinding> = report.findings.iter().filter(counts).collect();
    for finding in &shown {
        write_finding(&mut out, finding);
    }
    for untaken in &report.untaken {
        write_untaken(&mut out, untaken);
    }
    write_coverage(&mut out, report);
    write_baseline(&mut out, report);
    write_summary(&mut out, report, pedantic);
    out
}

/// What was run, on what kind of machine.
fn write_header(out: &mut String, run: &RunInfo) {
    let cpus = if run.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", run.cpus) };
    let seed = if run.cache == Cache::Random.name() { format!(" with seed {}", run.seed) } else { String::new() };
    let _ = writeln!(
        out,
        "dmavet: {} on Linux {}, {cpus}; profile {}, lines of {} bytes, edges {}, cache {}{seed}",
        run.title, run.kernel, run.profile, run.line_size, run.edges, run.cache
    );
}

/// What a finding is and where, on one line.
#[must_use]
pub fn title(finding: &ReportFinding) -> String {
    // What is about a mapping as a whole, as a leak is, has no other place than where it was made.
    let made = finding.mapping.as_ref().map(|mapping| &mapping.made);
    let place = finding.offence.as_ref().and_then(ReportSite::top).or_else(|| made.and_then(ReportSite::top));
    let place = place.map(|frame| format!(" in {}", short(frame))).unwrap_or_default();
    let finer = finding.kind.as_ref().map(|k| format!(" ({k})")).unwrap_or_default();
    format!("{}{finer} {}{place}", finding.code, finding.slug)
}

/// One finding.
#[must_use]
pub fn finding(finding: &ReportFinding) -> String {
    let mut out = String::new();
    write_finding(&mut out, finding);
    out
}

fn write_finding(out: &mut String, finding: &ReportFinding) {
    let _ = writeln!(out, "{RULER}");
    let _ = writeln!(out, "dmavet: {}: {}", finding.severity.name(), title(finding));
    let _ = writeln!(out, "{}", finding.volatile.message);
    write_access(out, finding);
    let _ = writeln!(out, "\nDevice {} driver {}", finding.device, or_dash(&finding.driver));
    if let Some(mapping) = &finding.mapping {
        write_mapping_line(out, mapping, finding.volatile.handles.as_ref());
    }
    if let Some(bytes) = &finding.volatile.bytes {
        let access = finding.access.as_ref().map(|a| a.operation);
        write_bytes(out, bytes, access, finding.range.filter(|_| access.is_some()));
    }
    for site in [&finding.offence, &finding.consequence].into_iter().flatten() {
        write_site(out, site);
    }
    if let Some(site) = &finding.handover {
        write_site(out, site);
    }
    if let Some(mapping) = &finding.mapping {
        write_site(out, &mapping.made);
    }
    if !finding.volatile.history.is_empty() {
        let _ = writeln!(out, "\nWhat led there:");
        for event in &finding.volatile.history {
            let _ = writeln!(out, "  #{:<6} {:<44} {}", event.seq, event.what, event.place);
        }
    }
    let _ = writeln!(out, "\nTo fix: {}", finding.advice);
    if finding.volatile.count > 1 {
        let _ = writeln!(out, "Seen {} times.", finding.volatile.count);
    }
    let _ = writeln!(out, "(dmavet explain {} tells the rule and its source)", finding.code);
    let _ = writeln!(out, "{RULER}");
}

fn write_mapping_line(out: &mut String, mapping: &ReportMapping, handles: Option<&(String, String)>) {
    let handles = handles.map(|(first, last)| format!(", handles {first}..{last}")).unwrap_or_default();
    let _ = writeln!(out, "Mapping: {} of {} bytes, {}{handles}", mapping.family, mapping.size, mapping.direction);
}

/// "Read of size 4 at ncdma_poll+0x1a/0x80 [ncdma] by CPU 1", as the kernel's own checkers say it.
fn write_access(out: &mut String, finding: &ReportFinding) {
    let (Some(access), Some(detail)) = (&finding.access, &finding.volatile.access) else { return };
    let operation = match access.operation {
        Operation::Read => "Read",
        Operation::Write => "Write",
    };
    let mode = if access.user { ", in user mode" } else { "" };
    let at = if detail.at.is_empty() { &detail.rip } else { &detail.at };
    let _ = writeln!(out, "{operation} of size {} at {at} by CPU {}{mode}", detail.len, detail.cpu);
}

/// Both sides by rows of 16; with `only`, the rows that have a part in it.
fn write_bytes(out: &mut String, bytes: &TwoSides, operation: Option<Operation>, only: Option<ByteRange>) {
    // The CPU's copy: what an instruction got, what it left there, or what compares.
    let ours = match operation {
        Some(Operation::Read) => "read   ",
        Some(Operation::Write) => "wrote  ",
        None => "CPU    ",
    };
    let _ = writeln!(out, "\nBytes of the mapping (^^ where they differ):");
    let cpu: Vec<&str> = pairs(&bytes.cpu);
    let device: Vec<&str> = pairs(&bytes.device);
    for (row, (cpu, device)) in cpu.chunks(16).zip(device.chunks(16)).enumerate() {
        let offset = bytes.offset + row as u64 * 16;
        if only.is_some_and(|range| offset + 16 <= range.offset || range.offset + range.len <= offset) {
            continue;
        }
        let marks: Vec<&str> = cpu.iter().zip(device).map(|(a, b)| if a == b { "  " } else { "^^" }).collect();
        let _ = writeln!(out, "  {offset:#06x}  {ours} {}", cpu.join(" "));
        let _ = writeln!(out, "          device  {}", device.join(" "));
        let marks = marks.join(" ");
        if !marks.trim().is_empty() {
            let _ = writeln!(out, "                  {}", marks.trim_end());
        }
    }
}

fn pairs(hex: &str) -> Vec<&str> {
    (0..hex.len() / 2).filter_map(|i| hex.get(i * 2..i * 2 + 2)).collect()
}

fn write_site(out: &mut String, site: &ReportSite) {
    let _ = writeln!(out, "\n{}:", site.what);
    if site.frames.is_empty() {
        let _ = writeln!(out, "  (not known)");
    }
    for (index, frame) in site.frames.iter().enumerate() {
        write_guesses(out, site, index);
        let _ = writeln!(out, "  {}", long(frame));
    }
    write_guesses(out, site, site.frames.len());
}

/// What may be a frame or a left-over, with the kernel's own mark for that.
fn write_guesses(out: &mut String, site: &ReportSite, after: usize) {
    for guess in site.guesses.iter().filter(|g| g.after == after) {
        let _ = writeln!(out, "  ? {}", long(&guess.frame));
    }
}

/// `function+0x1a/0x80 [module]`.
#[must_use]
pub fn function(frame: &SourceFrame) -> String {
    let module = if frame.module.is_empty() { String::new() } else { format!(" [{}]", frame.module) };
    format!("{}{}{module}", or_dash(&frame.function), frame.offset)
}

/// `function+0x1a/0x80 [module] (file.c:12)`.
#[must_use]
pub fn long(frame: &SourceFrame) -> String {
    let mut text = function(frame);
    if frame.line != 0 {
        let _ = write!(text, " ({}:{})", frame.file, frame.line);
    }
    if frame.inlined {
        text.push_str(" (inlined)");
    }
    text
}

/// `function (file.c:12)`.
#[must_use]
pub fn short(frame: &SourceFrame) -> String {
    if frame.line == 0 {
        return format!("{}{}", or_dash(&frame.function), frame.offset);
    }
    let file = frame.file.rsplit('/').next().unwrap_or_default();
    format!("{} ({file}:{})", or_dash(&frame.function), frame.line)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn write_untaken(out: &mut String, untaken: &Untaken) {
    let _ = writeln!(out, "{RULER}");
    let _ = writeln!(out, "dmavet: bytes the device wrote that the CPU never took (device {})", untaken.device);
    let _ = writeln!(
        out,
        "The workload failed, and these {} bytes at offset {:#x} were written by the device and never brought to the CPU.",
        untaken.range.len, untaken.range.offset
    );
    write_mapping_line(out, &untaken.mapping, None);
    write_bytes(out, &untaken.bytes, None, None);
    if let Some(site) = &untaken.passed {
        write_site(out, site);
    }
    write_site(out, &untaken.mapping.made);
    let _ = writeln!(out, "\nIf the CPU is meant to see them, a dma_sync_*_for_cpu() or an unmap is missing before it reads.");
    let _ = writeln!(out, "{RULER}");
}

fn write_coverage(out: &mut String, report: &Report) {
    for module in &report.coverage {
        let (reached, total) = module.reached();
        let _ = writeln!(out, "DMA call sites of {}: {reached} of {total} reached", module.module);
        for site in &module.sites {
            let note = match site.reached {
                Reached::Yes => continue,
                Reached::No => "not reached",
                Reached::TailCall => "tail call, cannot be told",
            };
            let place = symbols::top(&site.frames).map(short).unwrap_or_default();
            let _ = writeln!(out, "  {note}: {} in {place}", site.api);
        }
    }
}

/// What is accepted, a line each, and what of the baseline needs a hand.
fn write_baseline(out: &mut String, report: &Report) {
    let Some(baseline) = &report.baseline else { return };
    let accepted = report.findings.iter().filter_map(|finding| Some((finding, finding.accepted.as_ref()?)));
    for (finding, accepted) in accepted {
        let _ = writeln!(out, "Accepted by {}: {}: {accepted}", baseline.file, title(finding));
    }
    for (what, entries) in [("Expired", &baseline.expired), ("No longer found", &baseline.unmatched)] {
        for entry in entries {
            let _ = writeln!(out, "{what} in {}: {entry}", baseline.file);
        }
    }
}

fn write_summary(out: &mut String, report: &Report, pedantic: bool) {
    for device in &report.run.devices {
        let drivers = if device.drivers.is_empty() { "no driver".to_owned() } else { device.drivers.join(", ") };
        let _ = writeln!(out, "Device {} ({}): {drivers}", device.device, device.model);
    }
    let counters = &report.volatile.counters;
    let count = |name: &str| counters.get(name).copied().unwrap_or(0);
    let _ = writeln!(
        out,
        "Checked: {} mappings, {} hand-overs, {} device reads, {} device writes.",
        count("mappings"),
        count("handovers"),
        count("device_reads"),
        count("device_writes"),
    );
    match &report.volatile.watch {
        Some(watch) => {
            let _ = writeln!(out, "{}", watch.summary);
        }
        None => {
            let _ = writeln!(out, "CPU watch (off): the CPU's writes by content at hand-overs, its reads not at all.");
        }
    }
    let foreign = count("foreign_offences");
    if foreign > 0 {
        let _ = writeln!(out, "{foreign} differences lie in page cache or user memory, which user mode may write at any time: not judged.");
    }
    let notes = report.findings.iter().filter(|f| f.severity == Severity::Note && f.accepted.is_none()).count();
    if notes > 0 && !pedantic {
        let _ = writeln!(out, "{notes} notes not shown (--pedantic shows them).");
    }
    let _ = writeln!(out, "dmavet: {}: {}", report.run.title, report.verdict.headline());
}

/// A rule of the catalogue, for `dmavet explain`.
#[must_use]
pub fn rule(rule: &Rule) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} {} ({})\n", rule.code, rule.slug, rule.severity.name());
    let _ = writeln!(out, "Rule: {}", rule.rule);
    let _ = writeln!(out, "Source: {}", rule.source);
    if !rule.checked {
        let _ = writeln!(out, "This version of dmavet does not check it yet.");
    }
    let _ = writeln!(out, "\nExample of the bug:\n{}", indent(rule.example));
    let _ = writeln!(out, "\nThe fix:\n{}", indent(rule.fix));
    out
}

fn indent(text: &str) -> String {
    text.lines().map(|l| format!("    {l}")).collect::<Vec<_>>().join("\n")
}
