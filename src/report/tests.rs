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

fn finding(operation: Operation) -> ReportFinding {
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

fn report(findings: Vec<ReportFinding>, watch: Option<WatchReport>) -> Report {
    Report {
        format: "dmavet-findings".into(),
        version: Report::VERSION,
        verdict: Verdict {
            result: Exit::Findings,
            exit_code: 1,
            reason: "1 finding".into(),
            errors: 1,
            warnings: 0,
            notes: 0,
            workload: Some(0),
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
