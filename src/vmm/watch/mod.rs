//! The CPU watch: stops a stock guest at each instruction that touches memory a device owns.
//!
//! ```text
//! core --Gate--> gate --Protect--> guest mapping        what the CPU may do with each page
//!                  ^                   |
//!                  |                   v
//!        step, loan|               KVM_RUN = EFAULT
//!                  |                   |
//!      trap (classify, tell the core) <+
//!        |-- tier 1: emulate on the host mapping
//!        +-- tier 2: stop the world, open, single-step, close
//! ```
//!
//! Locks, outermost first: the core's; the [gate](gate)'s table; what the kernel takes for an `mprotect`. The [world](world) is stopped
//! with none of them held. The guest code's, stress mode's and keeper's locks are leaves: nothing is called with them held.

mod config;
mod cpu;
mod divide;
mod event;
mod frames;
mod gate;
mod inject;
mod keeper;
#[cfg(all(test, feature = "shuttle"))]
mod model;
mod protect;
mod pv;
mod stats;
mod step;
mod stress;
mod sync;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
mod trap;
mod uffd;
mod ways;
mod world;

pub use config::{Backend, Stress, TierChoice, WatchConfig};
pub use frames::{Frames, PAGE};
pub use keeper::Keeper;
pub use stats::{Traps, WatchStats};
pub use trap::Trapper;
pub use trap::{After, Cause};
pub use uffd::UffdError;
pub use ways::Ways;
pub use world::Kick;

use crate::code::GuestCode;
use crate::memory::GuestMapping;
use crate::vcpu::kick::Threads;
use dmavet_coherence::{Coherence, Guard, WatchPolicy};
use frames::Page;
use gate::{PageGate, Party};
use protect::{Mprotect, Protect};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vm_memory::GuestMemoryMmap;
use ways::Tally;
use world::World;

/// Between two rounds of the stress mode.
const ROUND: Duration = Duration::from_millis(100);
/// How long the stress mode waits for the CPUs to tell of KVM's own pages.
const PATIENCE: Duration = Duration::from_millis(5);

/// The CPU watch of a machine.
#[derive(Debug)]
pub struct Watch {
    config: WatchConfig,
    gate: Arc<PageGate>,
    world: World,
    threads: Arc<Threads>,
    core: Coherence,
    ram: Arc<GuestMemoryMmap>,
    code: Arc<GuestCode>,
    keeper: Keeper,
    stress: Option<Mutex<stress::Stress>>,
    /// Rises whenever the CPUs are to say again which pages KVM itself writes.
    census: AtomicU32,
    /// CPUs that have not answered the last census.
    unanswered: Mutex<Vec<usize>>,
    /// KVM leaves registers and events in the run page.
    synced: bool,
    tally: Tally,
}

impl Watch {
    /// The watch of `cpus` CPUs over `mapping`, known to the core as its gate from now on. Nothing when it is off. `code` says where
    /// accesses come from. `synced`: KVM leaves registers and events in the run page.
    ///
    /// # Errors
    /// When the backend cannot be used here.
    pub fn new(
        config: WatchConfig,
        cpus: u8,
        mapping: GuestMapping,
        ram: Arc<GuestMemoryMmap>,
        core: Coherence,
        code: Arc<GuestCode>,
        synced: bool,
    ) -> Result<Option<Arc<Self>>, UffdError> {
        if !config.is_on() {
            return Ok(None);
        }
        let frames = mapping.frames().clone();
        let protect: Box<dyn Protect> = match config.backend {
            Backend::Mprotect => Box::new(Mprotect::new(mapping)),
            Backend::Userfaultfd => Box::new(uffd::Userfaultfd::new(mapping)?),
        };
        let gate = Arc::new(PageGate::new(frames, protect));
        if config.policy != WatchPolicy::Off {
            core.set_gate(gate.clone());
        }
        let threads = Arc::new(Threads::new(usize::from(cpus)));
        Ok(Some(Arc::new(Self {
            config,
            gate,
            world: World::new(usize::from(cpus), threads.clone()),
            threads,
            core,
            ram,
            code,
            keeper: Keeper::default(),
            stress: config.stress.map(|stress| Mutex::new(stress::Stress::new(stress.pages, stress.seed))),
            census: AtomicU32::new(0),
            unanswered: Mutex::default(),
            synced,
            tally: Tally::default(),
        })))
    }

    /// The CPUs are to leave registers and events in the run page.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Which CPUs are in the guest.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The agent said hello: the guest's kernel is up.
    pub fn hello(&self) {
        self.take_census();
        if self.stress.is_some() {
            self.keeper.begin_stress();
        }
    }

    /// The guest is about to start; everything loaded so far must be reachable.
    ///
    /// # Errors
    /// What the system said.
    pub fn populate(&self) -> Result<(), UffdError> {
        self.gate.populate().map_err(UffdError::Populate)
    }

    /// Guards pages (guest physical addresses) whatever the core wants of them, or leaves them to the core again. For the self-check; not
    /// together with the stress mode.
    pub fn hold(&self, gpas: &[u64], on: bool) {
        let pages: Vec<_> = gpas.iter().filter_map(|gpa| self.gate.frames().page(*gpa)).collect();
        self.stress_want(&pages, if on { Guard::Closed } else { Guard::Open });
    }

    /// What was done about traps so far.
    pub fn ways(&self) -> Ways {
        self.tally.get()
    }

    /// The figures that are not those of one CPU.
    #[must_use]
    pub fn stats(&self) -> WatchStats {
        let stress_pages = self.stress.as_ref().map_or(0, |stress| lock(stress).total());
        WatchStats { stress_pages, ..self.gate.stats() }
    }

    /// Asks every CPU for the pages KVM itself writes.
    fn take_census(&self) {
        let cpus = 0..self.threads.len();
        *lock(&self.unanswered) = cpus.clone().collect();
        self.census.fetch_add(1, Ordering::Release);
        cpus.for_each(|cpu| self.world.kick(cpu));
    }

    /// CPU `cpu` answers the census.
    fn answer(&self, cpu: usize, pages: &[u64]) {
        let pages: Vec<_> = pages.iter().filter_map(|gpa| self.gate.frames().page(*gpa)).collect();
        if !pages.is_empty() {
            self.gate.never(&pages);
        }
        lock(&self.unanswered).retain(|other| *other != cpu);
    }

    /// One round of the stress mode; when the next one is due.
    fn stress_round(&self) -> Option<Instant> {
        let stress = self.stress.as_ref()?;
        if !lock(&self.unanswered).is_empty() {
            return Some(Instant::now() + PATIENCE);
        }
        let round = lock(stress).round(self.gate.frames());
        self.stress_want(&round.open, Guard::Open);
        self.stress_want(&round.close, Guard::Closed);
        Some(Instant::now() + ROUND)
    }

    fn stress_want(&self, pages: &[Page], guard: Guard) {
        let changes: Vec<_> = pages.iter().map(|page| (*page, guard)).collect();
        let mut refused = Vec::new();
        self.gate.want(Party::Stress, &changes, |page| refused.push(page));
        if let Some(stress) = &self.stress {
            refused.iter().for_each(|page| lock(stress).drop_page(*page));
        }
    }

    /// A guarded page was hit; the stress mode may have had enough of it.
    fn stress_hit(&self, pages: &[Page]) {
        let Some(stress) = &self.stress else { return };
        let spent: Vec<_> = pages.iter().copied().filter(|page| lock(stress).hit(*page)).collect();
        if !spent.is_empty() {
            self.stress_want(&spent, Guard::Open);
        }
    }

    /// A page turned out to hold a page table: it is not watched any more, by anybody.
    fn abandon(&self, page: Page, why: &str) {
        if let Some(stress) = &self.stress {
            lock(stress).drop_page(page);
        }
        self.stress_want(&[page], Guard::Open);
        if self.gate.applied(page) != Guard::Open {
            self.core.abandon_page(dmavet_coherence::Gpa(self.gate.frames().gpa(page)), why);
            // The core opens it; a core that has never heard of it does not.
            self.gate.want(Party::Core, &[(page, Guard::Open)], |_| {});
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
