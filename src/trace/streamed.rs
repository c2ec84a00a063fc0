//! What devices move through memory that was mapped for streaming.

use dmavet_coherence::{Answer, ApiCall, Family, Iova, Requester};
use std::collections::BTreeMap;

/// An access of a device that was let through.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    /// The device.
    pub device: Requester,
    /// Whether it wrote; else it read.
    pub wrote: bool,
    /// The bytes, as the device has them.
    pub bytes: &'a [u8],
}

/// Knows which handles are for streaming, and shows what goes through them.
pub(crate) struct Streamed<'a> {
    moved: &'a mut dyn FnMut(Moved<'_>),
    /// Handles of live streaming mappings, by device: first, and one past the last.
    live: BTreeMap<Requester, BTreeMap<u64, u64>>,
}

impl<'a> Streamed<'a> {
    pub(crate) fn new(moved: &'a mut dyn FnMut(Moved<'_>)) -> Self {
        Self { moved, live: BTreeMap::new() }
    }

    /// Takes a call and its answer in.
    pub(crate) fn call(&mut self, device: Requester, call: &ApiCall, answer: &Answer) {
        match (call, answer) {
            (ApiCall::Map(call), Answer::Handles(handles)) if is_streaming(call.family) => {
                let live = self.live.entry(device).or_default();
                live.extend(handles.iter().map(|(iova, len)| (iova.0, iova.0.saturating_add(*len))));
            }
            (ApiCall::Unmap(call), _) => {
                if let Some(live) = self.live.get_mut(&device) {
                    call.ranges.iter().for_each(|(iova, _)| _ = live.remove(&iova.0));
                }
            }
            _ => {}
        }
    }

    /// Whether a device's access there goes through a streaming mapping.
    pub(crate) fn has(&self, device: Requester, iova: Iova) -> bool {
        let before = self.live.get(&device).and_then(|live| live.range(..=iova.0).next_back());
        before.is_some_and(|(_, end)| iova.0 < *end)
    }

    pub(crate) fn moved(&mut self, device: Requester, wrote: bool, bytes: &[u8]) {
        (self.moved)(Moved { device, wrote, bytes });
    }
}

/// Memory with two copies whose contents are handed over: not coherent memory, and not other devices' registers.
fn is_streaming(family: Family) -> bool {
    match family {
        Family::Single | Family::Sg | Family::Pages => true,
        Family::Coherent | Family::Resource => false,
    }
}
