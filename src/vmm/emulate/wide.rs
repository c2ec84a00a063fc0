//! The 16-byte compare-and-exchange of the host.

#![expect(unsafe_code, reason = "the standard library has no safe 16-byte atomic")]

use super::Unsupported;
use super::flags::low;
use std::arch::asm;
use vm_memory::VolatileSlice;

/// The host's CPU has it.
pub fn available() -> bool {
    std::arch::is_x86_feature_detected!("cmpxchg16b")
}

/// Replaces the 16 bytes of `slice` by `new` if they are `old`, atomically, and returns what they were.
///
/// # Errors
/// When the host cannot, or `slice` is not 16 bytes at a multiple of 16.
pub fn compare_exchange(slice: &VolatileSlice<'_>, old: u128, new: u128) -> Result<u128, Unsupported> {
    let guard = slice.ptr_guard_mut();
    let unit = guard.as_ptr().cast::<u128>();
    if !available() || slice.len() != 16 || !unit.is_aligned() {
        return Err(Unsupported);
    }
    // SAFETY: the slice is 16 bytes of live guest RAM, the pointer to them is aligned, and the CPU was asked for the feature.
    Ok(unsafe { exchange(unit, old, new) })
}

/// The intrinsic of the standard library calls a function that is not linked unless the whole program is built for such CPUs.
///
/// # Safety
/// The CPU must have the instruction. `unit` must be aligned to 16 and point to 16 bytes that live through the call and are only
/// accessed atomically.
unsafe fn exchange(unit: *mut u128, old: u128, new: u128) -> u128 {
    let (mut lower, mut upper) = (low(old), low(old >> 64));
    // SAFETY: the caller's promise; RBX, which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "xchg rbx, r8",
            "lock cmpxchg16b [rdi]",
            "mov rbx, r8",
            in("rdi") unit,
            inout("r8") low(new) => _,
            in("rcx") low(new >> 64),
            inout("rax") lower,
            inout("rdx") upper,
            options(nostack),
        );
    }
    u128::from(upper) << 64 | u128::from(lower)
}
