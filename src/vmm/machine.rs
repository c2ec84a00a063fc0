//! A machine: RAM, KVM, board and CPUs put together, run, and taken apart.

use crate::acpi;
use crate::board::{Activity, Board};
use crate::boot::{self, Image};
use crate::code::GuestCode;
use crate::end::{End, EndCell};
use crate::error::VmmError;
use crate::host;
use crate::intx::Lines;
use crate::irq::Router;
use crate::journal::Journal;
use crate::kvm::{self, KvmError};
use crate::layout::{self, COM1, COM1_GSI, POWER_PORTS};
use crate::legacy::power::{self, AcpiPower, KeyboardReset};
use crate::legacy::serial::{Console, Uart};
use crate::memory::{GuestRam, Pages};
use crate::observer::Observer;
use crate::pci::PciRoot;
use crate::pci::config_port::{self, ConfigPort};
use crate::platform::PlatformBus;
use crate::ports::PortDevice;
use crate::supervisor::{self, Charge};
use crate::vcpu::{Exits, LastSeen, Ran, Vcpu, cpuid, kick, leaves_all, state};
use crate::watch::{Backend, Keeper, Watch, WatchConfig, WatchStats};
use crate::watchdog::Watchdog;
use dmavet_coherence::Coherence;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VmFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::Killable;

/// The parts that devices are made from, before there is a bus to put them on.
#[derive(Clone, Debug)]
pub struct Foundation {
    /// Where MSI-X routes are kept.
    pub router: Arc<Router>,
    /// Where interrupt pins are wired to.
    pub lines: Arc<Lines>,
    /// Where the end is decided.
    pub end: Arc<EndCell>,
    /// Signs of life.
    pub activity: Arc<Activity>,
    /// What the run tells.
    pub journal: Arc<Journal>,
}

/// A VM with memory and CPUs, without devices.
#[derive(Debug)]
pub struct Chassis {
    kvm: Kvm,
    vm: Arc<VmFd>,
    ram: GuestRam,
    supported: CpuId,
    cpus: u8,
    /// For the devices.
    pub foundation: Foundation,
}

impl Chassis {
    /// Opens KVM and makes a VM with `memory` bytes of RAM in `pages` and `cpus` CPUs.
    ///
    /// # Errors
    /// When KVM cannot be used or the system lacks memory.
    pub fn new(memory: u64, cpus: u8, pages: Pages, journal: Arc<Journal>) -> Result<Self, VmmError> {
        let kvm = kvm::open()?;
        let ram = GuestRam::new(memory, pages)?;
        let vm = Arc::new(kvm::create_vm(&kvm)?);
        ram.register(&vm)?;
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(KvmError::ioctl("KVM_GET_SUPPORTED_CPUID"))?;
        let end = Arc::new(EndCell::new().map_err(VmmError::Descriptor)?);
        let router = Router::new(vm.clone(), end.clone());
        let lines = Lines::new(vm.clone(), end.clone());
        let foundation = Foundation { router, lines, end, activity: Arc::default(), journal };
        Ok(Self { kvm, vm, ram, supported, cpus, foundation })
    }

    /// The host's mapping of guest RAM.
    pub fn memory(&self) -> Arc<vm_memory::GuestMemoryMmap> {
        self.ram.host()
    }

    /// The CPU watch of this machine, under `core`, of a guest with `code`. Nothing when it is off.
    ///
    /// # Errors
    /// When it cannot be had on this host.
    pub fn watch(&self, config: WatchConfig, core: &Coherence, code: Arc<GuestCode>) -> Result<Option<Arc<Watch>>, VmmError> {
        if config.is_on() && config.backend == Backend::Userfaultfd {
            kvm::keep_faults_synchronous(&self.vm)?;
        }
        let synced = leaves_all(&self.kvm);
        Ok(Watch::new(config, self.cpus, self.ram.guest_mapping(), self.ram.host(), core.clone(), code, synced)?)
    }

    /// The window for 64-bit BARs.
    pub fn window64(&self) -> std::ops::Range<u64> {
        layout::window64(cpuid::address_bits(&self.supported))
    }

    /// Adds the board around `pci` and `platform` and makes the CPUs, which `watch` watches.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn assemble(
        self,
        pci: PciRoot,
        platform: PlatformBus,
        watch: Option<Arc<Watch>>,
        observer: Arc<dyn Observer>,
    ) -> Result<Machine, VmmError> {
        let console = Arc::new(Console::new(observer));
        let line = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(VmmError::Descriptor)?;
        self.vm.register_irqfd(&line, COM1_GSI).map_err(KvmError::ioctl("KVM_IRQFD"))?;
        let pci = Arc::new(pci);
        let mut board = Board {
            ports: Default::default(),
            pci: pci.clone(),
            platform,
            ram: self.ram.host(),
            activity: self.foundation.activity.clone(),
            end: self.foundation.end.clone(),
        };
        board.ports.add(COM1..COM1 + 8, Box::new(Uart::new(console.clone(), line)));
        board.ports.add(config_port::PORT..config_port::PORT + config_port::LEN, Box::new(ConfigPort::new(pci)));
        board.ports.add(POWER_PORTS..POWER_PORTS + power::LEN, Box::new(AcpiPower));
        board.ports.add(0x64..0x65, Box::new(KeyboardReset));
        // Every real CPU shows it; only software emulation is worth a trial.
        let xsave = !cpuid::below_software_emulation() || host::intercepts_xsetbv();
        let host = cpuid::Host { tsc_deadline: self.kvm.check_extension(Cap::TscDeadlineTimer), xsave };
        let mut vcpus = (0..self.cpus)
            .map(|index| Vcpu::new(&self.kvm, &self.vm, index, &cpuid::for_cpu(&self.supported, host, index, self.cpus)))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(watch) = &watch {
            vcpus.iter_mut().for_each(|cpu| cpu.attach(watch.clone()));
        }
        let window64 = self.window64();
        Ok(Machine { vcpus, watch, board: Arc::new(board), console, foundation: self.foundation, window64, cpus: self.cpus, ram: self.ram })
    }
}

/// A machine that can be loaded and run once.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: the CPUs let go of the VM before the memory under it is unmapped.
    vcpus: Vec<Vcpu>,
    watch: Option<Arc<Watch>>,
    board: Arc<Board>,
    console: Arc<Console>,
    foundation: Foundation,
    window64: std::ops::Range<u64>,
    cpus: u8,
    ram: GuestRam,
}

/// What is left of a machine that ran.
#[derive(Debug)]
pub struct Remains {
    /// Why it ended.
    pub end: End,
    /// Exits of all CPUs.
    pub exits: Exits,
    /// Bytes on the console.
    pub console_bytes: u64,
    /// Figures of the CPU watch.
    pub watch: WatchStats,
    /// What each CPU was doing when a time limit ended the run.
    pub last_seen: Vec<LastSeen>,
}

impl Machine {
    /// Loads a kernel and sets the boot CPU up to start it.
    ///
    /// # Errors
    /// When it cannot be read or does not fit.
    pub fn load(&self, kernel: &std::path::Path, initrd: Option<&std::path::Path>, cmdline: &str) -> Result<(), VmmError> {
        let tables = acpi::Machine { cpus: self.cpus, window64: self.window64.clone(), nodes: self.board.platform.nodes() };
        let rsdp = acpi::write(&self.ram.host(), &tables)?;
        let entry = boot::load(&self.ram, Image { kernel, initrd, cmdline, rsdp })?;
        self.set_entry(entry)
    }

    /// Where the boot CPU starts.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn set_entry(&self, entry: state::Entry) -> Result<(), VmmError> {
        self.vcpus.first().map_or(Ok(()), |cpu| Ok(state::set_entry(cpu.fd(), entry)?))
    }

    /// Starts every CPU there, with the CPU's number in RDI.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn set_entry_of_all(&self, entry: state::Entry, rsp: u64) -> Result<(), KvmError> {
        for (index, cpu) in (0u64..).zip(&self.vcpus) {
            state::set_entry(cpu.fd(), entry)?;
            let mut regs = cpu.fd().get_regs().map_err(KvmError::ioctl("KVM_GET_REGS"))?;
            (regs.rsp, regs.rdi) = (rsp, index);
            cpu.fd().set_regs(&regs).map_err(KvmError::ioctl("KVM_SET_REGS"))?;
            let running = kvm_bindings::kvm_mp_state { mp_state: kvm_bindings::KVM_MP_STATE_RUNNABLE };
            cpu.fd().set_mp_state(running).map_err(KvmError::ioctl("KVM_SET_MP_STATE"))?;
        }
        Ok(())
    }

    /// Adds a device behind ports.
    pub fn add_ports(&mut self, ports: std::ops::Range<u16>, device: Box<dyn PortDevice>) {
        // Nobody shares the board before the machine runs.
        if let Some(board) = Arc::get_mut(&mut self.board) {
            board.ports.add(ports, device);
        }
    }

    /// Runs the guest to its end.
    ///
    /// # Errors
    /// When a thread or the event loop cannot be started.
    pub fn run(mut self, watchdog: Watchdog, cancel: &EventFd) -> Result<Remains, VmmError> {
        kick::install()?;
        let keeper = match &self.watch {
            Some(watch) => {
                watch.populate()?;
                Some(Keeper::start(watch).map_err(VmmError::Thread)?)
            }
            None => None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(self.vcpus.len());
        let mut failure = None;
        for (index, vcpu) in self.vcpus.drain(..).enumerate() {
            match spawn(index, vcpu, self.board.clone(), stop.clone()) {
                Ok(thread) => threads.push(thread),
                Err(error) => failure = Some(VmmError::Thread(error)),
            }
        }
        let charge = Charge {
            end: self.foundation.end.clone(),
            activity: self.foundation.activity.clone(),
            journal: self.foundation.journal.clone(),
            console: self.console.clone(),
        };
        let end = match failure {
            Some(error) => Err(error),
            None => supervisor::wait(charge, watchdog, cancel).map_err(VmmError::Supervisor),
        };
        let (exits, mut watch, last_seen) = halt(threads, &stop);
        drop(keeper);
        if let Some(gate) = &self.watch {
            watch.add(gate.stats());
        }
        self.console.flush();
        Ok(Remains { end: end?, exits, console_bytes: self.console.bytes(), watch, last_seen })
    }
}

/// Ends the run when a vCPU's thread unwinds, so that nobody waits for it.
struct Tripwire(Arc<EndCell>);

impl Drop for Tripwire {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.internal("a vCPU thread panicked; its message is on stderr".into());
        }
    }
}

fn spawn(index: usize, vcpu: Vcpu, board: Arc<Board>, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<Ran>> {
    thread::Builder::new().name(format!("vcpu{index}")).spawn(move || {
        let _tripwire = Tripwire(board.end.clone());
        vcpu.run(&board, &stop)
    })
}

/// Stops all CPUs and adds up their exits.
fn halt(threads: Vec<JoinHandle<Ran>>, stop: &AtomicBool) -> (Exits, WatchStats, Vec<LastSeen>) {
    stop.store(true, Ordering::Release);
    for thread in &threads {
        // The thread exists until it is joined; a valid signal number is the only other thing that could be wrong.
        let _ = thread.kill(kick::signal());
    }
    let (mut sum, mut watch, mut last) = (Exits::default(), WatchStats::default(), Vec::new());
    for thread in threads {
        if let Ok(ran) = thread.join() {
            sum.add(&ran.exits);
            watch.add(ran.watch);
            last.extend(ran.last);
        }
    }
    (sum, watch, last)
}

#[cfg(test)]
mod tests;
