//! One virtual CPU and its run loop.

pub mod cpuid;
mod exit;
pub mod kick;
pub mod state;

use crate::board::Board;
use crate::end::End;
use crate::kvm::KvmError;
use exit::Access;
use kvm_bindings::{CpuId, KVM_SYNC_X86_REGS};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuExit, VcpuFd, VmFd};
use std::collections::BTreeMap;
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
}

impl Exits {
    /// Adds another CPU's.
    pub fn add(&mut self, other: &Self) {
        self.port_in += other.port_in;
        self.port_out += other.port_out;
        self.mmio_read += other.mmio_read;
        self.mmio_write += other.mmio_write;
        self.interrupted += other.interrupted;
    }

    /// The counts under their names.
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            ("interrupted", self.interrupted),
            ("mmio-read", self.mmio_read),
            ("mmio-write", self.mmio_write),
            ("port-in", self.port_in),
            ("port-out", self.port_out),
        ])
    }
}

/// Why `KVM_RUN` came back, without the borrow of the vCPU that [`VcpuExit`] carries.
enum Reason {
    Device,
    Interrupted,
    Shutdown,
    Failed(String),
}

/// A virtual CPU, not yet running.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    index: u8,
    page: usize,
    sync_regs: bool,
    exits: Exits,
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
        let sync_regs = u32::try_from(kvm.check_extension_int(Cap::SyncRegs)).is_ok_and(|bits| bits & KVM_SYNC_X86_REGS != 0);
        if sync_regs {
            fd.set_sync_valid_reg(SyncReg::Register);
        }
        Ok(Self { fd, index, page, sync_regs, exits: Exits::default() })
    }

    /// The descriptor, for setting the boot CPU's registers.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Runs the guest until `stop` is set and the thread is kicked, or until the run ends for a reason this CPU finds. Must be
    /// called on a thread of its own.
    pub fn run(mut self, board: &Board, stop: &AtomicBool) -> Exits {
        // Dropped before `self.fd` goes, on this thread, as `Kickable` asks.
        let kickable = kick::Kickable::new(&mut self.fd);
        while !stop.load(Ordering::Acquire) {
            match self.enter() {
                Reason::Device => self.access(board),
                Reason::Interrupted => {
                    self.exits.interrupted += 1;
                    self.fd.set_kvm_immediate_exit(0);
                }
                Reason::Shutdown => {
                    board.end.set(End::TripleFault { cpu: self.index, rip: self.rip() });
                    break;
                }
                Reason::Failed(text) => {
                    let text = format!("CPU {} at {:#x}: {text}", self.index, self.rip());
                    board.end.internal(text);
                    break;
                }
            }
        }
        drop(kickable);
        self.exits
    }

    fn enter(&mut self) -> Reason {
        match self.fd.run() {
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..) | VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => return Reason::Device,
            Ok(VcpuExit::Intr) => return Reason::Interrupted,
            Ok(VcpuExit::Shutdown) => return Reason::Shutdown,
            // Its details are in the run page, which is only free once this borrow ends.
            Ok(VcpuExit::InternalError) => {}
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                return Reason::Failed(format!("the hardware refused to enter the guest: reason {reason:#x} on host CPU {cpu}"));
            }
            Ok(other) => return Reason::Failed(format!("unexpected KVM exit {other:?}")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return Reason::Interrupted,
            Err(error) => return Reason::Failed(format!("KVM_RUN: {error}")),
        }
        let (suberror, data) = exit::internal_error(&mut self.fd);
        Reason::Failed(match suberror {
            1 => format!("KVM could not emulate an instruction, data {data:x?}"),
            other => format!("KVM internal error {other}, data {data:x?}"),
        })
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
                board.read_mmio(gpa, data);
            }
            Some(Access::Mmio { gpa, write: true, data }) => {
                self.exits.mmio_write += 1;
                let mut copy = [0; 8];
                let len = data.len().min(copy.len());
                if let (Some(to), Some(from)) = (copy.get_mut(..len), data.get(..len)) {
                    to.copy_from_slice(from);
                }
                let rip = if self.sync_regs { rip } else { self.rip() };
                board.write_mmio(gpa, copy.get(..len).unwrap_or(&[]), rip);
            }
            None => board.end.internal(format!("CPU {}: malformed device access in kvm_run", self.index)),
        }
    }

    fn rip(&self) -> u64 {
        self.fd.get_regs().map_or(0, |regs| regs.rip)
    }
}
