//! The core itself: its public handle and its state.

mod access;
mod coherent;
mod cpu;
mod fault;
mod flights;
mod held;
mod lines;
mod map;
mod remains;
mod report;
mod solo;
mod sync;
mod unmap;
mod watch;

pub(crate) use access::{Access, Open, Wish};

use crate::arena::Arena;
use crate::call::{Answer, ApiCall, Caller};
use crate::chunk::chunks;
use crate::config::Config;
use crate::copies::{Copies, Touched};
use crate::device::Device;
use crate::error::Error;
use crate::fault::FaultPlan;
use crate::findings::Findings;
use crate::handles::Handles;
use crate::ids::{Gpa, Requester, SiteId};
use crate::mapping::Mappings;
use crate::ram::Ram;
use crate::rules;
use crate::site::{Frame, SiteTable};
use crate::stop::{Stopper, Wait};
use crate::summary::{CallKind, Stats, Summary};
use crate::table::Table;
use crate::tap::{Detail, Feed, Heard, Input, SeenGate, SeenPlan, Tap};
use crate::view::DmaView;
use crate::watch::{CpuOp, Gate, Seen, Witness};
use coherent::CoherentPages;
use flights::Flights;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_memory::GuestMemoryMmap;
use watch::CpuWatch;

/// Requesters a guest can make the core remember.
const MAX_DEVICES: usize = 4096;

/// What a handle and every view share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ram: Arc<Ram>,
    pub(crate) arena: Arc<Arena>,
    /// Guest RAM as it was given; what a view calls its physical memory is never handed out.
    engine: Mutex<Engine>,
}

impl Shared {
    /// Locks the engine. A panic elsewhere does not take the evidence with it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle to the core. Cheap to clone, usable from every thread; every method takes the one lock and none calls back.
#[derive(Clone, Debug)]
pub struct Coherence {
    shared: Arc<Shared>,
}

impl Coherence {
    /// Sets the core up over guest RAM. Each region should be a shared mapping of a file (a memfd) and say so with its
    /// `file_offset`: the core maps the file once more, in the type a view hands out, and coherent memory is accessed there. A
    /// region without a file works, except that devices cannot reach coherent memory in it
    /// ([`AccessError::NotShared`](crate::AccessError::NotShared)).
    ///
    /// # Errors
    /// A configuration that is not valid, RAM that is not made of whole pages, or no memory: see [`Error`].
    pub fn new(config: Config, ram: Arc<GuestMemoryMmap>) -> Result<Self, Error> {
        Self::with_tap(config, ram, None)
    }

    /// The same with somebody who sees (or supplies) every input.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    #[expect(clippy::needless_pass_by_value, reason = "the core is one of the owners of guest RAM")]
    pub fn with_tap(config: Config, ram: Arc<GuestMemoryMmap>, tap: Option<Arc<dyn Tap>>) -> Result<Self, Error> {
        config.validate()?;
        let ram = Arc::new(Ram::new(&ram, Feed::new(tap))?);
        if let Some(tap) = ram.feed.tap() {
            tap.start(&config, &ram.layout());
        }
        let arena = Arc::new(Arena::new(ram.pages())?);
        let engine = Engine::new(config, Arc::clone(&ram), Arc::clone(&arena));
        Ok(Self { shared: Arc::new(Shared { ram, arena, engine: Mutex::new(engine) }) })
    }

    /// Announces a device of this machine.
    pub fn add_device(&self, requester: Requester, model: &str) {
        let mut engine = self.shared.lock();
        if let Some(device) = engine.device(requester).and_then(|id| engine.devices.get_mut(id as usize)) {
            model.clone_into(&mut device.model);
        }
        engine.ram.feed.input(|| Input::AddDevice { requester, model: Cow::Borrowed(model) });
    }

    /// A call of the guest (event A). Whatever it holds, it is answered.
    pub fn call(&self, caller: Caller, call: &ApiCall) -> Answer {
        let mut engine = self.shared.lock();
        let answer = engine.call(caller, call);
        engine.ram.feed.input(|| Input::Call { caller, call: Cow::Borrowed(call), answer: Cow::Borrowed(&answer) });
        answer
    }

    /// The function's Command register bit 2 (event B). Functions start without it, platform devices with.
    pub fn set_bus_master(&self, requester: Requester, on: bool) {
        let mut engine = self.shared.lock();
        if let Some(device) = engine.device(requester).and_then(|id| engine.devices.get_mut(id as usize)) {
            device.bus_master = on;
            device.at_rest &= !on;
        }
        engine.ram.feed.input(|| Input::BusMaster { requester, on });
    }

    /// The CPU is in a write to a register of the device (event B): what the device does from now on is attributed to `site`.
    pub fn kick(&self, requester: Requester, site: SiteId) {
        let mut engine = self.shared.lock();
        if let Some(device) = engine.device(requester).and_then(|id| engine.devices.get_mut(id as usize)) {
            device.kick = site;
            device.at_rest = false;
        }
        engine.ram.feed.input(|| Input::Kick { requester, site });
    }

    /// The function was reset (event B): it may not master the bus any more, its mappings stay. Until somebody sets it up again it is to
    /// do nothing (DV502).
    pub fn reset_device(&self, requester: Requester) {
        let mut engine = self.shared.lock();
        if let Some(device) = engine.device(requester).and_then(|id| engine.devices.get_mut(id as usize)) {
            device.bus_master = matches!(requester, Requester::Platform(_));
            device.kick = SiteId::default();
            device.at_rest = true;
        }
        engine.ram.feed.input(|| Input::Reset { requester });
    }

    /// Something was not seen from now on (DV901); `what` says what in a few words.
    pub fn blind_spot(&self, what: String) {
        let mut engine = self.shared.lock();
        engine.blind_spot(&what);
        engine.ram.feed.input(|| Input::BlindSpot { what: Cow::Owned(what) });
    }

    /// Makes map and alloc calls fail from now on as `plan` wants it.
    pub fn set_fault_plan(&self, plan: Box<dyn FaultPlan>) {
        let mut engine = self.shared.lock();
        engine.faults = Some(match engine.ram.feed.tap() {
            Some(tap) => Box::new(SeenPlan { plan, tap: Arc::clone(tap) }),
            None => plan,
        });
    }

    /// Gives the core somebody who can keep the CPU from pages. Before the guest starts; without one nothing is watched.
    pub fn set_gate(&self, gate: Arc<dyn Gate>) {
        let mut engine = self.shared.lock();
        let gate = match engine.ram.feed.tap() {
            Some(tap) => Arc::new(SeenGate { gate, tap: Arc::clone(tap) }),
            None => gate,
        };
        engine.set_gate(gate);
        engine.ram.feed.input(|| Input::Gate);
    }

    /// Gives the core somebody who ends the machine when a finding of [`Config::stop_on`] was made.
    pub fn set_stopper(&self, stopper: Arc<dyn Stopper>) {
        self.shared.lock().wait.set_stopper(stopper);
    }

    /// The device gave the CPU a sign: it raised an interrupt, or one of its registers was read (event B).
    pub fn signalled(&self, requester: Requester) {
        let mut engine = self.shared.lock();
        let seq = engine.tick();
        if let Some(device) = engine.device(requester).and_then(|id| engine.devices.get_mut(id as usize)) {
            device.signal = seq;
        }
        engine.ram.feed.input(|| Input::Signalled { requester });
    }

    /// An instruction was stopped at a guarded page. Judges it, then calls `perform` with the lock held, so that the access and a
    /// hand-over of the same bytes exclude each other. `perform` must not call the core; where the instruction is executed
    /// by the CPU afterwards (or was already), it does nothing.
    pub fn cpu_access(&self, op: &CpuOp<'_>, witness: &mut dyn Witness, perform: &mut dyn FnMut()) -> Seen {
        let mut engine = self.shared.lock();
        let Some(tap) = engine.ram.feed.tap().cloned() else { return engine.cpu_access(op, witness, perform) };
        let seen = engine.cpu_access(op, &mut Heard { witness, tap: &*tap }, perform);
        let accesses = Cow::Borrowed(op.accesses);
        tap.input(&Input::CpuAccess { accesses, cpu: op.cpu, user: op.user, rip: op.rip, innocent: seen.innocent });
        seen
    }

    /// The gate's owner cannot keep a page guarded any more (`why` says it in a few words): it is opened and checked by content only until its last mapping ends.
    pub fn abandon_page(&self, page: Gpa, why: &str) {
        let mut engine = self.shared.lock();
        engine.abandon_page(page, why);
        engine.ram.feed.input(|| Input::AbandonPage { page, why: Cow::Borrowed(why) });
    }

    /// The number of a call stack, innermost frame first.
    #[must_use]
    pub fn intern_site(&self, stack: Vec<Frame>) -> SiteId {
        let mut engine = self.shared.lock();
        let known = !stack.is_empty();
        let (before, copy) = (engine.sites.len(), engine.ram.feed.tap().map(|_| stack.clone()));
        let site = engine.sites.intern(stack);
        let full = known && site == SiteId::default();
        if full {
            engine.blind_spot("the table of call stacks is full: later stacks are not told apart");
        }
        // A stack that was known changes nothing.
        if full || engine.sites.len() > before {
            engine.ram.feed.input(|| Input::Site { stack: Cow::Owned(copy.unwrap_or_default()), site });
        }
        site
    }

    /// The memory of a device, for bytes that are used when they are read.
    #[must_use]
    pub fn view(&self, requester: Requester) -> DmaView {
        let mut engine = self.shared.lock();
        let id = engine.device(requester);
        engine.ram.feed.input(|| Input::View { requester });
        drop(engine);
        DmaView::new(Arc::clone(&self.shared), id)
    }

    /// The mask that covers every handle (`dma_get_required_mask()`).
    #[must_use]
    pub fn required_mask(&self) -> u64 {
        self.shared.lock().handles.required_mask()
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut engine = self.shared.lock();
        let stats = engine.stats_now();
        engine.ram.feed.input(|| Input::Stats);
        stats
    }

    /// Ends the run: looks for what can only be said at the end, and returns everything. Calling it twice reports what ends
    /// with the run twice as often but loses nothing.
    #[must_use]
    pub fn finish(&self) -> Summary {
        let mut engine = self.shared.lock();
        let summary = engine.finish();
        engine.ram.feed.input(|| Input::Finish);
        summary
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// The state behind the lock.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) ram: Arc<Ram>,
    pub(crate) copies: Copies,
    pub(crate) handles: Handles,
    pub(crate) table: Table,
    pub(crate) mappings: Mappings,
    pub(crate) devices: Vec<Device>,
    by_requester: HashMap<Requester, u32>,
    /// The requester of the last call and its record: calls come in runs.
    last_requester: Option<(Requester, u32)>,
    pub(crate) findings: Findings,
    /// The finding that ends the run.
    pub(crate) wait: Wait,
    pub(crate) sites: SiteTable,
    pub(crate) stats: Stats,
    /// Transfers the devices say they are working on.
    pub(crate) flights: Flights,
    coherent: CoherentPages,
    /// Which map calls are to fail.
    faults: Option<Box<dyn FaultPlan>>,
    /// The CPU's side.
    pub(crate) cpu: CpuWatch,
    /// The access whose slices are being handed out: here, so that what goes from hand to hand is small.
    pub(crate) open: Open,
    /// What the access under judgement touches; kept for its memory.
    touched: Vec<Touched>,
    seq: u64,
}

impl Engine {
    fn new(config: Config, ram: Arc<Ram>, arena: Arc<Arena>) -> Self {
        Self {
            copies: Copies::new(Arc::clone(&ram), arena, &config),
            handles: Handles::new(&config),
            table: Table::new(&Handles::spans(&config)),
            mappings: Mappings::default(),
            devices: Vec::new(),
            by_requester: HashMap::new(),
            last_requester: None,
            findings: Findings::new(config.max_findings),
            wait: Wait::new(&config.stop_on),
            sites: SiteTable::default(),
            stats: Stats::default(),
            flights: Flights::default(),
            coherent: CoherentPages::default(),
            faults: None,
            cpu: CpuWatch::default(),
            open: Open::default(),
            touched: Vec::new(),
            seq: 0,
            ram,
            config,
        }
    }

    /// The number of the next event.
    pub(crate) fn tick(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The record of a requester, made at its first mention; `None` when there are too many.
    fn device(&mut self, requester: Requester) -> Option<u32> {
        if let Some((last, id)) = self.last_requester
            && last == requester
        {
            return Some(id);
        }
        if let Some(id) = self.by_requester.get(&requester) {
            self.last_requester = Some((requester, *id));
            return Some(*id);
        }
        if self.devices.len() >= MAX_DEVICES {
            self.blind_spot("calls for more requesters than there can be devices");
            return None;
        }
        let id = crate::bits::narrow(self.devices.len());
        self.devices.push(Device::new(requester));
        self.by_requester.insert(requester, id);
        Some(id)
    }

    /// Whose record a device's is.
    pub(crate) fn requester(&self, device: u32) -> Requester {
        self.devices.get(device as usize).map_or(Requester::Platform(0), |d| d.requester)
    }

    /// An access of a device that was let through is over.
    pub(crate) fn access_over(&mut self) {
        let (access, recorded) = (self.open.access, self.open.recorded.take());
        let input = recorded.as_deref();
        let fetches = access.stores && access.two_copies && self.copies.prefetches();
        if let Some(input) = input {
            self.tell_stored(access, input);
        }
        if fetches {
            self.prefetch(access);
        }
        if let (Some(input), Some(tap)) = (input, self.ram.feed.tap()) {
            tap.input(input);
        }
    }

    /// An access of a device was refused.
    pub(crate) fn access_refused(&self, input: &Input<'_>) {
        if let Some(tap) = self.ram.feed.tap() {
            tap.input(input);
        }
    }

    /// Whoever records an access gets what the device wrote.
    fn tell_stored(&mut self, access: Access, input: &Input<'_>) {
        let Some(tap) = self.ram.feed.tap() else { return };
        if let (Input::Access { write: true, .. }, true, Some(mapping)) = (input, access.two_copies, self.mappings.get(access.mapping)) {
            for chunk in chunks(&mapping.segments, access.range) {
                self.copies.stored(&chunk, |from, bytes| {
                    tap.detail(Detail::Stored(chunk.at(from).saturating_sub(access.range.start), bytes));
                });
            }
        }
    }

    fn call(&mut self, caller: Caller, call: &ApiCall) -> Answer {
        self.tick();
        let Some(device) = self.device(caller.requester) else { return Answer::Failed };
        self.expire_remains();
        let answer = self.dispatch(device, caller, call);
        self.pass_on_guards();
        answer
    }

    fn dispatch(&mut self, device: u32, caller: Caller, call: &ApiCall) -> Answer {
        match call {
            ApiCall::Map(map) if !self.injects(&caller, map) => self.map(device, caller.site, map),
            ApiCall::Map(map) | ApiCall::Fail(map) => self.fail_map(device, caller.site, map),
            ApiCall::Unmap(unmap) => {
                self.unmap(device, caller.site, unmap);
                Answer::Done
            }
            ApiCall::Sync(sync) => {
                self.sync(device, caller.site, sync);
                Answer::Done
            }
            ApiCall::SetMask { mask } => Answer::Supported(self.set_mask(device, caller.site, *mask)),
            ApiCall::Bound { driver } => {
                if let Some(device) = self.devices.get_mut(device as usize) {
                    device.bind(driver);
                }
                Answer::Done
            }
            ApiCall::Unbound => {
                self.unbound(device);
                Answer::Done
            }
            ApiCall::Rejected(what) => {
                let (call, verdict) = rules::map::rejected(*what);
                self.report(Some(device), None, caller.site, call, verdict, None);
                Answer::Done
            }
        }
    }

    fn set_mask(&mut self, device: u32, site: SiteId, mask: u64) -> bool {
        let supported = self.handles.reaches(mask);
        let Some(record) = self.devices.get_mut(device as usize) else { return false };
        record.called(CallKind::SetMask, site);
        record.refused_mask = (!supported).then_some(mask);
        // Looking at every mapping is only worth it for a mask that some handle can be above of.
        if supported && mask < self.handles.required_mask() {
            let above = self.mappings.live_where(|m| m.device == device && m.end() > 0 && m.end() - 1 > mask);
            if let Some(id) = above.first()
                && let Some(mapping) = self.mappings.get(*id)
            {
                let verdict = rules::life::mask_lowered(mapping, mask, above.len());
                self.report(Some(device), Some(*id), site, "dma_set_mask", verdict, None);
            }
        }
        supported
    }

    pub(crate) fn stats_now(&mut self) -> Stats {
        self.note_peaks();
        self.stats
    }

    pub(crate) fn note_peaks(&mut self) {
        let stats = &mut self.stats;
        stats.live_mappings = self.mappings.live() as u64;
        stats.peak_mappings = stats.peak_mappings.max(stats.live_mappings);
        stats.tracked_pages = self.copies.tracked();
        stats.peak_tracked_pages = stats.peak_tracked_pages.max(stats.tracked_pages);
        stats.watched_pages_peak = stats.watched_pages_peak.max(self.copies.watched());
    }
}

/// Names of the calls of the DMA API, for reports.
pub(crate) mod names {
    pub(crate) use super::map::map_name;
    pub(crate) use super::unmap::unmap_name;
}
