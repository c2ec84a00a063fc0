//! 2xx, 1xx, 3xx, 4xx: what the CPU does with memory that is mapped.

use super::{Verdict, bytes_of};
use crate::catalogue::Code;
use crate::copies::{CpuWrite, Touched};
use crate::finding::{ByteRange, Severity};
use crate::history::Event;
use crate::ids::Direction;
use crate::mapping::Mapping;

/// The CPU read bytes the device had written and that were not taken: which rule says why. First match wins: 213, 214, 217, else
/// 202. `line` is the bit of the first such byte's line, `bytes` what of the mapping was read too early.
pub(crate) fn early_read(mapping: &Mapping, touched: &Touched, line: u128, bytes: ByteRange) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    let verdict = if touched.given_back & line != 0 {
        Verdict::new(Code::DV213, format!("The CPU read {of} that the device wrote, after a for_device sync where for_cpu was needed."))
            .advice("Replace the dma_sync_*_for_device() before the read by dma_sync_*_for_cpu().")
    } else if let Some((start, end, seq)) = short_sync(mapping, touched, line, bytes) {
        let message = format!("The CPU read {of} that the device wrote, but the sync before covered bytes {start}..{end} only.");
        Verdict::new(Code::DV214, message).at_fault(seq)
    } else if touched.taken & line != 0 {
        let message =
            format!("The CPU read {of} as they were in an earlier transfer: the device wrote them again and nothing synced that.");
        Verdict::new(Code::DV217, message).advice("Call dma_sync_*_for_cpu() at every transfer, before the CPU reads.")
    } else {
        Verdict::new(Code::DV202, format!("The CPU read {of} as they were before the device wrote them: no for_cpu sync came in between."))
    };
    verdict.kind(Code::DV202).range(bytes)
}

/// The newest for_cpu since the device wrote, when it took other bytes of the same write. A line that is the CPU's was synced in
/// part.
fn short_sync(mapping: &Mapping, touched: &Touched, line: u128, bytes: ByteRange) -> Option<(u64, u64, u64)> {
    let newest = || mapping.history.newest_first();
    let wrote = newest().find(|e| e.event == Event::DeviceWrite && e.range().overlaps(bytes));
    let since = wrote.map_or(0, |e| e.seq);
    let partial_line = touched.owned & line == 0;
    let sync = newest().take_while(|e| e.seq > since).find(|e| {
        let same_write = || wrote.is_some_and(|w| w.range().overlaps(e.range()));
        e.event == Event::ForCpu && !e.range().overlaps(bytes) && (partial_line || same_write())
    })?;
    Some((sync.range().start, sync.range().end, sync.seq))
}

/// DV212: the device wrote after the for_cpu that was to give the bytes to the CPU.
pub(crate) fn early_sync(mapping: &Mapping, bytes: ByteRange) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    let message = format!("The CPU read {of} that the device wrote after the for_cpu sync: the sync came too early.");
    let sync = mapping.history.newest_first().find(|e| e.event == Event::ForCpu && e.range().overlaps(bytes)).map(|e| e.seq);
    let verdict = Verdict::new(Code::DV212, message).kind(Code::DV202).range(bytes);
    Verdict { at_fault: sync, ..verdict }
}

/// DV204: the device may still write what the CPU read.
pub(crate) fn read_owned(mapping: &Mapping, bytes: ByteRange) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    Verdict::new(Code::DV204, format!("The CPU read {of} while the device owned them and had not written them yet.")).range(bytes)
}

/// DV203: a hand-over to the CPU discarded a write that was seen.
pub(crate) fn discarded_write(mapping: &Mapping, write: &CpuWrite, range: ByteRange, what: &str) -> Verdict {
    let of = bytes_of(range, mapping.size);
    let message = format!("The CPU wrote {of} while the device owned them, and {what} discarded the write.");
    Verdict::new(Code::DV203, message).range(range).access(write.access)
}

/// DV203: the device wrote the line after the CPU had, and the hand-over wrote the CPU's line over it.
pub(crate) fn overtaken_write(mapping: &Mapping, write: &CpuWrite, range: ByteRange, what: &str) -> Verdict {
    let of = bytes_of(range, mapping.size);
    let message =
        format!("The CPU wrote {of} while the device owned them, then the device wrote the same cache line before {what} cleaned it.");
    Verdict::new(Code::DV203, message).range(range).access(write.access)
}

/// DV203 as a note: a write nothing came of.
pub(crate) fn idle_write(mapping: &Mapping, write: &CpuWrite, range: ByteRange) -> Verdict {
    let of = bytes_of(range, mapping.size);
    let message = format!("The CPU wrote {of} while the device owned them; nothing came of it this time.");
    Verdict::new(Code::DV203, message).severity(Severity::Note).range(range).access(write.access)
}

/// DV117: the allocator wrote to memory that is mapped.
pub(crate) fn freed_while_mapped(mapping: &Mapping, function: &str, bytes: ByteRange) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    let severity = if mapping.direction == Direction::ToDevice { Severity::Note } else { Severity::Error };
    let message = format!("{function} wrote {of} of memory that is still mapped: it went back to the allocator before the unmap.");
    Verdict::new(Code::DV117, message).severity(severity).range(bytes)
}

/// Bytes past the end of a transfer that may be read: copies go by words.
pub(crate) const PAST_THE_END: usize = 7;

/// DV218: the CPU read what the device did not write.
pub(crate) fn short_transfer(mapping: &Mapping, bytes: ByteRange) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    Verdict::new(Code::DV218, format!("The CPU read {of} that the device did not write in this transfer.")).range(bytes)
}

/// DV303: a field beside a buffer was written while the device owned the line they share.
pub(crate) fn shared_line_write(mapping: &Mapping, before: bool, distance: u64, line: u64) -> Verdict {
    let side = if before { "before the beginning" } else { "behind the end" };
    let message = format!(
        "The driver wrote {distance} bytes {side} of a mapping of {} bytes, in a cache line of {line} bytes that the device owns.",
        mapping.size
    );
    Verdict::new(Code::DV303, message)
}

/// DV402: bytes the device wrote were used after an unmap that did not sync.
pub(crate) fn read_after_skip(size: u64, bytes: ByteRange, by_driver: bool) -> Verdict {
    let message = format!("The CPU read {} that the device wrote, after an unmap with DMA_ATTR_SKIP_CPU_SYNC.", bytes_of(bytes, size));
    let severity = if by_driver { Severity::Error } else { Severity::Warning };
    Verdict::new(Code::DV402, message).severity(severity).range(bytes)
}

/// DV405: memory without a kernel mapping was touched.
pub(crate) fn no_kernel_mapping(mapping: &Mapping, write: bool, bytes: ByteRange) -> Verdict {
    let what = if write { "wrote" } else { "read" };
    let of = bytes_of(bytes, mapping.size);
    Verdict::new(Code::DV405, format!("The CPU {what} {of} of memory allocated with DMA_ATTR_NO_KERNEL_MAPPING.")).range(bytes)
}

/// DV503: coherent bytes the device may change were fetched twice by one function.
pub(crate) fn double_fetch(mapping: &Mapping, bytes: ByteRange) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    Verdict::new(Code::DV503, format!("The CPU fetched {of} of coherent memory a second time in the same function.")).range(bytes)
}
