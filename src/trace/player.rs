//! Puts recorded inputs in the place of the real ones: the tap, the gate and the witness of a replay.

use crate::record::{Patch, Record};
use crate::shadow::{Shadows, split};
use dmavet_coherence::{Caller, Config, Detail, FaultPlan, Frame, Gate, Gpa, Guard, Input, MapCall, RamRegion, Tap, Witness};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that one input may have come with (changes of guest RAM within it, what its device wrote, stacks).
const MOST_PENDING: usize = 256 << 20;

/// The bytes of a run, to be put back.
pub(crate) type Stored = (u64, Vec<u8>);

/// A change of guest RAM within an input.
#[derive(Debug)]
struct Late {
    /// How often the core turned to guest RAM before.
    after: u64,
    page: u64,
    runs: Vec<(u16, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct State {
    shadows: Shadows,
    patches: VecDeque<Late>,
    times: VecDeque<u64>,
    time: u64,
    refused: VecDeque<(u64, Vec<Gpa>)>,
    stacks: VecDeque<Vec<Frame>>,
    in_driver: VecDeque<bool>,
    allocators: VecDeque<Option<String>>,
    stored: Vec<Stored>,
    injected: bool,
    pending: usize,
    touches: u64,
    gates: u64,
    seen: Option<Input<'static>>,
}

impl State {
    fn change(&mut self, page: u64, runs: impl IntoIterator<Item = (u16, impl AsRef<[u8]>)>) -> bool {
        let Some(shadow) = self.shadows.page(page) else { return false };
        for (start, bytes) in runs {
            let (start, bytes) = (usize::from(start), bytes.as_ref());
            if let Some(known) = shadow.bytes.get_mut(start..start + bytes.len()) {
                known.copy_from_slice(bytes);
            }
        }
        true
    }

    /// Makes the changes that came before the next access to guest RAM.
    fn catch_up(&mut self, until: u64) {
        while self.patches.front().is_some_and(|late| late.after <= until) {
            if let Some(Late { page, runs, .. }) = self.patches.pop_front() {
                self.change(page, runs);
            }
        }
    }
}

/// Shared by the core under replay and whoever feeds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Player(Arc<Mutex<State>>);

impl Player {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what comes before an input. False when it is more than any recorder writes.
    pub(crate) fn take(&self, record: Record<'_>) -> bool {
        let mut state = self.state();
        let size = match record {
            Record::Patch(Patch { page, after: 0, runs }) => return state.change(page, runs),
            Record::Patch(Patch { page, after, runs }) => {
                let runs: Vec<_> = runs.into_iter().map(|(start, bytes)| (start, bytes.into_owned())).collect();
                let size = runs.iter().map(|(_, bytes)| bytes.len() + 64).sum::<usize>();
                state.patches.push_back(Late { after, page, runs });
                size
            }
            Record::Time(now) => {
                state.times.push_back(now);
                8
            }
            Record::Stored(offset, bytes) => {
                let size = bytes.len();
                state.stored.push((offset, bytes.into_owned()));
                size
            }
            Record::Refused(after, pages) => {
                let size = pages.len() * 8;
                state.refused.push_back((after, pages));
                size
            }
            Record::Stack(stack) => {
                let size = stack.iter().map(|frame| frame.symbol.len() + 48).sum();
                state.stacks.push_back(stack);
                size
            }
            Record::InDriver(yes) => {
                state.in_driver.push_back(yes);
                1
            }
            Record::Allocator(function) => {
                let size = function.as_ref().map_or(0, |f| f.len());
                state.allocators.push_back(function.map(|f| f.into_owned()));
                size
            }
            Record::Injected => {
                state.injected = true;
                0
            }
            Record::Forget => {
                state.shadows.clear();
                0
            }
            Record::Input(_) | Record::Note(..) | Record::End(_) => 0,
        };
        state.pending = state.pending.saturating_add(size + 64);
        state.pending <= MOST_PENDING
    }

    /// What the device writes in its access.
    pub(crate) fn stored(&self) -> Vec<Stored> {
        std::mem::take(&mut self.state().stored)
    }

    /// The input is over: what the core did not ask for is dropped, and the input as this core saw it is given back.
    pub(crate) fn over(&self) -> Option<Input<'static>> {
        let mut state = self.state();
        state.catch_up(u64::MAX);
        state.times.clear();
        state.refused.clear();
        state.stacks.clear();
        state.in_driver.clear();
        state.allocators.clear();
        state.stored.clear();
        state.injected = false;
        (state.pending, state.touches, state.gates) = (0, 0, 0);
        state.seen.take()
    }
}

impl Tap for Player {
    fn start(&self, _: &Config, _: &[RamRegion]) {}

    fn read(&self, gpa: Gpa, bytes: &mut [u8]) {
        let mut state = self.state();
        let touches = state.touches;
        state.catch_up(touches);
        state.touches += 1;
        let (page, start) = split(gpa.0);
        if let Some(known) = state.shadows.page(page).and_then(|shadow| shadow.bytes.get(start..start + bytes.len())) {
            bytes.copy_from_slice(known);
        }
    }

    fn wrote(&self, gpa: Gpa, bytes: &[u8]) {
        let mut state = self.state();
        let touches = state.touches;
        state.catch_up(touches);
        state.touches += 1;
        let (page, start) = split(gpa.0);
        state.change(page, [(u16::try_from(start).unwrap_or(0), bytes)]);
    }

    fn now(&self, _: u64) -> u64 {
        let mut state = self.state();
        if let Some(time) = state.times.pop_front() {
            state.time = time;
        }
        state.time
    }

    fn detail(&self, _: Detail<'_>) {}

    fn input(&self, input: &Input<'_>) {
        // Only what can tell one course of events from another.
        self.state().seen = match *input {
            Input::Access { requester, iova, len, read, write, intent, outcome } => {
                Some(Input::Access { requester, iova, len, read, write, intent, outcome })
            }
            Input::Consume { requester, iova, len, outcome } => Some(Input::Consume { requester, iova, len, outcome }),
            Input::Begin { requester, iova, len, number } => Some(Input::Begin { requester, iova, len, number }),
            _ => None,
        };
    }
}

impl Gate for Player {
    fn apply(&self, _: &[(Gpa, Guard)], refused: &mut Vec<Gpa>) {
        let mut state = self.state();
        let now = state.gates;
        state.gates += 1;
        while state.refused.front().is_some_and(|(after, _)| *after <= now) {
            refused.extend(state.refused.pop_front().into_iter().flat_map(|(_, pages)| pages));
        }
    }
}

impl FaultPlan for Player {
    fn fails(&mut self, _: &Caller, _: &MapCall) -> bool {
        self.state().injected
    }
}

impl Witness for &Player {
    fn stack(&mut self) -> Vec<Frame> {
        self.state().stacks.pop_front().unwrap_or_default()
    }

    fn in_driver(&mut self, _: &str) -> bool {
        self.state().in_driver.pop_front().unwrap_or_default()
    }

    fn allocator(&mut self) -> Option<String> {
        self.state().allocators.pop_front().flatten()
    }
}
