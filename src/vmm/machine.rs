//! A machine: RAM, KVM, board and CPUs put together, run, and taken apart.

use crate::acpi;
use crate::board::{Activity, Board};
use crate::boot::{self, Image};
use crate::end::{End, EndCell};
use crate::error::VmmError;
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
use crate::supervisor::{self, Charge};
use crate::vcpu::{Exits, Vcpu, cpuid, kick, state};
use crate::watchdog::Watchdog;
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
    /// Opens KVM and makes a VM with `memory` bytes of RAM and `cpus` CPUs.
    ///
    /// # Errors
    /// When KVM cannot be used or the system lacks memory.
    pub fn new(memory: u64, cpus: u8, journal: Arc<Journal>) -> Result<Self, VmmError> {
        let kvm = kvm::open()?;
        let ram = GuestRam::new(memory, Pages::Any)?;
        let vm = Arc::new(kvm::create_vm(&kvm)?);
        ram.register(&vm)?;
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(KvmError::ioctl("KVM_GET_SUPPORTED_CPUID"))?;
        let end = Arc::new(EndCell::new().map_err(VmmError::Descriptor)?);
        let router = Router::new(vm.clone(), end.clone());
        let foundation = Foundation { router, end, activity: Arc::default(), journal };
        Ok(Self { kvm, vm, ram, supported, cpus, foundation })
    }

    /// The host's mapping of guest RAM.
    pub fn memory(&self) -> Arc<vm_memory::GuestMemoryMmap> {
        self.ram.host()
    }

    /// The window for 64-bit BARs.
    pub fn window64(&self) -> std::ops::Range<u64> {
        layout::window64(cpuid::address_bits(&self.supported))
    }

    /// Adds the board around `pci` and makes the CPUs.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn assemble(self, pci: PciRoot, observer: Arc<dyn Observer>) -> Result<Machine, VmmError> {
        let console = Arc::new(Console::new(observer));
        let line = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(VmmError::Descriptor)?;
        self.vm.register_irqfd(&line, COM1_GSI).map_err(KvmError::ioctl("KVM_IRQFD"))?;
        let pci = Arc::new(pci);
        let mut board = Board {
            ports: Default::default(),
            pci: pci.clone(),
            ram: self.ram.host(),
            activity: self.foundation.activity.clone(),
            end: self.foundation.end.clone(),
        };
        board.ports.add(COM1..COM1 + 8, Box::new(Uart::new(console.clone(), line)));
        board.ports.add(config_port::PORT..config_port::PORT + config_port::LEN, Box::new(ConfigPort::new(pci)));
        board.ports.add(POWER_PORTS..POWER_PORTS + power::LEN, Box::new(AcpiPower));
        board.ports.add(0x64..0x65, Box::new(KeyboardReset));
        let host = cpuid::Host { tsc_deadline: self.kvm.check_extension(Cap::TscDeadlineTimer), xsave: cpuid::intercepts_xsetbv() };
        let vcpus = (0..self.cpus)
            .map(|index| Vcpu::new(&self.kvm, &self.vm, index, &cpuid::for_cpu(&self.supported, host, index, self.cpus)))
            .collect::<Result<Vec<_>, _>>()?;
        let window64 = self.window64();
        Ok(Machine { vcpus, board: Arc::new(board), console, foundation: self.foundation, window64, cpus: self.cpus, ram: self.ram })
    }
}

/// A machine that can be loaded and run once.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: the CPUs let go of the VM before the memory under it is unmapped.
    vcpus: Vec<Vcpu>,
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
}

impl Machine {
    /// Loads a kernel and sets the boot CPU up to start it.
    ///
    /// # Errors
    /// When it cannot be read or does not fit.
    pub fn load(&self, kernel: &std::path::Path, initrd: Option<&std::path::Path>, cmdline: &str) -> Result<(), VmmError> {
        let tables = acpi::Machine { cpus: self.cpus, window64: self.window64.clone() };
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

    /// Runs the guest to its end.
    ///
    /// # Errors
    /// When a thread or the event loop cannot be started.
    pub fn run(mut self, watchdog: Watchdog, cancel: &EventFd) -> Result<Remains, VmmError> {
        kick::install()?;
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
        let exits = halt(threads, &stop);
        self.console.flush();
        Ok(Remains { end: end?, exits, console_bytes: self.console.bytes() })
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

fn spawn(index: usize, vcpu: Vcpu, board: Arc<Board>, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<Exits>> {
    thread::Builder::new().name(format!("vcpu{index}")).spawn(move || {
        let _tripwire = Tripwire(board.end.clone());
        vcpu.run(&board, &stop)
    })
}

/// Stops all CPUs and adds up their exits.
fn halt(threads: Vec<JoinHandle<Exits>>, stop: &AtomicBool) -> Exits {
    stop.store(true, Ordering::Release);
    for thread in &threads {
        // The thread exists until it is joined; a valid signal number is the only other thing that could be wrong.
        let _ = thread.kill(kick::signal());
    }
    let mut sum = Exits::default();
    for thread in threads {
        if let Ok(exits) = thread.join() {
            sum.add(&exits);
        }
    }
    sum
}

#[cfg(test)]
mod tests;
