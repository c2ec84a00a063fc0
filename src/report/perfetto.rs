//! Trace Event Format JSON ("Trace Event Format", the JSON object form), as ui.perfetto.dev and chrome://tracing read it.
//!
//! A process for each device; its first thread has what belongs to no mapping, the others are lanes: a mapping takes the first lane
//! that is free for its whole life, as a slice with its owners as slices within. There is no clock: one microsecond is one event.

use crate::report::Report;
use crate::report::timeline::{Actor, Event, Kind, Timeline, Track};
use dmavet_coherence::Severity;
use serde::Serialize;
use std::borrow::Cow;
use std::cmp::Reverse;

/// The thread of what belongs to no mapping; lanes follow.
const OWN: u64 = 1;

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "traceEvents")]
    events: Vec<TraceEvent<'a>>,
    #[serde(rename = "displayTimeUnit")]
    unit: &'static str,
    #[serde(rename = "otherData")]
    other: OtherData<'a>,
}

#[derive(Serialize)]
struct OtherData<'a> {
    producer: &'static str,
    run: &'a str,
    kernel: &'a str,
    verdict: &'a str,
    clock: &'static str,
    notes: String,
}

/// One event of the format.
#[derive(Serialize)]
struct TraceEvent<'a> {
    name: Cow<'a, str>,
    cat: &'static str,
    ph: &'static str,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    pid: u64,
    tid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cname: Option<&'static str>,
    args: Args<'a>,
}

/// What is shown of an event that is looked at.
#[derive(Default, Serialize)]
struct Args<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'a str>,
}

/// The mappings of a run as a trace.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn document(report: &Report, timeline: &Timeline) -> serde_json::Result<String> {
    let (lanes, mut events) = lay_out(timeline);
    let mut timed = Vec::new();
    for (track, lane) in timeline.tracks.iter().zip(&lanes) {
        Writer { report, timeline, track, pid: pid(track), tid: *lane, out: &mut timed }.write();
    }
    // Of two slices that begin together the longer one holds the other.
    timed.sort_by_key(|event| (event.ts, Reverse(event.dur.unwrap_or(0))));
    events.append(&mut timed);
    serde_json::to_string(&Document {
        events,
        unit: "ns",
        other: OtherData {
            producer: concat!("dmavet ", env!("CARGO_PKG_VERSION")),
            run: &report.run.title,
            kernel: &report.run.kernel,
            verdict: &report.verdict.reason,
            clock: "none: one microsecond stands for one event of the run",
            notes: timeline.notes.join(" "),
        },
    })
}

fn pid(track: &Track) -> u64 {
    track.device as u64 + 1
}

/// The lane of each track, and the names of processes and threads.
fn lay_out(timeline: &Timeline) -> (Vec<u64>, Vec<TraceEvent<'static>>) {
    // The first position at which each lane of each device is free again.
    let mut free: Vec<Vec<u64>> = vec![Vec::new(); timeline.devices.len()];
    let mut lanes = Vec::with_capacity(timeline.tracks.len());
    for track in &timeline.tracks {
        let until = if track.end.is_some() { track.last() } else { u64::MAX };
        match free.get_mut(track.device).filter(|_| track.is_mapping()) {
            None => lanes.push(OWN),
            Some(free) => {
                let lane = free.iter().position(|free| *free < track.start).unwrap_or_else(|| {
                    free.push(0);
                    free.len() - 1
                });
                if let Some(free) = free.get_mut(lane) {
                    *free = until;
                }
                lanes.push(OWN + 1 + lane as u64);
            }
        }
    }
    let mut names = Vec::new();
    for (index, (device, lanes)) in timeline.devices.iter().zip(&free).enumerate() {
        let pid = index as u64 + 1;
        names.push(metadata("process_name", pid, OWN, Args { name: Some(device.clone()), ..Args::default() }));
        names.push(metadata("process_sort_index", pid, OWN, Args { sort_index: Some(pid), ..Args::default() }));
        for lane in 0..=lanes.len() as u64 {
            let name =
                if lane == 0 { "device: registers, interrupts, offences without a mapping".into() } else { format!("mappings {lane}") };
            names.push(metadata("thread_name", pid, OWN + lane, Args { name: Some(name), ..Args::default() }));
            names.push(metadata("thread_sort_index", pid, OWN + lane, Args { sort_index: Some(lane), ..Args::default() }));
        }
    }
    (lanes, names)
}

fn metadata(name: &'static str, pid: u64, tid: u64, args: Args<'static>) -> TraceEvent<'static> {
    TraceEvent { name: name.into(), cat: "__metadata", ph: "M", ts: 0, dur: None, pid, tid, s: None, cname: None, args }
}

/// Writes one track.
struct Writer<'a, 'o> {
    report: &'a Report,
    timeline: &'a Timeline,
    track: &'a Track,
    pid: u64,
    tid: u64,
    out: &'o mut Vec<TraceEvent<'a>>,
}

impl<'a> Writer<'a, '_> {
    fn write(&mut self) {
        let track = self.track;
        if track.is_mapping() {
            let end = track.end.unwrap_or(self.timeline.last);
            let args = Args {
                handle: Some(format!("{:#x}", track.handle)),
                driver: Some(&track.driver),
                direction: Some(track.direction),
                place: track.events.first().map(|event| self.timeline.place(event)),
                ..Args::default()
            };
            self.slice(
                format!("{} of {} bytes, {}", track.family, track.size, track.direction).into(),
                "mapping",
                (track.start, end),
                args,
            );
        }
        for span in &track.spans {
            let (name, cname): (Cow<'_, str>, _) = match span.device {
                0 => ("CPU-owned".into(), "good"),
                bytes if bytes == track.size => ("device-owned".into(), "bad"),
                bytes => (format!("{bytes} bytes device-owned").into(), "bad"),
            };
            self.slice(name, "ownership", (span.from, span.to), Args::default());
            if let Some(slice) = self.out.last_mut() {
                slice.cname = Some(cname);
            }
        }
        track.events.iter().for_each(|event| self.event(event));
        for mark in &track.marks {
            let Some(finding) = self.report.findings.get(mark.finding) else { continue };
            let offence = finding.offence.as_ref();
            let frames = offence.map(|site| site.frames.iter().map(crate::report::text::long).collect::<Vec<_>>().join("\n"));
            let args = Args {
                message: Some(&finding.volatile.message),
                advice: Some(&finding.advice),
                stack: frames,
                driver: Some(&finding.driver),
                count: u32::try_from(finding.volatile.count).ok(),
                ..Args::default()
            };
            let (cat, cname) = match finding.severity {
                Severity::Error => ("offence", Some("terrible")),
                Severity::Warning => ("offence", Some("bad")),
                Severity::Note => ("note", None),
            };
            self.instant(format!("{} {}", finding.code, finding.slug).into(), cat, mark.seq, args);
            if let Some(instant) = self.out.last_mut() {
                instant.cname = cname;
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let cat = match event.kind.actor() {
            Actor::Call => "call",
            Actor::Device => "device",
            Actor::Cpu => "cpu",
            Actor::Other => "other",
        };
        let place = self.timeline.places.get(event.place as usize);
        let args = Args {
            bytes: (event.len > 0).then(|| format!("{:#x}..{:#x}", event.offset, event.offset.saturating_add(event.len))),
            place: place.map(|place| &*place.short).filter(|short| !short.is_empty()),
            stack: place.map(|place| place.frames.join("\n")).filter(|stack| !stack.is_empty()),
            count: Some(event.count).filter(|count| *count > 1),
            ..Args::default()
        };
        let cname = matches!(event.kind, Kind::RefusedRead | Kind::RefusedWrite).then_some("terrible");
        self.instant(event.kind.text().into(), cat, event.seq, args);
        if let Some(instant) = self.out.last_mut() {
            instant.cname = cname;
        }
    }

    fn slice(&mut self, name: Cow<'a, str>, cat: &'static str, (from, to): (u64, u64), args: Args<'a>) {
        let dur = Some(to.saturating_sub(from));
        self.out.push(TraceEvent { name, cat, ph: "X", ts: from, dur, pid: self.pid, tid: self.tid, s: None, cname: None, args });
    }

    fn instant(&mut self, name: Cow<'a, str>, cat: &'static str, ts: u64, args: Args<'a>) {
        let (pid, tid) = (self.pid, self.tid);
        self.out.push(TraceEvent { name, cat, ph: "i", ts, dur: None, pid, tid, s: Some("t"), cname: None, args });
    }
}
