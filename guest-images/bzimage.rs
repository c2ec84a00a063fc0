//! The kernel inside a bzImage: header fields and the payload, unpacked once on the host.
//!
//! Booting the unpacked ELF spares the guest its own decompression, which costs seconds in software emulation.

use thiserror::Error;

use crate::compress::{DecompressError, decompress};

// Documentation/arch/x86/boot.rst, "The real-mode kernel header".
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// First protocol version with the payload fields.
const PROTOCOL_PAYLOAD: u16 = 0x0208;

/// Why a kernel image could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BzImageError {
    /// Neither a bzImage nor an ELF file.
    #[error("neither an x86 bzImage nor an ELF kernel ({bytes} bytes long)")]
    NotAKernel {
        /// Length of the file.
        bytes: usize,
    },
    /// A boot protocol too old to say where the payload is.
    #[error("boot protocol {version:#06x} is older than 0x0208 and does not say where the kernel is")]
    OldProtocol {
        /// Version field of the header.
        version: u16,
    },
    /// The header points outside the file.
    #[error("the payload at {offset:#x}, {length} bytes, is outside the image of {bytes} bytes: truncated?")]
    OutOfBounds {
        /// File offset of the payload.
        offset: usize,
        /// Its length.
        length: usize,
        /// Length of the file.
        bytes: usize,
    },
    /// The payload cannot be decompressed.
    #[error("the kernel inside the image cannot be unpacked: {0}")]
    Payload(#[from] DecompressError),
    /// The payload is not an ELF file.
    #[error("the kernel inside the image is not an ELF file")]
    NotElf,
}

fn u16_at(image: &[u8], offset: usize) -> Option<u16> {
    image.get(offset..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(image: &[u8], offset: usize) -> Option<usize> {
    image.get(offset..)?.first_chunk().and_then(|b| usize::try_from(u32::from_le_bytes(*b)).ok())
}

/// The ELF kernel of a bzImage, or the image itself if it is an ELF file already.
///
/// # Errors
/// Not a kernel, truncated, or packed with an unknown method.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>, BzImageError> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let bytes = image.len();
    let not_a_kernel = BzImageError::NotAKernel { bytes };
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(not_a_kernel);
    }
    let (Some(version), Some(sectors), Some(start), Some(length)) =
        (u16_at(image, VERSION), image.get(SETUP_SECTS), u32_at(image, PAYLOAD_OFFSET), u32_at(image, PAYLOAD_LENGTH))
    else {
        return Err(not_a_kernel);
    };
    if version < PROTOCOL_PAYLOAD {
        return Err(BzImageError::OldProtocol { version });
    }
    // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4"; the boot sector comes before them.
    let sectors = if *sectors == 0 { 4 } else { usize::from(*sectors) };
    let offset = (sectors + 1) * 512 + start;
    let payload =
        offset.checked_add(length).and_then(|end| image.get(offset..end)).ok_or(BzImageError::OutOfBounds { offset, length, bytes })?;
    let kernel = decompress(payload)?;
    if !kernel.starts_with(b"\x7fELF") {
        return Err(BzImageError::NotElf);
    }
    Ok(kernel)
}

/// The release string (`6.1.0-56-cloud-amd64`) of a bzImage, from its header, or of an ELF kernel, from its banner.
#[must_use]
pub fn release(image: &[u8]) -> Option<String> {
    let text = if image.starts_with(b"\x7fELF") {
        const BANNER: &[u8] = b"Linux version ";
        // The format string of /proc/version comes with a `%`; the banner itself with a digit.
        let at = image.windows(BANNER.len() + 1).position(|w| w.starts_with(BANNER) && w.last().is_some_and(u8::is_ascii_digit))?;
        image.get(at + BANNER.len()..)?
    } else {
        if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
            return None;
        }
        image.get(usize::from(u16_at(image, KERNEL_VERSION)?) + 0x200..)?
    };
    let end = text.iter().take(256).position(|b| *b == 0 || b.is_ascii_whitespace())?;
    std::str::from_utf8(text.get(..end)?).ok().filter(|s| !s.is_empty()).map(str::to_owned)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A minimal bzImage around a payload.
    pub(crate) fn image(payload: &[u8], version: u16) -> Vec<u8> {
        let mut image = vec![0_u8; 5 * 512];
        image[SETUP_SECTS] = 0;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&version.to_le_bytes());
        image[KERNEL_VERSION..KERNEL_VERSION + 2].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x30e].copy_from_slice(b"9.9.9-test (x)");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn payload_and_release_are_found() {
        let image = image(&gzip(b"\x7fELF kernel"), 0x20f);
        assert_eq!(vmlinux(&image).unwrap(), b"\x7fELF kernel");
        assert_eq!(release(&image).as_deref(), Some("9.9.9-test"));
    }

    #[test]
    fn an_elf_kernel_passes_through() {
        let elf = b"\x7fELF..Linux version %s (\0Linux version 6.1.0-x (builder)\0";
        assert_eq!(vmlinux(elf).unwrap(), elf);
        assert_eq!(release(elf).as_deref(), Some("6.1.0-x"));
    }

    #[test]
    fn bad_images_are_told_apart() {
        assert!(matches!(vmlinux(b"MZ"), Err(BzImageError::NotAKernel { bytes: 2 })));
        assert!(matches!(vmlinux(&image(b"", 0x207)), Err(BzImageError::OldProtocol { version: 0x207 })));
        assert!(matches!(vmlinux(&image(&gzip(b"text"), 0x208)), Err(BzImageError::NotElf)));
        let whole = image(&gzip(b"\x7fELF"), 0x208);
        assert!(matches!(vmlinux(&whole[..whole.len() - 1]), Err(BzImageError::OutOfBounds { .. })));
        assert!(matches!(vmlinux(&image(b"BZh9xxxx", 0x208)), Err(BzImageError::Payload(_))));
        assert_eq!(release(b"MZ"), None);
    }
}
