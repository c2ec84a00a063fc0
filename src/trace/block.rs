//! Blocks: what is written at once, compressed and with checksums.
//!
//! ```text
//!   0  u32  number of the block, from 0
//!   4  u32  bytes of its contents
//!   8  u32  bytes that follow the 20 of this head: the contents as an LZ4 block
//!  12  u32  CRC-32 of the bytes that follow
//!  16  u32  CRC-32 of the 16 bytes before
//! ```

use crate::error::Error;
use std::io::{self, Read, Write};

/// Contents at which a block is written.
pub(crate) const FULL: usize = 64 << 10;
/// The largest record.
pub(crate) const MAX_RECORD: usize = 4 << 20;
/// The largest contents of a block: it was not full before its last record.
const MAX_CONTENTS: usize = FULL + MAX_RECORD;
const HEAD: usize = 20;

/// Writes `contents` as block `number`. Says how many bytes that took.
pub(crate) fn write(out: &mut dyn Write, number: u32, contents: &[u8]) -> Result<usize, Error> {
    let too_large = || Error::TooLarge { what: "a block", limit: MAX_CONTENTS as u64 };
    let length = u32::try_from(contents.len()).ok().filter(|_| contents.len() <= MAX_CONTENTS).ok_or_else(too_large)?;
    let packed = lz4_flex::block::compress(contents);
    let mut block = Vec::with_capacity(HEAD + packed.len());
    for word in [number, length, u32::try_from(packed.len()).map_err(|_| too_large())?, crc32fast::hash(&packed)] {
        block.extend_from_slice(&word.to_le_bytes());
    }
    block.extend_from_slice(&crc32fast::hash(&block).to_le_bytes());
    block.extend_from_slice(&packed);
    // In one piece: what a killed run leaves is whole blocks and at most one that is cut.
    out.write_all(&block)?;
    out.flush()?;
    Ok(block.len())
}

/// What comes next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A block, which took so many bytes.
    Block(u64),
    /// The end, right behind a block.
    End,
    /// The end, within a block.
    Cut,
}

/// Reads exactly `buffer.len()` bytes, or says how many there were.
pub(crate) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Reads block `number`, which begins at `offset`, into `contents`.
pub(crate) fn read(input: &mut impl Read, number: u32, offset: u64, contents: &mut Vec<u8>) -> Result<Next, Error> {
    let damaged = |what| Error::Damaged { offset, what };
    let mut head = [0; HEAD];
    match fill(input, &mut head)? {
        0 => return Ok(Next::End),
        HEAD => {}
        _ => return Ok(Next::Cut),
    }
    if crc32fast::hash(head.get(..16).unwrap_or_default()) != word(&head, 16) {
        return Err(damaged("the head of a block does not match its checksum"));
    }
    if word(&head, 0) != number {
        return Err(damaged("a block is missing or out of order"));
    }
    let (length, packed) = (word(&head, 4) as usize, word(&head, 8) as usize);
    // LZ4 makes what it cannot compress at most 1/255 longer.
    if length > MAX_CONTENTS || packed > length + length / 255 + 64 {
        return Err(damaged("a block is larger than blocks are"));
    }
    let mut bytes = vec![0; packed];
    if fill(input, &mut bytes)? != packed {
        return Ok(Next::Cut);
    }
    if crc32fast::hash(&bytes) != word(&head, 12) {
        return Err(damaged("a block does not match its checksum"));
    }
    contents.resize(length, 0);
    match lz4_flex::block::decompress_into(&bytes, contents) {
        Ok(n) if n == length => Ok(Next::Block((HEAD + packed) as u64)),
        _ => Err(damaged("a block cannot be decompressed")),
    }
}
