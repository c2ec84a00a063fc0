//! Keeping the guest from pages: what is done to the guest mapping (G) of RAM.
//!
//! KVM reaches guest RAM through G only. When G does not allow an access, `KVM_RUN` ends with `EFAULT` before the instruction. Both
//! ways here drop what KVM and the CPU remember of a page before they return (the kernel's MMU notifiers), so that no CPU gets in
//! any more through an old translation.

#![expect(unsafe_code, reason = "changes the protection of the guest mapping")]

use crate::memory::GuestMapping;
use dmavet_coherence::Guard;
use std::fmt;
use std::io;
use std::ops::Range;

/// A way to keep the guest from pages.
pub trait Protect: Send + Sync + fmt::Debug {
    /// Puts `guard` on the pages with these [numbers](super::frames::Page). A page may end up with a stricter guard than asked for, never
    /// with a weaker one.
    ///
    /// # Errors
    /// What the system said; how many of the pages were changed is not known then. `ENOMEM` means that the mapping is in too many parts.
    fn protect(&self, pages: Range<u32>, guard: Guard) -> io::Result<()>;

    /// The guest could not reach a page that has no guard: makes it reachable. False when there was nothing to do.
    fn heal(&self, page: u32) -> bool {
        let _ = page;
        false
    }

    /// Tells of everything in memory now, before the guest starts.
    ///
    /// # Errors
    /// What the system said.
    fn populate(&self) -> io::Result<()> {
        Ok(())
    }
}

/// `mprotect`.
#[derive(Debug)]
pub struct Mprotect(GuestMapping);

impl Mprotect {
    /// On this mapping.
    #[must_use]
    pub fn new(mapping: GuestMapping) -> Self {
        Self(mapping)
    }
}

impl Protect for Mprotect {
    fn protect(&self, pages: Range<u32>, guard: Guard) -> io::Result<()> {
        let protection = match guard {
            Guard::Open => libc::PROT_READ | libc::PROT_WRITE,
            Guard::ReadOnly => libc::PROT_READ,
            Guard::Closed => libc::PROT_NONE,
        };
        for range in self.0.ranges(pages) {
            // SAFETY: the range lies in the guest mapping, which `self.0` keeps mapped and which nothing in this process accesses, so
            // no reference can be invalidated by any protection.
            let ret = unsafe { libc::mprotect(range.address, range.len, protection) };
            if ret != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;
    use crate::memory::{GuestRam, Pages};

    /// Whether this thread's process may read the page, asked without touching it.
    fn mapped_as(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            (usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap()).contains(&address)
        });
        line.unwrap().split(' ').nth(1).unwrap().to_owned()
    }

    #[test]
    fn mprotect_changes_exactly_the_pages_asked_for() {
        let ram = GuestRam::new(GuestRam::MIN, Pages::Small).unwrap();
        let mapping = ram.guest_mapping();
        let base = mapping.ranges(0..1).next().unwrap().address as usize;
        let protect = Mprotect::new(mapping);
        protect.protect(16..18, Guard::Closed).unwrap();
        protect.protect(18..19, Guard::ReadOnly).unwrap();
        let seen: Vec<_> = (15..20).map(|page| mapped_as(base + page * 4096)).collect();
        assert_eq!(seen, ["rw-s", "---s", "---s", "r--s", "rw-s"]);
        protect.protect(16..19, Guard::Open).unwrap();
        assert_eq!(mapped_as(base + 16 * 4096), "rw-s");
    }
}
