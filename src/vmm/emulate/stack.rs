//! The stack and near branches, in 64-bit mode.

use super::Unsupported;
use super::exec::Exec;
use super::mode::{self, RFLAGS_RF, RFLAGS_VM};
use super::op::Op;
use super::registers::Gpr;
use iced_x86::OpKind;

/// Carries out one of them.
///
/// # Errors
/// When it must be left to the CPU: also a branch to an address that is not canonical, which faults.
pub fn perform(exec: &mut Exec<'_>, op: Op) -> Result<(), Unsupported> {
    let moved = i64::from(exec.prepared.insn.stack_pointer_increment());
    let rsp = exec.cpu.regs().rsp.wrapping_add_signed(moved);
    match op {
        Op::Push => {
            let value = exec.value(0)?;
            push(exec, value)?;
        }
        Op::PushFlags => push(exec, exec.flags() & !(RFLAGS_RF | RFLAGS_VM))?,
        Op::Call => {
            let target = target(exec)?;
            push(exec, exec.prepared.next_ip())?;
            exec.target = Some(target);
        }
        Op::Jump => exec.target = Some(target(exec)?),
        Op::Return => {
            let target = pop(exec)?;
            exec.target = Some(canonical(exec, target)?);
        }
        Op::Pop => {
            let value = pop(exec)?;
            if exec.destination_in_memory() {
                let place = exec.explicit()?;
                exec.memory.store(&place, value)?;
                exec.set(Gpr::RSP, rsp);
            } else {
                // `pop rsp` ends with what it read.
                let register = exec.register(0)?;
                exec.set(Gpr::RSP, rsp);
                exec.set(register, value);
            }
            return Ok(());
        }
        Op::Leave => {
            let value = pop(exec)?;
            let frame = exec.cpu.regs().rbp;
            exec.set(Gpr::RSP, frame.wrapping_add(8));
            exec.set(Gpr::RBP, value);
            return Ok(());
        }
        _ => return Err(Unsupported),
    }
    exec.set(Gpr::RSP, rsp);
    Ok(())
}

fn push(exec: &mut Exec<'_>, value: u64) -> Result<(), Unsupported> {
    let place = exec.other()?;
    exec.memory.store(&place, value)
}

fn pop(exec: &mut Exec<'_>) -> Result<u64, Unsupported> {
    let place = exec.other()?;
    exec.memory.load(&place)
}

fn target(exec: &mut Exec<'_>) -> Result<u64, Unsupported> {
    let target = match exec.prepared.insn.op0_kind() {
        OpKind::NearBranch64 => exec.prepared.insn.near_branch64(),
        _ => exec.value(0)?,
    };
    canonical(exec, target)
}

fn canonical(exec: &Exec<'_>, target: u64) -> Result<u64, Unsupported> {
    if mode::is_canonical(exec.cpu.sregs(), target) { Ok(target) } else { Err(Unsupported) }
}
