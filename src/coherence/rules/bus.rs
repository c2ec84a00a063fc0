//! 501, 502: the bus.

use super::Verdict;
use crate::catalogue::Code;

/// DV501: DMA without bus mastering.
pub(crate) fn no_bus_master(write: bool) -> Verdict {
    let (did, outcome) = if write { ("wrote to", "the write was dropped") } else { ("read", "the read was aborted") };
    Verdict::new(Code::DV501, format!("The device {did} memory while bus mastering was off (Command register bit 2): {outcome}."))
}

/// DV502 in place of DV501: the function was reset and nobody has set it up since.
pub(crate) fn after_reset(write: bool) -> Verdict {
    let (did, outcome) = if write { ("wrote to", "the write was dropped") } else { ("read", "the read was aborted") };
    let message = format!("The device {did} memory after a reset, before anybody had set it up again: {outcome}.");
    Verdict::new(Code::DV502, message).kind(Code::DV501)
}
