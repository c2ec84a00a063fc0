//! Findings that end the run.

use super::fixture::*;
use crate::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug, Default)]
struct Counter(AtomicU32);

impl Stopper for Counter {
    fn stop(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A world that waits for `on`, and how often it was stopped.
fn waiting(on: &[StopOn]) -> (World, Arc<Counter>) {
    let world = World::with(|config| config.stop_on = on.to_vec());
    let counter = Arc::new(Counter::default());
    world.core.set_stopper(counter.clone());
    (world, counter)
}

fn break_rules(w: &World) {
    let dma = w.map(BUF, 64, ToDevice);
    // DV102, then DV103 and DV101.
    w.unmap(dma, 32, ToDevice);
    let dma = w.map(BUF, 64, ToDevice);
    w.unmap(dma, 64, FromDevice);
    w.unmap(dma, 64, ToDevice);
    // A leak.
    w.map(BUF, 64, ToDevice);
    w.call(&ApiCall::Unbound);
}

#[test]
fn nothing_is_reported_after_the_finding_waited_for() {
    let (w, counter) = waiting(&[StopOn::Code(Code::DV103), StopOn::Code(Code::DV108)]);
    break_rules(&w);
    assert_eq!(w.bad(), ["DV102e", "DV103e"]);
    assert_eq!((w.core.finish().stopped_at, counter.0.load(Ordering::Relaxed)), (Some(Code::DV103), 1));
}

#[test]
fn a_severity_stands_for_the_worse_ones() {
    let (w, counter) = waiting(&[StopOn::Severity(Severity::Warning)]);
    break_rules(&w);
    assert_eq!((w.bad().len(), w.core.finish().stopped_at), (1, Some(Code::DV102)));
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
}

#[test]
fn the_end_of_the_run_stops_nothing() {
    let (w, counter) = waiting(&[StopOn::Code(Code::DV108)]);
    w.core.call(Caller { requester: OTHER, site: w.here(), cpu: 0 }, &ApiCall::Map(single(BUF, 64, ToDevice)));
    w.call(&ApiCall::Unbound);
    w.map(BUF + PAGE, 64, ToDevice);
    w.map(BUF + 2 * PAGE, 64, ToDevice);
    assert_eq!(w.bad(), ["DV108w", "DV108w"]);
    assert_eq!((w.core.finish().stopped_at, counter.0.load(Ordering::Relaxed)), (None, 0));
}

#[test]
fn what_to_wait_for_is_read_as_it_is_written() {
    for text in ["DV201", "error", "warning", "note"] {
        assert_eq!(text.parse::<StopOn>().unwrap().to_string(), text);
    }
    assert_eq!("dv201".parse(), Ok(StopOn::Code(Code::DV201)));
    assert_eq!("missing-sync-for-device".parse(), Ok(StopOn::Code(Code::DV201)));
    let told = "errors".parse::<StopOn>().unwrap_err().to_string();
    assert!(told.contains("\"errors\"") && told.contains("error, warning or note"), "{told}");
}
