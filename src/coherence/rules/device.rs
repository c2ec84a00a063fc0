//! 2xx: what a device may access and how.

use super::{Verdict, bytes_of};
use crate::catalogue::Code;
use crate::finding::ByteRange;
use crate::ids::{Direction, SiteId};
use crate::mapping::{MAPPING_ERROR, Mapping};

/// Why an address leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing has it and nothing remembered had it.
    Unknown,
    /// It is another device's.
    OtherDevice(u32),
    /// Its mapping ended.
    Dead(u32),
    /// The access leaves its mapping.
    Outside(u32),
    /// It is a device's memory, not RAM.
    PeerToPeer(u32),
}

impl Fault {
    pub(crate) fn mapping(self) -> Option<u32> {
        match self {
            Self::Unknown => None,
            Self::OtherDevice(id) | Self::Dead(id) | Self::Outside(id) | Self::PeerToPeer(id) => Some(id),
        }
    }
}

/// DV207, DV208, DV209: the access leads nowhere. `physical`: the address is the guest physical address of mapped memory.
pub(crate) fn fault(
    fault: Fault,
    mapping: Option<&Mapping>,
    iova: u64,
    len: u64,
    write: bool,
    physical: bool,
    in_ram: bool,
) -> Option<Verdict> {
    let did = if write { "wrote" } else { "read" };
    let bytes = if len == 1 { "1 byte".to_owned() } else { format!("{len} bytes") };
    match (fault, mapping) {
        (Fault::PeerToPeer(_), _) => None,
        (Fault::Outside(_), Some(mapping)) => Some(out_of_bounds(mapping, iova, len, did, &bytes)),
        (Fault::Dead(_), Some(mapping)) => {
            let range = relative(mapping, iova, len);
            let message = format!("The device {did} {bytes} of a mapping of {} bytes after it was unmapped or freed.", mapping.size);
            Some(Verdict::new(Code::DV208, message).range(range))
        }
        (Fault::OtherDevice(_), _) => {
            let message = format!("The device {did} {bytes} at {iova:#x}, a handle that belongs to another device.");
            Some(Verdict::new(Code::DV209, message).advice("Map the buffer for this device, too, and give it the handle of that map call."))
        }
        _ => Some(unmapped(iova, did, &bytes, physical, in_ram)),
    }
}

/// DV115: the device declared a transfer in flight there when the mapping ended.
pub(crate) fn unmapped_in_flight(mapping: &Mapping, range: ByteRange, what: &str, kick: SiteId) -> Verdict {
    let of = bytes_of(range, mapping.size);
    let message = format!("A mapping of {} bytes was unmapped or freed while the device worked on {of}.", mapping.size);
    Verdict::new(Code::DV115, message).kind(Code::DV208).range(range).consequence(what, kick)
}

fn unmapped(iova: u64, did: &str, bytes: &str, physical: bool, in_ram: bool) -> Verdict {
    let page_of_error = MAPPING_ERROR & !0xffff;
    if iova >= page_of_error {
        let message = format!("The device {did} {bytes} at {iova:#x}: that is DMA_MAPPING_ERROR, the result of a map call that failed.");
        return Verdict::new(Code::DV209, message)
            .advice("Check the map call with dma_mapping_error() before giving its handle to the device.");
    }
    if physical {
        let message = format!(
            "The device {did} {bytes} at {iova:#x}: that is the physical address of a mapped buffer, not the handle its map call returned."
        );
        return Verdict::new(Code::DV209, message)
            .advice("Give the device the dma_addr_t of the map or alloc call, not virt_to_phys() or page_to_phys().");
    }
    let hint = match iova {
        0..0x1_0000 => ": that is a null handle or an offset from one",
        _ if in_ram => ": that is an address of RAM, not a handle",
        _ => ": no map or alloc call returned that handle",
    };
    Verdict::new(Code::DV209, format!("The device {did} {bytes} at {iova:#x}{hint}."))
}

/// The access in bytes of the mapping, as far as they can be said.
pub(crate) fn relative(mapping: &Mapping, iova: u64, len: u64) -> ByteRange {
    let segment = mapping.segment_at(iova).and_then(|at| mapping.segments.get(at));
    let start = segment.map_or(0, |s| s.offset.saturating_add(iova - s.iova));
    ByteRange { start, end: start.saturating_add(len) }
}

fn out_of_bounds(mapping: &Mapping, iova: u64, len: u64, did: &str, bytes: &str) -> Verdict {
    let size = mapping.size;
    let Some(at) = mapping.segment_at(iova) else {
        let before = mapping.first().saturating_sub(iova);
        let message = format!("The device {did} {bytes} beginning {before} bytes before a mapping of {size} bytes.");
        return Verdict::new(Code::DV207, message).range(ByteRange { start: 0, end: len.saturating_sub(before) });
    };
    let (start, end) = mapping.handle_range(at);
    let last = iova.saturating_add(len);
    let range = relative(mapping, iova, len);
    let of = if mapping.segments.len() > 1 && start != mapping.first() || end != mapping.end() {
        format!("an entry of {} bytes of a scatterlist", end - start)
    } else {
        format!("a mapping of {size} bytes")
    };
    let past = last.saturating_sub(end);
    let message = if iova >= end {
        format!("The device {did} {bytes} beginning {} bytes past the end of {of}.", iova - end)
    } else {
        let unit = if past == 1 { "byte" } else { "bytes" };
        format!("The device {did} {bytes} of {of}, {past} {unit} past its end.")
    };
    Verdict::new(Code::DV207, message).range(range)
}

/// DV205, DV206: against the mapping's direction. The access takes place all the same, as it does without an IOMMU.
#[inline]
pub(crate) fn direction(mapping: &Mapping, range: ByteRange, read: bool, write: bool) -> Option<Verdict> {
    let of = || bytes_of(range, mapping.size);
    match mapping.direction {
        Direction::ToDevice if write => Some(
            Verdict::new(Code::DV205, format!("The device wrote {} of a mapping made with DMA_TO_DEVICE: the CPU never sees it.", of()))
                .range(range),
        ),
        Direction::FromDevice if read => {
            Some(Verdict::new(Code::DV206, format!("The device read {} of a mapping made with DMA_FROM_DEVICE.", of())).range(range))
        }
        _ => None,
    }
}
