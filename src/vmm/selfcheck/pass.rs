//! One pass over all forms, with a fresh machine whenever one broke.

use super::conductor::{Came, Conductor, Program, Progress, lock};
use super::guest::Driver;
use super::layout::{CODE, port};
use crate::boot::{self, BootError};
use crate::code::GuestCode;
use crate::config::Timeouts;
use crate::end::End;
use crate::error::VmmError;
use crate::journal::Journal;
use crate::machine::{Chassis, Machine};
use crate::memory::{GuestRam, Pages};
use crate::observer::Silent;
use crate::pci::PciRoot;
use crate::platform::PlatformBus;
use crate::vcpu::cpuid;
use crate::vcpu::state::Entry;
use crate::watch::{Watch, WatchConfig};
use crate::watchdog::Watchdog;
use dmavet_coherence::{Coherence, Config};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// A machine without a sign of life for so long is broken: an instruction takes milliseconds.
const SILENCE: Duration = Duration::from_secs(5);
/// The same below software emulation, where a string instruction that is stepped some hundred times takes seconds on a busy host.
const SILENCE_EMULATED: Duration = Duration::from_secs(60);
/// So is one that takes longer than this for everything.
const TOTAL: Duration = Duration::from_secs(600);
/// Machines that may break in one pass before the forms that are left are given up.
const MACHINES: usize = 100;

/// A machine for the self-check with what watches it.
pub struct Bench {
    /// The machine.
    pub machine: Machine,
    /// The core.
    pub core: Coherence,
    /// Its watch, unless that is off.
    pub watch: Option<Arc<Watch>>,
    /// Guest RAM.
    pub ram: Arc<vm_memory::GuestMemoryMmap>,
}

impl Bench {
    /// A machine without devices in long mode.
    ///
    /// # Errors
    /// When KVM cannot be used.
    pub fn new(cpus: u8, config: WatchConfig) -> Result<Self, VmmError> {
        let observer = Arc::new(Silent);
        let pages = if config.is_on() { Pages::Small } else { Pages::Any };
        let chassis = Chassis::new(GuestRam::MIN, cpus, pages, Arc::new(Journal::new(observer.clone())))?;
        let ram = chassis.memory();
        let settings = Config { watch: config.policy, ..Config::for_ram(GuestRam::MIN) };
        let core = Coherence::new(settings, ram.clone()).map_err(VmmError::Coherence)?;
        let code = Arc::new(GuestCode::new(PathBuf::new(), Vec::new()));
        let watch = chassis.watch(config, &core, code)?;
        boot::write_long_mode(&ram)?;
        let machine = chassis.assemble(PciRoot::default(), PlatformBus::default(), watch.clone(), observer)?;
        Ok(Self { machine, core, watch, ram })
    }

    /// Runs it to its end, or until it is silent for too long.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(self) -> Result<End, VmmError> {
        let cancel = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(VmmError::Descriptor)?;
        let silence = if cpuid::below_software_emulation() { SILENCE_EMULATED } else { SILENCE };
        let limits = Timeouts { silence: Some(silence), total: Some(TOTAL), ..Timeouts::NONE };
        Ok(self.machine.run(Watchdog::new(limits), &cancel)?.end)
    }
}

/// Runs all forms under a watch, except those that broke a machine in an earlier pass.
///
/// # Errors
/// When no machine can be made at all.
pub fn run(
    program: &Arc<Program>,
    driver: &Driver,
    config: WatchConfig,
    earlier: &[Came],
    tell: &dyn Fn(&str),
) -> Result<Vec<Came>, VmmError> {
    let progress = Arc::new(Mutex::new(Progress::new(program.forms.len(), earlier)));
    for _ in 0..MACHINES {
        if lock(&progress).complete() {
            break;
        }
        let mut bench = Bench::new(1, config)?;
        driver.write(&bench.ram).map_err(|_| BootError::Write { what: "the self-check's guest", gpa: CODE })?;
        let conductor = Conductor::new(bench.ram.clone(), program.clone(), bench.watch.clone(), progress.clone());
        bench.machine.add_ports(port::BASE..port::BASE + port::LEN, Box::new(conductor));
        bench.machine.set_entry(Entry::Linux64 { rip: CODE })?;
        let end = bench.run()?;
        if let Some(what) = lock(&progress).ended(&end, &program.forms) {
            tell(&what);
        }
    }
    lock(&progress).give_up();
    let came = std::mem::take(&mut lock(&progress).came);
    Ok(came.into_iter().flatten().collect())
}

/// The end of a machine in words.
pub fn describe(end: &End) -> String {
    match end {
        End::TripleFault { rip, .. } => format!("triple fault at {rip:#x}"),
        End::Internal(text) => text.clone(),
        End::Silence(limit) => format!("no sign of life for {} s", limit.as_secs()),
        other => format!("{other:?}"),
    }
}
