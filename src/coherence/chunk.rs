//! The pieces of a mapping, page by page.

use crate::bits::{PAGE, PAGE_U64, index};
use crate::finding::ByteRange;

/// A physically contiguous piece of a mapping: one entry of a scatterlist, or the whole mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First handle.
    pub(crate) iova: u64,
    /// Guest physical address of the first byte.
    pub(crate) gpa: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// Offset of the first byte within the mapping.
    pub(crate) offset: u64,
    /// Its handle continues the one before (`--sg merge`).
    pub(crate) joined: bool,
}

/// The bytes of one page that belong to one segment and to a range of the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Guest physical address of the page.
    pub(crate) page: u64,
    /// First byte in the page.
    pub(crate) start: usize,
    /// One past the last byte in the page.
    pub(crate) end: usize,
    /// Offset of `start` within the mapping.
    pub(crate) offset: u64,
    /// Number of the segment.
    pub(crate) segment: u32,
}

impl Chunk {
    /// A byte of the page as an offset in the mapping.
    pub(crate) fn at(&self, byte: usize) -> u64 {
        self.offset + (byte.saturating_sub(self.start)) as u64
    }

    /// A range of the page as a range of the mapping.
    pub(crate) fn range(&self, start: usize, end: usize) -> ByteRange {
        ByteRange { start: self.at(start), end: self.at(end) }
    }
}

/// Iterates over the chunks of `range` (offsets within the mapping).
#[inline]
pub(crate) fn chunks(segments: &[Segment], range: ByteRange) -> Chunks<'_> {
    let first = match segments {
        [_] => 0,
        many => many.partition_point(|s| s.offset + s.len <= range.start),
    };
    Chunks { segments, segment: first, at: range.start, end: range.end }
}

/// See [`chunks`].
pub(crate) struct Chunks<'a> {
    segments: &'a [Segment],
    segment: usize,
    at: u64,
    end: u64,
}

impl Iterator for Chunks<'_> {
    type Item = Chunk;

    #[inline]
    fn next(&mut self) -> Option<Chunk> {
        loop {
            if self.at >= self.end {
                return None;
            }
            let segment = self.segments.get(self.segment)?;
            let into = self.at.checked_sub(segment.offset)?;
            if into >= segment.len {
                self.segment += 1;
                continue;
            }
            let gpa = segment.gpa + into;
            let start = index(gpa % PAGE_U64);
            let left = (segment.len - into).min(self.end - self.at);
            let len = left.min((PAGE - start) as u64);
            let offset = self.at;
            self.at += len;
            return Some(Chunk {
                page: gpa - start as u64,
                start,
                end: start + index(len),
                offset,
                segment: u32::try_from(self.segment).unwrap_or(u32::MAX),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_pages_and_segments() {
        let segments = [
            Segment { iova: 0x10_0f00, gpa: 0x5f00, len: 0x300, offset: 0, joined: false },
            Segment { iova: 0x10_3000, gpa: 0x9000, len: 0, offset: 0x300, joined: false },
            Segment { iova: 0x10_4000, gpa: 0x8000, len: 0x1000, offset: 0x300, joined: false },
        ];
        let got: Vec<_> =
            chunks(&segments, ByteRange { start: 0x80, end: 0x1300 }).map(|c| (c.page, c.start, c.end, c.offset, c.segment)).collect();
        assert_eq!(got, [(0x5000, 0xf80, 0x1000, 0x80, 0), (0x6000, 0, 0x200, 0x100, 0), (0x8000, 0, 0x1000, 0x300, 2)]);
        assert_eq!(chunks(&segments, ByteRange { start: 0x1300, end: 0x1400 }).count(), 0);
    }
}
