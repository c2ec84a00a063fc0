//! The trace is what the description of the Trace Event Format asks for ("Trace Event Format", sections "JSON Object Format", "Duration
//! and Complete Events", "Instant Events" and "Metadata Events").

use crate::sample;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const METADATA: [&str; 5] = ["process_name", "process_labels", "process_sort_index", "thread_name", "thread_sort_index"];

/// What is wrong with a document of the format.
fn faults(document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |index: usize, what: &str| faults.push(format!("event {index}: {what}"));
    let Some(events) = document["traceEvents"].as_array() else { return vec!["there is no array traceEvents".into()] };
    let mut last = 0;
    let mut slices: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    let (mut used, mut named) = (BTreeSet::new(), BTreeSet::new());
    for (index, event) in events.iter().enumerate() {
        let (Some(name), Some(ph)) = (event["name"].as_str(), event["ph"].as_str()) else {
            fault(index, "name and ph are strings");
            continue;
        };
        let (Some(pid), Some(tid), Some(ts)) = (event["pid"].as_u64(), event["tid"].as_u64(), event["ts"].as_u64()) else {
            fault(index, "pid, tid and ts are numbers");
            continue;
        };
        if !event["args"].is_object() {
            fault(index, "args is an object");
        }
        if event["cat"].as_str().is_none_or(str::is_empty) {
            fault(index, "cat is a string");
        }
        if ph == "M" {
            let args = &event["args"];
            let right = if name.ends_with("sort_index") { args["sort_index"].is_u64() } else { args["name"].is_string() };
            if !METADATA.contains(&name) || !right {
                fault(index, "metadata nobody reads");
            }
            if name == "thread_name" && !named.insert((pid, tid)) {
                fault(index, "a thread is named twice");
            }
            continue;
        }
        used.insert((pid, tid));
        if ts < last {
            fault(index, "events are in the order of time");
        }
        last = ts;
        match ph {
            "X" => {
                let Some(dur) = event["dur"].as_u64() else {
                    fault(index, "a complete event has a duration");
                    continue;
                };
                let open = slices.entry((pid, tid)).or_default();
                while open.last().is_some_and(|end| *end <= ts) {
                    open.pop();
                }
                if open.last().is_some_and(|end| *end < ts + dur) {
                    fault(index, "slices of a thread lie within each other or apart");
                }
                open.push(ts + dur);
            }
            "i" if matches!(event["s"].as_str(), Some("g" | "p" | "t")) => {}
            "i" => fault(index, "an instant has a scope"),
            _ => fault(index, "a phase that is not used here"),
        }
    }
    faults.extend(used.difference(&named).map(|thread| format!("thread {thread:?} has no name")));
    faults
}

fn count(document: &Value, wanted: impl Fn(&Value) -> bool) -> usize {
    document["traceEvents"].as_array().expect("events").iter().filter(|event| wanted(event)).count()
}

#[test]
fn trace_viewers_get_what_they_ask_for() {
    let small = sample::small();
    let document: Value = serde_json::from_str(&small.report("perfetto")).expect("JSON");
    assert_eq!(faults(&document), Vec::<String>::new());
    assert_eq!(count(&document, |e| e["cat"] == "mapping"), 4);
    assert_eq!(count(&document, |e| e["name"] == "device-owned"), 5, "{document:#}");
    assert_eq!(count(&document, |e| e["name"] == "4032 bytes device-owned"), 2);
    let late = |e: &Value| e["cat"] == "offence" && e["name"] == "DV202 missing-sync-for-cpu";
    assert_eq!(count(&document, |e| late(e) && e["args"]["stack"].as_str().is_some_and(|stack| stack.contains("drv_rx_poll"))), 1);
    let process = |e: &Value| e["name"] == "process_name" && e["args"]["name"] == "0000:00:02.0";
    assert_eq!(count(&document, process), 1);

    let bare = tempfile::tempdir().expect("temporary directory");
    std::fs::copy(small.path().join("findings.json"), bare.path().join("findings.json")).expect("copy");
    let document: Value = serde_json::from_str(&sample::report(bare.path(), "perfetto")).expect("JSON");
    assert_eq!(faults(&document), Vec::<String>::new());
    assert!(document["otherData"]["notes"].as_str().is_some_and(|notes| notes.contains("no trace")));
}

#[test]
fn lanes_are_used_again_and_never_shared() {
    let run = sample::large(500);
    let document: Value = serde_json::from_str(&run.report("perfetto")).expect("JSON");
    assert_eq!(faults(&document), Vec::<String>::new());
    assert_eq!(count(&document, |e| e["cat"] == "mapping"), 500);
    let lanes = count(&document, |e| e["name"] == "thread_name");
    assert!(lanes < 10, "{lanes} lanes for mappings that follow each other");
}

#[test]
fn the_check_notices_what_is_wrong() {
    let run = sample::small();
    let good: Value = serde_json::from_str(&run.report("perfetto")).expect("JSON");
    let at = |wanted: &str| good["traceEvents"].as_array().expect("events").iter().rposition(|e| e["ph"] == wanted).expect("one");
    for (index, member, value) in [
        (at("i"), "s", Value::from("x")),
        (at("X"), "dur", Value::Null),
        (at("i"), "ts", Value::from(0)),
        (at("X"), "tid", Value::from("lane")),
        (at("M"), "name", Value::from("thread_colour")),
        (at("i"), "ph", Value::from("E")),
    ] {
        let mut bad = good.clone();
        bad["traceEvents"][index][member] = value;
        assert!(!faults(&bad).is_empty(), "{member} of event {index}");
    }
}
