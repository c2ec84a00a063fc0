//! One virtual CPU and its run loop.

pub mod cpuid;
pub mod exit;
pub mod kick;
pub mod state;
pub mod vectors;

use crate::board::Board;
use crate::end::End;
use crate::kvm::KvmError;
use crate::watch::{After, Cause, Trapper, Watch, WatchStats};
use exit::{Access, Reason};
use kvm_bindings::{CpuId, KVM_MP_STATE_HALTED, KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd, VmFd};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a vCPU left `KVM_RUN`, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// Port reads.
    pub port_in: u64,
    /// Port writes.
    pub port_out: u64,
    /// Device memory reads.
    pub mmio_read: u64,
    /// Device memory writes.
    pub mmio_write: u64,
    /// Kicks and other signals.
    pub interrupted: u64,
    /// Accesses to guarded pages.
    pub trapped: u64,
}

impl Exits {
    /// Adds another CPU's.
    pub fn add(&mut self, other: &Self) {
        self.port_in += other.port_in;
        self.port_out += other.port_out;
        self.mmio_read += other.mmio_read;
        self.mmio_write += other.mmio_write;
        self.interrupted += other.interrupted;
        self.trapped += other.trapped;
    }

    /// The counts under their names.
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            ("interrupted", self.interrupted),
            ("mmio-read", self.mmio_read),
            ("mmio-write", self.mmio_write),
            ("port-in", self.port_in),
            ("port-out", self.port_out),
            ("trapped", self.trapped),
        ])
    }
}

/// Whether this KVM leaves all these sets of registers (`KVM_SYNC_X86_*`) in the run page at every exit.
fn leaves(kvm: &Kvm, sets: u32) -> bool {
    u32::try_from(kvm.check_extension_int(Cap::SyncRegs)).is_ok_and(|bits| bits & sets == sets)
}

/// Whether this KVM leaves everything the [watch](crate::watch) wants to know in the run page. In a nested machine the system calls that ask
/// for it take longer than all the rest of a trap.
pub fn leaves_all(kvm: &Kvm) -> bool {
    leaves(kvm, KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
}

/// The interrupt flag in RFLAGS.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// What is left of a CPU that ran.
#[derive(Debug, Default)]
pub struct Ran {
    /// Its exits.
    pub exits: Exits,
    /// What it did for the watch.
    pub watch: WatchStats,
    /// Where it was, if a time limit ended the run.
    pub last: Option<LastSeen>,
}

/// What a CPU was doing when the run was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSeen {
    /// Its number.
    pub cpu: u8,
    /// Guest virtual address of its next instruction.
    pub rip: u64,
    /// It waited for an interrupt.
    pub halted: bool,
    /// It would have taken one.
    pub interrupts: bool,
}

/// A virtual CPU, not yet running.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    index: u8,
    page: usize,
    sync_regs: bool,
    exits: Exits,
    trapper: Option<Trapper>,
}

impl Vcpu {
    /// Makes CPU `index` of `vm` with `cpuid`.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn new(kvm: &Kvm, vm: &VmFd, index: u8, cpuid: &CpuId) -> Result<Self, KvmError> {
        let page = kvm.get_vcpu_mmap_size().map_err(KvmError::ioctl("KVM_GET_VCPU_MMAP_SIZE"))?;
        let mut fd = vm.create_vcpu(u64::from(index)).map_err(KvmError::ioctl("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(cpuid).map_err(KvmError::ioctl("KVM_SET_CPUID2"))?;
        state::set_msrs(&fd)?;
        state::set_lints(&fd)?;
        // With this KVM leaves the registers in the shared page at every exit: the address of a device access costs no system call.
        let sync_regs = leaves(kvm, KVM_SYNC_X86_REGS);
        if sync_regs {
            fd.set_sync_valid_reg(SyncReg::Register);
        }
        Ok(Self { fd, index, page, sync_regs, exits: Exits::default(), trapper: None })
    }

    /// The descriptor, for setting the boot CPU's registers.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Lets `watch` see this CPU's accesses. Before it runs.
    pub fn attach(&mut self, watch: Arc<Watch>) {
        if watch.is_synced() {
            self.fd.set_sync_valid_reg(SyncReg::SystemRegister);
            self.fd.set_sync_valid_reg(SyncReg::VcpuEvents);
        }
        self.trapper = Some(Trapper::new(watch, usize::from(self.index)));
    }

    /// Runs the guest until `stop` is set and the thread is kicked, or until the run ends for a reason this CPU finds. Must be
    /// called on a thread of its own.
    pub fn run(mut self, board: &Board, stop: &AtomicBool) -> Ran {
        // Dropped before `self.fd` goes, on this thread, as `Kickable` asks.
        let kickable = kick::Kickable::new(&mut self.fd);
        let enlisted = self.trapper.as_ref().map(Trapper::enlist);
        while !stop.load(Ordering::Acquire) {
            let mut reason = Some(self.enter());
            let mut end = None;
            while let Some(exit) = reason.take() {
                match self.handle(board, exit) {
                    Ok(next) => reason = next,
                    Err(why) => end = Some(why),
                }
            }
            if let Some(end) = end {
                board.end.set(end);
                break;
            }
        }
        drop(enlisted);
        drop(kickable);
        let last = matches!(board.end.get(), Some(End::Silence(_) | End::Timeout(..))).then(|| self.last_seen()).flatten();
        Ran { exits: self.exits, watch: self.trapper.map(Trapper::into_stats).unwrap_or_default(), last }
    }

    /// What the CPU is doing.
    fn last_seen(&self) -> Option<LastSeen> {
        let regs = self.fd.get_regs().ok()?;
        let halted = self.fd.get_mp_state().is_ok_and(|state| state.mp_state == KVM_MP_STATE_HALTED);
        Some(LastSeen { cpu: self.index, rip: regs.rip, halted, interrupts: regs.rflags & INTERRUPT_FLAG != 0 })
    }

    /// Runs the guest until it comes out, when nobody has stopped the world.
    fn enter(&mut self) -> Reason {
        if let Some(trapper) = &mut self.trapper {
            trapper.enter(&self.fd);
        }
        let reason = exit::run(&mut self.fd);
        if let Some(trapper) = &mut self.trapper {
            trapper.left(&reason);
        }
        reason
    }

    /// Deals with an exit; what is left to be done when the watch turned it into another one.
    fn handle(&mut self, board: &Board, reason: Reason) -> Result<Option<Reason>, End> {
        let cause = match reason {
            Reason::Device => {
                self.access(board);
                return Ok(None);
            }
            Reason::Interrupted => {
                self.exits.interrupted += 1;
                self.fd.set_kvm_immediate_exit(0);
                return Ok(None);
            }
            Reason::Shutdown => return Err(End::TripleFault { cpu: self.index, rip: self.rip() }),
            Reason::Failed(text) => return Err(self.failed(&text)),
            Reason::Debug { .. } => return Err(self.failed("a debug exit that nobody asked for")),
            Reason::Fault => Cause::Fault,
            Reason::Emulation(_) => Cause::Emulation,
        };
        let text = if let Reason::Emulation(text) = reason { text } else { "KVM cannot reach guest memory (EFAULT)".into() };
        let Some(trapper) = &mut self.trapper else { return Err(self.failed(&text)) };
        self.exits.trapped += 1;
        match trapper.stop(&mut self.fd, board, cause) {
            Ok(After::Enter) => Ok(None),
            Ok(After::Exit(reason)) => Ok(Some(reason)),
            Ok(After::NotOurs) => Err(self.failed(&text)),
            Ok(After::Stuck(text)) => Err(self.failed(&text)),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    fn failed(&self, text: &str) -> End {
        End::Internal(format!("CPU {} at {:#x}: {text}", self.index, self.rip()))
    }

    fn access(&mut self, board: &Board) {
        // Looked up first, because the access borrows the vCPU. An MMIO write exit comes after KVM advanced RIP.
        let rip = if self.sync_regs { self.fd.sync_regs_mut().regs.rip } else { 0 };
        match exit::access(&mut self.fd, self.page) {
            Some(Access::Port { port, size, write: false, data }) => {
                self.exits.port_in += 1;
                data.chunks_exact_mut(size).for_each(|item| board.read_port(port, item));
            }
            Some(Access::Port { port, size, write: true, data }) => {
                self.exits.port_out += 1;
                data.chunks_exact(size).for_each(|item| board.write_port(port, item));
            }
            Some(Access::Mmio { gpa, write: false, data }) => {
                self.exits.mmio_read += 1;
                match &mut self.trapper {
                    Some(trapper) if board.is_ram(gpa, data.len()) => {
                        trapper.mmio(gpa, data.len(), false, rip, &mut || board.read_mmio(gpa, data));
                    }
                    _ => board.read_mmio(gpa, data),
                }
            }
            Some(Access::Mmio { gpa, write: true, data }) => {
                self.exits.mmio_write += 1;
                let mut copy = [0; 8];
                let len = data.len().min(copy.len());
                if let (Some(to), Some(from)) = (copy.get_mut(..len), data.get(..len)) {
                    to.copy_from_slice(from);
                }
                let rip = if self.sync_regs { rip } else { self.rip() };
                let data = copy.get(..len).unwrap_or(&[]);
                match &mut self.trapper {
                    Some(trapper) if board.is_ram(gpa, len) => {
                        trapper.mmio(gpa, len, true, rip, &mut || board.write_mmio(gpa, data, rip));
                    }
                    _ => board.write_mmio(gpa, data, rip),
                }
            }
            None => board.end.internal(format!("CPU {}: malformed device access in kvm_run", self.index)),
        }
    }

    fn rip(&self) -> u64 {
        self.fd.get_regs().map_or(0, |regs| regs.rip)
    }
}
