//! The registers a vCPU starts with, one set for each boot protocol.

use crate::kvm::KvmError;
use crate::layout::boot;
use kvm_bindings::{Msrs, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

/// Where and how the first CPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The PVH entry point: 32-bit protected mode, no paging, EBX = `hvm_start_info` (xenbits.xen.org, misc/pvh).
    Pvh {
        /// Guest physical address of the first instruction.
        rip: u64,
    },
    /// The 64-bit entry of the Linux boot protocol: long mode, identity map, RSI = `boot_params` (Documentation/arch/x86/boot.rst).
    Linux64 {
        /// Guest physical address of the first instruction.
        rip: u64,
    },
    /// Real mode, for guests of a few instructions.
    #[cfg(test)]
    Real {
        /// Offset in the code segment at 0x10000.
        rip: u64,
    },
}

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, default type write-back.
const MTRR_ENABLE_WB: u64 = 1 << 11 | 6;

/// The GDT for [`Entry::Linux64`]: null, unused, `__BOOT_CS` (0x10), `__BOOT_DS` (0x18).
pub const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

fn segment(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

/// Sets the general and system registers of the boot CPU.
///
/// # Errors
/// When an ioctl fails.
pub fn set_entry(fd: &VcpuFd, entry: Entry) -> Result<(), KvmError> {
    let mut sregs = fd.get_sregs().map_err(KvmError::ioctl("KVM_GET_SREGS"))?;
    let mut regs = kvm_regs { rflags: 2, ..Default::default() };
    let flat = |sregs: &mut kvm_bindings::kvm_sregs, long: bool| {
        sregs.cs = segment(0x10, 0xb, long);
        let data = segment(0x18, 0x3, false);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = kvm_segment { limit: 0x67, type_: 0xb, present: 1, ..Default::default() };
        sregs.gdt.base = boot::GDT;
        sregs.gdt.limit = 31;
    };
    match entry {
        Entry::Pvh { rip } => {
            flat(&mut sregs, false);
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
            sregs.efer = 0;
            regs.rip = rip;
            regs.rbx = boot::START_INFO;
        }
        Entry::Linux64 { rip } => {
            flat(&mut sregs, true);
            sregs.cr3 = boot::PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            regs.rip = rip;
            regs.rsi = boot::ZERO_PAGE;
            regs.rsp = boot::CMDLINE;
        }
        #[cfg(test)]
        Entry::Real { rip } => {
            sregs.cs.base = 0x1_0000;
            sregs.cs.selector = 0x1000;
            regs.rip = rip;
        }
    }
    fd.set_sregs(&sregs).map_err(KvmError::ioctl("KVM_SET_SREGS"))?;
    fd.set_regs(&regs).map_err(KvmError::ioctl("KVM_SET_REGS"))
}

/// Model-specific registers as firmware would leave them. A KVM that does not know one of them stops there; none is essential.
///
/// # Errors
/// When the ioctl fails.
pub fn set_msrs(fd: &VcpuFd) -> Result<(), KvmError> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let entries = [entry(MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING), entry(MSR_MTRR_DEF_TYPE, MTRR_ENABLE_WB)];
    for one in entries {
        let Ok(msrs) = Msrs::from_entries(&[one]) else { continue };
        fd.set_msrs(&msrs).map_err(KvmError::ioctl("KVM_SET_MSRS"))?;
    }
    Ok(())
}

/// Local APIC pins as firmware leaves them: LINT0 takes the 8259 (virtual wire), LINT1 is NMI (MultiProcessor Specification 3.6.2.1).
///
/// # Errors
/// When an ioctl fails.
pub fn set_lints(fd: &VcpuFd) -> Result<(), KvmError> {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    const MODE_NMI: u32 = 4 << 8;
    const MODE_EXTINT: u32 = 7 << 8;
    let mut lapic = fd.get_lapic().map_err(KvmError::ioctl("KVM_GET_LAPIC"))?;
    set_register(&mut lapic, LVT_LINT0, MODE_EXTINT);
    set_register(&mut lapic, LVT_LINT1, MODE_NMI);
    fd.set_lapic(&lapic).map_err(KvmError::ioctl("KVM_SET_LAPIC"))
}

fn set_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (slot, byte) in lapic.regs.iter_mut().skip(offset).zip(value.to_le_bytes()) {
        *slot = byte.cast_signed();
    }
}
