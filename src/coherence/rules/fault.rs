//! 109, 404: what a failed map call returned is used all the same.

use super::Verdict;
use crate::catalogue::Code;
use crate::device::FailedMap;
use crate::engine::names;
use crate::ids::{Family, SiteId};

/// Addresses near `DMA_MAPPING_ERROR` and near 0 that can be an error value with an offset added.
const REACH: u64 = 1 << 16;

/// Whether an address comes from what a failed call left: `DMA_MAPPING_ERROR` (or what a 32-bit register keeps of it), with an offset
/// or without; 0 where the call does not set the handle.
pub(crate) fn comes_from(failed: &FailedMap, iova: u64) -> bool {
    // Nothing is ever mapped at the end of either address space, nor in the first 64 KiB.
    let error = iova >= u64::MAX - REACH || (0xffff_ffff - REACH..=0xffff_ffff).contains(&iova);
    let unset = matches!(failed.family, Family::Coherent | Family::Pages | Family::Sg);
    // An even offset from the error value is an odd number.
    error || (iova < REACH && (unset || iova % 2 == 1))
}

/// DV109 or DV404 in place of `kind`: `what` shows that the result was not looked at.
pub(crate) fn unchecked(failed: &FailedMap, kind: Code, what: &str, site: SiteId, iova: u64) -> Verdict {
    let call = names::map_name(failed.family);
    let why = if failed.code == Code::DV404 { "the device is not coherent" } else { "made to fail" };
    let message = format!("{call} failed ({why}), and its result was used all the same: {what} at {iova:#x}.");
    let advice = match failed.family {
        Family::Coherent | Family::Pages => "Check the result for NULL and unwind without it.",
        Family::Sg => "Check the result of dma_map_sg() for 0 and unwind without unmapping the list.",
        Family::Single | Family::Resource => "Check the result with dma_mapping_error() and unwind without unmapping it.",
    };
    Verdict::new(failed.code, message).kind(kind).consequence(what, site).advice(advice)
}
