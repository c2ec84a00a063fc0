//! One mapping's line in a picture: its events, and which side owned how much of it when.

use super::Kind;
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};
use std::collections::VecDeque;

/// Events kept from the beginning of a track whatever comes later.
const HEAD: usize = 256;
/// Runs of bytes told apart in who owns what. A driver that syncs more pieces than that gets a coarser picture.
const MOST_RUNS: usize = 4096;

/// One event, or several of the same kind in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// Sequence number of the first.
    pub seq: u64,
    /// Sequence number of the last.
    pub last: u64,
    /// Offset in the mapping of the first byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Index in the timeline's places.
    pub place: u32,
    /// How many.
    pub count: u32,
}

impl Event {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// Whether `next` only goes on with what this is.
    fn continues(&self, next: &Self) -> bool {
        !matches!(self.kind.actor(), super::Actor::Call)
            && self.kind == next.kind
            && self.place == next.place
            && next.offset <= self.end()
            && self.offset <= next.end()
    }

    fn extend(&mut self, next: &Self) {
        let end = self.end().max(next.end());
        self.offset = self.offset.min(next.offset);
        self.len = end - self.offset;
        self.last = next.last;
        self.count = self.count.saturating_add(next.count);
    }
}

/// From `from` on, the device owns `device` bytes of the mapping, and the CPU the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Sequence number.
    pub from: u64,
    /// Sequence number of the next span, or of the end.
    pub to: u64,
    /// Bytes.
    pub device: u64,
}

/// Events that were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Sequence number of the first of them.
    pub from: u64,
    /// Sequence number of the last.
    pub to: u64,
    /// How many.
    pub events: u64,
}

/// A finding's place on a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// Index of the finding.
    pub finding: usize,
    /// Sequence number.
    pub seq: u64,
}

/// The life of a mapping, or what happened to a device apart from its mappings.
#[derive(Clone, Debug, Serialize)]
pub struct Track {
    /// Index of the device.
    pub device: usize,
    /// The driver that was bound to it.
    pub driver: String,
    /// `single`, `sg`, `resource`, `coherent`, `pages`; `device` for a device's own track.
    pub family: &'static str,
    /// Direction of a mapping.
    pub direction: &'static str,
    /// Bytes.
    pub size: u64,
    /// First handle (IOVA); 0 for a device.
    #[serde(serialize_with = "hex")]
    pub handle: u64,
    /// Sequence number of the first event.
    pub start: u64,
    /// Sequence number of the end; none for what is there to the end of the run.
    pub end: Option<u64>,
    /// Events in order.
    #[serde(serialize_with = "flat_events")]
    pub events: Vec<Event>,
    /// Who owned how much of it; empty where the two sides share one copy.
    #[serde(serialize_with = "flat_spans")]
    pub spans: Vec<Span>,
    /// What was left out.
    pub gap: Option<Gap>,
    /// Offences.
    pub marks: Vec<Mark>,
}

impl Track {
    /// A track without events that begins at `start`.
    pub(super) fn empty(device: usize, family: &'static str, start: u64) -> Self {
        Self {
            device,
            driver: String::new(),
            family,
            direction: "",
            size: 0,
            handle: 0,
            start,
            end: None,
            events: Vec::new(),
            spans: Vec::new(),
            gap: None,
            marks: Vec::new(),
        }
    }

    /// Whether it is a mapping, and not a device.
    #[must_use]
    pub fn is_mapping(&self) -> bool {
        self.family != "device"
    }

    /// Whether CPU and device have a copy each.
    #[must_use]
    pub fn has_two_copies(&self) -> bool {
        matches!(self.family, "single" | "sg" | "pages")
    }

    /// The last sequence number anything is drawn at.
    #[must_use]
    pub fn last(&self) -> u64 {
        let events = self.events.last().map_or(self.start, |event| event.last);
        let marks = self.marks.iter().map(|mark| mark.seq).max().unwrap_or(0);
        events.max(marks).max(self.end.unwrap_or(0))
    }
}

/// A track that is being drawn.
#[derive(Clone, Debug)]
pub(super) struct Growing {
    pub(super) track: Track,
    tail: VecDeque<Event>,
    /// Who owned what when the left-out events were over.
    after_gap: Owned,
    /// A newer mapping has its handle since.
    pub(super) superseded: Option<u64>,
}

impl Growing {
    pub(super) fn new(track: Track) -> Self {
        Self { track, tail: VecDeque::new(), after_gap: Owned::default(), superseded: None }
    }

    /// Events kept.
    pub(super) fn len(&self) -> usize {
        self.track.events.len() + self.tail.len()
    }

    /// Adds an event and keeps at most `most`: the first ones and the last ones.
    pub(super) fn push(&mut self, event: Event, most: usize) {
        if event.kind.ends() && self.track.end.is_none() && self.track.is_mapping() {
            self.track.end = Some(event.seq);
        }
        let last = self.tail.back_mut().or_else(|| self.track.events.last_mut());
        if let Some(last) = last.filter(|last| last.continues(&event)) {
            last.extend(&event);
            return;
        }
        if self.track.gap.is_none() && self.tail.is_empty() && self.track.events.len() < HEAD {
            self.track.events.push(event);
            return;
        }
        self.tail.push_back(event);
        while self.tail.len() > most.saturating_sub(HEAD).max(16) {
            self.leave_out();
        }
    }

    fn leave_out(&mut self) {
        let Some(event) = self.tail.pop_front() else { return };
        if self.track.gap.is_none() {
            for event in &self.track.events {
                self.after_gap.apply(event, self.track.size);
            }
        }
        self.after_gap.apply(&event, self.track.size);
        let gap = self.track.gap.get_or_insert(Gap { from: event.seq, to: event.last, events: 0 });
        gap.to = event.last;
        gap.events = gap.events.saturating_add(event.count.into());
    }

    /// The track, drawn.
    pub(super) fn finish(self, last: u64) -> Track {
        let Self { mut track, tail, after_gap, .. } = self;
        if track.has_two_copies() {
            let mut spans = Spans { owned: Owned::default(), done: Vec::new(), size: track.size };
            track.events.iter().for_each(|event| spans.event(event));
            if let Some(gap) = &track.gap {
                spans.owned = after_gap;
                spans.note(gap.to);
            }
            tail.iter().for_each(|event| spans.event(event));
            track.spans = spans.finish(track.end.unwrap_or(last));
        }
        track.events.extend(tail);
        track
    }
}

struct Spans {
    owned: Owned,
    done: Vec<Span>,
    size: u64,
}

impl Spans {
    fn event(&mut self, event: &Event) {
        if self.owned.apply(event, self.size) {
            self.note(event.seq);
        }
    }

    fn note(&mut self, seq: u64) {
        let device = self.owned.bytes();
        // Of several hand-overs in one event only the outcome counts.
        if self.done.last().is_some_and(|last| last.from == seq) {
            self.done.pop();
        }
        match self.done.last_mut() {
            Some(last) if last.device == device => {}
            last => {
                if let Some(last) = last {
                    last.to = seq;
                }
                self.done.push(Span { from: seq, to: seq, device });
            }
        }
    }

    fn finish(mut self, end: u64) -> Vec<Span> {
        self.done.retain(|span| span.from < end);
        if let Some(last) = self.done.last_mut() {
            last.to = end;
        }
        self.done
    }
}

/// The bytes of a mapping the device owns: runs in order that do not touch.
#[derive(Clone, Debug, Default)]
struct Owned(Vec<(u64, u64)>);

impl Owned {
    /// Moves ownership as an event does; true when it is one that does.
    fn apply(&mut self, event: &Event, size: u64) -> bool {
        let (start, end) = (event.offset, event.end().min(size));
        match event.kind {
            Kind::Map | Kind::MapSkip => self.give(0, size),
            Kind::ForDevice => self.give(start, end),
            Kind::ForCpu => self.take(start, end),
            Kind::Alloc | Kind::Unmap | Kind::UnmapSkip | Kind::Free | Kind::Dropped => self.0.clear(),
            _ => return false,
        }
        true
    }

    fn give(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        self.0.retain(|&(from, to)| {
            let apart = to < start || end < from;
            if !apart {
                (start, end) = (start.min(from), end.max(to));
            }
            apart
        });
        let at = self.0.partition_point(|run| run.0 < start);
        self.0.insert(at, (start, end));
        self.coarsen();
    }

    fn take(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let runs = std::mem::take(&mut self.0);
        for (from, to) in runs {
            let parts = [(from, to.min(start)), (from.max(end), to)];
            self.0.extend(parts.into_iter().filter(|(from, to)| from < to));
        }
        self.coarsen();
    }

    fn coarsen(&mut self) {
        if let (true, Some((start, _)), Some((_, end))) = (self.0.len() > MOST_RUNS, self.0.first(), self.0.last()) {
            self.0 = vec![(*start, *end)];
        }
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }
}

fn hex<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

/// Seven numbers for each event: kind, first and last sequence number, offset, bytes, place, count.
fn flat_events<S: Serializer>(events: &[Event], serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_seq(Some(events.len() * 7))?;
    for event in events {
        for number in [event.kind.index().into(), event.seq, event.last, event.offset, event.len, event.place.into(), event.count.into()] {
            out.serialize_element(&number)?;
        }
    }
    out.end()
}

/// Three numbers for each span: from, to, bytes of the device.
fn flat_spans<S: Serializer>(spans: &[Span], serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_seq(Some(spans.len() * 3))?;
    for span in spans {
        for number in [span.from, span.to, span.device] {
            out.serialize_element(&number)?;
        }
    }
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(size: u64) -> Growing {
        Growing::new(Track { size, ..Track::empty(0, "single", 1) })
    }

    fn event(kind: Kind, seq: u64, offset: u64, len: u64) -> Event {
        Event { kind, seq, last: seq, offset, len, place: 0, count: 1 }
    }

    fn spans(track: &Track) -> Vec<(u64, u64, u64)> {
        track.spans.iter().map(|span| (span.from, span.to, span.device)).collect()
    }

    #[test]
    fn ownership_goes_back_and_forth_by_bytes() {
        let mut growing = track(4096);
        for event in [
            event(Kind::Map, 1, 0, 4096),
            event(Kind::DeviceWrite, 2, 0, 64),
            event(Kind::ForCpu, 3, 0, 64),
            event(Kind::ForCpu, 4, 128, 64),
            event(Kind::ForDevice, 5, 0, 192),
            event(Kind::Unmap, 9, 0, 4096),
            event(Kind::RefusedWrite, 12, 0, 64),
        ] {
            growing.push(event, 1000);
        }
        let track = growing.finish(20);
        assert_eq!(spans(&track), [(1, 3, 4096), (3, 4, 4032), (4, 5, 3968), (5, 9, 4096)]);
        assert_eq!((track.end, track.last()), (Some(9), 12));
    }

    #[test]
    fn accesses_that_go_on_are_one_event() {
        let mut growing = track(4096);
        growing.push(event(Kind::Map, 1, 0, 4096), 1000);
        (0..64).for_each(|n| growing.push(event(Kind::DeviceWrite, 2 + n, n * 64, 64), 1000));
        growing.push(event(Kind::DeviceWrite, 80, 0, 8), 1000);
        growing.push(event(Kind::CpuRead, 81, 0, 8), 1000);
        growing.push(event(Kind::ForCpu, 82, 0, 8), 1000);
        growing.push(event(Kind::ForCpu, 83, 0, 8), 1000);
        let track = growing.finish(90);
        assert_eq!(track.events.len(), 5, "hand-overs are never folded");
        assert_eq!((track.events[1].seq, track.events[1].last, track.events[1].len, track.events[1].count), (2, 80, 4096, 65));
    }

    #[test]
    fn a_long_life_keeps_its_beginning_its_end_and_who_owns_what() {
        let mut growing = track(4096);
        growing.push(event(Kind::Map, 1, 0, 4096), 400);
        for round in 0..10_000 {
            growing.push(event(Kind::ForCpu, 2 + round * 2, 0, 4096), 400);
            growing.push(event(Kind::ForDevice, 3 + round * 2, 0, 1024), 400);
        }
        assert!(growing.len() <= 400);
        let track = growing.finish(30_000);
        let gap = track.gap.expect("a gap");
        assert_eq!(gap.events + track.events.len() as u64, 20_001);
        assert_eq!((track.events[0].kind, track.events.last().map(|e| e.seq)), (Kind::Map, Some(20_001)));
        let after = track.spans.iter().find(|span| span.from >= gap.to).expect("a span behind the gap");
        assert!([0, 1024].contains(&after.device), "{after:?}");
        assert!(track.spans.windows(2).all(|pair| pair[0].to == pair[1].from));
    }

    #[test]
    fn too_many_pieces_become_one() {
        let mut growing = track(1 << 20);
        growing.push(event(Kind::Map, 1, 0, 1 << 20), 100_000);
        (0..10_000).for_each(|n| growing.push(event(Kind::ForCpu, 2 + n, n * 64, 1), 100_000));
        assert!(growing.finish(20_000).spans.last().expect("spans").device <= 1 << 20);
    }
}
