//! 5xx: the bus.

use super::Verdict;
use crate::catalogue::Code;

/// DV501: DMA without bus mastering.
pub(crate) fn no_bus_master(write: bool) -> Verdict {
    let (did, outcome) = if write { ("wrote to", "the write was dropped") } else { ("read", "the read was aborted") };
    Verdict::new(Code::DV501, format!("The device {did} memory while bus mastering was off (Command register bit 2): {outcome}."))
}
