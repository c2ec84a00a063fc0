//! Names for the call stacks of a trace.

use crate::report::symbols::{self, ModuleImage, SourceFrame, Symbolizer};
use crate::report::text;
use crate::report::timeline::{Place, Track};
use crate::run::{NOTE_PLAN, Plan};
use dmavet_coherence::{Frame, SiteId, SiteTable};
use std::collections::HashMap;

/// Bytes of call stacks a trace may hold.
const MOST_STACKS: usize = 256 << 20;
/// Frames of a stack that are shown.
const MOST_FRAMES: usize = 24;

/// The call stacks of a trace, each once.
#[derive(Debug, Default)]
pub(super) struct Places {
    stacks: SiteTable,
    /// By the numbers of the trace.
    known: HashMap<SiteId, u32>,
    bytes: usize,
    plan: Option<Plan>,
}

impl Places {
    /// Takes what the trace says about the run.
    pub(super) fn note(&mut self, name: &str, value: &[u8]) {
        if name == NOTE_PLAN {
            self.plan = serde_json::from_slice(value).ok();
        }
    }

    /// The number of a call stack.
    ///
    /// # Errors
    /// When there are more than belong to a run.
    pub(super) fn intern(&mut self, stack: &[Frame]) -> Result<u32, String> {
        let before = self.stacks.len();
        let site = self.stacks.intern(stack.to_vec());
        if self.stacks.len() > before {
            self.bytes += stack.iter().map(|frame| 2 * frame.symbol.len() + 128).sum::<usize>();
        }
        if self.bytes > MOST_STACKS { Err("it holds more call stacks than belong to one run".into()) } else { Ok(site.0) }
    }

    /// Learns which stack a number of the trace stands for.
    ///
    /// # Errors
    /// As for [`Self::intern`].
    pub(super) fn learn(&mut self, site: SiteId, stack: &[Frame]) -> Result<(), String> {
        let place = self.intern(stack)?;
        self.known.insert(site, place);
        Ok(())
    }

    /// The place a number of the trace stands for.
    pub(super) fn of(&self, site: SiteId) -> u32 {
        self.known.get(&site).copied().unwrap_or(0)
    }

    /// Names the places the tracks refer to and numbers them anew.
    pub(super) fn finish(self, tracks: &mut [Track]) -> Vec<Place> {
        let modules = self.plan.as_ref().map_or(&[][..], |plan| &plan.modules);
        // A module that is not there any more leaves the names the guest gave.
        let images = modules.iter().filter_map(|module| ModuleImage::open(&module.debug).ok()).collect();
        let kernel = self.plan.as_ref().map(|plan| plan.kernel.clone()).unwrap_or_default();
        let mut symbolizer = Symbolizer::new(images, &kernel);
        symbolizer.learn(&self.stacks);
        let mut names = Names { symbolizer, frames: HashMap::new() };
        let mut places = vec![Place { short: String::new(), frames: Vec::new() }];
        let mut numbers: HashMap<u32, u32> = HashMap::from([(0, 0)]);
        let mut same: HashMap<Place, u32> = HashMap::new();
        for event in tracks.iter_mut().flat_map(|track| &mut track.events) {
            event.place = *numbers.entry(event.place).or_insert_with_key(|site| {
                let place = names.place(self.stacks.frames(SiteId(*site)));
                *same.entry(place).or_insert_with_key(|place| {
                    places.push(place.clone());
                    u32::try_from(places.len() - 1).unwrap_or(0)
                })
            });
        }
        places
    }
}

struct Names {
    symbolizer: Symbolizer,
    frames: HashMap<Frame, Vec<SourceFrame>>,
}

impl Names {
    fn place(&mut self, stack: &[Frame]) -> Place {
        let mut frames = Vec::new();
        for frame in stack.iter().filter(|frame| frame.reliable).take(MOST_FRAMES) {
            let resolved = self.frames.entry(frame.clone()).or_insert_with_key(|frame| self.symbolizer.resolve(frame));
            frames.extend(resolved.iter().cloned());
        }
        Place { short: symbols::top(&frames).map(text::short).unwrap_or_default(), frames: frames.iter().map(text::long).collect() }
    }
}
