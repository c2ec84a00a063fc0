//! A guest of a few instructions that reports one number, for finding out what this host's KVM does.

use crate::boot;
use crate::error::VmmError;
use crate::kvm::{self, KvmError};
use crate::memory::{GuestRam, Pages};
use crate::vcpu::kick;
use crate::vcpu::state::{self, Entry};
use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_MAX_CPUID_ENTRIES, kvm_guest_debug};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::signal::Killable;

/// Where the program lies. The MiB behind it is the program's to use.
const CODE: u64 = 0x10_0000;
/// Port it reports to, with `out 0x80, eax`.
const PORT: u16 = 0x80;
/// How long it may take: many times what a CPU needs, software emulation included.
const PATIENCE: Duration = Duration::from_secs(5);

const CR0_MP_NE: u64 = 1 << 1 | 1 << 5;
const CR4_OSFXSR_OSXMMEXCPT: u64 = 1 << 9 | 1 << 10;

/// What a program reported.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The number.
    pub value: u32,
    /// XCR0 as KVM knows it then; `None` where KVM has no XSAVE for guests.
    pub xcr0: Option<u64>,
}

/// Runs `program` in long mode with SSE switched on: what it reported, or why it did not get there.
///
/// # Errors
/// When KVM cannot be used at all.
pub fn run(program: &[u8]) -> Result<Result<Report, String>, VmmError> {
    trial(program, enter)
}

/// Whether this KVM single-steps: `None`, or what happens instead.
///
/// # Errors
/// When KVM cannot be used at all.
pub fn single_step() -> Result<Option<String>, VmmError> {
    const NOPS: [u8; 3] = [0x90; 3];
    Ok(trial(&NOPS, |cpu, _| step(cpu))?.err())
}

fn trial<T: Send + 'static>(
    program: &[u8],
    body: impl FnOnce(&mut VcpuFd, bool) -> Result<T, String> + Send + 'static,
) -> Result<Result<T, String>, VmmError> {
    let kvm = kvm::open()?;
    // Dropped after the VM and its CPU.
    let ram = GuestRam::new(GuestRam::MIN, Pages::Any)?;
    let vm = kvm::create_vm(&kvm)?;
    ram.register(&vm)?;
    let memory = ram.host();
    boot::write_long_mode(&memory)?;
    memory.write_slice(program, GuestAddress(CODE)).map_err(|_| boot::BootError::Write { what: "the trial program", gpa: CODE })?;
    let mut cpu = cpu(&kvm, &vm)?;
    let xcrs = kvm.check_extension(Cap::Xcrs);
    kick::install()?;
    let (tell, told) = mpsc::channel();
    let on_thread = move || {
        // Dropped before `cpu` goes, on this thread, as `Kickable` asks.
        let kickable = kick::Kickable::new(&mut cpu);
        let result = body(&mut cpu, xcrs);
        drop(kickable);
        // Nobody listens any more when this took too long.
        let _ = tell.send(result);
    };
    let thread = thread::Builder::new().name("kvm-trial".into()).spawn(on_thread).map_err(VmmError::Thread)?;
    let result = match told.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            // The thread lives until it is joined, and the signal number is valid.
            let _ = thread.kill(kick::signal());
            Err(format!("a dozen instructions took more than {} s", PATIENCE.as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => Err("the trial's thread ended without a result".into()),
    };
    let _ = thread.join();
    Ok(result)
}

fn cpu(kvm: &Kvm, vm: &VmFd) -> Result<VcpuFd, KvmError> {
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

fn enter(cpu: &mut VcpuFd, xcrs: bool) -> Result<Report, String> {
    loop {
        let failed = match cpu.run() {
            Ok(VcpuExit::IoOut(PORT, data)) => match <[u8; 4]>::try_from(data).map(u32::from_le_bytes) {
                Ok(value) => {
                    let xcr0 = xcrs.then(|| cpu.get_xcrs().ok()).flatten().and_then(|all| all.xcrs.first().map(|x| x.value));
                    return Ok(Report { value, xcr0 });
                }
                Err(_) => "the trial program reported something that is not a number".into(),
            },
            Ok(VcpuExit::InternalError) => {
                "the guest's kernel mode runs in KVM's instruction emulator, which knows only part of the instruction set".into()
            }
            Ok(exit) => format!("a dozen instructions ended with KVM exit {exit:?}"),
            // A signal came between; only the kick that ends the trial sets the flag.
            Err(error) if error.errno() == libc::EINTR => match cpu.get_kvm_run().immediate_exit {
                0 => continue,
                _ => "kicked out".into(),
            },
            Err(error) => format!("KVM_RUN: {error}"),
        };
        return Err(failed);
    }
}

fn step(cpu: &mut VcpuFd) -> Result<(), String> {
    let debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP, ..Default::default() };
    cpu.set_guest_debug(&debug).map_err(|error| format!("KVM_SET_GUEST_DEBUG: {error}"))?;
    for steps in 1..=2 {
        loop {
            match cpu.run() {
                Ok(VcpuExit::Debug(_)) => break,
                Ok(exit) => return Err(format!("a step ended with KVM exit {exit:?}")),
                Err(error) if error.errno() == libc::EINTR => match cpu.get_kvm_run().immediate_exit {
                    0 => {}
                    _ => return Err("a step did not end".into()),
                },
                Err(error) => return Err(format!("a step ended with {error}")),
            }
        }
        let rip = cpu.get_regs().map_err(|error| format!("KVM_GET_REGS: {error}"))?.rip;
        if rip != CODE + steps {
            return Err(format!("{steps} steps went {} bytes instead of {steps}", rip.wrapping_sub(CODE)));
        }
    }
    Ok(())
}
