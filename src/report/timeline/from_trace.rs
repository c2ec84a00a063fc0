//! From the trace of a recorded run: every mapping, read as a stream.
//!
//! Nothing is judged again; what a finding is about comes from the report.

mod lives;
mod places;

use super::offences::Offences;
use super::track::{Event, Growing, Track};
use super::{Kind, Limits, Timeline, device_index};
use crate::report::Report;
use dmavet_coherence::{
    Answer, ApiCall, Attrs, Caller, CpuAccess, Family, Frame, Input, Intent, Iova, MapCall, Outcome, PageKind, Requester, SyncCall,
};
use dmavet_trace::{End, Reader, Record};
use lives::{Life, Lives};
use places::Places;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// The mappings in the trace at `path`.
///
/// # Errors
/// When it cannot be read: why, for the report.
pub(super) fn timeline(report: &Report, path: &Path, limits: Limits) -> Result<Timeline, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut reader = Reader::new(BufReader::with_capacity(256 << 10, file)).map_err(|e| e.to_string())?;
    let mut drawer = Drawer::new(report, limits);
    let mut stack = None;
    loop {
        match reader.next().map_err(|e| e.to_string())? {
            None => break,
            Some(Record::Input(input)) => drawer.input(&input, stack.take())?,
            Some(Record::Stack(frames)) => stack = Some(frames),
            Some(Record::Note(name, value)) => drawer.places.note(&name, &value),
            Some(_) => {}
        }
    }
    let mut timeline = drawer.finish();
    if let Some(End::Cut(_)) = reader.end() {
        timeline.notes.push("The trace has no end: the run was killed, and what came last is not drawn.".into());
    }
    Ok(timeline)
}

/// What is known of a device.
struct Device {
    /// What happened to it apart from its mappings.
    own: Growing,
    driver: String,
    /// Place of the last register write: what the device does is put down to it.
    kick: u32,
}

/// Requesters that get a line of their own.
const MOST_DEVICES: usize = 4096;
/// Mappings that may be alive at once.
const MOST_LIVE: usize = 1 << 20;

struct Drawer {
    limits: Limits,
    offences: Offences,
    names: Vec<String>,
    devices: Vec<Device>,
    requesters: HashMap<Requester, usize>,
    /// Mappings that are drawn, in the order they were made.
    tracks: BTreeMap<usize, Growing>,
    next: usize,
    /// Ended ones, oldest first.
    ended: VecDeque<usize>,
    /// Events in `tracks`.
    events: usize,
    /// Mappings that had to go.
    left_out: u64,
    lives: Lives,
    places: Places,
    seq: u64,
}

impl Drawer {
    fn new(report: &Report, limits: Limits) -> Self {
        let mut drawer = Self {
            limits,
            offences: Offences::new(report),
            names: Vec::new(),
            devices: Vec::new(),
            requesters: HashMap::new(),
            tracks: BTreeMap::new(),
            next: 0,
            ended: VecDeque::new(),
            events: 0,
            left_out: 0,
            lives: Lives::default(),
            places: Places::default(),
            seq: 0,
        };
        for device in &report.run.devices {
            drawer.device_named(&device.device);
        }
        drawer
    }

    /// The line of a requester. The core knows 4096; a trace that has more of them gets a line for all the others.
    fn device(&mut self, requester: Requester) -> usize {
        if let Some(device) = self.requesters.get(&requester) {
            return *device;
        }
        let device =
            if self.devices.len() < MOST_DEVICES { self.device_named(&requester.to_string()) } else { self.device_named("others") };
        self.requesters.insert(requester, device);
        device
    }

    fn device_named(&mut self, name: &str) -> usize {
        let index = device_index(&mut self.names, name);
        if index == self.devices.len() {
            let own = Growing::new(Track::empty(index, "device", self.seq));
            self.devices.push(Device { own, driver: String::new(), kick: 0 });
        }
        index
    }

    fn input(&mut self, input: &Input<'_>, stack: Option<Vec<Frame>>) -> Result<(), String> {
        self.seq += u64::from(input.is_event());
        match input {
            Input::AddDevice { requester, .. } => _ = self.device(*requester),
            Input::Site { stack, site } => self.places.learn(*site, stack)?,
            Input::Call { caller, call, answer } => {
                self.call(caller, call, answer);
                if self.lives.len() > MOST_LIVE {
                    return Err("it holds more mappings than belong to one run".into());
                }
            }
            Input::BusMaster { requester, on } => {
                self.on_device(*requester, if *on { Kind::BusMasterOn } else { Kind::BusMasterOff }, 0);
            }
            Input::Kick { requester, site } => {
                let (device, place) = (self.device(*requester), self.places.of(*site));
                self.devices[device].kick = place;
                self.on_device(*requester, Kind::Kick, place);
            }
            Input::Reset { requester } => self.on_device(*requester, Kind::Reset, 0),
            Input::Signalled { requester } => self.on_device(*requester, Kind::Signal, 0),
            Input::CpuAccess { accesses, rip, .. } => self.cpu_access(accesses, *rip, stack)?,
            Input::Access { requester, iova, len, write, intent, outcome, .. } => {
                let kind = match (*outcome, *write, *intent) {
                    (Outcome::Refused, true, _) => Kind::RefusedWrite,
                    (Outcome::Refused, false, _) => Kind::RefusedRead,
                    (_, true, _) => Kind::DeviceWrite,
                    (_, _, Intent::Use) => Kind::DeviceRead,
                    (_, _, Intent::Poll) => Kind::DevicePoll,
                    (_, _, Intent::Prefetch) => Kind::DevicePrefetch,
                };
                self.access(*requester, *iova, *len, kind);
            }
            Input::Consume { requester, iova, len, outcome } => {
                self.access(*requester, *iova, *len, if *outcome == Outcome::Refused { Kind::RefusedRead } else { Kind::DeviceUse });
            }
            _ => {}
        }
        Ok(())
    }

    fn event(&self, kind: Kind, place: u32, (offset, len): (u64, u64)) -> Event {
        Event { kind, seq: self.seq, last: self.seq, offset, len, place, count: 1 }
    }

    fn on_device(&mut self, requester: Requester, kind: Kind, place: u32) {
        let (device, event) = (self.device(requester), self.event(kind, place, (0, 0)));
        self.devices[device].own.push(event, self.limits.of_one);
    }

    fn on_track(&mut self, id: usize, kind: Kind, place: u32, range: (u64, u64)) {
        let event = self.event(kind, place, range);
        // When there is no room, what goes on for ever keeps its last few events only.
        let most = if self.events > self.limits.events { 0 } else { self.limits.of_one };
        let Some(growing) = self.tracks.get_mut(&id) else { return };
        let before = growing.len();
        growing.push(event, most);
        self.events = self.events + growing.len() - before;
        if self.events > self.limits.events {
            self.make_room();
        }
    }

    /// Drops the mapping that ended first and that no finding is about.
    fn make_room(&mut self) {
        for _ in 0..self.ended.len() {
            let Some(id) = self.ended.pop_front() else { return };
            let Some(growing) = self.tracks.get(&id) else { continue };
            let device = self.names.get(growing.track.device).map_or("", String::as_str);
            if !self.offences.of(device, &growing.track, growing.superseded).is_empty() {
                // It stays for good.
                continue;
            }
            self.events -= growing.len();
            self.tracks.remove(&id);
            self.left_out += 1;
            return;
        }
    }

    fn call(&mut self, caller: &Caller, call: &ApiCall, answer: &Answer) {
        let (device, place) = (self.device(caller.requester), self.places.of(caller.site));
        match (call, answer) {
            (ApiCall::Map(map), Answer::Handles(handles)) => self.map(device, place, map, handles),
            (ApiCall::Map(_) | ApiCall::Fail(_), _) => self.on_device(caller.requester, Kind::FailedMap, place),
            (ApiCall::Unmap(call), _) => {
                let Some((iova, _)) = call.ranges.first() else { return };
                let Some(id) = self.lives.live_at(iova.0, device) else { return };
                let kind = match call.family {
                    Family::Coherent | Family::Pages => Kind::Free,
                    _ if call.attrs.contains(Attrs::SKIP_CPU_SYNC) => Kind::UnmapSkip,
                    _ => Kind::Unmap,
                };
                self.end(id, kind, place);
            }
            (ApiCall::Sync(call), _) => self.sync(device, place, call),
            (ApiCall::Bound { driver }, _) => {
                self.devices[device].driver.clone_from(driver);
                self.devices[device].own.track.driver.clone_from(driver);
                self.on_device(caller.requester, Kind::Bound, place);
            }
            (ApiCall::Unbound, _) => {
                self.on_device(caller.requester, Kind::Unbound, place);
                // Pages of a page_pool may come back later.
                self.lives.left_by(device).into_iter().for_each(|id| self.end(id, Kind::Dropped, 0));
            }
            (ApiCall::SetMask { .. } | ApiCall::Rejected(_), _) => {}
        }
    }

    fn map(&mut self, device: usize, place: u32, call: &MapCall, handles: &[(Iova, u64)]) {
        let (family, kind) = match call.family {
            Family::Single => ("single", Kind::Map),
            Family::Sg => ("sg", Kind::Map),
            Family::Resource => ("resource", Kind::Map),
            Family::Coherent => ("coherent", Kind::Alloc),
            Family::Pages => ("pages", Kind::Alloc),
        };
        let kind = if kind == Kind::Map && call.attrs.contains(Attrs::SKIP_CPU_SYNC) { Kind::MapSkip } else { kind };
        let life = Life::new(device, call.kind == PageKind::PagePool, call, handles);
        let track = Track {
            driver: self.devices[device].driver.clone(),
            direction: call.direction.name(),
            size: life.size,
            handle: handles.first().map_or(0, |(iova, _)| iova.0),
            ..Track::empty(device, family, self.seq)
        };
        let (id, size) = (self.next, life.size);
        self.next += 1;
        self.tracks.insert(id, Growing::new(track));
        for older in self.lives.begin(id, life) {
            if let Some(growing) = self.tracks.get_mut(&older) {
                growing.superseded.get_or_insert(self.seq);
            }
        }
        self.on_track(id, kind, place, (0, size));
    }

    fn end(&mut self, id: usize, kind: Kind, place: u32) {
        let Some(size) = self.lives.end(id) else { return };
        self.ended.push_back(id);
        self.on_track(id, kind, place, (0, size));
    }

    fn sync(&mut self, device: usize, place: u32, call: &SyncCall) {
        let kind = if call.for_cpu { Kind::ForCpu } else { Kind::ForDevice };
        let first = call.ranges.first().map_or(0, |(iova, _)| iova.0);
        if call.sg
            && let Some((id, covered)) = self.lives.list_at(first, device, call.ranges.len())
        {
            self.on_track(id, kind, place, (0, covered));
            return;
        }
        for (iova, len) in &call.ranges {
            if let Some((id, offset, left)) = self.lives.at(iova.0).filter(|_| self.lives.live_at(iova.0, device).is_some()) {
                self.on_track(id, kind, place, (offset, (*len).min(left)));
            }
        }
    }

    fn access(&mut self, requester: Requester, iova: Iova, len: u64, kind: Kind) {
        let device = self.device(requester);
        let place = self.devices[device].kick;
        match self.lives.at(iova.0) {
            Some((id, offset, left)) => self.on_track(id, kind, place, (offset, len.min(left))),
            None => self.on_device(requester, kind, place),
        }
    }

    fn cpu_access(&mut self, accesses: &[CpuAccess], rip: u64, stack: Option<Vec<Frame>>) -> Result<(), String> {
        let instruction = [Frame::at(rip, String::new())];
        let frames = stack.as_deref().filter(|frames| !frames.is_empty()).unwrap_or(&instruction);
        let mut place = None;
        for access in accesses {
            let kind = if access.write { Kind::CpuWrite } else { Kind::CpuRead };
            for (id, offset, len) in self.lives.over(access.gpa.0, access.len.into()) {
                let place = match place {
                    Some(place) => place,
                    None => *place.insert(self.places.intern(frames)?),
                };
                self.on_track(id, kind, place, (offset, len));
            }
        }
        Ok(())
    }

    fn finish(self) -> Timeline {
        let Self { offences, names, devices, tracks, left_out, places, seq, .. } = self;
        let mut all: Vec<Track> = Vec::with_capacity(devices.len() + tracks.len());
        for growing in devices.into_iter().map(|device| device.own).chain(tracks.into_values()) {
            let until = growing.superseded;
            let mut track = growing.finish(seq);
            track.marks = offences.of(names.get(track.device).map_or("", String::as_str), &track, until);
            all.push(track);
        }
        let mut notes = Vec::new();
        if left_out > 0 {
            notes.push(format!("{left_out} of the oldest mappings that no finding is about are not drawn: there are too many events."));
        }
        if all.iter().any(|track| track.gap.is_some()) {
            notes.push("Of mappings with very many events the first and the last ones are drawn.".into());
        }
        let places = places.finish(&mut all);
        Timeline { whole: true, notes, devices: names, tracks: all, places, last: seq }
    }
}
