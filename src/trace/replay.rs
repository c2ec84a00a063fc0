//! Gives a fresh core the inputs of a trace.

use crate::error::Error;
use crate::player::{Player, Stored};
use crate::reader::{End, Reader};
use crate::record::Record;
use crate::streamed::{Moved, Streamed};
use dmavet_coherence::{AccessError, Coherence, CpuOp, DmaView, InFlight, Input, Intent, Outcome, RamRegion, Requester, Summary};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use vm_memory::{FileOffset, GuestAddress, GuestMemory as _, GuestMemoryMmap, Permissions, VolatileSlice};

/// Bytes of notes kept, all together.
const MOST_NOTES: usize = 64 << 20;
/// Bytes of call stacks the core may be made to keep.
const MOST_STACKS: usize = 512 << 20;

/// Where a replay took another course than the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Number of the input, from 1.
    pub input: u64,
    /// What it was.
    pub what: String,
}

/// A run, judged again.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What the core has to say.
    pub summary: Summary,
    /// Inputs replayed.
    pub inputs: u64,
    /// How the trace ends.
    pub end: End,
    /// The first time the core did not answer as in the run. Another version of the core may; the same does not.
    pub divergence: Option<Divergence>,
    /// What was added for whoever reads the trace, by name.
    pub notes: BTreeMap<String, Vec<u8>>,
}

/// Replays a trace to its end.
///
/// Takes about as much memory as the recorded core did; of guest RAM, only what the core read.
///
/// # Errors
/// When the trace is damaged, asks for more than it may, or the system has no memory.
pub fn replay<R: Read>(reader: Reader<R>) -> Result<Replay, Error> {
    play(reader, None)
}

/// The same, and shows what the devices moved: the bytes of each access they made to memory that was mapped for streaming.
///
/// Coherent memory is not among it: a trace does not have its contents. Neither are accesses a device makes to see whether there is
/// something to do (polls), or ahead of time.
///
/// # Errors
/// As for [`replay`].
pub fn replay_watched<R: Read>(reader: Reader<R>, moved: &mut dyn FnMut(Moved<'_>)) -> Result<Replay, Error> {
    play(reader, Some(moved))
}

fn play<R: Read>(mut reader: Reader<R>, moved: Option<&mut dyn FnMut(Moved<'_>)>) -> Result<Replay, Error> {
    let player = Player::default();
    let header = reader.header().clone();
    let core = Coherence::with_tap(header.config, guest_ram(&header.ram)?, Some(Arc::new(player.clone())))?;
    core.set_fault_plan(Box::new(player.clone()));
    let mut stage = Stage {
        core,
        player,
        views: HashMap::new(),
        flights: HashMap::new(),
        summary: None,
        divergence: None,
        streamed: moved.map(Streamed::new),
    };
    let (mut notes, mut noted, mut stacks) = (BTreeMap::new(), 0usize, 0usize);
    loop {
        let number = reader.inputs() + 1;
        let too_much = match reader.next()? {
            None => break,
            Some(Record::Input(input)) => {
                if let Input::Site { stack, .. } = &input {
                    stacks += stack.iter().map(|frame| 2 * frame.symbol.len() + 128).sum::<usize>();
                }
                stage.play(&input, number);
                stacks > MOST_STACKS
            }
            Some(Record::Note(name, value)) => {
                noted += name.len() + value.len();
                notes.insert(name.into_owned(), value.into_owned());
                noted > MOST_NOTES
            }
            Some(other) => {
                if let Record::Stack(stack) = &other {
                    stacks += stack.iter().map(|frame| 2 * frame.symbol.len() + 128).sum::<usize>();
                }
                !stage.player.take(other) || stacks > MOST_STACKS
            }
        };
        if too_much {
            return Err(reader.damaged("it holds more than belongs to one run"));
        }
    }
    let summary = stage.summary.take().unwrap_or_else(|| stage.core.finish());
    Ok(Replay { summary, inputs: reader.inputs(), end: reader.end().unwrap_or(End::Whole), divergence: stage.divergence, notes })
}

/// Guest RAM of the same shape. What the core reads comes from the trace: no page of it is ever filled but by the core.
fn guest_ram(regions: &[RamRegion]) -> Result<Arc<GuestMemoryMmap>, Error> {
    let bytes = regions.iter().map(|r| r.len).sum();
    let failed = |what: String| Error::Memory { bytes, what };
    let memfd = rustix::fs::memfd_create("dmavet-replay", rustix::fs::MemfdFlags::CLOEXEC).map_err(|e| failed(e.to_string()))?;
    let file = Arc::new(File::from(memfd));
    file.set_len(bytes).map_err(|e| failed(e.to_string()))?;
    let mut offset = 0;
    let mut ranges = Vec::new();
    for region in regions {
        let length = usize::try_from(region.len).map_err(|e| failed(e.to_string()))?;
        ranges.push((GuestAddress(region.base), length, region.shared.then(|| FileOffset::from_arc(Arc::clone(&file), offset))));
        offset += region.len;
    }
    GuestMemoryMmap::from_ranges_with_files(ranges).map(Arc::new).map_err(|e| failed(e.to_string()))
}

struct Stage<'a> {
    core: Coherence,
    player: Player,
    views: HashMap<Requester, DmaView>,
    /// Transfers that go on, by number.
    flights: HashMap<u64, InFlight>,
    /// Of the last finish: what the run reported.
    summary: Option<Summary>,
    divergence: Option<Divergence>,
    /// Who wants to see what the devices move.
    streamed: Option<Streamed<'a>>,
}

impl Stage<'_> {
    fn play(&mut self, input: &Input<'_>, number: u64) {
        let other = self.perform(input);
        let seen = self.player.over();
        let other = other.or_else(|| {
            let differs =
                matches!(input, Input::Access { .. } | Input::Consume { .. } | Input::Begin { .. }) && seen.as_ref() != Some(input);
            differs.then(|| format!("{input:?} became {seen:?}"))
        });
        if let (Some(what), None) = (other, &self.divergence) {
            self.divergence = Some(Divergence { input: number, what });
        }
    }

    /// Does it, and says what came of it if that is not what came of it in the run.
    fn perform(&mut self, input: &Input<'_>) -> Option<String> {
        let core = &self.core;
        match input {
            Input::AddDevice { requester, model } => core.add_device(*requester, model),
            Input::Call { caller, call, answer } => {
                let now = core.call(*caller, call);
                if let Some(streamed) = &mut self.streamed {
                    streamed.call(caller.requester, call, &now);
                }
                return (now != **answer).then(|| format!("{call:?} was answered with {now:?} instead of {answer:?}"));
            }
            Input::BusMaster { requester, on } => core.set_bus_master(*requester, *on),
            Input::Kick { requester, site } => core.kick(*requester, *site),
            Input::Reset { requester } => core.reset_device(*requester),
            Input::BlindSpot { what } => core.blind_spot(what.clone().into_owned()),
            Input::Gate => core.set_gate(Arc::new(self.player.clone())),
            Input::Signalled { requester } => core.signalled(*requester),
            Input::CpuAccess { accesses, cpu, user, rip, innocent } => {
                let op = CpuOp { accesses, cpu: *cpu, user: *user, rip: *rip };
                let seen = core.cpu_access(&op, &mut &self.player, &mut || {});
                return (seen.innocent != *innocent).then(|| format!("{op:?} was judged as innocent: {}", seen.innocent));
            }
            Input::AbandonPage { page, why } => core.abandon_page(*page, why),
            Input::Site { stack, site } => {
                let now = core.intern_site(stack.clone().into_owned());
                return (now != *site).then(|| format!("a call stack got the number {} instead of {}", now.0, site.0));
            }
            Input::View { requester } => {
                self.views.insert(*requester, core.view(*requester));
            }
            Input::Access { requester, iova, len, read, write, intent, outcome } => {
                let (Some(view), Ok(len)) = (self.views.get(requester), usize::try_from(*len)) else {
                    return Some(format!("an access of {requester}, which has no memory"));
                };
                let view = match intent {
                    Intent::Use => view.clone(),
                    Intent::Poll => view.polling(),
                    Intent::Prefetch => view.prefetching(),
                };
                let stored = self.player.stored();
                let wanted = *intent == Intent::Use && *outcome == Outcome::Done;
                let mut bytes = self.streamed.as_ref().filter(|streamed| wanted && streamed.has(*requester, *iova)).map(|_| Vec::new());
                access(&view, GuestAddress(iova.0), len, (*read, *write), &stored, *outcome, bytes.as_mut());
                if let (Some(streamed), Some(bytes)) = (&mut self.streamed, bytes) {
                    streamed.moved(*requester, *write, &bytes);
                }
            }
            Input::Consume { requester, iova, len, .. } => {
                let (Some(view), Ok(len)) = (self.views.get(requester), usize::try_from(*len)) else {
                    return Some(format!("an access of {requester}, which has no memory"));
                };
                // How it went is compared by what the tap saw.
                let _: Result<(), AccessError> = view.consume(*iova, len);
            }
            Input::Begin { requester, iova, len, number } => {
                let (Some(view), Ok(len)) = (self.views.get(requester), usize::try_from(*len)) else {
                    return Some(format!("a transfer of {requester}, which has no memory"));
                };
                self.flights.insert(*number, view.begin(*iova, len));
            }
            Input::EndFlight { number } => _ = self.flights.remove(number),
            Input::Stats => _ = core.stats(),
            Input::Finish => self.summary = Some(core.finish()),
        }
        None
    }
}

/// Makes an access of a device, as far as the core can tell: what it wrote is put back. What it read or wrote is added to `seen`.
fn access(
    view: &DmaView,
    address: GuestAddress,
    len: usize,
    (read, write): (bool, bool),
    stored: &[Stored],
    outcome: Outcome,
    mut seen: Option<&mut Vec<u8>>,
) {
    let permissions = match (read, write) {
        (true, true) => Permissions::ReadWrite,
        (false, true) => Permissions::Write,
        (true, false) => Permissions::Read,
        (false, false) => Permissions::No,
    };
    let Ok(slices) = view.get_slices(address, len, permissions) else { return };
    if stored.is_empty() && outcome != Outcome::Broken && seen.is_none() {
        return;
    }
    let mut at = 0u64;
    let mut rest = stored;
    for slice in slices {
        let Ok(slice) = slice else { return };
        let end = at + slice.len() as u64;
        // The runs are in order; one may go on in the next slice.
        while let Some(((offset, bytes), others)) = rest.split_first().filter(|((offset, _), _)| *offset < end) {
            put(&slice, at, end, *offset, bytes);
            if offset.saturating_add(bytes.len() as u64) > end {
                break;
            }
            rest = others;
        }
        if let Some(seen) = &mut seen {
            let from = seen.len();
            seen.resize(from + slice.len(), 0);
            slice.copy_to(seen.get_mut(from..).unwrap_or_default());
        }
        at = end;
    }
}

/// Writes the part of a run at `offset` that lies in a slice with the bytes `at..end` of the access.
fn put<B: vm_memory::bitmap::BitmapSlice>(slice: &VolatileSlice<'_, B>, at: u64, end: u64, offset: u64, bytes: &[u8]) {
    let (first, last) = (offset.max(at), offset.saturating_add(bytes.len() as u64).min(end));
    let index = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    if first < last
        && let Some(part) = bytes.get(index(first - offset)..index(last - offset))
        && let Ok(target) = slice.subslice(index(first - at), part.len())
    {
        target.copy_from(part);
    }
}
