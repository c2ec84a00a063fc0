//! The head of a trace: what kind of file, which version, and how the core was set up.
//!
//! ```text
//!   0  8 bytes  "DMAVETTR"
//!   8  u16      version
//!  10  u16      0
//!  12  u32      bytes of JSON that follow the 20 of this head
//!  16  u32      CRC-32 of the 16 bytes before and of the JSON
//! ```

use crate::block::fill;
use crate::error::Error;
use dmavet_coherence::{Config, RamRegion};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::ops::Range;

const MAGIC: &[u8; 8] = b"DMAVETTR";
const HEAD: usize = 20;
const MAX_JSON: usize = 1 << 20;

/// How the recorded core was set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The program that recorded.
    pub writer: String,
    /// The core's configuration.
    pub config: Config,
    /// Guest RAM, in order of address.
    pub ram: Vec<RamRegion>,
}

/// How much a trace may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Guest RAM in bytes, all regions together. A replay takes memory for the pages that were mapped, not for all of it.
    pub ram: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ram: 64 << 30 }
    }
}

impl Header {
    pub(crate) fn write(&self, out: &mut dyn Write) -> Result<usize, Error> {
        let json = serde_json::to_vec(self).map_err(|e| Error::Stopped(e.to_string()))?;
        let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_JSON);
        let length = length.ok_or(Error::TooLarge { what: "the header", limit: MAX_JSON as u64 })?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crate::VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&length.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes);
        crc.update(&json);
        bytes.extend_from_slice(&crc.finalize().to_le_bytes());
        bytes.extend_from_slice(&json);
        out.write_all(&bytes)?;
        out.flush()?;
        Ok(bytes.len())
    }

    /// Reads the head of a trace; also says how many bytes it takes.
    pub(crate) fn read(input: &mut impl Read, limits: &Limits) -> Result<(Self, u64), Error> {
        let damaged = |what| Error::Damaged { offset: 0, what };
        let mut head = [0; HEAD];
        let got = fill(input, &mut head)?;
        let magic = head.get(..got.min(MAGIC.len())).unwrap_or_default();
        if got == 0 || !MAGIC.starts_with(magic) {
            return Err(Error::NotATrace);
        }
        let [_, _, _, _, _, _, _, _, v0, v1, _, _, l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let version = u16::from_le_bytes([v0, v1]);
        if got >= 10 && version != crate::VERSION {
            return Err(Error::Version { found: version, known: crate::VERSION });
        }
        if got < HEAD {
            return Err(Error::NoHeader(got as u64));
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_JSON {
            return Err(damaged("the header is longer than headers are"));
        }
        let mut json = vec![0; length];
        let here = fill(input, &mut json)?;
        if here < length {
            return Err(Error::NoHeader((HEAD + here) as u64));
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(head.get(..16).unwrap_or_default());
        crc.update(&json);
        if crc.finalize() != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("the header does not match its checksum"));
        }
        let header: Self = serde_json::from_slice(&json).map_err(|_| damaged("the header is not one this dmavet knows"))?;
        header.check(limits)?;
        Ok((header, (HEAD + length) as u64))
    }

    /// Refuses what would take memory out of proportion before anything was replayed.
    fn check(&self, limits: &Limits) -> Result<(), Error> {
        let too_large = |what, limit| Err(Error::TooLarge { what, limit });
        let mut end = 0u64;
        let mut total = 0u64;
        for region in &self.ram {
            total = total.saturating_add(region.len);
            if region.base < end || region.len == 0 || region.base.checked_add(region.len).is_none_or(|end| end > 1 << 48) {
                return Err(Error::Damaged { offset: 0, what: "the guest RAM of the header makes no sense" });
            }
            end = region.base + region.len;
        }
        if total > limits.ram || self.ram.len() > 64 {
            return too_large("the guest RAM", limits.ram);
        }
        let config = &self.config;
        let window = |range: &Range<u64>| range.end.saturating_sub(range.start);
        if window(&config.high_window) > 1 << 40
            || window(&config.low_window) > 1 << 32
            || config.reserved.len() + config.kernel_image.len() > 1024
        {
            return too_large("a window of handles", 1 << 40);
        }
        if config.max_mappings > 1 << 26 || config.max_page_refs > 1 << 28 || config.max_findings > 1 << 20 {
            return too_large("a limit of the configuration", 1 << 28);
        }
        Ok(())
    }
}
