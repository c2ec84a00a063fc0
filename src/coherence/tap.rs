//! Everything the core takes in, for whoever records it or puts it back.
//!
//! The core is a function of its inputs in the order its lock saw them: the calls of [`Coherence`](crate::Coherence), the accesses
//! of devices, the bytes of guest RAM it reads meanwhile, the time, and what a gate and a witness answer. A [`Tap`] sees
//! all of them. One that records leaves them as they are; one that replays puts the recorded ones in their place.

use crate::call::{Answer, ApiCall, Caller, MapCall};
use crate::config::Config;
use crate::fault::FaultPlan;
use crate::ids::{Gpa, Iova, Requester, SiteId};
use crate::site::Frame;
use crate::view::Intent;
use crate::watch::{CpuAccess, Gate, Guard, Witness};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// A region of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RamRegion {
    /// Guest physical address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// Whether a file is behind it, so that devices reach coherent memory there.
    pub shared: bool,
}

/// How an access of a device went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was let through.
    Done,
    /// It was refused.
    Refused,
    /// It was let through and came upon memory that cannot be reached.
    Broken,
}

/// One input of the core, with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the arguments and results of the methods the variants are named after")]
pub enum Input<'a> {
    /// [`Coherence::add_device`](crate::Coherence::add_device)
    AddDevice { requester: Requester, model: Cow<'a, str> },
    /// [`Coherence::call`](crate::Coherence::call)
    Call { caller: Caller, call: Cow<'a, ApiCall>, answer: Cow<'a, Answer> },
    /// [`Coherence::set_bus_master`](crate::Coherence::set_bus_master)
    BusMaster { requester: Requester, on: bool },
    /// [`Coherence::kick`](crate::Coherence::kick)
    Kick { requester: Requester, site: SiteId },
    /// [`Coherence::reset_device`](crate::Coherence::reset_device)
    Reset { requester: Requester },
    /// [`Coherence::blind_spot`](crate::Coherence::blind_spot)
    BlindSpot { what: Cow<'a, str> },
    /// [`Coherence::set_gate`](crate::Coherence::set_gate)
    Gate,
    /// [`Coherence::signalled`](crate::Coherence::signalled)
    Signalled { requester: Requester },
    /// [`Coherence::cpu_access`](crate::Coherence::cpu_access)
    CpuAccess { accesses: Cow<'a, [CpuAccess]>, cpu: u32, user: bool, rip: u64, innocent: bool },
    /// [`Coherence::abandon_page`](crate::Coherence::abandon_page)
    AbandonPage { page: Gpa, why: Cow<'a, str> },
    /// [`Coherence::intern_site`](crate::Coherence::intern_site) of a stack that was not known
    Site { stack: Cow<'a, [Frame]>, site: SiteId },
    /// [`Coherence::view`](crate::Coherence::view)
    View { requester: Requester },
    /// An access through a [`DmaView`](crate::DmaView)
    Access { requester: Requester, iova: Iova, len: u64, read: bool, write: bool, intent: Intent, outcome: Outcome },
    /// [`DmaView::consume`](crate::DmaView::consume)
    Consume { requester: Requester, iova: Iova, len: u64, outcome: Outcome },
    /// [`DmaView::begin`](crate::DmaView::begin)
    Begin { requester: Requester, iova: Iova, len: u64, number: u64 },
    /// The end of a [`InFlight`](crate::InFlight)
    EndFlight { number: u64 },
    /// [`Coherence::stats`](crate::Coherence::stats)
    Stats,
    /// [`Coherence::finish`](crate::Coherence::finish)
    Finish,
}

impl Input<'_> {
    /// Whether the core gives it a sequence number: the first such input is number 1. Findings and histories speak of these numbers.
    #[must_use]
    pub const fn is_event(&self) -> bool {
        matches!(
            self,
            Self::Call { .. } | Self::Signalled { .. } | Self::CpuAccess { .. } | Self::Access { .. } | Self::Consume { .. } | Self::Finish
        )
    }
}

/// What came in during the input under way.
#[derive(Clone, Copy, Debug)]
pub enum Detail<'a> {
    /// The gate was called and refused these pages (mostly none).
    Refused(&'a [Gpa]),
    /// The witness was asked for the stack.
    Stack(&'a [Frame]),
    /// The witness was asked whether the driver is on the stack.
    InDriver(bool),
    /// The witness was asked for a function of the allocator.
    Allocator(Option<&'a str>),
    /// The plan made the call fail.
    Injected,
    /// Bytes of its own copy a device has written (now or before) at this offset of its access.
    Stored(u64, &'a [u8]),
}

/// Sees the core's inputs. Every method is called with the core's lock held and must not call the core.
///
/// `read`, `wrote`, `now` and `detail` belong to the `input` that follows them.
pub trait Tap: Send + Sync + fmt::Debug {
    /// The core was set up. Called once, before everything else.
    fn start(&self, config: &Config, ram: &[RamRegion]);
    /// The core read guest RAM: `bytes` from `gpa` on, within one page. A replay puts the recorded bytes in.
    fn read(&self, gpa: Gpa, bytes: &mut [u8]);
    /// The core wrote guest RAM, within one page.
    fn wrote(&self, gpa: Gpa, bytes: &[u8]);
    /// The core asked for the time (nanoseconds since its start). A replay answers with the recorded one.
    fn now(&self, now: u64) -> u64;
    /// Something else came in.
    fn detail(&self, detail: Detail<'_>);
    /// An input was dealt with.
    fn input(&self, input: &Input<'_>);
}

/// Where the core's inputs pass the tap, if there is one.
#[derive(Debug)]
pub(crate) struct Feed {
    tap: Option<Arc<dyn Tap>>,
    origin: Instant,
}

impl Feed {
    pub(crate) fn new(tap: Option<Arc<dyn Tap>>) -> Self {
        Self { tap, origin: Instant::now() }
    }

    #[inline]
    pub(crate) fn tap(&self) -> Option<&Arc<dyn Tap>> {
        self.tap.as_ref()
    }

    /// Passes an input on, which is only made when somebody wants it.
    #[inline]
    pub(crate) fn input<'a>(&self, input: impl FnOnce() -> Input<'a>) {
        if let Some(tap) = &self.tap {
            tap.input(&input());
        }
    }

    #[inline]
    pub(crate) fn read(&self, gpa: u64, bytes: &mut [u8]) {
        if let Some(tap) = &self.tap {
            tap.read(Gpa(gpa), bytes);
        }
    }

    #[inline]
    pub(crate) fn wrote(&self, gpa: u64, bytes: &[u8]) {
        if let Some(tap) = &self.tap {
            tap.wrote(Gpa(gpa), bytes);
        }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        let now = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.tap.as_ref().map_or(now, |tap| tap.now(now))
    }
}

/// A witness whose answers pass the tap.
pub(crate) struct Heard<'a> {
    pub(crate) witness: &'a mut dyn Witness,
    pub(crate) tap: &'a dyn Tap,
}

impl Witness for Heard<'_> {
    fn stack(&mut self) -> Vec<Frame> {
        let stack = self.witness.stack();
        self.tap.detail(Detail::Stack(&stack));
        stack
    }

    fn in_driver(&mut self, driver: &str) -> bool {
        let answer = self.witness.in_driver(driver);
        self.tap.detail(Detail::InDriver(answer));
        answer
    }

    fn allocator(&mut self) -> Option<String> {
        let function = self.witness.allocator();
        self.tap.detail(Detail::Allocator(function.as_deref()));
        function
    }
}

/// A plan whose failures pass the tap.
#[derive(Debug)]
pub(crate) struct SeenPlan {
    pub(crate) plan: Box<dyn FaultPlan>,
    pub(crate) tap: Arc<dyn Tap>,
}

impl FaultPlan for SeenPlan {
    fn fails(&mut self, caller: &Caller, call: &MapCall) -> bool {
        let fails = self.plan.fails(caller, call);
        if fails {
            self.tap.detail(Detail::Injected);
        }
        fails
    }
}

/// A gate whose refusals pass the tap.
#[derive(Debug)]
pub(crate) struct SeenGate {
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) tap: Arc<dyn Tap>,
}

impl Gate for SeenGate {
    fn apply(&self, changes: &[(Gpa, Guard)], refused: &mut Vec<Gpa>) {
        self.gate.apply(changes, refused);
        self.tap.detail(Detail::Refused(refused));
    }
}
