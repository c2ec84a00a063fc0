//! Guest RAM: one memfd, mapped twice.
//!
//! The *guest* mapping (G) backs the KVM memory slots and nothing else: protecting a page there stops the guest's access to it.
//! The *host* mapping (H) is what everybody in this process reads and writes; it is never protected.

#![expect(unsafe_code, reason = "maps guest RAM and registers it with KVM")]

use crate::layout;
use crate::watch::{Frames, PAGE};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use std::fs::File;
use std::ops::Range;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, MmapRegion};

/// Why guest RAM could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Size out of bounds.
    #[error("guest memory of {got} bytes: it must be a multiple of 4096, at least {min} and at most {max} bytes")]
    Size {
        /// Size asked for.
        got: u64,
        /// Least size.
        min: u64,
        /// Largest size.
        max: u64,
    },
    /// The memfd could not be made or sized.
    #[error("cannot create a memfd of {size} bytes for guest memory")]
    Memfd {
        /// Its size.
        size: u64,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The guest's mapping failed.
    #[error("cannot map {size} bytes of guest memory at guest address {gpa:#x}")]
    Map {
        /// Guest physical address.
        gpa: u64,
        /// Length.
        size: usize,
        /// The reason.
        source: MmapRegionError,
    },
    /// The host's mapping failed.
    #[error("cannot map guest memory for the VMM")]
    Host(#[source] FromRangesError),
    /// madvise failed.
    #[error("madvise({advice}) on guest memory failed")]
    Advise {
        /// Name of the advice.
        advice: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// KVM refused a slot.
    #[error("KVM refused memory slot {slot} ({size:#x} bytes at guest address {gpa:#x})")]
    Slot {
        /// Slot number.
        slot: u32,
        /// Guest physical address.
        gpa: u64,
        /// Length.
        size: usize,
        /// KVM's reason.
        source: kvm_ioctls::Error,
    },
}

/// The pages the host may back the guest mapping with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Whatever is fastest: huge ones where the system has them for shared memory.
    Any,
    /// Small ones only, for a guest mapping whose pages are protected one by one.
    Small,
}

/// Guest RAM. Must outlive every VM it was [registered](Self::register) with.
#[derive(Debug)]
pub struct GuestRam {
    guest: Arc<Vec<(u64, MmapRegion)>>,
    host: Arc<GuestMemoryMmap>,
    size: u64,
}

impl GuestRam {
    /// The least memory a guest can have, in bytes.
    pub const MIN: u64 = 16 << 20;
    /// The most: high RAM must stay below the handle window at 64 GiB.
    pub const MAX: u64 = 32 << 30;

    /// Makes `size` bytes of guest RAM, split around the 32-bit windows as [`layout`] says. In software emulation huge pages halve
    /// the time to boot.
    ///
    /// # Errors
    /// When the size is out of bounds or the system has no memory for it.
    pub fn new(size: u64, pages: Pages) -> Result<Self, MemoryError> {
        if !(Self::MIN..=Self::MAX).contains(&size) || !size.is_multiple_of(4096) {
            return Err(MemoryError::Size { got: size, min: Self::MIN, max: Self::MAX });
        }
        let file = Arc::new(memfd(size)?);
        let (low, high) = layout::split_ram(size);
        let parts: Vec<(u64, u64, usize)> = [(0, 0, low), (layout::HIGH_RAM, low, high)]
            .into_iter()
            .filter(|part| part.2 != 0)
            .filter_map(|(gpa, offset, len)| usize::try_from(len).ok().map(|len| (gpa, offset, len)))
            .collect();
        let mut guest = Vec::with_capacity(parts.len());
        for &(gpa, offset, len) in &parts {
            let region = MmapRegion::from_file(FileOffset::from_arc(file.clone(), offset), len).map_err(|source| MemoryError::Map {
                gpa,
                size: len,
                source,
            })?;
            match pages {
                Pages::Any => advise(&region, libc::MADV_HUGEPAGE, "MADV_HUGEPAGE")?,
                Pages::Small => advise(&region, libc::MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE")?,
            }
            // A child must not keep the mapping alive.
            advise(&region, libc::MADV_DONTFORK, "MADV_DONTFORK")?;
            guest.push((gpa, region));
        }
        let host = GuestMemoryMmap::from_ranges_with_files(
            parts.iter().map(|&(gpa, offset, len)| (GuestAddress(gpa), len, Some(FileOffset::from_arc(file.clone(), offset)))),
        )
        .map_err(MemoryError::Host)?;
        // Where the system has huge pages for shared memory on request, loading a kernel takes one page fault per 2 MiB.
        for region in host.iter() {
            advise(region, libc::MADV_HUGEPAGE, "MADV_HUGEPAGE")?;
        }
        Ok(Self { guest: Arc::new(guest), host: Arc::new(host), size })
    }

    /// The host mapping.
    #[must_use]
    pub fn host(&self) -> Arc<GuestMemoryMmap> {
        self.host.clone()
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The guest mapping, for keeping the guest from pages. It stays mapped until the last such handle is gone.
    #[must_use]
    pub fn guest_mapping(&self) -> GuestMapping {
        let regions: Vec<_> = self.guest.iter().map(|(gpa, region)| (*gpa, region.size())).collect();
        GuestMapping { frames: Frames::new(&regions), regions: self.guest.clone() }
    }

    /// Gives the guest mapping to `vm`, slots 0 and up. `vm` must not outlive `self`.
    ///
    /// # Errors
    /// When KVM refuses a slot.
    pub fn register(&self, vm: &VmFd) -> Result<(), MemoryError> {
        for (slot, (gpa, region)) in (0u32..).zip(self.guest.iter()) {
            let slot_info = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: *gpa,
                memory_size: region.size() as u64,
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is a live shared mapping of exactly this size; it is unmapped only when `self` is dropped, which
            // by this function's contract is after the VM is gone.
            unsafe { vm.set_user_memory_region(slot_info) }.map_err(|source| MemoryError::Slot {
                slot,
                gpa: *gpa,
                size: region.size(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Where pages of guest RAM are in the guest mapping. Never read or write there: only the protection is anybody's business.
#[derive(Clone, Debug)]
pub struct GuestMapping {
    regions: Arc<Vec<(u64, MmapRegion)>>,
    frames: Frames,
}

/// A stretch of the guest mapping.
#[derive(Clone, Copy, Debug)]
pub struct MappedRange {
    /// Address in this process.
    pub address: *mut libc::c_void,
    /// Bytes.
    pub len: usize,
    /// Where it is in the memory file, in bytes.
    pub offset: u64,
}

impl GuestMapping {
    /// The pages' numbers.
    #[must_use]
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The stretches these pages make: one, or two when they lie on both sides of the hole below 4 GiB. Pages that do not exist are
    /// left out.
    pub fn ranges(&self, pages: Range<u32>) -> impl Iterator<Item = MappedRange> + '_ {
        self.frames.parts(pages).filter_map(|(region, first, count)| {
            let (_, region) = self.regions.get(region)?;
            let offset = u64::from(first) * PAGE;
            let start = usize::try_from(offset).ok()?;
            let len = usize::try_from(u64::from(count) * PAGE).ok()?;
            let file = region.file_offset().map_or(0, FileOffset::start);
            Some(MappedRange { address: region.as_ptr().wrapping_add(start).cast(), len, offset: file + offset })
        })
    }

    /// The memory file.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.regions.first().and_then(|(_, region)| region.file_offset()).map(FileOffset::file)
    }
}

fn memfd(size: u64) -> Result<File, MemoryError> {
    // SAFETY: the name is a NUL-terminated string literal; the result is checked.
    let fd = unsafe { libc::memfd_create(c"dmavet-guest-ram".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(MemoryError::Memfd { size, source: std::io::Error::last_os_error() });
    }
    // SAFETY: `fd` was just made and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size).map_err(|source| MemoryError::Memfd { size, source })?;
    Ok(file)
}

fn advise(region: &MmapRegion, advice: i32, name: &'static str) -> Result<(), MemoryError> {
    // SAFETY: the range is exactly a live mapping, and none of the advice given here changes its content.
    let ret = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), advice) };
    let error = std::io::Error::last_os_error();
    // A kernel without transparent huge pages answers EINVAL: there is nothing to switch on or off then.
    let huge = matches!(advice, libc::MADV_NOHUGEPAGE | libc::MADV_HUGEPAGE);
    if ret == 0 || (huge && error.raw_os_error() == Some(libc::EINVAL)) {
        return Ok(());
    }
    Err(MemoryError::Advise { advice: name, source: error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn both_mappings_show_the_same_bytes() {
        let ram = GuestRam::new(GuestRam::MIN, Pages::Small).unwrap();
        ram.host().write_obj(0x1122_3344u32, GuestAddress(0x5000)).unwrap();
        let (_, region) = &ram.guest[0];
        // SAFETY: inside the mapping, aligned, and nobody writes it meanwhile.
        let seen = unsafe { region.as_ptr().add(0x5000).cast::<u32>().read_volatile() };
        assert_eq!(seen, 0x1122_3344);
    }

    #[test]
    fn memory_above_three_gib_continues_at_four() {
        let ram = GuestRam::new((3 << 30) + (1 << 20), Pages::Any).unwrap();
        let host = ram.host();
        assert_eq!(host.num_regions(), 2);
        assert_eq!(host.last_addr(), GuestAddress((1 << 32) + (1 << 20) - 1));
        host.write_obj(7u8, GuestAddress(1 << 32)).unwrap();
        assert!(host.write_obj(7u8, GuestAddress(layout::LOW_RAM_END)).is_err());
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        for size in [0, 4096, GuestRam::MIN + 1, GuestRam::MAX + 4096] {
            assert!(matches!(GuestRam::new(size, Pages::Any), Err(MemoryError::Size { got, .. }) if got == size));
        }
    }
}
