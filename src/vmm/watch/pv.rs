//! Pages that KVM itself writes for the guest. What it writes to a guarded page is lost, so these are never guarded.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// MSR_KVM_WALL_CLOCK_NEW and MSR_KVM_SYSTEM_TIME_NEW (Documentation/virt/kvm/x86/msr.rst): KVM writes to the pages they name.
const PV_MSRS: [u32; 2] = [0x4b56_4d00, 0x4b56_4d01];

/// Guest physical addresses of what KVM writes to by itself for this CPU.
#[must_use]
pub fn pages(fd: &VcpuFd) -> Vec<u64> {
    const ENABLED: u64 = 1;
    let mut found = Vec::new();
    for index in PV_MSRS {
        let Ok(mut msrs) = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }]) else { continue };
        // A KVM without kvmclock knows no such register.
        if fd.get_msrs(&mut msrs).is_ok_and(|count| count == 1) {
            found.extend(msrs.as_slice().iter().map(|msr| msr.data & !ENABLED).filter(|gpa| *gpa != 0));
        }
    }
    found
}
