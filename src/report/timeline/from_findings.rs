//! From the histories in the findings, where nothing else was kept.

use super::offences::{handle, mark};
use super::track::{Event, Growing, Track};
use super::{Kind, Place, Timeline, device_index};
use crate::report::{Report, ReportEvent, ReportFinding};
use std::collections::{BTreeMap, HashMap};

/// Events of a mapping, by sequence number.
type Events<'a> = BTreeMap<u64, &'a ReportEvent>;

pub(super) fn timeline(report: &Report) -> Timeline {
    let mut devices: Vec<String> = report.run.devices.iter().map(|device| device.device.clone()).collect();
    let mut places = vec![Place { short: String::new(), frames: Vec::new() }];
    let mut known: HashMap<String, u32> = HashMap::new();
    let mut mappings: BTreeMap<(String, u64, u64), (Vec<usize>, Events<'_>)> = BTreeMap::new();
    for (index, finding) in report.findings.iter().enumerate() {
        // A handle may be used again: what was mapped when is the mapping.
        let made = finding.volatile.history.first().map_or(0, |event| event.seq);
        let key = (finding.device.clone(), handle(finding).unwrap_or(0), made);
        let (findings, events) = mappings.entry(key).or_default();
        findings.push(index);
        events.extend(finding.volatile.history.iter().map(|event| (event.seq, event)));
    }
    let last = report.findings.iter().map(|finding| finding.volatile.last_seq).max().unwrap_or(0);
    let mut tracks = Vec::new();
    for ((device, handle, _), (findings, events)) in mappings {
        let Some(finding) = findings.first().and_then(|index| report.findings.get(*index)) else { continue };
        let mut growing = Growing::new(empty(device_index(&mut devices, &device), finding, handle));
        for event in events.into_values() {
            let Some(kind) = Kind::from_text(&event.event) else { continue };
            let place = *known.entry(event.place.clone()).or_insert_with(|| {
                places.push(Place { short: event.place.clone(), frames: Vec::new() });
                u32::try_from(places.len() - 1).unwrap_or(0)
            });
            let (offset, len) = event.range.map_or((0, 0), |range| (range.offset, range.len));
            growing.push(Event { kind, seq: event.seq, last: event.seq, offset, len, place, count: event.count.max(1) }, usize::MAX);
        }
        growing.track.marks = findings.iter().filter_map(|index| Some(mark(*index, report.findings.get(*index)?))).collect();
        growing.track.start = growing.track.events.first().map_or(finding.volatile.first_seq, |event| event.seq);
        // Somebody saw it to its last offence; nobody told what came then.
        let seen = growing.track.last();
        tracks.push(growing.finish(seen));
    }
    tracks.sort_by_key(|track| (track.is_mapping(), track.start));
    Timeline { whole: false, notes: Vec::new(), devices, tracks, places, last }
}

fn empty(device: usize, finding: &ReportFinding, handle: u64) -> Track {
    let mapping = finding.mapping.as_ref();
    Track {
        driver: finding.driver.clone(),
        direction: mapping.and_then(|m| direction(&m.direction)).unwrap_or(""),
        size: mapping.map_or(0, |m| m.size),
        handle,
        ..Track::empty(device, mapping.and_then(|m| family(&m.family)).unwrap_or("device"), 0)
    }
}

fn family(name: &str) -> Option<&'static str> {
    ["single", "sg", "resource", "coherent", "pages"].into_iter().find(|known| *known == name)
}

fn direction(name: &str) -> Option<&'static str> {
    (0..4).filter_map(dmavet_coherence::Direction::from_wire).map(dmavet_coherence::Direction::name).find(|known| *known == name)
}
