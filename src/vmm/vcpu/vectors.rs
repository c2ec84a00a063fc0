//! A stopped vCPU's vector registers, in the layout of XSAVE (SDM 1, 13.4).

#![expect(unsafe_code, reason = "KVM_SET_XSAVE takes a structure of variable length")]

use crate::kvm::KvmError;
use kvm_bindings::kvm_xsave;
use kvm_ioctls::VcpuFd;
use std::arch::x86_64::__cpuid_count;
use std::sync::LazyLock;

const XMM: usize = 160;
const STATE: usize = 512;
const SSE: u8 = 1 << 1;
const AVX: u8 = 1 << 2;

/// Where bits 255:128 of the YMM registers are (CPUID leaf 0xd, subleaf 2), 0 on a CPU without.
static YMM_HIGH: LazyLock<usize> = LazyLock::new(|| {
    let has_xsave = __cpuid_count(0, 0).eax >= 0xd && __cpuid_count(1, 0).ecx & 1 << 27 != 0;
    if has_xsave { __cpuid_count(0xd, 2).ebx as usize } else { 0 }
});

/// The vector registers of a vCPU.
#[derive(Debug)]
pub struct Vectors {
    state: kvm_xsave,
    dirty: bool,
}

impl Vectors {
    /// Reads them.
    ///
    /// # Errors
    /// When the ioctl fails.
    pub fn read(fd: &VcpuFd) -> Result<Self, KvmError> {
        let state = fd.get_xsave().map_err(KvmError::ioctl("KVM_GET_XSAVE"))?;
        Ok(Self { state, dirty: false })
    }

    /// Bits 255:0 of register `index`, 0 to 15.
    #[must_use]
    pub fn get(&self, index: u8) -> Option<[u8; 32]> {
        let mut value = [0; 32];
        let (low, high) = value.split_at_mut(16);
        self.copy_out(XMM + 16 * usize::from(index), low)?;
        if *YMM_HIGH != 0 && self.byte(STATE)? & AVX != 0 {
            self.copy_out(*YMM_HIGH + 16 * usize::from(index), high)?;
        }
        Some(value)
    }

    /// Writes bits 127:0, or 255:0 with `upper`.
    #[must_use]
    pub fn set(&mut self, index: u8, value: [u8; 32], upper: bool) -> Option<()> {
        let (low, high) = value.split_at(16);
        let state = self.byte(STATE)?;
        let mut used = state | SSE;
        if upper && *YMM_HIGH != 0 {
            // A component that was in its initial state: all zero.
            if state & AVX == 0 {
                self.copy_in(*YMM_HIGH, &[0; 256])?;
            }
            self.copy_in(*YMM_HIGH + 16 * usize::from(index), high)?;
            used |= AVX;
        }
        self.copy_in(XMM + 16 * usize::from(index), low)?;
        self.copy_in(STATE, &[used])?;
        self.dirty = true;
        Some(())
    }

    /// Writes them back if they changed.
    ///
    /// # Errors
    /// When the ioctl fails.
    pub fn write(&self, fd: &VcpuFd) -> Result<(), KvmError> {
        if !self.dirty {
            return Ok(());
        }
        // SAFETY: KVM reads as many bytes as KVM_GET_XSAVE wrote, 4096, because no feature beyond was enabled for this process.
        unsafe { fd.set_xsave(&self.state) }.map_err(KvmError::ioctl("KVM_SET_XSAVE"))
    }

    fn byte(&self, at: usize) -> Option<u8> {
        let word = self.state.region.get(at / 4)?;
        word.to_le_bytes().get(at % 4).copied()
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) -> Option<()> {
        to.iter_mut().enumerate().try_for_each(|(i, byte)| {
            *byte = self.byte(at + i)?;
            Some(())
        })
    }

    fn copy_in(&mut self, at: usize, from: &[u8]) -> Option<()> {
        from.iter().enumerate().try_for_each(|(i, byte)| {
            let word = self.state.region.get_mut((at + i) / 4)?;
            let mut bytes = word.to_le_bytes();
            *bytes.get_mut((at + i) % 4)? = *byte;
            *word = u32::from_le_bytes(bytes);
            Some(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_keep_what_was_written() {
        let mut vectors = Vectors { state: kvm_xsave::default(), dirty: false };
        let value: [u8; 32] = std::array::from_fn(|i| u8::try_from(i + 1).unwrap());
        vectors.set(3, value, false).unwrap();
        let mut low = value;
        low[16..].fill(0);
        assert_eq!(vectors.get(3).unwrap(), low);
        if *YMM_HIGH != 0 {
            vectors.set(15, value, true).unwrap();
            assert_eq!(vectors.get(15).unwrap(), value);
            assert_eq!(vectors.get(3).unwrap(), low);
        }
        assert!(vectors.set(255, value, false).is_none() || vectors.dirty);
    }
}
