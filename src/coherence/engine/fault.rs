//! Map calls that fail: on purpose, or because they ask for what a device that is not coherent cannot give.

use super::Engine;
use super::map::map_name;
use crate::call::{Answer, Caller, MapCall};
use crate::catalogue::Code;
use crate::device::FailedMap;
use crate::ids::{Attrs, Family, SiteId};
use crate::rules;
use crate::summary::CallKind;

/// DMA_ATTR_REQUIRE_COHERENT on memory the driver brings.
pub(super) fn requires_coherent(call: &MapCall) -> bool {
    call.attrs.contains(Attrs::REQUIRE_COHERENT) && matches!(call.family, Family::Single | Family::Sg)
}

impl Engine {
    /// Whether the plan wants this call to fail.
    pub(super) fn injects(&mut self, caller: &Caller, call: &MapCall) -> bool {
        self.faults.as_mut().is_some_and(|plan| plan.fails(caller, call))
    }

    /// Fails a map or alloc call as the DMA API may.
    pub(super) fn fail_map(&mut self, device: u32, site: SiteId, call: &MapCall) -> Answer {
        let alloc = matches!(call.family, Family::Coherent | Family::Pages);
        if let Some(record) = self.devices.get_mut(device as usize) {
            record.called(if alloc { CallKind::Alloc } else { CallKind::Map }, site);
        }
        self.stats.injected_failures += 1;
        self.stats.failed_maps += 1;
        self.remember_failed(device, site, call.family, Code::DV109)
    }

    /// Remembers a call that failed, for what its result is used for.
    pub(super) fn remember_failed(&mut self, device: u32, site: SiteId, family: Family, code: Code) -> Answer {
        if let Some(record) = self.devices.get_mut(device as usize) {
            record.failed = Some(FailedMap { site, family, code });
        }
        Answer::Failed
    }

    /// Reports the use of an address that is no handle, if it comes from a call that failed. `kind` is what it would be otherwise.
    pub(super) fn used_unchecked(&mut self, device: u32, iova: u64, kind: Code, what: &str, site: SiteId) -> bool {
        let failed = self.devices.get(device as usize).and_then(|d| d.failed).filter(|f| rules::fault::comes_from(f, iova));
        let Some(failed) = failed else { return false };
        let verdict = rules::fault::unchecked(&failed, kind, what, site, iova);
        self.report(Some(device), None, failed.site, map_name(failed.family), verdict, None);
        true
    }
}
