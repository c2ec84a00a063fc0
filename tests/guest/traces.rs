//! Histories that no driver of ncdma can make: played on the core by hand, recorded, and judged by `dmavet replay` as a user would.
//!
//! ncdma works while the doorbell is written and never on after that, and a device model that comes with dmavet stops at a reset. What
//! another one may do is played here.

use crate::bench::{self, BUFFER, Bench, DEVICE};
use crate::tool::dmavet;
use dmavet_coherence::{Answer, Code, Iova};
use serde_json::{Value, json};
use vm_memory::{Bytes, GuestAddress};

/// A history and what is to come of it.
pub struct Scenario {
    pub name: &'static str,
    /// What is found, all of it.
    pub expect: &'static [Code],
    /// The function of the first finding's offence.
    pub offender: &'static str,
    /// The rules it comes near to.
    pub near_misses: &'static [Code],
    play: fn(&Bench),
}

/// Every history.
pub fn scenarios() -> Vec<Scenario> {
    let bad = |name, code: &'static [Code], offender, play| Scenario { name, expect: code, offender, near_misses: &[], play };
    let good = |name, near: &'static [Code], play| Scenario { name, expect: &[], offender: "", near_misses: near, play };
    vec![
        bad("unmap-in-flight", &[Code::DV115], "remove", |bench| {
            let dma = bench.map();
            bench.kick("start");
            let _transfer = bench.view.begin(dma, 64);
            bench.unmap(dma, "remove");
            assert!(bench.view.write_slice(&[1; 64], GuestAddress(dma.0)).is_err());
        }),
        good("stopped-before-unmap", &[Code::DV115, Code::DV208], |bench| {
            let dma = bench.map();
            bench.kick("start");
            let transfer = bench.view.begin(dma, 64);
            bench.write(dma);
            // The driver stops the device: it drops what it was doing.
            bench.kick("stop");
            drop(transfer);
            bench.unmap(dma, "remove");
        }),
        bad("dma-after-reset", &[Code::DV502], "", |bench| {
            let dma = bench.map();
            bench.kick("start");
            bench.write(dma);
            bench.core.reset_device(DEVICE);
            assert!(bench.view.write_slice(&[1; 64], GuestAddress(dma.0)).is_err());
            bench.unmap(dma, "remove");
        }),
        good("set-up-after-reset", &[Code::DV502, Code::DV501], |bench| {
            let dma = bench.map();
            bench.core.reset_device(DEVICE);
            bench.core.set_bus_master(DEVICE, true);
            bench.kick("start");
            bench.write(dma);
            bench.unmap(dma, "remove");
        }),
        bad("mapping-table-full", &[Code::DV901], "", |bench| {
            let handles: Vec<Iova> = (1..=MAPPINGS).map(|page| bench.map_at(BUFFER.0 + page * 4096)).collect();
            assert_eq!(bench.try_map(BUFFER.0), Answer::Failed);
            handles.into_iter().for_each(|dma| bench.unmap(dma, "remove"));
        }),
        good("mapping-table-just-full", &[Code::DV901], |bench| {
            let handles: Vec<Iova> = (1..=MAPPINGS).map(|page| bench.map_at(BUFFER.0 + page * 4096)).collect();
            bench.kick("start");
            bench.write(handles[0]);
            handles.into_iter().for_each(|dma| bench.unmap(dma, "remove"));
        }),
    ]
}

/// The most mappings of the machine.
const MAPPINGS: u64 = 64;

#[test]
fn histories_replay_to_their_findings() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for scenario in scenarios() {
        let path = dir.path().join(scenario.name);
        let few = |config: &mut dmavet_coherence::Config| config.max_mappings = u32::try_from(MAPPINGS).expect("fits");
        bench::record(scenario.name, &json!([]), &path, few, scenario.play);
        let ran = dmavet(["replay", "--format", "json", path.to_str().expect("UTF-8")]);
        assert_eq!(ran.code, i32::from(!scenario.expect.is_empty()), "{}: {}", scenario.name, ran.all());
        let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let findings = report["findings"].as_array().expect("findings");
        let codes: Vec<Code> = findings.iter().map(|f| f["code"].as_str().expect("code").parse().expect("a code")).collect();
        assert_eq!(codes, scenario.expect, "{}: {}", scenario.name, ran.stdout);
        if let Some(finding) = findings.first().filter(|_| !scenario.offender.is_empty()) {
            let function = finding["offence"]["frames"][0]["function"].as_str().unwrap_or_default();
            assert_eq!(function, scenario.offender, "{}: {finding}", scenario.name);
        }
    }
}
