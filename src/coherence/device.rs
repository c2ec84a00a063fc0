//! What the core knows about one device.

use crate::catalogue::Code;
use crate::ids::{Family, Requester, SiteId};
use crate::summary::{CallKind, DeviceSummary, LostWrite};
use std::collections::BTreeMap;

/// Examples of device-written bytes nobody took that are kept for each device.
const LOST_KEPT: usize = 8;
/// Driver names kept for each device.
const DRIVERS_KEPT: usize = 64;

/// Site numbers, one bit each.
#[derive(Debug, Default)]
struct Sites(Vec<u64>);

impl Sites {
    fn insert(&mut self, site: SiteId) {
        let word = site.0 as usize / 64;
        // Ids come from the site table, which is bounded; one made up would be dropped here.
        if site.0 as usize > crate::site::SiteTable::MAX {
            return;
        }
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits |= 1 << (site.0 % 64);
        }
    }

    fn list(&self) -> Vec<SiteId> {
        let bits = |(word, bits): (usize, &u64)| {
            let bits = *bits;
            (0..64usize).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| SiteId(crate::bits::narrow(word * 64 + bit)))
        };
        self.0.iter().enumerate().flat_map(bits).filter(|site| site.0 != 0).collect()
    }
}

/// A map or alloc call that failed, and not because of anything the report says already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedMap {
    pub(crate) site: SiteId,
    pub(crate) family: Family,
    /// What it is when its result is used all the same.
    pub(crate) code: Code,
}

/// One requester.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) requester: Requester,
    pub(crate) model: String,
    pub(crate) drivers: Vec<String>,
    pub(crate) bound: bool,
    pub(crate) bus_master: bool,
    /// It was reset, and neither was bus mastering switched on since nor one of its registers written.
    pub(crate) at_rest: bool,
    /// Where the CPU last wrote to the device: what the device does then is attributed to it.
    pub(crate) kick: SiteId,
    /// The mask the last `dma_set_mask*` asked for, if it was refused.
    pub(crate) refused_mask: Option<u64>,
    /// The last map call that was made to fail for the driver that is bound.
    pub(crate) failed: Option<FailedMap>,
    /// When the driver last had a sign from the device: an interrupt, a register it read, other bytes it took.
    pub(crate) signal: u64,
    pub(crate) mappings: u64,
    pub(crate) bytes_mapped: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) lost_bytes: u64,
    lost: Vec<LostWrite>,
    sites: [Sites; CallKind::ALL.len()],
    calls: [u64; CallKind::ALL.len()],
}

impl Device {
    pub(crate) fn new(requester: Requester) -> Self {
        Self {
            requester,
            model: String::new(),
            drivers: Vec::new(),
            bound: false,
            // A platform device has no Command register.
            bus_master: matches!(requester, Requester::Platform(_)),
            at_rest: false,
            kick: SiteId::default(),
            refused_mask: None,
            failed: None,
            signal: 0,
            mappings: 0,
            bytes_mapped: 0,
            reads: 0,
            writes: 0,
            lost_bytes: 0,
            lost: Vec::new(),
            sites: std::array::from_fn(|_| Sites::default()),
            calls: [0; CallKind::ALL.len()],
        }
    }

    /// The driver bound now, or the last one.
    pub(crate) fn driver(&self) -> &str {
        self.drivers.last().map_or("", String::as_str)
    }

    pub(crate) fn bind(&mut self, driver: &str) {
        self.bound = true;
        self.refused_mask = None;
        self.failed = None;
        if self.drivers.last().is_some_and(|last| last == driver) {
            return;
        }
        self.drivers.retain(|known| known != driver);
        if self.drivers.len() < DRIVERS_KEPT {
            self.drivers.push(driver.to_owned());
        }
    }

    pub(crate) fn called(&mut self, kind: CallKind, site: SiteId) {
        if let (Some(sites), Some(calls)) = (self.sites.get_mut(kind as usize), self.calls.get_mut(kind as usize)) {
            sites.insert(site);
            *calls += 1;
        }
    }

    /// Remembers bytes nobody took; `example` is only asked for while there is room.
    pub(crate) fn lose(&mut self, bytes: u64, example: impl FnOnce() -> LostWrite) {
        self.lost_bytes = self.lost_bytes.saturating_add(bytes);
        if self.lost.len() < LOST_KEPT {
            let example = example();
            let same = |known: &LostWrite| known.mapping.map_site == example.mapping.map_site && known.site == example.site;
            if !self.lost.iter().any(same) {
                self.lost.push(example);
            }
        }
    }

    pub(crate) fn summary(&self) -> DeviceSummary {
        let call_sites: BTreeMap<_, _> =
            CallKind::ALL.iter().zip(&self.sites).map(|(kind, sites)| (*kind, sites.list())).filter(|(_, list)| !list.is_empty()).collect();
        DeviceSummary {
            requester: self.requester,
            model: self.model.clone(),
            drivers: self.drivers.clone(),
            mappings: self.mappings,
            bytes_mapped: self.bytes_mapped,
            reads: self.reads,
            writes: self.writes,
            lost_bytes: self.lost_bytes,
            lost_writes: self.lost.clone(),
            call_sites,
            calls: CallKind::ALL.iter().zip(self.calls).map(|(kind, calls)| (*kind, calls)).filter(|(_, calls)| *calls != 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Bdf;

    #[test]
    fn call_sites_are_remembered_once_by_kind() {
        let mut device = Device::new(Requester::Pci(Bdf(0x10)));
        for site in [7, 200, 7, 0, u32::MAX] {
            device.called(CallKind::Map, SiteId(site));
        }
        device.called(CallKind::Free, SiteId(1));
        let summary = device.summary();
        assert_eq!(summary.call_sites[&CallKind::Map], [SiteId(7), SiteId(200)]);
        assert_eq!(summary.call_sites[&CallKind::Free], [SiteId(1)]);
        assert_eq!(summary.call_sites.len(), 2);
        assert_eq!(summary.calls, BTreeMap::from([(CallKind::Map, 5), (CallKind::Free, 1)]));
    }

    #[test]
    fn the_last_site_and_no_more_is_remembered() {
        let last = u32::try_from(crate::site::SiteTable::MAX).unwrap();
        let mut device = Device::new(Requester::Pci(Bdf(0x10)));
        device.called(CallKind::Map, SiteId(last));
        device.called(CallKind::Map, SiteId(last + 1));
        assert_eq!(device.summary().call_sites[&CallKind::Map], [SiteId(last)]);
    }

    #[test]
    fn drivers_are_bounded() {
        let mut device = Device::new(Requester::Pci(Bdf(0x10)));
        for n in 0..DRIVERS_KEPT + 2 {
            device.bind(&format!("driver{n}"));
        }
        assert_eq!(device.summary().drivers.len(), DRIVERS_KEPT);
    }

    #[test]
    fn only_platform_devices_start_as_bus_masters() {
        assert!(!Device::new(Requester::Pci(Bdf(8))).bus_master);
        assert!(Device::new(Requester::Platform(0)).bus_master);
    }
}
