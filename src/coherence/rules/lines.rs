//! 3xx: cache lines.

use super::{Verdict, bytes_of};
use crate::catalogue::Code;
use crate::finding::{ByteRange, Severity};
use crate::ids::{Attrs, Family, PageKind};
use crate::mapping::Mapping;
use crate::profile::Edges;

fn streaming(mapping: &Mapping) -> bool {
    matches!(mapping.family, Family::Single | Family::Sg) && mapping.two_copies()
}

/// DV301: a device-writable buffer that begins or ends inside a line. Only for pages the driver laid out itself: a slab object is
/// not aligned on x86 whatever the driver does, and the headroom of a page_pool page is the buffer's own.
pub(crate) fn unaligned_buffer(mapping: &Mapping, line: u64) -> Option<Verdict> {
    if !streaming(mapping) || mapping.kind != PageKind::Other || !mapping.device_writable() || mapping.size == 0 {
        return None;
    }
    let segment = mapping.segments.iter().find(|s| s.gpa % line != 0 || (s.gpa + s.len) % line != 0)?;
    let (head, tail) = (segment.gpa % line, (segment.gpa + segment.len) % line);
    let message = match (head, tail) {
        (0, tail) => format!("A buffer the device writes ends {tail} bytes into a cache line of {line}."),
        (head, 0) => format!("A buffer the device writes begins {head} bytes into a cache line of {line}."),
        (head, tail) => format!("A buffer the device writes begins {head} and ends {tail} bytes into a cache line of {line}."),
    };
    let range = ByteRange { start: segment.offset, end: segment.offset + segment.len };
    Some(Verdict::new(Code::DV301, message).range(range))
}

/// DV304: a sync of a part whose edges cut a line. A buffer the device does not write is only cleaned: what else lives in the line
/// stays as it is.
pub(crate) fn unaligned_sync(mapping: &Mapping, what: &str, range: ByteRange, line: u64, edges: Edges) -> Option<Verdict> {
    if !mapping.device_writable() || range.is_empty() {
        return None;
    }
    let begins = range.start != 0 && !range.start.is_multiple_of(line);
    let ends = range.end != mapping.size && !range.end.is_multiple_of(line);
    let how = match (begins, ends) {
        (false, false) => return None,
        (true, false) => "begins",
        (false, true) => "ends",
        (true, true) => "begins and ends",
    };
    let of = bytes_of(range, mapping.size);
    let severity = if edges == Edges::Line { Severity::Warning } else { Severity::Note };
    let message = format!("{what} of {of} {how} inside a cache line of {line} bytes.");
    Some(Verdict::new(Code::DV304, message).severity(severity).range(range))
}

/// Whether a mapping can be one of the two of DV302: the device writes it, and its page is one the driver laid out itself.
pub(crate) fn may_share(mapping: &Mapping) -> bool {
    mapping.is_live() && streaming(mapping) && mapping.device_writable() && mapping.kind == PageKind::Other
}

/// DV302: two device-writable mappings in one line of one page. For two different devices it is their drivers' business.
pub(crate) fn shared_line(mapping: &Mapping, other: &Mapping, line: u64) -> Option<Verdict> {
    // Where all users of a line say that they know, they do.
    let ignored = |m: &Mapping| m.attrs.contains(Attrs::DEBUGGING_IGNORE_CACHELINES);
    if mapping.device != other.device || !may_share(mapping) || !may_share(other) || (ignored(mapping) && ignored(other)) {
        return None;
    }
    let message = format!(
        "A mapping of {} bytes shares a cache line of {line} bytes with another live mapping of {} bytes that the device may write.",
        mapping.size, other.size
    );
    Some(Verdict::new(Code::DV302, message).range(mapping.whole()))
}

/// DV303 by its consequence: `own` when what lies beside the mapping is the driver's to lay out.
fn shared_line_conflict(message: String, own: bool) -> Verdict {
    let verdict = Verdict::new(Code::DV303, message).kind(Code::DV203);
    if own {
        return verdict.severity(Severity::Error);
    }
    verdict.advice("Another object lives in the buffer's line: use --edges line with a kernel that has a real ARCH_DMA_MINALIGN.")
}

/// DV303: what the CPU wrote beside a buffer was dropped with the line.
pub(crate) fn lost_beside(mapping: &Mapping, before: bool, what: &str, own: bool) -> Verdict {
    let side = if before { "before the beginning" } else { "behind the end" };
    let message = format!(
        "The CPU's writes {side} of a mapping of {} bytes, in a cache line the buffer covers in part, were discarded by {what}.",
        mapping.size
    );
    shared_line_conflict(message, own)
}

/// DV303: what the device wrote was lost because the CPU had written beside the buffer.
pub(crate) fn overwritten_by_neighbour(mapping: &Mapping, bytes: ByteRange, what: &str, own: bool) -> Verdict {
    let of = bytes_of(bytes, mapping.size);
    let message =
        format!("What the device wrote to {of} was lost at {what}: the CPU had written beside the buffer in the same cache line.");
    shared_line_conflict(message, own).range(bytes)
}
