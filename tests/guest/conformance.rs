//! The CPU watch's self-check: instruction forms and hammered pages, on this machine's KVM and in the lab.

use crate::tool::{dmavet, lab};
use serde_json::Value;

/// Runs the self-check; it must find nothing wrong.
fn check(args: &[&str]) -> Value {
    let words = ["doctor", "--watch", "--format", "json"].iter().chain(args);
    let ran = dmavet(words);
    assert_eq!(ran.code, 0, "{}", ran.all());
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.all()))
}

/// Forms that came out right in a pass, and of these the ones that went a way at least once.
fn right(report: &Value, pass: &str, way: Option<&str>) -> usize {
    let forms = report["forms"].as_array().expect("forms");
    let right = forms.iter().map(|form| &form[pass]).filter(|verdict| verdict["result"] == "right");
    right.filter(|verdict| way.is_none_or(|way| verdict[way].as_u64() > Some(0))).count()
}

fn hammered(report: &Value, words: &str) -> Value {
    let all = report["hammer"].as_array().expect("hammer");
    all.iter().find(|h| h["what"].as_str().is_some_and(|what| what == words)).unwrap_or_else(|| panic!("no {words}: {all:?}")).clone()
}

#[test]
fn on_this_machines_kvm() {
    let report = check(&["--host", "kvm"]);
    assert!(right(&report, "auto", None) >= 60);
    println!(
        "{} forms right; emulated {}, stepped {}, served {}",
        right(&report, "auto", None),
        right(&report, "auto", Some("emulated")),
        right(&report, "auto", Some("stepped")),
        right(&report, "auto", Some("served"))
    );
    for cpus in [2, 4] {
        let hammer = hammered(&report, &format!("{cpus} CPUs, lock inc, emulated"));
        assert_eq!(hammer["made"], hammer["counted"], "{hammer}");
        println!("{hammer}");
    }
}

/// Everything must work in the lab.
fn everything(report: &Value) {
    assert!(report["not_native"].is_null() && report["no_single_step"].is_null(), "{report}");
    let (auto, step) = (right(report, "auto", None), right(report, "step", None));
    let (emulated, by_force) = (right(report, "auto", Some("emulated")), right(report, "auto", Some("stepped")));
    let stepped = right(report, "step", Some("stepped"));
    println!("{auto} forms right, {emulated} emulated, {by_force} stepped; {step} right with steps only, {stepped} stepped");
    assert!(auto >= 200 && step >= 200, "{auto} {step}");
    assert!(emulated >= 120 && by_force >= 20 && stepped >= 200, "{emulated} {by_force} {stepped}");
    for (cpus, how) in [(2, "emulated"), (4, "emulated"), (2, "stepped")] {
        let hammer = hammered(report, &format!("{cpus} CPUs, lock inc, {how}"));
        println!("{hammer}");
        assert_eq!(hammer["made"], hammer["counted"], "{hammer}");
        let told = hammer["made"].as_u64().expect("made") + hammer["ways"]["repeated"].as_u64().expect("repeated");
        assert_eq!(Some(told), hammer["told"].as_u64(), "{hammer}");
    }
}

#[test]
fn in_the_lab() {
    let _lab = lab();
    everything(&check(&["--host", "lab"]));
}

#[test]
fn in_the_lab_with_userfaultfd() {
    let _lab = lab();
    everything(&check(&["--host", "lab", "--watch-backend", "userfaultfd"]));
}

/// A QEMU whose guests have AVX, and two CPUs under the hypervisor's two.
#[test]
fn in_a_lab_with_avx_and_two_cpus() {
    let _lab = lab();
    let report = check(&["--host", "lab", "--lab-qemu", "new", "--lab-cpus", "2"]);
    everything(&report);
    let absent: Vec<&Value> = report["forms"].as_array().expect("forms").iter().filter(|f| f["auto"]["result"] == "not-there").collect();
    assert_eq!(absent, Vec::<&Value>::new(), "with AVX every form is there");
    assert!(report["hammer"].as_array().expect("hammer").iter().all(|hammer| hammer["host_cpus"] == 2), "{}", report["hammer"]);
}
