//! Tier 2: the CPU itself carries the instruction out, alone, with the pages open.
//!
//! All other CPUs are stopped meanwhile: an open page is open for everybody. KVM single-steps with interrupts blocked. What a
//! single step leaves behind is put right afterwards:
//!
//! - `pushf` stores the trap flag that KVM set, not the guest's: the stored image is corrected.
//! - KVM hides the trap flag while it steps and clears it at the end. A guest that had set it itself (a debugger in the guest) gets it
//!   back, and the #DB it is due.
//! - A breakpoint of the guest that was hit is passed on.
//! - An exception while stepping would store the trap flag in its frame; so operands are checked before
//!   ([`Insn::prepare`](crate::emulate::Insn::prepare)), and divisions ([`divide`](super::divide)).
//! - Some instructions give no debug exit, or lose the trap flag on the way (`sysret`, `iret` ...): these are not stepped ([`Manner`]).

use super::Watch;
use super::cpu::{StoppedCpu, TF};
use super::gate::Step;
use super::inject;
use crate::emulate::{self, CpuState};
use crate::kvm::KvmError;
use crate::vcpu::exit::{self, Reason};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, Register};
use kvm_bindings::{KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// How an instruction behaves under a single step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Well.
    Plain,
    /// It stores RFLAGS on the stack, so many bytes.
    StoresFlags(u8),
    /// The debug exit comes one instruction late (STI, MOV SS: SDM 3A, 6.8.3).
    Shadow,
    /// It cannot be stepped.
    Never,
}

impl Manner {
    /// That of the instruction with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8], bitness: u32) -> Self {
        let insn = Decoder::new(bitness, bytes, DecoderOptions::NONE).decode();
        match insn.mnemonic() {
            Mnemonic::Pushf => Self::StoresFlags(2),
            Mnemonic::Pushfd => Self::StoresFlags(4),
            Mnemonic::Pushfq => Self::StoresFlags(8),
            Mnemonic::Sti => Self::Shadow,
            Mnemonic::Mov | Mnemonic::Pop if insn.op0_register() == Register::SS => Self::Shadow,
            Mnemonic::Sysret
            | Mnemonic::Sysretq
            | Mnemonic::Sysexit
            | Mnemonic::Sysexitq
            | Mnemonic::Syscall
            | Mnemonic::Sysenter
            | Mnemonic::Iret
            | Mnemonic::Iretd
            | Mnemonic::Iretq
            | Mnemonic::Int
            | Mnemonic::Int1
            | Mnemonic::Int3
            | Mnemonic::Into
            | Mnemonic::Ud0
            | Mnemonic::Ud1
            | Mnemonic::Ud2
            | Mnemonic::Hlt
            | Mnemonic::Mwait
            | Mnemonic::Rsm
            | Mnemonic::INVALID => Self::Never,
            _ => Self::Plain,
        }
    }
}

/// What became of a step.
#[derive(Debug)]
pub enum Stepped {
    /// The instruction was carried out.
    Done,
    /// Something else came first; the vCPU loop has to deal with it.
    Other(Reason),
    /// The CPU did not come back in time.
    GaveUp,
}

/// Attempts when a stray kick comes between.
const ATTEMPTS: u32 = 4;

/// Steps the instruction `cpu` is at, whose guarded pages are marked by `pages`.
///
/// # Errors
/// When an ioctl fails.
pub fn step(watch: &Watch, index: usize, cpu: &mut StoppedCpu<'_>, manner: Manner, pages: Step<'_>) -> Result<Stepped, KvmError> {
    let before = *cpu.regs();
    let own_trap = before.rflags & TF != 0;
    let stopped = watch.world.stop(index);
    pages.open();
    set_debug(cpu.fd(), KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ)?;
    let mut watchdog = watch.keeper.watch_step(index);
    let mut attempts = 0;
    let reason = loop {
        attempts += 1;
        match exit::run(cpu.fd()) {
            Reason::Interrupted => {
                cpu.fd().set_kvm_immediate_exit(0);
                if watchdog.fired() || attempts == ATTEMPTS {
                    break Reason::Interrupted;
                }
            }
            reason => break reason,
        }
    };
    drop(watchdog);
    set_debug(cpu.fd(), 0)?;
    drop(pages);
    drop(stopped);
    let hits = match &reason {
        Reason::Debug { dr6 } => dr6 & 0xf,
        Reason::Interrupted if attempts == ATTEMPTS => return Ok(Stepped::Other(reason)),
        Reason::Interrupted => return Ok(Stepped::GaveUp),
        _ => return Ok(Stepped::Other(reason)),
    };
    let mut after = StoppedCpu::read(cpu.fd(), watch.synced)?;
    if let Manner::StoresFlags(width) = manner
        && !own_trap
    {
        clear_stored_trap_flag(&watch.ram, &after, width);
    }
    // POPF decided about the trap flag itself; KVM hid what it decided. Whether the flag was set before is what counts for the trap.
    if own_trap {
        after.regs_mut().rflags |= TF;
        after.write_regs()?;
    }
    inject::debug_trap(after.fd(), own_trap, hits)?;
    Ok(Stepped::Done)
}

fn set_debug(fd: &VcpuFd, control: u32) -> Result<(), KvmError> {
    let debug = kvm_guest_debug { control, ..Default::default() };
    fd.set_guest_debug(&debug).map_err(KvmError::ioctl("KVM_SET_GUEST_DEBUG"))
}

/// The low byte of the second byte of the image holds TF; the image is at the top of the stack.
fn clear_stored_trap_flag(ram: &GuestMemoryMmap, cpu: &StoppedCpu<'_>, width: u8) {
    let top = if cpu.is_64bit() { cpu.regs().rsp } else { cpu.sregs().ss.base.wrapping_add(cpu.regs().rsp & 0xffff_ffff) };
    if width < 2 {
        return;
    }
    let Some(at) = emulate::lookup(ram, cpu.sregs(), top.wrapping_add(1)) else { return };
    let mut byte = [0];
    if ram.read_slice(&mut byte, GuestAddress(at)).is_ok() {
        // RAM as KVM knows it: what was just written there can be written again.
        let _ = ram.write_slice(&byte.map(|byte| byte & !1), GuestAddress(at));
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;

    #[test]
    fn instructions_that_a_step_treats_badly_are_known() {
        for (bytes, manner) in [
            (&[0x48, 0x89, 0x03][..], Manner::Plain),
            (&[0x9c], Manner::StoresFlags(8)),
            (&[0x66, 0x9c], Manner::StoresFlags(2)),
            (&[0xfb], Manner::Shadow),
            (&[0x8e, 0xd0], Manner::Shadow),
            (&[0x8e, 0xd8], Manner::Plain),
            (&[0x48, 0x0f, 0x07], Manner::Never),
            (&[0x48, 0xcf], Manner::Never),
            (&[0xcc], Manner::Never),
            (&[0xf4], Manner::Never),
        ] {
            assert_eq!(Manner::of(bytes, 64), manner, "{bytes:x?}");
        }
    }
}
