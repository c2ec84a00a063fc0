//! The disk behind a block device: a file's contents or zeros, and over them what the guest wrote. What is written stays in memory
//! and is gone after the run; a file is never changed.

mod spec;

pub use spec::DiskSpec;
pub(crate) use spec::number;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Granularity of what is kept.
const BLOCK: usize = 4096;

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file cannot be opened or its size be found out.
    #[error("the disk file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is too small to hold a sector.
    #[error("the disk file {path} has {size} bytes, a disk has at least 512")]
    Empty {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}

/// A block the guest changed.
#[derive(Debug)]
enum Block {
    Zeros,
    Data(Box<[u8; BLOCK]>),
}

/// A disk. Blocks that were never written take no memory.
#[derive(Debug)]
pub struct Disk {
    base: Option<File>,
    blocks: HashMap<u64, Block>,
    size: u64,
}

impl Disk {
    /// A disk of `size` bytes, all zero.
    #[must_use]
    pub fn empty(size: u64) -> Self {
        Self { base: None, blocks: HashMap::new(), size }
    }

    /// A disk with the contents of a file, which is never written. `size` in bytes if it is not that of the file: longer with zeros,
    /// shorter by leaving the rest out.
    ///
    /// # Errors
    /// The file cannot be read or holds less than a sector.
    pub fn open(path: &Path, size: Option<u64>) -> Result<Self, DiskError> {
        let wrap = |source| DiskError::File { path: path.into(), source };
        let file = File::open(path).map_err(wrap)?;
        let meta = file.metadata().map_err(wrap)?;
        if !meta.is_file() {
            return Err(wrap(io::Error::other("not a regular file")));
        }
        // Whole sectors.
        let size = size.unwrap_or(meta.len()) & !511;
        if size == 0 {
            return Err(DiskError::Empty { path: path.into(), size: meta.len() });
        }
        Ok(Self { base: Some(file), blocks: HashMap::new(), size })
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether `len` bytes at `offset` lie on it.
    #[must_use]
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.size)
    }

    /// Reads `data.len()` bytes at `offset`; what lies behind the end is zero.
    ///
    /// # Errors
    /// The file behind it cannot be read.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut left = data;
        for (number, range) in blocks(offset, left.len()) {
            let Some((piece, rest)) = left.split_at_mut_checked(range.len()) else { break };
            match self.blocks.get(&number) {
                Some(Block::Zeros) => piece.fill(0),
                Some(Block::Data(bytes)) => piece.copy_from_slice(bytes.get(range).unwrap_or_default()),
                None => self.read_base(number * BLOCK as u64 + range.start as u64, piece)?,
            }
            left = rest;
        }
        Ok(())
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// The file behind it cannot be read.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut left = data;
        for (number, range) in blocks(offset, left.len()) {
            let Some((piece, rest)) = left.split_at_checked(range.len()) else { break };
            left = rest;
            if !matches!(self.blocks.get(&number), Some(Block::Data(_))) {
                let mut bytes = Box::new([0; BLOCK]);
                self.read(number * BLOCK as u64, bytes.as_mut_slice())?;
                self.blocks.insert(number, Block::Data(bytes));
            }
            if let Some(Block::Data(bytes)) = self.blocks.get_mut(&number)
                && let Some(to) = bytes.get_mut(range)
            {
                to.copy_from_slice(piece);
            }
        }
        Ok(())
    }

    /// Makes `len` bytes at `offset` zero.
    ///
    /// # Errors
    /// The file behind it cannot be read.
    pub fn zero(&mut self, offset: u64, len: usize) -> io::Result<()> {
        for (number, range) in blocks(offset, len) {
            if range.len() < BLOCK {
                self.write(number * BLOCK as u64 + range.start as u64, &vec![0; range.len()])?;
            } else if self.base.is_some() {
                self.blocks.insert(number, Block::Zeros);
            } else {
                self.blocks.remove(&number);
            }
        }
        Ok(())
    }

    fn read_base(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0);
        let Some(file) = &self.base else { return Ok(()) };
        let (mut at, mut left) = (offset, data);
        while !left.is_empty() {
            match file.read_at(left, at) {
                Ok(0) => break,
                Ok(count) => {
                    at += count as u64;
                    left = left.split_at_mut_checked(count).map(|(_, rest)| rest).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The blocks `len` bytes at `offset` lie in, and which bytes of each.
fn blocks(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let (mut at, mut left) = (offset, len);
    std::iter::from_fn(move || {
        let start = usize::try_from(at % BLOCK as u64).ok().filter(|_| left != 0)?;
        let here = left.min(BLOCK - start);
        let number = at / BLOCK as u64;
        at += here as u64;
        left -= here;
        Some((number, start..start + here))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    const SIZE: usize = 5 * BLOCK;

    #[derive(Clone, Debug)]
    enum Op {
        Write(usize, Vec<u8>),
        Zero(usize, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let range = (0..SIZE).prop_flat_map(|at| (Just(at), 0..SIZE - at));
        prop_oneof![
            (0..SIZE / 2, prop::collection::vec(any::<u8>(), 0..SIZE / 2)).prop_map(|(at, data)| Op::Write(at, data)),
            range.prop_map(|(at, len)| Op::Zero(at, len)),
        ]
    }

    proptest! {
        #[test]
        fn a_disk_is_what_an_array_is(on_file in any::<bool>(), ops in prop::collection::vec(op(), 0..20)) {
            let contents: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&contents).unwrap();
            let (mut disk, mut model) = if on_file {
                (Disk::open(file.path(), None).unwrap(), contents.clone())
            } else {
                (Disk::empty(SIZE as u64), vec![0; SIZE])
            };
            for op in ops {
                match op {
                    Op::Write(at, data) => {
                        disk.write(at as u64, &data).unwrap();
                        model[at..at + data.len()].copy_from_slice(&data);
                    }
                    Op::Zero(at, len) => {
                        disk.zero(at as u64, len).unwrap();
                        model[at..at + len].fill(0);
                    }
                }
            }
            let mut read = vec![1; SIZE];
            disk.read(0, &mut read).unwrap();
            prop_assert_eq!(read, model);
            prop_assert_eq!(std::fs::read(file.path()).unwrap(), contents, "the file stays as it was");
        }
    }

    #[test]
    fn a_file_is_cut_to_sectors_or_filled_up() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 1300]).unwrap();
        assert_eq!(Disk::open(file.path(), None).unwrap().size(), 1024);
        let disk = Disk::open(file.path(), Some(1 << 20)).unwrap();
        let mut bytes = [1; 8];
        disk.read(1296, &mut bytes).unwrap();
        assert_eq!((disk.size(), bytes), (1 << 20, [7, 7, 7, 7, 0, 0, 0, 0]));
        let small = tempfile::NamedTempFile::new().unwrap();
        assert!(Disk::open(small.path(), None).unwrap_err().to_string().contains("has 0 bytes"));
        assert!(Disk::open(Path::new("/nowhere/disk"), None).unwrap_err().to_string().contains("/nowhere/disk"));
        assert!(Disk::open(Path::new("/"), None).unwrap_err().to_string().contains("regular file"));
    }
}
