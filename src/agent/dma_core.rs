//! What the agent asks of the coherence core.

use dmavet_coherence::Coherence;
use dmavet_coherence::call::{Answer, ApiCall, Caller};
use dmavet_coherence::ids::SiteId;
use dmavet_coherence::site::Frame;

/// The part of the coherence core the agent talks to. Tests stand in for it with a recorder.
pub trait DmaCore: Send {
    /// Carries out one call of the guest and answers it.
    fn call(&self, caller: Caller, call: &ApiCall) -> Answer;
    /// The id of a call stack, innermost frame first.
    fn intern_site(&self, stack: Vec<Frame>) -> SiteId;
    /// Something was not seen (rule DV901).
    fn blind_spot(&self, what: String);
    /// What `dma_get_required_mask()` answers: covers the highest handle (IOVA) the core gives out.
    fn required_mask(&self) -> u64;
}

impl DmaCore for Coherence {
    fn call(&self, caller: Caller, call: &ApiCall) -> Answer {
        Self::call(self, caller, call)
    }

    fn intern_site(&self, stack: Vec<Frame>) -> SiteId {
        Self::intern_site(self, stack)
    }

    fn blind_spot(&self, what: String) {
        Self::blind_spot(self, what);
    }

    fn required_mask(&self) -> u64 {
        Self::required_mask(self)
    }
}
