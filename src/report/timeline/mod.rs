//! What happened to each mapping, in the order of the run: what the pictures of a report are drawn from.
//!
//! [`of`] takes it from the trace of a recorded run, else from the histories in the findings. Positions are the core's sequence
//! numbers: one for each event it saw. Neither source has a clock.

mod from_findings;
mod from_trace;
mod offences;
mod track;

pub use track::{Event, Track};

use crate::report::Report;
use serde::Serialize;
use std::path::Path;

/// What happened to bytes of a mapping, or to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// dma_map_*.
    Map,
    /// The same with DMA_ATTR_SKIP_CPU_SYNC.
    MapSkip,
    /// dma_alloc_*.
    Alloc,
    /// dma_sync_*_for_cpu.
    ForCpu,
    /// dma_sync_*_for_device.
    ForDevice,
    /// dma_unmap_*.
    Unmap,
    /// The same with DMA_ATTR_SKIP_CPU_SYNC.
    UnmapSkip,
    /// dma_free_*.
    Free,
    /// The driver went without it.
    Dropped,
    /// The device read.
    DeviceRead,
    /// It looked whether there is something to do.
    DevicePoll,
    /// It read ahead.
    DevicePrefetch,
    /// It used what it had read ahead.
    DeviceUse,
    /// It wrote.
    DeviceWrite,
    /// It was kept from reading.
    RefusedRead,
    /// It was kept from writing.
    RefusedWrite,
    /// An instruction that reads was stopped.
    CpuRead,
    /// An instruction that writes was stopped.
    CpuWrite,
    /// The CPU wrote a register of the device.
    Kick,
    /// The device raised an interrupt, or one of its registers was read.
    Signal,
    /// The function was reset.
    Reset,
    /// It may master the bus from now on.
    BusMasterOn,
    /// It may not.
    BusMasterOff,
    /// A driver was bound.
    Bound,
    /// It was unbound.
    Unbound,
    /// A map or alloc call that failed.
    FailedMap,
}

/// Whose doing an event is: what it looks like in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// A call of the DMA API.
    Call,
    /// The device.
    Device,
    /// An instruction of the CPU.
    Cpu,
    /// What belongs to no mapping.
    Other,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 26] = [
        Self::Map,
        Self::MapSkip,
        Self::Alloc,
        Self::ForCpu,
        Self::ForDevice,
        Self::Unmap,
        Self::UnmapSkip,
        Self::Free,
        Self::Dropped,
        Self::DeviceRead,
        Self::DevicePoll,
        Self::DevicePrefetch,
        Self::DeviceUse,
        Self::DeviceWrite,
        Self::RefusedRead,
        Self::RefusedWrite,
        Self::CpuRead,
        Self::CpuWrite,
        Self::Kick,
        Self::Signal,
        Self::Reset,
        Self::BusMasterOn,
        Self::BusMasterOff,
        Self::Bound,
        Self::Unbound,
        Self::FailedMap,
    ];

    /// What happened, in the words of the histories in `findings.json`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Map => "mapped",
            Self::MapSkip => "mapped without a CPU sync",
            Self::Alloc => "allocated",
            Self::ForCpu => "synced for the CPU",
            Self::ForDevice => "synced for the device",
            Self::Unmap => "unmapped",
            Self::UnmapSkip => "unmapped without a CPU sync",
            Self::Free => "freed",
            Self::Dropped => "still mapped when the driver was unbound",
            Self::DeviceRead => "device read",
            Self::DevicePoll => "device polled",
            Self::DevicePrefetch => "device prefetched",
            Self::DeviceUse => "device used what it had prefetched",
            Self::DeviceWrite => "device wrote",
            Self::RefusedRead => "device read refused",
            Self::RefusedWrite => "device write refused",
            Self::CpuRead => "CPU read",
            Self::CpuWrite => "CPU wrote",
            Self::Kick => "register written",
            Self::Signal => "interrupt raised, or register read",
            Self::Reset => "reset",
            Self::BusMasterOn => "bus mastering on",
            Self::BusMasterOff => "bus mastering off",
            Self::Bound => "driver bound",
            Self::Unbound => "driver unbound",
            Self::FailedMap => "map or alloc call failed",
        }
    }

    /// The kind with those words.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.text() == text)
    }

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn actor(self) -> Actor {
        match self {
            Self::DeviceRead
            | Self::DevicePoll
            | Self::DevicePrefetch
            | Self::DeviceUse
            | Self::DeviceWrite
            | Self::RefusedRead
            | Self::RefusedWrite => Actor::Device,
            Self::CpuRead | Self::CpuWrite => Actor::Cpu,
            Self::Kick | Self::Signal | Self::Reset | Self::BusMasterOn | Self::BusMasterOff | Self::Bound | Self::Unbound => Actor::Other,
            _ => Actor::Call,
        }
    }

    /// Whether it is the last thing to happen to a mapping that is alive.
    #[must_use]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Unmap | Self::UnmapSkip | Self::Free | Self::Dropped)
    }
}

/// Where an event came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// `function (file.c:12)`.
    pub short: String,
    /// All frames, innermost first, as a report prints them.
    pub frames: Vec<String>,
}

/// The mappings of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    /// Whether it has every mapping of the run; else those that a finding is about.
    pub whole: bool,
    /// What is to be known about it: why it is not whole, what was left out.
    pub notes: Vec<String>,
    /// Devices, by name.
    pub devices: Vec<String>,
    /// Mappings in the order they were made; the first tracks are those of the devices themselves.
    pub tracks: Vec<Track>,
    /// Places of events; the first is the unknown one.
    pub places: Vec<Place>,
    /// The last sequence number.
    pub last: u64,
}

impl Timeline {
    /// The place of an event.
    #[must_use]
    pub fn place(&self, event: &Event) -> &str {
        self.places.get(event.place as usize).map_or("", |place| &place.short)
    }
}

/// How much of a run is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events, all together.
    pub events: usize,
    /// Events of a mapping.
    pub of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events: 250_000, of_one: 20_000 }
    }
}

/// The mappings of a run: from its trace if there is one at that place that can be read.
#[must_use]
pub fn of(report: &Report, trace: Option<&Path>) -> Timeline {
    let why = match trace.filter(|path| path.exists()) {
        None => "There is no trace of this run (dmavet run --record keeps one)".to_owned(),
        Some(path) => match from_trace::timeline(report, path, Limits::default()) {
            Ok(timeline) => return timeline,
            Err(what) => format!("The trace {} was of no use ({what})", path.display()),
        },
    };
    let mut timeline = from_findings::timeline(report);
    timeline
        .notes
        .insert(0, format!("{why}: drawn from the histories in the findings, the first event and the last dozen of each mapping."));
    timeline
}

/// The line of a device among the devices of a run, which may have more requesters than it was given models.
fn device_index(devices: &mut Vec<String>, name: &str) -> usize {
    devices.iter().position(|known| known == name).unwrap_or_else(|| {
        devices.push(name.to_owned());
        devices.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn every_event_of_a_history_can_be_drawn() {
        for word in dmavet_coherence::event_words() {
            assert!(Kind::from_text(word).is_some(), "{word}");
        }
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!((usize::from(kind.index()), Kind::from_text(kind.text())), (index, Some(kind)));
        }
    }
}
