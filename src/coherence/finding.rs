//! What a broken rule becomes.

use crate::catalogue::Code;
use crate::ids::{Direction, Family, Gpa, Iova, Requester, SiteId};
use serde::{Deserialize, Serialize};

/// How bad a finding is. The order is from worst to mildest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Wrong on real hardware: fails the run.
    Error,
    /// Wrong unless the driver knows something dmavet cannot see.
    Warning,
    /// Legal but wasteful or fragile.
    Note,
}

impl Severity {
    /// The word used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Bytes `start` to `end` (one past the last), as offsets within a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// Number of bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }
    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
    /// The smallest range that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// The mapping a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingInfo {
    /// Family of the map or alloc call.
    pub family: Family,
    /// Size in bytes, all entries together.
    pub size: u64,
    /// Entries of the list for a scatterlist, else 1.
    pub entries: usize,
    /// Direction.
    pub direction: Direction,
    /// Names of the attributes (`DMA_ATTR_SKIP_CPU_SYNC`), in bit order.
    pub attrs: Vec<String>,
    /// First handle (volatile).
    pub handle: Iova,
    /// One past the last handle (volatile).
    pub handle_end: Iova,
    /// Guest physical address of the first byte (volatile).
    pub gpa: Gpa,
    /// Where it was mapped.
    pub map_site: SiteId,
    /// Sequence number of the map call (volatile).
    pub map_seq: u64,
    /// Where it was unmapped, for a mapping that has ended.
    pub unmap_site: Option<SiteId>,
}

/// The operation that last moved ownership of the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// What it was, in words: `mapped`, `synced for the device`, ...
    pub operation: String,
    /// Where.
    pub site: SiteId,
    /// Which bytes of the mapping.
    pub range: ByteRange,
    /// Sequence number (volatile).
    pub seq: u64,
}

/// The event that broke the rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offence {
    /// What it was, in words: `device read`, `dma_unmap_single`, ...
    pub what: String,
    /// Where: the call, or for an access of the device the CPU's last kick.
    pub site: SiteId,
}

/// The instruction of the CPU that broke the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessInfo {
    /// Guest virtual address of the instruction.
    pub rip: u64,
    /// Bytes it touched (volatile where it is a repeated one: up to a page).
    pub len: u32,
    /// It wrote; else it read.
    pub write: bool,
    /// It ran in user mode.
    pub user: bool,
    /// Guest CPU (volatile).
    pub cpu: u32,
}

/// One event in the life of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Sequence number (volatile).
    pub seq: u64,
    /// What happened, in words.
    pub event: String,
    /// Which bytes of the mapping.
    pub range: ByteRange,
    /// Where; for an access of the device the CPU's last kick.
    pub site: SiteId,
    /// How many times in a row (volatile).
    pub count: u32,
}

/// A broken rule, with its evidence. There is one for each (code, device, map site, offence site); later ones are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Code of the rule.
    pub code: Code,
    /// The rule's short name.
    pub slug: String,
    /// How bad it is here; may be milder than the rule's own severity.
    pub severity: Severity,
    /// The primary code when `code` is a more exact name for what happened.
    pub kind: Option<Code>,
    /// The device; `None` for a finding about the checker itself.
    pub requester: Option<Requester>,
    /// Name of the driver bound to it, empty when none was.
    pub driver: String,
    /// The mapping, when there is one.
    pub mapping: Option<MappingInfo>,
    /// The bytes concerned, within the mapping.
    pub range: Option<ByteRange>,
    /// Offset within the mapping of the first byte in `cpu_bytes` and `device_bytes`.
    pub bytes_at: u64,
    /// What the CPU's copy held there (at most 64 bytes).
    pub cpu_bytes: Vec<u8>,
    /// What the device's copy held there (at most 64 bytes).
    pub device_bytes: Vec<u8>,
    /// Where ownership last changed.
    pub handover: Option<Handover>,
    /// Where the offence happened.
    pub offence: Offence,
    /// Where it took effect, when that is another place: where a write was discarded, where a sync came too late.
    pub consequence: Option<Offence>,
    /// The access, when the offence is one of the CPU.
    pub access: Option<AccessInfo>,
    /// What happened to the mapping before, oldest first; bounded.
    pub history: Vec<HistoryEntry>,
    /// One sentence: what happened.
    pub message: String,
    /// One sentence: what to change.
    pub advice: String,
    /// How many times (volatile).
    pub count: u64,
    /// The bytes concerned the last time (volatile).
    pub last_range: Option<ByteRange>,
    /// Sequence number of the first time (volatile).
    pub first_seq: u64,
    /// Sequence number of the last time (volatile).
    pub last_seq: u64,
}
