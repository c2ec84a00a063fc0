//! Offences that wait for what comes next, because that decides what they are called or whether they are any.

use crate::finding::{ByteRange, Finding};
use crate::findings::Key;

/// Offences a mapping can have waiting.
pub(crate) const MAX_HELD: usize = 8;

/// What an offence waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// The device used old bytes (DV201): a for_device of the same bytes makes it DV211.
    ForDevice,
    /// The device wrote what a for_cpu had given to the CPU (DV222), unless a for_device comes before the CPU looks.
    GiveBack,
    /// The CPU read bytes the device had written since the for_cpu (DV212), unless it looks again after the next one.
    SecondLook {
        /// Page of the bytes, guest physical.
        page: u64,
        /// First byte in the page.
        start: usize,
        /// One past the last.
        end: usize,
        /// A for_cpu took the bytes since.
        retaken: bool,
    },
}

/// An offence, with the finding as it was when it happened.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) waits: Waits,
    /// Bytes of the mapping.
    pub(crate) range: ByteRange,
    pub(crate) key: Key,
    pub(crate) finding: Box<Finding>,
}
