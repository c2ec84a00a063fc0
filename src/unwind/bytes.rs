//! Little-endian numbers out of byte slices and files, without trusting either.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

/// The 16-bit number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 32-bit number at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The signed 32-bit number at `at`.
pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 64-bit number at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// `at` rounded up to a multiple of `to`, a power of two.
pub(crate) const fn align(at: usize, to: usize) -> usize {
    at.saturating_add(to - 1) & !(to - 1)
}

/// Bytes of a file that are read at once.
const BLOCK: u64 = 4096;
/// Blocks kept. The stacks of a run come by the same code again and again.
const MAX_BLOCKS: usize = 64;
/// Longer reads go past the blocks.
const MAX_CACHED: usize = 32 << 10;

/// The bytes of an image. Tables of several megabytes stay in the file and are read where they are needed.
#[derive(Debug)]
pub(crate) enum Store {
    /// In a file.
    File(FileStore),
    /// In memory.
    Memory(Vec<u8>),
}

/// A file, with the blocks of it that were read last.
#[derive(Debug)]
pub(crate) struct FileStore {
    file: File,
    len: u64,
    blocks: Mutex<HashMap<u64, Vec<u8>>>,
}

impl FileStore {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Option<()> {
        if bytes.len() > MAX_CACHED {
            return self.file.read_exact_at(bytes, offset).ok();
        }
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let number = at / BLOCK;
            if blocks.len() >= MAX_BLOCKS && !blocks.contains_key(&number) {
                blocks.clear();
            }
            let block = match blocks.entry(number) {
                Entry::Occupied(block) => block.into_mut(),
                Entry::Vacant(free) => {
                    let mut block = vec![0; usize::try_from(BLOCK.min(self.len.checked_sub(number * BLOCK)?)).ok()?];
                    self.file.read_exact_at(&mut block, number * BLOCK).ok()?;
                    free.insert(block)
                }
            };
            let found = block.get(usize::try_from(at % BLOCK).ok()?..).filter(|found| !found.is_empty())?;
            let (now, later) = rest.split_at_mut(found.len().min(rest.len()));
            now.copy_from_slice(found.get(..now.len())?);
            at += now.len() as u64;
            rest = later;
        }
        Some(())
    }
}

impl Store {
    /// The bytes of `file`.
    ///
    /// # Errors
    /// When its length cannot be had.
    pub(crate) fn file(file: File) -> std::io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self::File(FileStore { file, len, blocks: Mutex::default() }))
    }

    /// `len` bytes from `offset` on, or `None` when they are not all there.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        match self {
            Self::File(file) => {
                // A length from a damaged header must not become an allocation.
                if offset.checked_add(u64::try_from(len).ok()?)? > file.len {
                    return None;
                }
                let mut bytes = vec![0; len];
                file.read(offset, &mut bytes)?;
                Some(bytes)
            }
            Self::Memory(bytes) => {
                let at = usize::try_from(offset).ok()?;
                Some(bytes.get(at..at.checked_add(len)?)?.to_vec())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_like_memory_whatever_the_blocks() {
        let path = std::env::temp_dir().join(format!("dmavet-unwind-store-{}", std::process::id()));
        let bytes: Vec<u8> = (0..600_001u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Store::file(File::open(&path).unwrap()).unwrap();
        let memory = Store::Memory(bytes);
        for len in [0, 1, 4096, 5000, MAX_CACHED, MAX_CACHED + 1] {
            for offset in (0..700_000).step_by(4093).chain([4095, 4096, 599_999, 600_000, 600_001, 600_002, u64::MAX]) {
                assert_eq!(file.read(offset, len), memory.read(offset, len), "{len} bytes at {offset}");
            }
        }
        assert_eq!(file.read(0, usize::MAX), None);
        std::fs::remove_file(&path).unwrap();
    }
}
