//! 3xx: cache lines.

use super::Verdict;
use crate::catalogue::Code;
use crate::finding::ByteRange;
use crate::ids::{Family, PageKind};
use crate::mapping::Mapping;

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

/// Whether a mapping can be one of the two of DV302: the device writes it, and its page is one the driver laid out itself.
pub(crate) fn may_share(mapping: &Mapping) -> bool {
    mapping.is_live() && streaming(mapping) && mapping.device_writable() && mapping.kind == PageKind::Other
}

/// DV302: two device-writable mappings in one line of one page. For two different devices it is their drivers' business.
pub(crate) fn shared_line(mapping: &Mapping, other: &Mapping, line: u64) -> Option<Verdict> {
    if mapping.device != other.device || !may_share(mapping) || !may_share(other) {
        return None;
    }
    let message = format!(
        "A mapping of {} bytes shares a cache line of {line} bytes with another live mapping of {} bytes that the device may write.",
        mapping.size, other.size
    );
    Some(Verdict::new(Code::DV302, message).range(mapping.whole()))
}
