//! The last events of a mapping, for the report and for the rules that ask what came before.

use crate::finding::{ByteRange, HistoryEntry};
use crate::ids::SiteId;

/// Events kept for each mapping.
const KEPT: usize = 12;

/// What happened to bytes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Map,
    MapSkip,
    Alloc,
    ForCpu,
    ForDevice,
    Unmap,
    UnmapSkip,
    Free,
    Dropped,
    DeviceRead,
    DevicePoll,
    DevicePrefetch,
    DeviceWrite,
    CpuRead,
    CpuWrite,
}

/// What the events of a history are called ([`HistoryEntry::event`](crate::HistoryEntry::event)), all of them.
pub fn event_words() -> impl Iterator<Item = &'static str> {
    Event::ALL.into_iter().map(Event::text)
}

impl Event {
    const ALL: [Self; 15] = [
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
        Self::DeviceWrite,
        Self::CpuRead,
        Self::CpuWrite,
    ];

    pub(crate) fn text(self) -> &'static str {
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
            Self::DeviceWrite => "device wrote",
            Self::CpuRead => "CPU read",
            Self::CpuWrite => "CPU wrote",
        }
    }

    /// Whether it moves ownership.
    pub(crate) fn is_handover(self) -> bool {
        matches!(
            self,
            Self::Map | Self::MapSkip | Self::Alloc | Self::ForCpu | Self::ForDevice | Self::Unmap | Self::UnmapSkip | Self::Free
        )
    }
}

/// One event, compact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    start: u32,
    end: u32,
    pub(crate) site: SiteId,
    count: u32,
    pub(crate) event: Event,
}

impl Entry {
    pub(crate) fn range(&self) -> ByteRange {
        ByteRange { start: u64::from(self.start), end: u64::from(self.end) }
    }

    fn public(&self) -> HistoryEntry {
        HistoryEntry { seq: self.seq, event: self.event.text().to_owned(), range: self.range(), site: self.site, count: self.count }
    }
}

/// The first event and the last ones. Keeps its memory when cleared: a mapping's record is used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    first: Option<Entry>,
    ring: Vec<Entry>,
    next: usize,
    /// An access before this is not continued by one after it: the device gave a sign in between.
    part: u64,
}

impl History {
    pub(crate) fn clear(&mut self) {
        self.first = None;
        self.ring.clear();
        self.next = 0;
        self.part = 0;
    }

    /// Adds an event. One that repeats or continues the last (same kind, same site, adjoining bytes) is folded into it; a read of the
    /// CPU into the read before it wherever that was, so that a loop over a buffer does not push out what led to it.
    #[inline]
    pub(crate) fn push(&mut self, seq: u64, event: Event, range: ByteRange, site: SiteId) {
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let entry = Entry { seq, start: narrow(range.start), end: narrow(range.end), site, count: 1, event };
        if self.first.is_none() {
            self.first = Some(entry);
            return;
        }
        let part = if event == Event::DeviceWrite { self.part } else { 0 };
        if !event.is_handover()
            && let Some(last) = self.last_mut()
            && last.event == event
            && last.seq >= part
            && (event == Event::CpuRead || (last.site == site && entry.start <= last.end && last.start <= entry.end))
        {
            last.start = last.start.min(entry.start);
            last.end = last.end.max(entry.end);
            last.seq = seq;
            last.count = last.count.saturating_add(1);
            return;
        }
        if self.ring.len() < KEPT {
            self.ring.push(entry);
        } else if let Some(slot) = self.ring.get_mut(self.next) {
            *slot = entry;
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// What comes next does not go on what came before `seq`.
    pub(crate) fn part_at(&mut self, seq: u64) {
        self.part = seq;
    }

    fn last_mut(&mut self) -> Option<&mut Entry> {
        let at = (self.next + KEPT - 1) % KEPT;
        self.ring.get_mut(at)
    }

    /// Newest first; the first event of all comes last.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        let len = self.ring.len();
        let start = if len < KEPT { len } else { self.next + KEPT };
        let ring = (1..=len).filter_map(move |back| self.ring.get((start - back) % KEPT));
        ring.chain(self.first.as_ref())
    }

    /// The newest hand-over that touched `range`.
    pub(crate) fn handover(&self, range: ByteRange) -> Option<&Entry> {
        self.newest_first().find(|entry| entry.event.is_handover() && (entry.range().overlaps(range) || entry.event == Event::Map))
    }

    /// The newest hand-over that touched `range`, if no event that could be a newer one was dropped.
    pub(crate) fn last_handover(&self, range: ByteRange) -> Option<&Entry> {
        let touches = |entry: &&Entry| entry.event.is_handover() && entry.range().overlaps(range);
        let first = self.first.iter().filter(|_| self.ring.len() < KEPT);
        self.newest_first().take(self.ring.len()).chain(first).find(touches)
    }

    /// Oldest first, as it is shown.
    pub(crate) fn public(&self) -> Vec<HistoryEntry> {
        let mut entries: Vec<_> = self.newest_first().map(Entry::public).collect();
        entries.reverse();
        entries
    }

    /// Bytes of the ring kept between uses; for the memory budget's test.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.ring.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn the_first_event_and_the_last_ones_are_kept_in_order() {
        let mut history = History::default();
        history.push(1, Event::Map, range(0, 4096), SiteId(1));
        for seq in 2..40 {
            let event = if seq % 2 == 0 { Event::ForCpu } else { Event::ForDevice };
            history.push(seq, event, range(0, 8), SiteId(2));
        }
        let shown = history.public();
        assert_eq!(shown.len(), 13);
        assert_eq!(shown[0].event, "mapped");
        assert_eq!(shown[1..].iter().map(|e| e.seq).collect::<Vec<_>>(), (28..40).collect::<Vec<_>>());
        assert!(history.kept() <= 16);
    }

    #[test]
    fn accesses_that_go_on_are_one_entry() {
        let mut history = History::default();
        history.push(1, Event::Map, range(0, 4096), SiteId(1));
        history.push(2, Event::DeviceRead, range(0, 16), SiteId(2));
        history.push(3, Event::DeviceRead, range(16, 32), SiteId(2));
        history.push(4, Event::DeviceRead, range(64, 80), SiteId(2));
        let shown = history.public();
        assert_eq!(shown.len(), 3);
        assert_eq!((shown[1].range, shown[1].count), (range(0, 32), 2));
        assert_eq!(history.handover(range(8, 9)).unwrap().seq, 1);
    }

    #[test]
    fn reads_of_the_cpu_in_a_row_are_one_entry() {
        let mut history = History::default();
        history.push(1, Event::Map, range(0, 4096), SiteId(1));
        history.push(2, Event::ForCpu, range(0, 8), SiteId(2));
        for byte in 8..100 {
            history.push(byte * 2, Event::CpuRead, range(byte, byte + 1), SiteId(3));
            history.push(byte * 2 + 1, Event::CpuRead, range(byte, byte + 1), SiteId(4));
        }
        let shown = history.public();
        assert_eq!(shown.len(), 3);
        assert_eq!((shown[2].range, shown[2].site, shown[2].count), (range(8, 100), SiteId(3), 184));
    }
}
