//! docs/rules.md: every rule with what triggers it end to end and what comes near and stays silent.

use crate::expect::{Variant, codes, variants};
use crate::traces::{Scenario, scenarios};
use dmavet_coherence::catalogue::{KernelCheck, Rule, rules};
use dmavet_coherence::{Code, Severity};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Set, the table is written instead of compared.
const UPDATE: &str = "DMAVET_UPDATE";

const HEAD: &str = "\
# Rules

Every rule, with the ways to see it end to end. Made by `cargo xtask rules` from the catalogue, the headers of the reference driver's
variants (`guest-images/drivers/variants`), `tests/guest/near-misses.txt` and the traces of `tests/guest/traces.rs`; a test compares. `dmavet explain CODE` says more
about each.

- **judged by**: calls of the DMA API, accesses of the device, accesses of the CPU (or the bytes it left), events of the bus.
- **needs**: what `dmavet run` must be given for it, as far as all its triggers have it in common; the CPU watch is on by default.
- **triggers** break the rule and are found; **near misses** do something like it that is legal, and the run reports not even a note. `dmavet run --module ref:ncdma/NAME`
  with the arguments of the variant's header shows either. *trace* is a recorded history that is replayed, for what ncdma cannot do.
- **debug.c**: whether `CONFIG_DMA_API_DEBUG` reports the same: `=` yes, `~` in part, `-` no.

";

/// A near miss of the correct driver.
struct Twin {
    code: Code,
    function: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn twins() -> Vec<Twin> {
    let parse = |line: &str| {
        let (head, what) = line.split_once(": ").unwrap_or_else(|| panic!("near-misses.txt: {line:?} says nothing"));
        let (code, function) = head.split_once(' ').unwrap_or_else(|| panic!("near-misses.txt: {line:?} names no function"));
        assert!(!what.is_empty());
        Twin { code: codes("near-misses.txt", code)[0], function: function.to_owned() }
    };
    let text = read(&root().join("tests/guest/near-misses.txt"));
    text.lines().filter(|l| !l.starts_with('#')).map(parse).collect()
}

/// What shows one rule.
struct Shown {
    triggers: Vec<String>,
    near_misses: Vec<String>,
    /// Arguments all triggers have in common.
    needs: Vec<String>,
}

fn shown(code: Code, variants: &[Variant], scenarios: &[Scenario], twins: &[Twin]) -> Shown {
    let breaks = |v: &&Variant| v.alarms.iter().chain(&v.notes).any(|e| e.code == code.to_string());
    let breaking: Vec<&Variant> = variants.iter().filter(breaks).collect();
    let traced = |wanted: fn(&Scenario) -> &[Code]| {
        scenarios.iter().filter(move |s| wanted(s).contains(&code)).map(|s| format!("trace `{}`", s.name))
    };
    let by_campaign = |v: &&Variant| if v.campaign.is_some() { " (campaign)" } else { "" };
    let triggers = breaking.iter().map(|v| format!("`{}`{}", v.name, by_campaign(v))).chain(traced(|s| s.expect)).collect();
    let driver = twins.iter().filter(|t| t.code == code).map(|t| format!("the correct driver (`{}`)", t.function));
    let legal = variants.iter().filter(|v| v.near_misses.contains(&code)).map(|v| format!("`{}`", v.name));
    let near_misses = driver.chain(legal).chain(traced(|s| s.near_misses)).collect();
    let options = |v: &Variant| -> Vec<String> {
        let options = v.arguments.split(" -- ").next().unwrap_or_default();
        options.split(" --").map(|o| format!("--{}", o.trim_start_matches("--"))).filter(|o| o != "--").collect()
    };
    let breaking: Vec<&Variant> = breaking.into_iter().filter(|v| v.campaign.is_none()).collect();
    let first = breaking.first().map(|v| options(v)).unwrap_or_default();
    let common = |option: &String| breaking.iter().all(|v| options(v).contains(option));
    let mut needs: Vec<String> = first.into_iter().filter(common).collect();
    needs.dedup();
    Shown { triggers, near_misses, needs }
}

fn severity(rule: &Rule) -> String {
    let name = match rule.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    if rule.except.is_empty() { name.to_owned() } else { format!("{name}; {}", rule.except) }
}

fn row(rule: &Rule, shown: &Shown) -> String {
    let debug = match rule.code.kernel_check() {
        KernelCheck::Yes => "=",
        KernelCheck::Partly => "~",
        KernelCheck::No => "-",
    };
    let mut needs: Vec<String> = shown.needs.iter().map(|o| format!("`{o}`")).collect();
    if rule.code.needs_watch() && !shown.needs.iter().any(|o| o.starts_with("--watch")) {
        needs.insert(0, "the CPU watch".into());
    }
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {debug} |\n",
        rule.code,
        rule.slug,
        severity(rule),
        rule.code.events(),
        needs.join(" "),
        shown.triggers.join(", "),
        shown.near_misses.join(", "),
    )
}

#[test]
fn every_rule_is_triggered_and_nearly_triggered_and_the_table_says_by_what() {
    let (variants, scenarios, twins) = (variants(), scenarios(), twins());
    let sources: String =
        ["ncdma.c", "pci.c", "platform.c", "selftest.c"].iter().map(|f| read(&root().join("guest-images/drivers").join(f))).collect();
    for twin in &twins {
        assert!(sources.contains(&format!("{}(", twin.function)), "near-misses.txt: there is no function {}", twin.function);
    }
    let mut table = format!(
        "{HEAD}| code | name | severity | judged by | needs | triggers | near misses | debug.c |\n|---|---|---|---|---|---|---|---|\n"
    );
    let mut lacking = String::new();
    for rule in rules() {
        let shown = shown(rule.code, &variants, &scenarios, &twins);
        for (what, lacks) in [
            ("is not checked", !rule.checked),
            ("has no trigger", shown.triggers.is_empty()),
            ("has no near miss", shown.near_misses.is_empty()),
        ] {
            if lacks {
                let _ = writeln!(lacking, "{} {what}", rule.code);
            }
        }
        table.push_str(&row(rule, &shown));
    }
    assert!(lacking.is_empty(), "add variants, traces or headers:\n{lacking}");
    let path = root().join("docs/rules.md");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &table).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == table, "docs/rules.md is stale: run `cargo xtask rules`");
}
