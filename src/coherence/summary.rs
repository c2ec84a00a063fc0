//! What is left when a run is over.

use crate::catalogue::Code;
use crate::finding::{ByteRange, Finding, MappingInfo};
use crate::ids::{Requester, SiteId};
use crate::site::SiteTable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counters of a run. All are volatile: they depend on timing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Map and alloc calls that succeeded.
    pub maps: u64,
    /// Map and alloc calls that were refused.
    pub failed_maps: u64,
    /// Those that were made to fail.
    pub injected_failures: u64,
    /// Unmap and free calls.
    pub unmaps: u64,
    /// `dma_sync_*_for_cpu` calls.
    pub syncs_for_cpu: u64,
    /// `dma_sync_*_for_device` calls.
    pub syncs_for_device: u64,
    /// Changes of ownership, all calls together.
    pub handovers: u64,
    /// Bytes copied from the CPU's copy to the devices' copy.
    pub bytes_to_device: u64,
    /// Bytes copied from the devices' copy to the CPU's copy.
    pub bytes_to_cpu: u64,
    /// Mappings alive.
    pub live_mappings: u64,
    /// Most mappings alive at once.
    pub peak_mappings: u64,
    /// Pages that have two copies.
    pub tracked_pages: u64,
    /// Most pages that had two copies at once.
    pub peak_tracked_pages: u64,
    /// Accesses of devices that read.
    pub device_reads: u64,
    /// Accesses of devices that wrote.
    pub device_writes: u64,
    /// Bytes the devices read.
    pub device_bytes_read: u64,
    /// Bytes the devices wrote.
    pub device_bytes_written: u64,
    /// Bytes mapped with two copies in pages where every access of the CPU is seen.
    pub watched_bytes: u64,
    /// Bytes mapped with two copies that are checked by comparing content only.
    pub content_bytes: u64,
    /// Most pages watched at once.
    pub watched_pages_peak: u64,
    /// Pages given up: too many innocent accesses, or they could not be guarded.
    pub abandoned_pages: u64,
    /// Accesses of the CPU that were seen.
    pub cpu_accesses: u64,
    /// Those that touched nothing a device owned.
    pub innocent_accesses: u64,
    /// Looks at bytes the device was just writing, between a for_cpu and whatever follows: legal, counted.
    pub peeks: u64,
    /// Offences on pages user mode may touch at any time (page cache, anonymous memory): counted, not reported.
    pub foreign_offences: u64,
    /// Offences that repeat a finding.
    pub repeated_offences: u64,
    /// Offences that were not kept because there were too many different ones.
    pub suppressed_findings: u64,
    /// Events the core was told it could not see, or could not keep.
    pub blind_spots: u64,
}

/// The calls whose places are remembered for the coverage of call sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallKind {
    /// dma_map_*.
    Map,
    /// dma_alloc_*.
    Alloc,
    /// dma_unmap_*.
    Unmap,
    /// dma_free_*.
    Free,
    /// dma_sync_*_for_cpu.
    SyncForCpu,
    /// dma_sync_*_for_device.
    SyncForDevice,
    /// dma_set_mask*.
    SetMask,
}

impl CallKind {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [Self::Map, Self::Alloc, Self::Unmap, Self::Free, Self::SyncForCpu, Self::SyncForDevice, Self::SetMask];
}

/// Bytes a device wrote that the CPU never took (DV221): of no interest when the data was not wanted, the very cause when the
/// workload failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWrite {
    /// The mapping.
    pub mapping: MappingInfo,
    /// What ended the device's turn: `dma_sync_single_for_device`, `end of the run`, ...
    pub what: String,
    /// Where that was.
    pub site: SiteId,
    /// The bytes, within the mapping.
    pub range: ByteRange,
    /// Offset within the mapping of the first byte in `cpu_bytes` and `device_bytes`.
    pub bytes_at: u64,
    /// What the CPU has there (at most 64 bytes).
    pub cpu_bytes: Vec<u8>,
    /// What the device wrote there (at most 64 bytes).
    pub device_bytes: Vec<u8>,
}

/// What one device did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSummary {
    /// The device.
    pub requester: Requester,
    /// Name of its model; empty when the machine never announced the device.
    pub model: String,
    /// The drivers that were bound to it, in order, each once.
    pub drivers: Vec<String>,
    /// Mappings and allocations made for it.
    pub mappings: u64,
    /// Bytes mapped and allocated for it.
    pub bytes_mapped: u64,
    /// Its accesses that read.
    pub reads: u64,
    /// Its accesses that wrote.
    pub writes: u64,
    /// Bytes it wrote that nobody took, over all events.
    pub lost_bytes: u64,
    /// Examples of such bytes; bounded.
    pub lost_writes: Vec<LostWrite>,
    /// Where the calls for it were made, by kind.
    pub call_sites: BTreeMap<CallKind, Vec<SiteId>>,
    /// How many such calls were made for it, those that failed included.
    #[serde(default)]
    pub calls: BTreeMap<CallKind, u64>,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The findings: errors first, then by code, device, place of the map call and of the offence.
    pub findings: Vec<Finding>,
    /// Counters.
    pub stats: Stats,
    /// The stacks the findings name.
    pub sites: SiteTable,
    /// The devices under test and every other requester that called.
    pub devices: Vec<DeviceSummary>,
    /// The finding that ended the run ([`Config::stop_on`](crate::Config::stop_on)): nothing after it was reported.
    pub stopped_at: Option<Code>,
}

impl Summary {
    /// How many findings have that severity.
    #[must_use]
    pub fn count(&self, severity: crate::finding::Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }
}
