//! A vCPU that is stopped: its registers, read once, and written back when an instruction was carried out.

use super::inject;
use crate::emulate::{CpuState, Unavailable, VectorWidth};
use crate::kvm::KvmError;
use crate::vcpu::vectors::Vectors;
use kvm_bindings::{kvm_regs, kvm_sregs, kvm_vcpu_events};
use kvm_ioctls::{SyncReg, VcpuFd};

/// RFLAGS: trap flag.
pub const TF: u64 = 1 << 8;
/// RFLAGS: resume flag.
const RF: u64 = 1 << 16;

/// The registers of a stopped vCPU.
#[derive(Debug)]
pub struct StoppedCpu<'a> {
    fd: &'a mut VcpuFd,
    regs: kvm_regs,
    sregs: kvm_sregs,
    vectors: Option<Box<Vectors>>,
    events: kvm_vcpu_events,
    /// KVM leaves all of it in the run page, and takes it from there.
    synced: bool,
}

impl<'a> StoppedCpu<'a> {
    /// Reads them; the vector registers only when asked for.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn read(fd: &'a mut VcpuFd, synced: bool) -> Result<Self, KvmError> {
        let (regs, sregs, events) = if synced {
            let left = fd.sync_regs_mut();
            (left.regs, left.sregs, left.events)
        } else {
            let regs = fd.get_regs().map_err(KvmError::ioctl("KVM_GET_REGS"))?;
            let sregs = fd.get_sregs().map_err(KvmError::ioctl("KVM_GET_SREGS"))?;
            (regs, sregs, inject::events(fd)?)
        };
        Ok(Self { fd, regs, sregs, events, vectors: None, synced })
    }

    /// What is pending, and what KVM was delivering when it stopped.
    #[must_use]
    pub fn events(&self) -> kvm_vcpu_events {
        self.events
    }

    /// The vCPU.
    pub fn fd(&mut self) -> &mut VcpuFd {
        self.fd
    }

    /// Linear address of the instruction.
    #[must_use]
    pub fn linear_rip(&self) -> u64 {
        if self.is_64bit() { self.regs.rip } else { self.sregs.cs.base.wrapping_add(self.regs.rip) & 0xffff_ffff }
    }

    /// In a 64-bit code segment.
    #[must_use]
    pub fn is_64bit(&self) -> bool {
        self.sregs.cs.l != 0 && self.sregs.efer & 1 << 10 != 0
    }

    /// Bits of an instruction's default size.
    #[must_use]
    pub fn bitness(&self) -> u32 {
        match (self.is_64bit(), self.sregs.cs.db != 0) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        }
    }

    /// An instruction was carried out: writes back what changed.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn commit(&mut self) -> Result<(), KvmError> {
        // The resume flag lasts for one instruction (SDM 3B, 18.3.1.1).
        self.regs.rflags &= !RF;
        self.write_regs()?;
        self.vectors.as_ref().map_or(Ok(()), |vectors| vectors.write(self.fd))
    }

    /// Writes the general registers back.
    ///
    /// # Errors
    /// When the ioctl fails.
    pub fn write_regs(&mut self) -> Result<(), KvmError> {
        if self.synced {
            self.fd.sync_regs_mut().regs = self.regs;
            self.fd.set_sync_dirty_reg(SyncReg::Register);
            return Ok(());
        }
        self.fd.set_regs(&self.regs).map_err(KvmError::ioctl("KVM_SET_REGS"))
    }
}

impl CpuState for StoppedCpu<'_> {
    fn regs(&self) -> &kvm_regs {
        &self.regs
    }

    fn regs_mut(&mut self) -> &mut kvm_regs {
        &mut self.regs
    }

    fn sregs(&self) -> &kvm_sregs {
        &self.sregs
    }

    fn vector(&mut self, index: u8) -> Result<[u8; 32], Unavailable> {
        self.vectors()?.get(index).ok_or(Unavailable)
    }

    fn set_vector(&mut self, index: u8, mut value: [u8; 32], width: VectorWidth, zero_upper: bool) -> Result<(), Unavailable> {
        let narrow = width == VectorWidth::Xmm;
        if let (true, Some(high)) = (narrow, value.get_mut(16..)) {
            high.fill(0);
        }
        self.vectors()?.set(index, value, !narrow || zero_upper).ok_or(Unavailable)
    }
}

impl StoppedCpu<'_> {
    fn vectors(&mut self) -> Result<&mut Vectors, Unavailable> {
        if self.vectors.is_none() {
            self.vectors = Some(Box::new(Vectors::read(self.fd).map_err(|_| Unavailable)?));
        }
        self.vectors.as_deref_mut().ok_or(Unavailable)
    }
}
