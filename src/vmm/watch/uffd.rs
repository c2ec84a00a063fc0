//! The second way to keep the guest from pages: `userfaultfd(2)` on the guest mapping, in MINOR and WP mode, with SIGBUS instead of
//! messages.
//!
//! Nothing is ever told about a fault: with `UFFD_FEATURE_SIGBUS` an access to a page of the file that the mapping has no entry for
//! fails, and `KVM_RUN` ends with `EFAULT`. So the mapping's page table says what is open:
//!
//! | guard | page table entry |
//! |---|---|
//! | open | there, writable (`UFFDIO_CONTINUE`) |
//! | read-only | there, write-protected (`UFFDIO_WRITEPROTECT`) |
//! | closed | gone (`MADV_DONTNEED` on a shared mapping drops entries, not content) |
//!
//! The mapping is not split, so the number of pages has no limit. The price: a page that comes into the file through the *host*
//! mapping has no entry either; [`Protect::heal`] gives it one when the guest meets it, and [`Protect::populate`] does so for all of
//! them before the guest starts.
//!
//! A page that goes from closed to read-only stays closed: before Linux 6.4 an entry cannot be made write-protected from the start,
//! and there would be a moment in which the guest writes unseen. Reads of it are emulated meanwhile, which is slower, never wrong.

#![expect(unsafe_code, reason = "userfaultfd and its ioctls")]

use super::protect::Protect;
use crate::memory::{GuestMapping, MappedRange};
use dmavet_coherence::Guard;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

// include/uapi/linux/userfaultfd.h
const UFFD_API: u64 = 0xaa;
const UFFDIO: u32 = 0xaa;
const USER_MODE_ONLY: i32 = 1;
const FEATURE_SIGBUS: u64 = 1 << 7;
const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
const FEATURE_WP_SHMEM: u64 = 1 << 12;
const REGISTER_WP: u64 = 1 << 1;
const REGISTER_MINOR: u64 = 1 << 2;
const DONT_WAKE: u64 = 1;
const WRITEPROTECT: u64 = 1;

#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct Continue {
    start: u64,
    len: u64,
    mode: u64,
    mapped: i64,
}

#[repr(C)]
#[derive(Default)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

ioctl_iowr_nr!(UFFDIO_API, UFFDIO, 0x3f, Api);
ioctl_iowr_nr!(UFFDIO_REGISTER, UFFDIO, 0x00, Register);
ioctl_iowr_nr!(UFFDIO_WRITEPROTECT, UFFDIO, 0x06, WriteProtect);
ioctl_iowr_nr!(UFFDIO_CONTINUE, UFFDIO, 0x07, Continue);

/// Why `userfaultfd` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UffdError {
    /// No descriptor.
    #[error("userfaultfd is not available here ({0}); use --watch-backend mprotect")]
    Open(io::Error),
    /// The kernel's is too old.
    #[error("this kernel's userfaultfd lacks {0}, Linux 5.19 has it; use --watch-backend mprotect")]
    Missing(&'static str),
    /// The mapping could not be registered.
    #[error("userfaultfd cannot watch guest memory ({0}); use --watch-backend mprotect")]
    Register(io::Error),
    /// What is in memory could not be mapped.
    #[error("userfaultfd cannot map guest memory: {0}")]
    Populate(io::Error),
}

/// `userfaultfd`.
#[derive(Debug)]
pub struct Userfaultfd {
    fd: File,
    mapping: GuestMapping,
}

impl Userfaultfd {
    /// On this mapping, all of it open.
    ///
    /// # Errors
    /// When the kernel lacks something, with its name.
    pub fn new(mapping: GuestMapping) -> Result<Self, UffdError> {
        let fd = open(FEATURE_SIGBUS | FEATURE_MINOR_SHMEM | FEATURE_WP_SHMEM).map_err(|_| missing())?;
        let all = 0..mapping.frames().count();
        for range in mapping.ranges(all) {
            let mut register =
                Register { start: range.address as u64, len: range.len as u64, mode: REGISTER_MINOR | REGISTER_WP, ioctls: 0 };
            // SAFETY: the structure is the ioctl's; the range is a mapping of this process that `mapping` keeps.
            if unsafe { ioctl_with_mut_ref(&fd, UFFDIO_REGISTER(), &mut register) } != 0 {
                return Err(UffdError::Register(io::Error::last_os_error()));
            }
        }
        Ok(Self { fd, mapping })
    }

    /// Gives the pages of `range` that are in the file entries, writable where they had none. Whether any had none.
    fn map(&self, range: MappedRange) -> io::Result<bool> {
        let (start, len) = (range.address as u64, range.len as u64);
        let (mut done, mut any) = (0, false);
        while done < len {
            let mut request = Continue { start: start + done, len: len - done, mode: DONT_WAKE, mapped: 0 };
            // SAFETY: the structure is the ioctl's; the range lies in the registered mapping.
            if unsafe { ioctl_with_mut_ref(&self.fd, UFFDIO_CONTINUE(), &mut request) } == 0 {
                return Ok(true);
            }
            let error = io::Error::last_os_error();
            match u64::try_from(request.mapped) {
                Ok(mapped) if mapped > 0 => (done, any) = (done + mapped, true),
                // The first page has an entry already, or is not in the file: then the guest brings it in itself.
                _ if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::EFAULT | libc::ENOENT)) => done += 4096,
                _ if error.raw_os_error() == Some(libc::EAGAIN) => {}
                _ => return Err(error),
            }
        }
        Ok(any)
    }

    fn write_protect(&self, range: MappedRange, on: bool) -> io::Result<()> {
        let mode = if on { WRITEPROTECT } else { 0 };
        loop {
            let mut request = WriteProtect { start: range.address as u64, len: range.len as u64, mode };
            // SAFETY: as above.
            if unsafe { ioctl_with_mut_ref(&self.fd, UFFDIO_WRITEPROTECT(), &mut request) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EAGAIN) {
                return Err(error);
            }
        }
    }

    fn drop_entries(range: MappedRange) -> io::Result<()> {
        // SAFETY: on a shared mapping this drops page table entries only; nothing in this process accesses the guest mapping.
        match unsafe { libc::madvise(range.address, range.len, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Protect for Userfaultfd {
    fn protect(&self, pages: Range<u32>, guard: Guard) -> io::Result<()> {
        for range in self.mapping.ranges(pages) {
            match guard {
                Guard::Open => {
                    self.write_protect(range, false)?;
                    self.map(range)?;
                }
                Guard::ReadOnly => self.write_protect(range, true)?,
                Guard::Closed => {
                    fill(&self.mapping, range)?;
                    Self::drop_entries(range)?;
                }
            }
        }
        Ok(())
    }

    fn heal(&self, page: u32) -> bool {
        self.mapping.ranges(page..page.saturating_add(1)).any(|range| self.map(range).unwrap_or(false))
    }

    fn populate(&self) -> io::Result<()> {
        for range in self.mapping.ranges(0..self.mapping.frames().count()) {
            for (start, len) in data_extents(&self.mapping, range)? {
                let skip = usize::try_from(start - range.offset).unwrap_or(0);
                let address = range.address.cast::<u8>().wrapping_add(skip).cast();
                self.map(MappedRange { address, len, offset: start })?;
            }
        }
        Ok(())
    }
}

/// Makes sure that the pages are in the file: a page that is not would come in at the guest's first access without a fault. A fresh
/// page of the file is zero, whoever brings it in.
fn fill(mapping: &GuestMapping, range: MappedRange) -> io::Result<()> {
    let Some(file) = mapping.file() else { return Ok(()) };
    let (offset, len) = (range.offset.cast_signed(), i64::try_from(range.len).unwrap_or(i64::MAX));
    // SAFETY: plain system call on a descriptor that lives; mode 0 allocates what is missing and leaves what is there.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The parts of `range` that are in the file: offset in the file and bytes.
fn data_extents(mapping: &GuestMapping, range: MappedRange) -> io::Result<Vec<(u64, usize)>> {
    let Some(file) = mapping.file() else { return Ok(Vec::new()) };
    let end = range.offset + range.len as u64;
    let seek = |from: u64, whence| {
        // SAFETY: plain system call; nothing else uses the file's position.
        let at = unsafe { libc::lseek(file.as_raw_fd(), from.cast_signed(), whence) };
        u64::try_from(at).map_err(|_| io::Error::last_os_error())
    };
    let mut extents = Vec::new();
    let mut at = range.offset;
    while at < end {
        let start = match seek(at, libc::SEEK_DATA) {
            Ok(start) if start < end => start,
            Ok(_) => break,
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => break,
            Err(error) => return Err(error),
        };
        let stop = seek(start, libc::SEEK_HOLE)?.min(end);
        extents.push((start, usize::try_from(stop - start).unwrap_or(0)));
        at = stop;
    }
    Ok(extents)
}

/// A descriptor with these features agreed on.
/// Whether this system has all of it.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), UffdError> {
    open(FEATURE_SIGBUS | FEATURE_MINOR_SHMEM | FEATURE_WP_SHMEM).map(drop).map_err(|_| missing())
}

fn open(features: u64) -> Result<File, UffdError> {
    // SAFETY: the call takes flags only; the result is checked. Faults are never handled, so those in user mode suffice, and with that no
    // privilege is needed.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(|| UffdError::Open(io::Error::last_os_error()))?;
    // SAFETY: just made, and nobody else's.
    let fd = unsafe { File::from_raw_fd(fd) };
    let mut api = Api { api: UFFD_API, features, ioctls: 0 };
    // SAFETY: the structure is the ioctl's.
    match unsafe { ioctl_with_mut_ref(&fd, UFFDIO_API(), &mut api) } {
        0 => Ok(fd),
        _ => Err(UffdError::Open(io::Error::last_os_error())),
    }
}

/// What is missing, found by trying one feature at a time: a refusal does not say.
fn missing() -> UffdError {
    if let Err(error) = open(0) {
        return error;
    }
    let all = [
        (FEATURE_SIGBUS, "UFFD_FEATURE_SIGBUS"),
        (FEATURE_MINOR_SHMEM, "UFFD_FEATURE_MINOR_SHMEM"),
        (FEATURE_WP_SHMEM, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM"),
    ];
    let lacking = all.into_iter().find(|(feature, _)| open(*feature).is_err());
    UffdError::Missing(lacking.map_or("a combination of features", |(_, name)| name))
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::memory::{GuestRam, Pages};

    #[test]
    fn a_kernel_without_it_is_told_what_to_use() {
        for error in [UffdError::Open(io::Error::from_raw_os_error(libc::ENOSYS)), UffdError::Missing("UFFD_FEATURE_MINOR_SHMEM")] {
            let text = error.to_string();
            assert!(text.contains("--watch-backend mprotect"), "{text}");
        }
    }

    /// Where a kernel has it, every guard can be put on a page and taken off again.
    #[test]
    fn guards_come_and_go() {
        let ram = GuestRam::new(GuestRam::MIN, Pages::Small).unwrap();
        match Userfaultfd::new(ram.guest_mapping()) {
            Ok(protect) => {
                protect.populate().unwrap();
                for guard in [Guard::Closed, Guard::Open, Guard::ReadOnly, Guard::Closed, Guard::Open] {
                    protect.protect(7..9, guard).unwrap();
                }
            }
            Err(error) => assert!(error.to_string().contains("--watch-backend mprotect"), "{error}"),
        }
    }
}
