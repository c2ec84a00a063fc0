//! Loading a kernel: an ELF with the PVH entry (preferred), another ELF vmlinux, or a bzImage by its 64-bit entry.

mod image;
mod linux64;
mod memory_map;
mod pvh;
mod reset_vector;

pub use image::constant_parts;
pub use linux64::write_long_mode;
pub use memory_map::{MapEntry, MapKind, memory_map};
#[cfg(test)]
pub use reset_vector::write_code as write_reset_vector;

use crate::layout::boot;
use crate::memory::GuestRam;
use crate::vcpu::state::Entry;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Why the guest could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Neither ELF nor bzImage.
    #[error("{path} is neither an ELF vmlinux nor a bzImage (first bytes {magic:02x?})")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        magic: [u8; 4],
    },
    /// The kernel image is malformed or does not fit.
    #[error("cannot load the kernel {path} into {memory} MiB of guest memory")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Guest memory, MiB.
        memory: u64,
        /// The loader's reason.
        source: linux_loader::loader::Error,
    },
    /// A bzImage without the 64-bit entry.
    #[error("{path} has no 64-bit entry (boot protocol {version:#x}, xloadflags {flags:#x}): it is not a 64-bit kernel of 3.8 or later")]
    No64BitEntry {
        /// The file.
        path: PathBuf,
        /// Boot protocol version.
        version: u16,
        /// xloadflags.
        flags: u16,
    },
    /// Too little memory for kernel and initramfs.
    #[error(
        "guest memory is too small: the kernel ends at {kernel_end:#x} and the initramfs of {initrd} bytes must end below {limit:#x}; \
             give the guest more memory"
    )]
    TooSmall {
        /// First address behind the kernel.
        kernel_end: u64,
        /// Bytes of initramfs.
        initrd: u64,
        /// Address the initramfs must end below.
        limit: u64,
    },
    /// The command line is too long or holds a NUL.
    #[error("the kernel command line has {len} bytes; at most {max} without NULs are possible")]
    Cmdline {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A boot structure could not be written.
    #[error("cannot write {what} at guest address {gpa:#x}")]
    Write {
        /// What it was.
        what: &'static str,
        /// Guest physical address.
        gpa: u64,
    },
}

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// ELF or bzImage.
    pub kernel: &'a Path,
    /// Initial RAM file system.
    pub initrd: Option<&'a Path>,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// Guest physical address of the RSDP.
    pub rsdp: u64,
}

/// Loads `image` into `ram` and returns where the boot CPU starts.
///
/// # Errors
/// When a file cannot be read, is no kernel, or does not fit.
pub fn load(ram: &GuestRam, image: Image<'_>) -> Result<Entry, BootError> {
    let memory = &*ram.host();
    let mut kernel = open(image.kernel)?;
    let mut magic = [0; 4];
    kernel.read_exact(&mut magic).map_err(|source| BootError::File { path: image.kernel.into(), source })?;
    write_cmdline(memory, image.cmdline)?;
    reset_vector::write_code(memory)?;
    let failed = |source| BootError::Kernel { path: image.kernel.into(), memory: ram.size() >> 20, source };
    let map = memory_map(ram.size());
    let low_end = map.iter().filter(|e| e.kind == MapKind::Ram && e.end() <= crate::layout::LOW_RAM_END).map(MapEntry::end).max();
    let low_end = low_end.unwrap_or(0);
    if magic == *b"\x7fELF" {
        let loaded = Elf::load(memory, None, &mut kernel, None).map_err(failed)?;
        let initrd = load_initrd(ram, image.initrd, loaded.kernel_end, low_end)?;
        return match loaded.pvh_boot_cap {
            PvhBootCapability::PvhEntryPresent(entry) => {
                pvh::write_info(memory, &map, image.rsdp, initrd)?;
                Ok(Entry::Pvh { rip: entry.0 })
            }
            _ => {
                linux64::write_params(memory, &map, image.rsdp, initrd, None)?;
                Ok(Entry::Linux64 { rip: loaded.kernel_load.0 })
            }
        };
    }
    let loaded = BzImage::load(memory, None, &mut kernel, None).map_err(|source| match source {
        linux_loader::loader::Error::Bzimage(linux_loader::loader::bzimage::Error::InvalidBzImage) => {
            BootError::Format { path: image.kernel.into(), magic }
        }
        source => failed(source),
    })?;
    let header = loaded.setup_header.unwrap_or_default();
    let (version, flags) = (header.version, header.xloadflags);
    if version < linux64::MIN_VERSION || flags & linux64::XLF_KERNEL_64 == 0 {
        return Err(BootError::No64BitEntry { path: image.kernel.into(), version, flags });
    }
    // The decompressor works in place and needs init_size bytes from the load address on.
    let kernel_end = loaded.kernel_end.max(loaded.kernel_load.0 + u64::from(header.init_size));
    let limit = low_end.min(u64::from(header.initrd_addr_max) + 1);
    let initrd = load_initrd(ram, image.initrd, kernel_end, limit)?;
    linux64::write_params(memory, &map, image.rsdp, initrd, Some(header))?;
    Ok(Entry::Linux64 { rip: loaded.kernel_load.0 + linux64::ENTRY_OFFSET })
}

/// A loaded initramfs: address and length.
type Initrd = Option<(u64, u64)>;

/// Puts the initramfs as high as possible below `limit`.
fn load_initrd(ram: &GuestRam, path: Option<&Path>, kernel_end: u64, limit: u64) -> Result<Initrd, BootError> {
    let Some(path) = path else { return Ok(None) };
    let mut file = open(path)?;
    let io = |source| BootError::File { path: path.into(), source };
    let size = file.seek(SeekFrom::End(0)).map_err(io)?;
    file.rewind().map_err(io)?;
    let too_small = BootError::TooSmall { kernel_end, initrd: size, limit };
    let start = limit.checked_sub(size).map(|start| start & !0xfff).filter(|start| *start >= kernel_end);
    let (Some(start), Ok(len)) = (start, usize::try_from(size)) else { return Err(too_small) };
    ram.host()
        .read_exact_volatile_from(GuestAddress(start), &mut file, len)
        .map_err(|error| io(std::io::Error::other(format!("{error} while loading it"))))?;
    Ok(Some((start, size)))
}

fn open(path: &Path) -> Result<File, BootError> {
    File::open(path).map_err(|source| BootError::File { path: path.into(), source })
}

fn write_cmdline(memory: &GuestMemoryMmap, cmdline: &str) -> Result<(), BootError> {
    if cmdline.len() >= boot::CMDLINE_MAX || cmdline.contains('\0') {
        return Err(BootError::Cmdline { len: cmdline.len(), max: boot::CMDLINE_MAX - 1 });
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    write(memory, "the command line", boot::CMDLINE, &bytes)
}

fn write(memory: &GuestMemoryMmap, what: &'static str, gpa: u64, bytes: &[u8]) -> Result<(), BootError> {
    memory.write_slice(bytes, GuestAddress(gpa)).map_err(|_| BootError::Write { what, gpa })
}

#[cfg(test)]
mod tests;
