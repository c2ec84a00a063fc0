//! What a run of the core is configured with.

use crate::error::Error;
use crate::profile::{Cache, Edges, Profile};
use crate::stop::StopOn;
use crate::watch::WatchPolicy;
use serde::{Deserialize, Serialize};
use std::ops::Range;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Settings of the core. Addresses are in the devices' I/O virtual address space unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Bytes in a cache line: 32, 64 or 128.
    pub line_size: u32,
    /// Whether neighbours of a scatterlist are merged where one ends and the next begins at a page boundary, as dma-iommu does.
    pub sg_merge: bool,
    /// What the machine's cache operations do.
    pub profile: Profile,
    /// What happens to cache lines that are covered in part.
    pub edges: Edges,
    /// What the cache does on its own.
    pub cache: Cache,
    /// Guest physical ranges of the kernel's own code and constants, which nothing is to be mapped from (DV110); empty when not known.
    pub kernel_image: Vec<Range<u64>>,
    /// Seed of everything that is chosen at random: what [`Cache::Random`] does.
    pub seed: u64,
    /// Handles below 4 GiB and above guest RAM: what a device with a 32-bit mask gets.
    pub low_window: Range<u64>,
    /// Handles above 4 GiB and above guest RAM: what a device with a wide mask gets.
    pub high_window: Range<u64>,
    /// Ranges no handle may fall in: interrupt controllers, BAR and bridge windows.
    pub reserved: Vec<Range<u64>>,
    /// Which pages the CPU watch covers; it takes a [`Gate`](crate::Gate) to cover any.
    pub watch: WatchPolicy,
    /// Innocent accesses to a watched page that also holds other things before the page is checked by content only.
    pub innocent_budget: u32,
    /// Whether to look for what is only a note and costs time to see (DV218, DV219, DV220, DV304, DV503).
    pub pedantic: bool,
    /// Most mappings alive at once; a map call beyond it fails and is a DV901.
    pub max_mappings: u32,
    /// Most (mapping, page) pairs alive at once; a map call beyond it fails and is a DV901.
    pub max_page_refs: usize,
    /// Most different findings kept; what comes later is counted and is a DV901.
    pub max_findings: usize,
    /// The findings after which nothing more is reported, because they end the run.
    #[serde(default)]
    pub stop_on: Vec<StopOn>,
}

impl Config {
    /// End of the guest physical addresses RAM may take below 4 GiB, and of the low window.
    pub const LOW_END: u64 = 3 * GIB;

    /// The address map of a machine with `ram_bytes` of RAM: 0 to 3 GiB, the rest from 4 GiB up.
    #[must_use]
    pub fn for_ram(ram_bytes: u64) -> Self {
        let low_ram = ram_bytes.min(Self::LOW_END).next_multiple_of(MIB);
        let ram_end = if ram_bytes > Self::LOW_END { (4 * GIB).saturating_add(ram_bytes - Self::LOW_END) } else { low_ram };
        let high = (64 * GIB).max(ram_end.checked_next_power_of_two().unwrap_or(1 << 62));
        Self {
            line_size: 64,
            sg_merge: false,
            profile: Profile::Arm64,
            edges: Edges::Isolate,
            cache: Cache::Quiet,
            kernel_image: Vec::new(),
            seed: 0,
            low_window: low_ram.max(16 * MIB)..Self::LOW_END,
            high_window: high..high.saturating_add(64 * GIB),
            // Below 1 MiB: legacy. 3 to 4 GiB: BARs, ECAM, I/O and local APIC (MSI). 256 to 272 GiB: 64-bit BARs.
            reserved: vec![0..MIB, Self::LOW_END..4 * GIB, 256 * GIB..272 * GIB],
            watch: WatchPolicy::Off,
            innocent_budget: 1000,
            pedantic: false,
            max_mappings: 4 << 20,
            max_page_refs: 16 << 20,
            max_findings: 4096,
            stop_on: Vec::new(),
        }
    }

    /// Checks what the core relies on.
    ///
    /// # Errors
    /// [`Error::LineSize`], [`Error::NoLines`] and [`Error::Window`], with the numbers.
    pub fn validate(&self) -> Result<(), Error> {
        if ![32, 64, 128].contains(&self.line_size) {
            return Err(Error::LineSize(self.line_size));
        }
        if self.profile.bounces() {
            let asked = (self.edges != Edges::Isolate).then_some(("--edges", self.edges.name()));
            let asked = asked.or_else(|| (self.cache != Cache::Quiet).then_some(("--cache", self.cache.name())));
            if let Some((option, word)) = asked {
                return Err(Error::NoLines { option, word, profile: self.profile.name() });
            }
        }
        for window in [&self.low_window, &self.high_window] {
            if window.start > window.end || window.start % 4096 != 0 || window.end % 4096 != 0 || window.end > 1 << 48 {
                return Err(Error::Window { start: window.start, end: window.end });
            }
        }
        if self.low_window.end > 4 * GIB || (!self.high_window.is_empty() && self.high_window.start < 4 * GIB) {
            return Err(Error::Window { start: self.low_window.end, end: self.high_window.start });
        }
        Ok(())
    }
}
