//! Puts the agent and the devices under test on the bus, and ties both to the coherence core.

use crate::code::GuestCode;
use crate::config::VmConfig;
use crate::end::End;
use crate::error::VmmError;
use crate::intx::Pin;
use crate::irq::Vectors;
use crate::journal::Journal;
use crate::layout::intx_gsi;
use crate::machine::{Chassis, Foundation};
use crate::observer::Observer;
use crate::pci::agent::{self, AgentSink};
use crate::pci::{Curtain, PciRoot, Watcher};
use crate::platform::PlatformBus;
use crate::spoilt::SpoiltInterrupts;
use crate::watch::Watch;
use dmavet_agent::{Agent, AgentEvent};
use dmavet_coherence::{Bdf, Coherence, FaultKind, Faults, Requester, SiteId};
use dmavet_devices::DeviceSpec;
use dmavet_devices::bus::{DeviceContext, DeviceMemory, LineSink, MsiMessage, MsiSink, PlatformContext};
use dmavet_devices::pci::host_bridge;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use vm_memory::GuestMemoryMmap;

const HOST_BRIDGE: Bdf = Bdf::new(0, 0, 0);
const AGENT: Bdf = Bdf::new(0, 1, 0);
const FIRST_DEVICE: u8 = 2;

/// What makes a machine a test bench.
#[derive(Debug)]
pub struct Wired {
    /// The bus.
    pub pci: PciRoot,
    /// The devices on none.
    pub platform: PlatformBus,
    /// The core the devices see memory through.
    pub coherence: Coherence,
    /// The CPU watch, if it is on.
    pub watch: Option<Arc<Watch>>,
    /// What is known of the guest's code.
    pub code: Arc<GuestCode>,
}

/// Builds the bus of `config` for `chassis`, and the coherence core its devices see memory through.
///
/// # Errors
/// When the core refuses its settings, or a device cannot be built.
pub fn populate(chassis: &Chassis, config: &VmConfig, observer: Arc<dyn Observer>) -> Result<Wired, VmmError> {
    let Foundation { router, lines, end, activity, journal } = chassis.foundation.clone();
    let mut settings = config.coherence.clone();
    settings.watch = config.watch.policy;
    settings.kernel_image = crate::boot::constant_parts(&config.kernel);
    settings.reserved.push(chassis.window64());
    let coherence = Coherence::with_tap(settings, chassis.memory(), config.tap.clone()).map_err(VmmError::Coherence)?;
    coherence.set_stopper(end.clone());
    let (calls, interrupts): (Vec<_>, Vec<_>) =
        config.faults.iter().copied().partition(|fault| matches!(fault.kind, FaultKind::Map | FaultKind::Alloc));
    if !calls.is_empty() {
        coherence.set_fault_plan(Box::new(Faults::new(calls, config.coherence.seed)));
    }
    let interrupts = (!interrupts.is_empty()).then(|| SpoiltInterrupts::new(Faults::new(interrupts, config.coherence.seed)));
    let interrupts = interrupts.transpose().map_err(VmmError::Thread)?;
    let code = Arc::new(GuestCode::new(config.kernel.clone(), config.modules.clone()));
    let watch = chassis.watch(config.watch, &coherence, code.clone())?;
    let curtain = Arc::new(Curtain::default());
    let sink = Events { observer, journal, end, curtain: curtain.clone(), activity, watch: watch.clone(), code: code.clone() };
    let mut pci = PciRoot::default();
    pci.add(HOST_BRIDGE, Box::new(host_bridge()), None, None);
    let mut platform = PlatformBus::default();
    if !config.agent {
        bare(chassis, &config.devices, &mut pci)?;
        return Ok(Wired { pci, platform, coherence, watch, code });
    }
    let agent = Agent::new(coherence.clone(), chassis.memory());
    pci.add(AGENT, Box::new(agent::function(agent, sink)), None, None);
    let (mut slots, mut numbers) = (FIRST_DEVICE.., 0u16..);
    for spec in &config.devices {
        let failed = |source| VmmError::Device { device: spec.to_string(), source };
        let part = |requester| {
            coherence.add_device(requester, spec.name());
            let view = coherence.view(requester);
            let memory = DeviceMemory { poll: view.polling(), used: view };
            let tie = Tie { coherence: coherence.clone(), requester, code: code.clone(), sites: Mutex::default() };
            (memory, Arc::new(tie))
        };
        if spec.is_platform() {
            let Some(number) = numbers.next() else { continue };
            let requester = Requester::Platform(number);
            let (memory, tie) = part(requester);
            let pin = lines.pin(PlatformBus::gsi(number));
            let line = Arc::new(Level { pin, coherence: coherence.clone(), requester });
            let device = dmavet_devices::build_platform(spec, PlatformContext { memory, line }).map_err(failed)?;
            platform.add(number, device, tie);
        } else {
            let Some(slot) = slots.next() else { continue };
            let bdf = Bdf::new(0, slot, 0);
            let requester = Requester::Pci(bdf);
            let (memory, tie) = part(requester);
            let msi = Arc::new(Signals {
                vectors: Vectors::new(router.clone(), lines.pin(intx_gsi(u32::from(slot), 0))),
                coherence: coherence.clone(),
                requester,
                faults: interrupts.clone(),
            });
            let function = dmavet_devices::build(spec, DeviceContext { memory, msi, number: slot - FIRST_DEVICE }).map_err(failed)?;
            pci.add(bdf, function, Some(curtain.clone()), Some(tie));
        }
    }
    Ok(Wired { pci, platform, coherence, watch, code })
}

/// Puts the devices on the bus of a machine that checks nothing: guest RAM itself is their memory, and nobody is told what they do.
fn bare(chassis: &Chassis, devices: &[DeviceSpec], pci: &mut PciRoot) -> Result<(), VmmError> {
    let Foundation { router, lines, .. } = &chassis.foundation;
    for (slot, spec) in (FIRST_DEVICE..).zip(devices) {
        let ram = GuestMemoryMmap::clone(&chassis.memory());
        let memory = DeviceMemory { poll: ram.clone(), used: ram };
        let msi = Vectors::new(router.clone(), lines.pin(intx_gsi(u32::from(slot), 0)));
        let function = dmavet_devices::build(spec, DeviceContext { memory, msi, number: slot - FIRST_DEVICE })
            .map_err(|source| VmmError::Device { device: spec.to_string(), source })?;
        pci.add(Bdf::new(0, slot, 0), function, None, None);
    }
    Ok(())
}

/// Sites of register writes by address, good for one generation of the guest's code.
#[derive(Debug, Default)]
struct KnownSites {
    generation: u32,
    sites: HashMap<u64, SiteId>,
}

/// Ties what the bus sees of a device under test to the coherence core.
struct Tie {
    coherence: Coherence,
    requester: Requester,
    code: Arc<GuestCode>,
    sites: Mutex<KnownSites>,
}

impl Tie {
    /// The most doorbell sites remembered here; a driver has a handful.
    const MAX_SITES: usize = 1024;

    /// The site of a register write: one frame, the address behind the instruction, like a return address.
    fn site(&self, rip: u64) -> SiteId {
        if rip == 0 {
            return SiteId::default();
        }
        let mut known = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.code.generation();
        if known.generation != generation {
            *known = KnownSites { generation, sites: HashMap::new() };
        }
        if let Some(site) = known.sites.get(&rip) {
            return *site;
        }
        let site = self.coherence.intern_site(vec![self.code.frame_behind(rip)]);
        if known.sites.len() < Self::MAX_SITES {
            known.sites.insert(rip, site);
        }
        site
    }
}

impl Watcher for Tie {
    fn bus_master(&self, on: bool) {
        self.coherence.set_bus_master(self.requester, on);
    }
    fn reset(&self) {
        self.coherence.reset_device(self.requester);
    }
    fn doorbell(&self, rip: u64) {
        self.coherence.kick(self.requester, self.site(rip));
    }
    fn observed(&self) {
        self.coherence.signalled(self.requester);
    }
}

/// The interrupts of a device under test: each is a sign that the CPU may act on.
struct Signals {
    vectors: Arc<Vectors>,
    coherence: Coherence,
    requester: Requester,
    /// The faults of all devices' interrupts, if there are any.
    faults: Option<Arc<SpoiltInterrupts>>,
}

impl MsiSink for Signals {
    fn set_route(&self, vector: u16, message: Option<MsiMessage>) {
        self.vectors.set_route(vector, message);
    }
    fn trigger(&self, vector: u16) {
        let (lost, twice) = self.faults.as_ref().map_or((false, false), |faults| faults.strike(self.requester));
        if !lost {
            self.coherence.signalled(self.requester);
            self.vectors.trigger(vector);
        }
        if let Some(faults) = self.faults.as_ref().filter(|_| twice) {
            faults.again(self.vectors.clone(), vector);
        }
    }
    fn set_pin(&self, asserted: bool) {
        if asserted {
            self.coherence.signalled(self.requester);
        }
        self.vectors.set_pin(asserted);
    }
}

/// The same for the line of a platform device.
struct Level {
    pin: Pin,
    coherence: Coherence,
    requester: Requester,
}

impl LineSink for Level {
    fn set(&self, high: bool) {
        if high {
            self.coherence.signalled(self.requester);
        }
        self.pin.set(high);
    }
}

/// Acts on the agent's events.
struct Events {
    observer: Arc<dyn Observer>,
    journal: Arc<Journal>,
    end: Arc<crate::end::EndCell>,
    curtain: Arc<Curtain>,
    activity: Arc<crate::board::Activity>,
    watch: Option<Arc<Watch>>,
    code: Arc<GuestCode>,
}

impl AgentSink for Events {
    fn event(&mut self, event: AgentEvent) {
        self.activity.note();
        self.observer.agent(&event);
        self.code.agent(&event);
        if let (Some(watch), AgentEvent::Hello { .. }) = (&self.watch, &event) {
            watch.hello();
        }
        match event {
            AgentEvent::Hello { .. } => {
                self.journal.hello();
                self.curtain.raise();
            }
            AgentEvent::Phase(name) => self.journal.phase(&name),
            AgentEvent::Exit(status) => self.journal.exit(status),
            AgentEvent::SetupFailed(text) => self.journal.setup_failed(text),
            AgentEvent::End => self.end.set(End::Complete),
            AgentEvent::Panic(message) => self.end.set(End::Panic(message)),
            AgentEvent::Bound { .. } | AgentEvent::Unbound { .. } | AgentEvent::Module { .. } | AgentEvent::Output(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
