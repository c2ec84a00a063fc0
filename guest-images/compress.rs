//! Decompression of kernel payloads and modules: gzip, xz, zstd and the legacy LZ4 frames kernels use.
//!
//! Inputs are files a user names, so every output is bounded.

use std::io::{self, Read};

use thiserror::Error;

/// Largest output accepted: a debug kernel with everything built in is well below 1 GiB.
const LIMIT: usize = 1 << 30;

/// Uncompressed size of every LZ4 legacy block but the last (lz4 frame format, "Legacy frame").
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

/// Why data could not be decompressed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// None of the known magic numbers.
    #[error("compressed with an unknown method (first bytes {0:02x?}); known are gzip, xz, zstd, lz4")]
    Unknown([u8; 4]),
    /// The stream is cut off or damaged.
    #[error("damaged {format} data: {detail}")]
    Damaged {
        /// Format by its magic number.
        format: &'static str,
        /// The decoder's words.
        detail: String,
    },
    /// The output would exceed the limit.
    #[error("{format} data unpacks to more than {LIMIT} bytes")]
    TooLarge {
        /// Format by its magic number.
        format: &'static str,
    },
}

/// Decompresses by magic number. Bytes after the stream (the kernel appends the unpacked length to some formats) are ignored.
///
/// # Errors
/// Unknown method, damage, or an output above 1 GiB.
pub fn decompress(data: &[u8]) -> Result<Vec<u8>, DecompressError> {
    match data {
        [0x1f, 0x8b, ..] => read("gzip", flate2::read::GzDecoder::new(data)),
        [0xfd, b'7', b'z', b'X', ..] => read("xz", lzma_rust2::XzReader::new(data, false)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            // The kernel is packed with `zstd -22 --ultra`: a window of 128 MiB.
            let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(data, 128 << 20)
                .map_err(|e| DecompressError::Damaged { format: "zstd", detail: e.to_string() })?;
            read("zstd", decoder)
        }
        [0x02, 0x21, 0x4c, 0x18, rest @ ..] => lz4_legacy(rest),
        [a, b, c, d, ..] => Err(DecompressError::Unknown([*a, *b, *c, *d])),
        _ => Err(DecompressError::Damaged { format: "compressed", detail: format!("only {} bytes", data.len()) }),
    }
}

fn read(format: &'static str, decoder: impl Read) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let damaged = |e: io::Error| DecompressError::Damaged { format, detail: e.to_string() };
    decoder.take(LIMIT as u64 + 1).read_to_end(&mut out).map_err(damaged)?;
    if out.len() > LIMIT {
        return Err(DecompressError::TooLarge { format });
    }
    Ok(out)
}

/// Blocks of little-endian length and data until the input, or all but the appended total length, is used up.
fn lz4_legacy(mut rest: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let format = "lz4";
    let damaged = |detail: String| DecompressError::Damaged { format, detail };
    let mut out = Vec::new();
    let mut block = vec![0_u8; LZ4_LEGACY_BLOCK];
    // The last four bytes alone are the appended length, not a block.
    while let Some((length, tail)) = rest.split_first_chunk::<4>()
        && !tail.is_empty()
    {
        let length = u32::from_le_bytes(*length) as usize;
        let data = tail.get(..length).ok_or_else(|| damaged(format!("a block of {length} bytes with {} left", tail.len())))?;
        let n = lz4_flex::block::decompress_into(data, &mut block).map_err(|e| damaged(e.to_string()))?;
        if out.len() + n > LIMIT {
            return Err(DecompressError::TooLarge { format });
        }
        out.extend_from_slice(block.get(..n).unwrap_or_default());
        rest = tail.get(length..).unwrap_or_default();
    }
    if out.is_empty() {
        return Err(damaged("no block".into()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text() -> Vec<u8> {
        (0..40_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect()
    }

    fn legacy(blocks: &[&[u8]]) -> Vec<u8> {
        let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
        for block in blocks {
            let data = lz4_flex::block::compress(block);
            packed.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            packed.extend(data);
        }
        packed
    }

    #[test]
    fn lz4_legacy_with_and_without_appended_length() {
        let (a, b) = (text(), b"tail".to_vec());
        let mut packed = legacy(&[&a, &b]);
        let whole = [a, b].concat();
        assert_eq!(decompress(&packed).unwrap(), whole);
        packed.extend(u32::try_from(whole.len()).unwrap().to_le_bytes());
        assert_eq!(decompress(&packed).unwrap(), whole);
    }

    #[test]
    fn gzip_with_bytes_behind_it() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&text()).unwrap();
        let mut packed = encoder.finish().unwrap();
        packed.extend([1, 2, 3, 4]);
        assert_eq!(decompress(&packed).unwrap(), text());
    }

    #[test]
    fn zstd_and_xz_with_bytes_behind_them() {
        let mut zstd = ruzstd::encoding::compress_to_vec(&text()[..], ruzstd::encoding::CompressionLevel::Fastest);
        zstd.extend([1, 2, 3, 4]);
        assert_eq!(decompress(&zstd).unwrap(), text());
        // `printf dmavet | xz --check=crc32`, as kernel modules are packed.
        const XZ: [u8; 60] = [
            0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21, 0x01, 0x16, 0x00, 0x00, 0x00, 0x74,
            0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x05, 0x64, 0x6d, 0x61, 0x76, 0x65, 0x74, 0x00, 0x00, 0x00, 0x50, 0xf1, 0x01, 0xdf, 0x00, 0x01,
            0x1a, 0x06, 0xc5, 0xea, 0xc8, 0x79, 0x90, 0x42, 0x99, 0x0d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
        ];
        assert_eq!(decompress(&XZ).unwrap(), b"dmavet");
    }

    #[test]
    fn damage_is_an_error() {
        let good = legacy(&[&text()]);
        for n in [4, 7, 9, good.len() - 5] {
            assert!(decompress(&good[..n]).is_err(), "{n} bytes");
        }
        assert!(matches!(decompress(b"BZh9...."), Err(DecompressError::Unknown(_))));
        assert!(decompress(b"").is_err());
    }
}
