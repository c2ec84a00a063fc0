//! 2xx, 401: ownership and sync.

use super::{Verdict, bytes_of};
use crate::catalogue::Code;
use crate::copies::{Lost, StaleRead};
use crate::finding::{ByteRange, Severity};
use crate::history::Event;
use crate::ids::Family;
use crate::mapping::Mapping;

/// The device used bytes whose changes were not handed over: which rule says why. First match wins:
/// 403, 401, 210, 213, 214, 217, else 201. `used` is the whole transfer, `bytes` what was stale in it, `alias` the mapping for another
/// device through which the CPU took them.
pub(crate) fn stale_read(mapping: &Mapping, used: ByteRange, bytes: ByteRange, stale: &StaleRead, alias: Option<&Mapping>) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    let verdict = alias
        .map(|_| taken_elsewhere(format!("The device used {of} as they were before the CPU changed them")))
        .or_else(|| skip_at_map(mapping, &of, stale))
        .or_else(|| first_handover(mapping, &of, stale))
        .or_else(|| wrong_sync(&of, stale))
        .or_else(|| short_sync(mapping, used, bytes, &of))
        .or_else(|| stale_reuse(&of, stale))
        .unwrap_or_else(|| {
            Verdict::new(
                Code::DV201,
                format!("The device used {of} as they were before the CPU changed them: the change was not handed over."),
            )
        });
    verdict.kind(Code::DV201).range(bytes)
}

/// DV403: the CPU took a shared buffer through another device's mapping.
fn taken_elsewhere(what: String) -> Verdict {
    let message = format!("{what}: the buffer is shared, and the for_cpu sync before was for another device's mapping of it only.");
    Verdict::new(Code::DV403, message)
}

/// Whether `other` is a mapping of bytes of `mapping` for another device, made to share a buffer: one of the two without a sync.
pub(crate) fn is_alias(mapping: &Mapping, other: &Mapping) -> bool {
    other.is_live() && other.device != mapping.device && (mapping.skip_at_map() || other.skip_at_map())
}

fn skip_at_map(mapping: &Mapping, of: &str, stale: &StaleRead) -> Option<Verdict> {
    if mapping.family == Family::Pages || !mapping.skip_at_map() || stale.handed_here {
        return None;
    }
    Some(Verdict::new(
        Code::DV401,
        format!("The device used {of} of a mapping made with DMA_ATTR_SKIP_CPU_SYNC that nothing had handed over."),
    ))
}

fn first_handover(mapping: &Mapping, of: &str, stale: &StaleRead) -> Option<Verdict> {
    if mapping.family != Family::Pages || !stale.never_handed {
        return None;
    }
    Some(Verdict::new(Code::DV210, format!("The device used {of} of an allocation before they were ever handed over.")))
}

fn wrong_sync(of: &str, stale: &StaleRead) -> Option<Verdict> {
    stale.wrong_sync.then(|| {
        Verdict::new(
            Code::DV213,
            format!(
                "The device used {of} as they were before the CPU changed them: a for_cpu sync was called where for_device was needed."
            ),
        )
        .advice("Replace the dma_sync_*_for_cpu() after the CPU's writes by dma_sync_*_for_device().")
    })
}

/// The newest for_device that overlaps the transfer, since the CPU last had it, covers none of the stale bytes.
fn short_sync(mapping: &Mapping, used: ByteRange, bytes: ByteRange, of: &str) -> Option<Verdict> {
    let sync = mapping
        .history
        .newest_first()
        .take_while(|e| !(e.event == Event::ForCpu && e.range().overlaps(used)))
        .find(|e| e.event == Event::ForDevice && e.range().overlaps(used))?;
    if sync.range().overlaps(bytes) {
        return None;
    }
    let message = format!(
        "The device used {of} that were not handed over: the sync before it covered bytes {}..{} only.",
        sync.range().start,
        sync.range().end
    );
    Some(Verdict::new(Code::DV214, message).at_fault(sync.seq))
}

fn stale_reuse(of: &str, stale: &StaleRead) -> Option<Verdict> {
    stale.used_before.then(|| {
        Verdict::new(
            Code::DV217,
            format!("The device used {of} as they were in an earlier transfer: the buffer was used again without a hand-over."),
        )
    })
}

/// DV203, or DV213 at a for_cpu of bytes the CPU owned already: a hand-over to the CPU discarded what the CPU had written.
pub(crate) fn lost_write(mapping: &Mapping, lost: &Lost, range: ByteRange, what: &str, sync: bool, alias: Option<&Mapping>) -> Verdict {
    let of = bytes_of(range, mapping.size);
    let verdict = if alias.is_some() && !lost.cpu_owned {
        taken_elsewhere(format!("The CPU's writes to {of} were discarded by {what}"))
    } else if sync && lost.cpu_owned {
        Verdict::new(Code::DV213, format!("The CPU's writes to {of} were discarded by {what}: for_device was needed there."))
            .advice("Replace this dma_sync_*_for_cpu() by dma_sync_*_for_device().")
    } else if lost.cpu_owned {
        Verdict::new(
            Code::DV203,
            format!("The CPU's writes to {of} after a for_cpu sync were discarded by {what}: they were never handed over."),
        )
        .advice("Call dma_sync_*_for_device() after writing, or write after the unmap.")
    } else {
        Verdict::new(Code::DV203, format!("The CPU wrote {of} while the device owned them, and {what} discarded the writes."))
    };
    verdict.kind(Code::DV203).range(range)
}

/// DV210 as a warning: a for_cpu on bytes the CPU wrote and never handed over.
pub(crate) fn never_handed_over(range: ByteRange) -> Verdict {
    let message = format!(
        "Bytes {}..{} of an allocation were synced for the CPU after the CPU had written them and before they were ever handed over.",
        range.start, range.end
    );
    Verdict::new(Code::DV210, message).severity(Severity::Warning).range(range)
}

/// DV221: device-written bytes nobody took.
pub(crate) fn lost_device_write(range: ByteRange, count: u64, what: &str) -> Verdict {
    let bytes = if count == 1 { "1 byte" } else { &format!("{count} bytes") };
    Verdict::new(Code::DV221, format!("{bytes} the device wrote were not taken by the CPU before {what}.")).range(range)
}

/// DV203 as a note: what the CPU had written went with the lines a for_device invalidated. The stack does that to every receive
/// buffer it is done with.
pub(crate) fn dropped_write(mapping: &Mapping, range: ByteRange, what: &str) -> Verdict {
    let of = bytes_of(range, mapping.size);
    let message = format!("The CPU's writes to {of} were discarded by {what}, which invalidates on this machine.");
    Verdict::new(Code::DV203, message)
        .severity(Severity::Note)
        .range(range)
        .advice("Map with DMA_BIDIRECTIONAL what the CPU writes and wants to find again.")
}

/// DV203: the device's bytes were lost because the CPU wrote the line while it was the device's. `evicted`: before the hand-over.
pub(crate) fn overwritten(mapping: &Mapping, range: ByteRange, what: &str, evicted: bool) -> Verdict {
    let of = bytes_of(range, mapping.size);
    let when = if evicted { "before" } else { "at" };
    let message =
        format!("What the device wrote to {of} was lost {when} {what}: the CPU had written the same cache line and not handed it over.");
    Verdict::new(Code::DV203, message).range(range)
}

/// DV401 or DV210: a line that was never handed over was written back over what the device wrote.
pub(crate) fn never_handed_written(mapping: &Mapping, range: ByteRange, what: &str) -> Verdict {
    let of = bytes_of(range, mapping.size);
    let (code, how) = first_missing(mapping);
    Verdict::new(code, format!("What the device wrote to {of} {how} was lost before {what}: the CPU's old lines were written over it."))
        .kind(Code::DV203)
        .range(range)
}

/// Which rule a missing first hand-over breaks, and what it is about.
pub(crate) fn first_missing(mapping: &Mapping) -> (Code, &'static str) {
    if mapping.family == Family::Pages {
        (Code::DV210, "of an allocation that was never handed over")
    } else {
        (Code::DV401, "of a mapping made with DMA_ATTR_SKIP_CPU_SYNC that nothing had handed over")
    }
}
