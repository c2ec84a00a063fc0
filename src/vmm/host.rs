//! Whether this host's KVM can run Linux, found out by trying.
//!
//! CPU flags do not tell: a KVM may run the guest's kernel mode in its instruction emulator (`kvm_pvm`), where a stock kernel dies
//! after seconds, and a nested KVM may be a good one. So a 64-bit guest runs a few instructions that every x86-64 CPU has and KVM's
//! emulator does not: SSE2 integer and x87 arithmetic. On VMX and SVM, nested or not, the CPU executes them.

use crate::error::VmmError;
use crate::kvm::KvmError;
use crate::trial;

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
    match trial::run(&ARITHMETIC) {
        Ok(Ok(report)) if report.value == SUM => HostKvm::CanRunLinux,
        Ok(Ok(report)) => HostKvm::CannotRunLinux(format!("SSE2 and x87 arithmetic gave {:#x} instead of {SUM:#x}", report.value)),
        Ok(Err(why)) => HostKvm::CannotRunLinux(why),
        Err(error) => HostKvm::Unusable(error),
    }
}

/// Whether KVM sees the guest's XSETBV. Software-emulated SVM did not show it before QEMU 8: KVM goes on with the old XCR0, and the
/// guest kernel finds its XSAVE area larger than CPUID says, prints a screenful of warnings and gives XSAVE up.
#[must_use]
pub fn intercepts_xsetbv() -> bool {
    matches!(trial::run(&XSETBV), Ok(Ok(report)) if report.value == DONE && report.xcr0 == Some(X87_SSE))
}

/// What [`ARITHMETIC`] reports.
const SUM: u32 = 0x600d_600e;

const ARITHMETIC: [u8; 41] = [
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

/// What [`XSETBV`] reports.
const DONE: u32 = 0x900d;
/// What it sets XCR0 to; after a reset it is 1.
const X87_SSE: u64 = 3;

const XSETBV: [u8; 30] = [
    0x0f, 0x20, 0xe0, // mov rax, cr4
    0x0d, 0x00, 0x00, 0x04, 0x00, // or eax, OSXSAVE
    0x0f, 0x22, 0xe0, // mov cr4, rax
    0x31, 0xc9, // xor ecx, ecx
    0x31, 0xd2, // xor edx, edx
    0x6a, 0x03, 0x58, // push 3; pop rax
    0x0f, 0x01, 0xd1, // xsetbv
    0xb8, 0x0d, 0x90, 0x00, 0x00, // mov eax, DONE
    0xe7, 0x80, // out 0x80, eax
    0xeb, 0xfe, // jmp $
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Not which answer, which depends on the machine, but that there is one, soon, and that it is the same again.
    #[test]
    fn a_probe_answers_soon_and_twice_the_same() {
        let start = Instant::now();
        let (first, second) = (probe(), probe());
        assert_eq!(std::mem::discriminant(&first), std::mem::discriminant(&second), "{first:?} {second:?}");
        assert_eq!(intercepts_xsetbv(), intercepts_xsetbv());
        assert!(start.elapsed() < Duration::from_secs(3));
        if let Err(error) = first.require() {
            let text = error.to_string();
            assert!(text.contains("--host lab") || text.contains("permission") || text.contains("KVM"), "{text}");
        }
    }
}
