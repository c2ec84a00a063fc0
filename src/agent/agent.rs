//! The agent's function as the machine sees it: registers in, events out.

use crate::abi;
use crate::assembly::Assembly;
use crate::decode::{DecodeError, DmaChunk, Request, decode};
use crate::dma_core::DmaCore;
use crate::event::{AgentEvent, ModuleLayout, ModuleState};
use crate::registers::{RegisterAction, Registers, SlotArray};
use crate::sites::{Sites, trim};
use crate::slot::{Reply, SlotCopy};
use dmavet_coherence::Coherence;
use dmavet_coherence::call::{Answer, ApiCall, Caller};
use dmavet_coherence::ids::{Requester, SiteId};
use dmavet_coherence::site::Frame;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

#[cfg(test)]
mod tests;

/// Different blind spots passed on to the core; a guest can make up as many as it likes.
const MAX_BLIND_SPOTS: usize = 64;
/// Modules whose layout is remembered.
const MAX_MODULES: usize = 512;

/// The host side of the guest agent.
///
/// Lock order: the agent is called with the caller's own lock on it held and takes the core's lock inside
/// [`write_register`](Self::write_register); nothing calls back into it.
#[derive(Debug)]
pub struct Agent<C = Coherence> {
    core: C,
    ram: Arc<GuestMemoryMmap>,
    registers: Registers,
    sites: Sites,
    assembly: Assembly,
    modules: HashMap<String, ModuleLayout>,
    blind_spots: BTreeSet<String>,
    lost: u32,
    greeted: bool,
}

/// What carrying out a request came to.
struct Outcome {
    reply: Reply<'static>,
    handles: Vec<(u64, u64)>,
    event: Option<AgentEvent>,
}

impl Outcome {
    const fn reply(reply: Reply<'static>) -> Self {
        Self { reply, handles: Vec::new(), event: None }
    }

    const fn event(event: AgentEvent) -> Self {
        Self { reply: Reply::status(abi::STATUS_OK), handles: Vec::new(), event: Some(event) }
    }
}

impl<C: DmaCore> Agent<C> {
    /// An agent whose calls go to `core` and whose slots lie in `ram`.
    pub fn new(core: C, ram: Arc<GuestMemoryMmap>) -> Self {
        Self {
            core,
            ram,
            registers: Registers::default(),
            sites: Sites::default(),
            assembly: Assembly::default(),
            modules: HashMap::new(),
            blind_spots: BTreeSet::new(),
            lost: 0,
            greeted: false,
        }
    }

    /// Reads from BAR 0. Only naturally aligned 32-bit accesses see a register, everything else reads all-ones.
    pub fn read_register(&mut self, offset: u64, data: &mut [u8]) {
        self.registers.read(offset, data);
    }

    /// Writes to BAR 0. A doorbell is carried out here: when this returns the answer is in the slot.
    ///
    /// Returns what the machine must act on, before the guest runs on.
    pub fn write_register(&mut self, offset: u64, data: &[u8]) -> Vec<AgentEvent> {
        match self.registers.write(offset, data) {
            RegisterAction::None => Vec::new(),
            RegisterAction::Announce(array) => {
                self.announce(array);
                Vec::new()
            }
            RegisterAction::Refused(index) => {
                self.blind(DecodeError::Doorbell(index).to_string());
                Vec::new()
            }
            RegisterAction::Ring(index, gpa) => self.ring(index, gpa).into_iter().collect(),
        }
    }

    /// The machine or the function was reset: the guest's agent must introduce itself again.
    pub fn reset(&mut self) {
        self.registers = Registers::default();
        self.sites = Sites::default();
        self.assembly = Assembly::default();
        self.modules.clear();
        self.lost = 0;
        self.greeted = false;
    }

    fn announce(&mut self, array: SlotArray) {
        if array.plausible() && self.ram.check_range(GuestAddress(array.base), array.bytes()) {
            self.assembly = Assembly::default();
            self.registers.accept(array);
        } else {
            self.blind(DecodeError::SlotArray { base: array.base, count: array.count }.to_string());
        }
    }

    fn ring(&mut self, index: u32, gpa: u64) -> Option<AgentEvent> {
        let outcome = SlotCopy::read(&self.ram, gpa).and_then(|slot| {
            self.count_lost(slot.header.lost.get());
            decode(&slot).and_then(|request| self.carry_out(index, &slot, request))
        });
        let outcome = outcome.unwrap_or_else(|error| {
            self.assembly.forget(index);
            self.blind(error.to_string());
            Outcome::reply(Reply::status(abi::STATUS_MALFORMED))
        });
        let reply = Reply { ranges: &outcome.handles, ..outcome.reply };
        if let Err(error) = reply.write(&self.ram, gpa) {
            self.blind(error.to_string());
        }
        outcome.event
    }

    fn carry_out(&mut self, index: u32, slot: &SlotCopy, request: Request) -> Result<Outcome, DecodeError> {
        let needs_hello = !matches!(request, Request::Hello { .. } | Request::Panic(_));
        if needs_hello && !self.greeted {
            return Err(DecodeError::BeforeHello(slot.header.call.get()));
        }
        Ok(match request {
            Request::Hello { release, cpus } => {
                self.greeted = true;
                let value = self.core.required_mask();
                let event = Some(AgentEvent::Hello { release, cpus });
                Outcome { reply: Reply::value(value), handles: Vec::new(), event }
            }
            Request::Site(stack) => self.learn_site(slot.header.site.get(), stack),
            Request::Bound { requester, driver, module } => {
                self.call(slot, requester, &ApiCall::Bound { driver: driver.clone() });
                Outcome::event(AgentEvent::Bound { requester, driver, module })
            }
            Request::Unbound { requester } => {
                self.call(slot, requester, &ApiCall::Unbound);
                Outcome::event(AgentEvent::Unbound { requester })
            }
            Request::Module { name, state, layout } => self.module(name, state, layout),
            Request::Blind(what) => {
                self.blind(what);
                Outcome::reply(Reply::status(abi::STATUS_OK))
            }
            Request::Dma(chunk) => self.dma(index, slot, chunk)?,
            Request::SetMask { requester, mask } => {
                let answer = self.call(slot, requester, &ApiCall::SetMask { mask });
                let fits = matches!(answer, Answer::Supported(true) | Answer::Done);
                Outcome::reply(Reply::value(fits.into()))
            }
            Request::Fetch { first } => {
                let handles = self.assembly.fetch(index, first)?.to_vec();
                let count = u32::try_from(handles.len()).unwrap_or(0);
                Outcome { reply: Reply { count, ..Reply::status(abi::STATUS_OK) }, handles, event: None }
            }
            Request::Rejected { requester, what } => {
                self.call(slot, requester, &ApiCall::Rejected(what));
                Outcome::reply(Reply::status(abi::STATUS_OK))
            }
            Request::Output(bytes) => Outcome::event(AgentEvent::Output(bytes)),
            Request::Phase(name) => Outcome::event(AgentEvent::Phase(name)),
            Request::Fail(text) => Outcome::event(AgentEvent::SetupFailed(text)),
            Request::Exit(code) => Outcome::event(AgentEvent::Exit(code)),
            Request::End => Outcome::event(AgentEvent::End),
            Request::Panic(message) => Outcome::event(AgentEvent::Panic(message)),
        })
    }

    fn dma(&mut self, index: u32, slot: &SlotCopy, chunk: DmaChunk) -> Result<Outcome, DecodeError> {
        let head = chunk.head;
        let Some(ranges) = self.assembly.push(index, chunk)? else {
            return Ok(Outcome::reply(Reply::status(abi::STATUS_MORE)));
        };
        Ok(match self.call(slot, head.requester, &head.into_call(&ranges)) {
            Answer::Done => Outcome::reply(Reply::status(abi::STATUS_OK)),
            Answer::Supported(yes) => Outcome::reply(Reply::value(yes.into())),
            Answer::Failed => Outcome::reply(Reply::status(abi::STATUS_FAILED)),
            Answer::Handles(handles) => {
                let handles: Vec<_> = handles.into_iter().map(|(iova, len)| (iova.0, len)).collect();
                let count = u32::try_from(handles.len()).unwrap_or(u32::MAX);
                if count == 0 || count > head.total {
                    // The guest has room for one handle per entry: this is our own mistake, never its.
                    self.blind(format!("{count} handles for a call of {} ranges", head.total));
                    return Ok(Outcome::reply(Reply::status(abi::STATUS_FAILED)));
                }
                if handles.len() > abi::RANGES_PER_SLOT {
                    self.assembly.keep(index, handles.clone())?;
                }
                Outcome { reply: Reply { count, ..Reply::status(abi::STATUS_OK) }, handles, event: None }
            }
        })
    }

    fn call(&mut self, slot: &SlotCopy, requester: Requester, call: &ApiCall) -> Answer {
        let hash = slot.header.site.get();
        let site = self.sites.lookup(hash).unwrap_or_else(|| {
            self.blind("a call from a stack that was never announced: its place is not known".to_owned());
            SiteId::default()
        });
        self.core.call(Caller { requester, site, cpu: slot.header.cpu.get() }, call)
    }

    fn learn_site(&mut self, hash: u64, stack: Vec<Frame>) -> Outcome {
        let id = self.core.intern_site(trim(stack));
        if hash == 0 || !self.sites.announce(hash, id) {
            self.blind("more call stacks than can be kept: some places are not known".to_owned());
        }
        Outcome::reply(Reply::status(abi::STATUS_OK))
    }

    fn module(&mut self, name: String, state: u32, layout: ModuleLayout) -> Outcome {
        let state = match state {
            abi::MODULE_GOING => {
                self.modules.remove(&name);
                ModuleState::Going
            }
            abi::MODULE_LIVE => ModuleState::Live,
            // Also sent at every bind, with the driver's functions: news only when something is new.
            _ if self.modules.get(&name) == Some(&layout) => return Outcome::reply(Reply::status(abi::STATUS_OK)),
            _ => {
                if self.modules.len() < MAX_MODULES || self.modules.contains_key(&name) {
                    self.modules.insert(name.clone(), layout.clone());
                }
                ModuleState::Loaded(layout)
            }
        };
        Outcome::event(AgentEvent::Module { name, state })
    }

    fn count_lost(&mut self, lost: u32) {
        if lost > self.lost {
            self.blind("DMA calls the agent could not pass on (made in NMI context, or with too long a list)".to_owned());
            self.lost = lost;
        }
    }

    /// Tells the core of a blind spot, each text once and not more than [`MAX_BLIND_SPOTS`].
    fn blind(&mut self, what: String) {
        if self.blind_spots.len() < MAX_BLIND_SPOTS && self.blind_spots.insert(what.clone()) {
            self.core.blind_spot(what);
            if self.blind_spots.len() == MAX_BLIND_SPOTS {
                self.core.blind_spot("further blind spots of the agent are not listed".to_owned());
            }
        }
    }
}
