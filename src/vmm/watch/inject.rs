//! Exceptions the guest is due because of an instruction it did not run itself.

use crate::emulate::PageFault;
use crate::kvm::KvmError;
use kvm_bindings::kvm_vcpu_events;
use kvm_ioctls::VcpuFd;

/// Vectors (SDM 3A, 6.15).
const DEBUG: u8 = 1;
/// #DE.
pub const DIVIDE: u8 = 0;
/// #UD.
pub const UNDEFINED: u8 = 6;
/// #SS.
pub const STACK: u8 = 12;
/// #GP.
pub const GENERAL: u8 = 13;
const PAGE: u8 = 14;

/// DR6: a single step.
const DR6_SINGLE_STEP: u64 = 1 << 14;

/// KVM_GET_VCPU_EVENTS.
///
/// # Errors
/// When the ioctl fails.
pub fn events(fd: &VcpuFd) -> Result<kvm_vcpu_events, KvmError> {
    fd.get_vcpu_events().map_err(KvmError::ioctl("KVM_GET_VCPU_EVENTS"))
}

fn set_events(fd: &VcpuFd, events: &kvm_vcpu_events) -> Result<(), KvmError> {
    fd.set_vcpu_events(events).map_err(KvmError::ioctl("KVM_SET_VCPU_EVENTS"))
}

/// Ends the interrupt shadow of an STI or MOV SS before the instruction that was carried out.
///
/// # Errors
/// When the ioctl fails.
pub fn end_shadow(fd: &VcpuFd, mut events: kvm_vcpu_events) -> Result<(), KvmError> {
    if events.interrupt.shadow == 0 {
        return Ok(());
    }
    events.interrupt.shadow = 0;
    set_events(fd, &events)
}

/// Lets the guest take exception `vector` at the instruction it is at. `code`: its error code, if it has one.
///
/// # Errors
/// When an ioctl fails.
pub fn exception(fd: &VcpuFd, vector: u8, code: Option<u32>) -> Result<(), KvmError> {
    let mut events = events(fd)?;
    events.exception.injected = 1;
    events.exception.pending = 0;
    events.exception.nr = vector;
    events.exception.has_error_code = u8::from(code.is_some());
    events.exception.error_code = code.unwrap_or(0);
    set_events(fd, &events)
}

/// A page fault: CR2 and the exception.
///
/// # Errors
/// When an ioctl fails.
pub fn page_fault(fd: &VcpuFd, fault: PageFault) -> Result<(), KvmError> {
    let mut sregs = fd.get_sregs().map_err(KvmError::ioctl("KVM_GET_SREGS"))?;
    sregs.cr2 = fault.address;
    // The injected interrupt, if any, is set by its bit here; there is none, or the fault would not be the guest's next event.
    fd.set_sregs(&sregs).map_err(KvmError::ioctl("KVM_SET_SREGS"))?;
    exception(fd, PAGE, Some(fault.code))
}

/// The trap after an instruction that the guest had single-stepped (its own TF), or that hit breakpoints of its own (`hits`, DR6 bits
/// 3:0).
///
/// # Errors
/// When an ioctl fails.
pub fn debug_trap(fd: &VcpuFd, stepped: bool, hits: u64) -> Result<(), KvmError> {
    if !stepped && hits == 0 {
        return Ok(());
    }
    let mut registers = fd.get_debug_regs().map_err(KvmError::ioctl("KVM_GET_DEBUGREGS"))?;
    registers.dr6 |= if stepped { DR6_SINGLE_STEP } else { 0 } | hits;
    fd.set_debug_regs(&registers).map_err(KvmError::ioctl("KVM_SET_DEBUGREGS"))?;
    exception(fd, DEBUG, None)
}
