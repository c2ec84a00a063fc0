//! 219, 220, 222: syncs that are not needed, and one that is on some machines.

use super::{Verdict, bytes_of};
use crate::catalogue::Code;
use crate::finding::{ByteRange, Severity};
use crate::history::{Entry, Event};
use crate::ids::SiteId;
use crate::mapping::Mapping;
use crate::profile::Profile;

/// DV219: a sync of coherent memory.
pub(crate) fn coherent(mapping: &Mapping, what: &str, range: ByteRange) -> Verdict {
    let of = bytes_of(range, mapping.size);
    Verdict::new(Code::DV219, format!("{what} of {of} of coherent memory: it does nothing.")).range(range)
}

/// The hand-over a sync repeats: the last one of all its bytes was of the same kind. One from the same place is a loop that looks
/// again and again, or posts again and again what the device did not use.
pub(crate) fn repeats(mapping: &Mapping, range: ByteRange, for_cpu: bool, site: SiteId) -> Option<Entry> {
    let last = mapping.history.last_handover(range).filter(|e| e.range().start <= range.start && range.end <= e.range().end)?;
    let same = if for_cpu { last.event == Event::ForCpu } else { matches!(last.event, Event::ForDevice | Event::Map) };
    (same && last.site != site).then_some(*last)
}

/// DV220: the side has the bytes already, and nothing happened to them since.
pub(crate) fn redundant(mapping: &Mapping, last: &Entry, for_cpu: bool, range: ByteRange) -> Verdict {
    let owner = if for_cpu { "CPU" } else { "device" };
    let of = bytes_of(range, mapping.size);
    let message = format!("The {owner} had {of} already ({}), and nothing had changed them.", last.event.text());
    Verdict::new(Code::DV220, message).range(range).at_fault(last.seq)
}

/// DV222: the device writes what was synced for the CPU and not given back. Drafted when it happens; a for_device that follows first
/// shows that the driver was only looking.
pub(crate) fn rearmed(mapping: &Mapping, written: ByteRange, profile: Profile) -> Option<Verdict> {
    let last = mapping.history.last_handover(written).filter(|e| e.event == Event::ForCpu)?;
    let range = ByteRange { start: written.start.max(last.range().start), end: written.end.min(last.range().end) };
    let of = bytes_of(range, mapping.size);
    let message = format!("The device wrote {of} again that had been synced for the CPU, and no for_device sync had given them back.");
    let severity = if profile.machine().keeps_lines { Severity::Error } else { Severity::Note };
    Some(Verdict::new(Code::DV222, message).severity(severity).range(range).at_fault(last.seq))
}

/// DV222 by its consequence (DV210, DV401 where there never was a first hand-over): a for_cpu that does nothing left the CPU with the
/// lines it had in its cache.
pub(crate) fn stale(mapping: &Mapping, bytes: ByteRange, what: &str, handed: bool) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    if !handed {
        let (code, how) = super::ownership::first_missing(mapping);
        let message = format!("The CPU does not see what the device wrote to {of} {how}: its own lines are still in the cache at {what}.");
        return Verdict::new(code, message).kind(Code::DV202).range(bytes);
    }
    let message = format!("The CPU does not see what the device wrote to {of}: its lines are in the cache since the last {what}.");
    Verdict::new(Code::DV222, message).severity(Severity::Error).kind(Code::DV202).range(bytes)
}
