//! Whether this host's KVM can run Linux, found out by trying.
//!
//! CPU flags do not tell: a KVM may run the guest's kernel mode in its instruction emulator (`kvm_pvm`), where a stock kernel dies
//! after seconds, and a nested KVM may be a good one. So a 64-bit guest runs a few instructions that every x86-64 CPU has and KVM's
//! emulator does not: SSE2 integer and x87 arithmetic. On VMX and SVM, nested or not, the CPU executes them.

use crate::boot;
use crate::error::VmmError;
use crate::kvm::{self, KvmError};
use crate::memory::{GuestRam, Pages};
use crate::vcpu::kick;
use crate::vcpu::state::{self, Entry};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::signal::Killable;

/// What a probe found.
#[derive(Debug)]
pub enum HostKvm {
    /// A stock kernel will run.
    CanRunLinux,
    /// KVM is there but cannot run a stock kernel, and why.
    CannotRunLinux(String),
    /// KVM cannot be used at all, and what to do about it.
    Unusable(VmmError),
}

impl HostKvm {
    /// Nothing if Linux can run here.
    ///
    /// # Errors
    /// Why not, with what to do about it.
    pub fn require(self) -> Result<(), VmmError> {
        match self {
            Self::CanRunLinux => Ok(()),
            Self::CannotRunLinux(why) => Err(KvmError::CannotRunLinux(why).into()),
            Self::Unusable(error) => Err(error),
        }
    }
}

/// Tries, in a few milliseconds.
#[must_use]
pub fn probe() -> HostKvm {
    match trial() {
        Ok(Trial::Passed) => HostKvm::CanRunLinux,
        Ok(Trial::Failed(why)) => HostKvm::CannotRunLinux(why),
        Err(error) => HostKvm::Unusable(error),
    }
}

enum Trial {
    Passed,
    Failed(String),
}

/// Where the program lies.
const CODE: u64 = 0x10_0000;
/// Port it reports to.
const PORT: u16 = 0x80;
/// What it reports.
const DONE: u32 = 0x600d_600e;
/// How long it may take: many times what a CPU needs, software emulation included.
const PATIENCE: Duration = Duration::from_secs(5);

const PROGRAM: [u8; 41] = [
    0xb8, 0x06, 0xb0, 0x06, 0x30, // mov eax, 0x3006b006
    0x66, 0x0f, 0x6e, 0xc0, // movd xmm0, eax
    0x66, 0x0f, 0xfe, 0xc0, // paddd xmm0, xmm0
    0x66, 0x0f, 0x7e, 0xc0, // movd eax, xmm0
    0xdb, 0xe3, // fninit
    0xd9, 0xe8, // fld1
    0xd8, 0xc0, // fadd st0, st0
    0xdb, 0x1c, 0x25, 0x00, 0x00, 0x11, 0x00, // fistp dword [0x110000]
    0x03, 0x04, 0x25, 0x00, 0x00, 0x11, 0x00, // add eax, [0x110000]
    0xe7, 0x80, // out 0x80, eax
    0xeb, 0xfe, // jmp $
];

const CR0_MP_NE: u64 = 1 << 1 | 1 << 5;
const CR4_OSFXSR_OSXMMEXCPT: u64 = 1 << 9 | 1 << 10;

fn trial() -> Result<Trial, VmmError> {
    let kvm = kvm::open()?;
    // Dropped after the VM and its CPU.
    let ram = GuestRam::new(GuestRam::MIN, Pages::Any)?;
    let vm = kvm::create_vm(&kvm)?;
    ram.register(&vm)?;
    let memory = ram.host();
    boot::write_long_mode(&memory)?;
    memory.write_slice(&PROGRAM, GuestAddress(CODE)).map_err(|_| boot::BootError::Write { what: "the trial program", gpa: CODE })?;
    let cpu = cpu(&kvm, &vm)?;
    kick::install()?;
    let (tell, told) = mpsc::channel();
    let thread = thread::Builder::new().name("kvm-trial".into()).spawn(move || run(cpu, &tell)).map_err(VmmError::Thread)?;
    let verdict = match told.recv_timeout(PATIENCE) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => {
            // The thread lives until it is joined, and the signal number is valid.
            let _ = thread.kill(kick::signal());
            Trial::Failed(format!("a dozen instructions took more than {} s", PATIENCE.as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => Trial::Failed("the trial's thread ended without a result".into()),
    };
    let _ = thread.join();
    Ok(verdict)
}

fn cpu(kvm: &Kvm, vm: &kvm_ioctls::VmFd) -> Result<VcpuFd, KvmError> {
    let fd = vm.create_vcpu(0).map_err(KvmError::ioctl("KVM_CREATE_VCPU"))?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(KvmError::ioctl("KVM_GET_SUPPORTED_CPUID"))?;
    fd.set_cpuid2(&cpuid).map_err(KvmError::ioctl("KVM_SET_CPUID2"))?;
    state::set_entry(&fd, Entry::Linux64 { rip: CODE })?;
    let mut sregs = fd.get_sregs().map_err(KvmError::ioctl("KVM_GET_SREGS"))?;
    sregs.cr0 |= CR0_MP_NE;
    sregs.cr4 |= CR4_OSFXSR_OSXMMEXCPT;
    fd.set_sregs(&sregs).map_err(KvmError::ioctl("KVM_SET_SREGS"))?;
    Ok(fd)
}

fn run(mut cpu: VcpuFd, tell: &mpsc::Sender<Trial>) {
    let kickable = kick::Kickable::new(&mut cpu);
    let verdict = loop {
        let failed = match cpu.run() {
            Ok(VcpuExit::IoOut(PORT, data)) => match <[u8; 4]>::try_from(data).map(u32::from_le_bytes) {
                Ok(DONE) => break Trial::Passed,
                other => format!("SSE2 and x87 arithmetic gave {other:x?} instead of {DONE:#x}"),
            },
            Ok(VcpuExit::InternalError) => {
                "the guest's kernel mode runs in KVM's instruction emulator, which knows only part of the instruction set".into()
            }
            Ok(exit) => format!("a dozen instructions ended with KVM exit {exit:?}"),
            Err(error) if error.errno() == libc::EINTR => {
                // A signal; only the kick sets this flag.
                if cpu.get_kvm_run().immediate_exit == 0 {
                    continue;
                }
                "kicked out".into()
            }
            Err(error) => format!("KVM_RUN: {error}"),
        };
        break Trial::Failed(failed);
    };
    drop(kickable);
    // Nobody listens any more when this took too long.
    let _ = tell.send(verdict);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Not which answer, which depends on the machine, but that there is one, soon, and that it is the same again.
    #[test]
    fn a_probe_answers_soon_and_twice_the_same() {
        let start = Instant::now();
        let (first, second) = (probe(), probe());
        assert_eq!(std::mem::discriminant(&first), std::mem::discriminant(&second), "{first:?} {second:?}");
        assert!(start.elapsed() < Duration::from_secs(3));
        if let Err(error) = first.require() {
            let text = error.to_string();
            assert!(text.contains("--host lab") || text.contains("permission") || text.contains("KVM"), "{text}");
        }
    }
}
