//! The devices' copy of memory: one lazily populated region cut into page slots, and which of its bytes a device wrote.

use crate::bits::{Bits, PAGE, WORDS, index, split, word_mask, words};
use crate::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};
use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

/// Slots whose masks are allocated together.
const CHUNK: usize = 128;

/// One bit per byte of a slot: set when a device wrote the byte.
type Mask = [AtomicU64; WORDS];

/// The masks of all slots, allocated when a slot is first used.
#[derive(Debug, Default)]
struct Masks {
    chunks: Box<[OnceLock<Box<[Mask]>>]>,
}

impl Masks {
    fn with_slots(slots: usize) -> Self {
        Self { chunks: (0..slots.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() }
    }

    fn ensure(&self, slot: usize) {
        if let Some(chunk) = self.chunks.get(slot / CHUNK) {
            chunk.get_or_init(|| (0..CHUNK).map(|_| [const { AtomicU64::new(0) }; WORDS]).collect());
        }
    }

    #[inline]
    fn page(&self, slot: usize) -> Option<&Mask> {
        self.chunks.get(slot / CHUNK)?.get()?.get(slot % CHUNK)
    }

    #[inline]
    fn mark(&self, offset: usize, len: usize) {
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            let (slot, start) = (at / PAGE, at % PAGE);
            let stop = PAGE.min(start + (end - at));
            if let Some(mask) = self.page(slot) {
                let split = split(mask, start, stop);
                split.middle.iter().for_each(|word| word.store(!0, Ordering::Relaxed));
                for (word, bits) in split.edges() {
                    match bits {
                        u64::MAX => word.store(!0, Ordering::Relaxed),
                        some => _ = word.fetch_or(some, Ordering::Relaxed),
                    }
                }
            }
            at += stop - start;
        }
    }
}

/// Sees every write of a device through a [`DmaView`](crate::DmaView): the `Bitmap` of its memory.
///
/// In the devices' copy each byte written is remembered until a hand-over takes it. Coherent memory is guest RAM itself and
/// nothing is remembered there.
#[derive(Clone, Debug, Default)]
pub struct DeviceWrites {
    masks: Arc<Masks>,
}

/// [`DeviceWrites`] from some offset on.
#[derive(Clone, Copy, Debug)]
pub struct WriteMarks<'a> {
    masks: &'a Masks,
    base: usize,
}

impl<'a> WithBitmapSlice<'a> for DeviceWrites {
    type S = WriteMarks<'a>;
}

impl Bitmap for DeviceWrites {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.masks.mark(offset, len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.slice_at(0).dirty_at(offset)
    }

    fn slice_at(&self, offset: usize) -> WriteMarks<'_> {
        WriteMarks { masks: &self.masks, base: offset }
    }
}

impl NewBitmap for DeviceWrites {
    fn with_len(len: usize) -> Self {
        Self { masks: Arc::new(Masks::with_slots(len.div_ceil(PAGE))) }
    }
}

impl WithBitmapSlice<'_> for WriteMarks<'_> {
    type S = Self;
}

impl BitmapSlice for WriteMarks<'_> {}

impl Bitmap for WriteMarks<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.masks.mark(self.base.wrapping_add(offset), len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let at = self.base.wrapping_add(offset);
        let word = self.masks.page(at / PAGE).and_then(|mask| mask.get(at % PAGE / 64));
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (at % 64) & 1 != 0)
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { masks: self.masks, base: self.base.wrapping_add(offset) }
    }
}

/// Page slots for the devices' copy. Anonymous memory: a slot costs nothing until it is first used, so the footprint is the
/// largest number of pages that were mapped at once.
#[derive(Debug)]
pub(crate) struct Arena {
    region: MmapRegion<DeviceWrites>,
}

impl Arena {
    /// Reserves address space for `pages` slots.
    pub(crate) fn new(pages: usize) -> Result<Self, Error> {
        let bytes = pages.max(1).saturating_mul(PAGE);
        Ok(Self { region: MmapRegion::new(bytes).map_err(|source| Error::Arena { bytes, source })? })
    }

    /// Makes `slot` usable.
    pub(crate) fn prepare(&self, slot: u32) {
        self.region.bitmap().masks.ensure(slot as usize);
    }

    /// `len` bytes from `offset` on in a slot; writes through it are remembered as the device's.
    #[inline]
    pub(crate) fn slice(&self, slot: u32, offset: usize, len: usize) -> Option<VolatileSlice<'_, WriteMarks<'_>>> {
        if offset.saturating_add(len) > PAGE {
            return None;
        }
        self.region.get_slice(slot as usize * PAGE + offset, len).ok()
    }

    /// Copies `start..start + out.len()` of a slot out.
    #[inline]
    pub(crate) fn read(&self, slot: u32, start: usize, out: &mut [u8]) {
        if let Some(slice) = self.slice(slot, start, out.len()) {
            slice.copy_to(out);
        }
    }

    /// Writes bytes the CPU hands over: afterwards they do not count as written by the device.
    pub(crate) fn store(&self, slot: u32, start: usize, data: &[u8]) {
        if let Some(slice) = self.slice(slot, start, data.len()) {
            slice.copy_from(data);
            self.forget(slot, start, start + data.len());
        }
    }

    /// Forgets that the device wrote `start..end`.
    pub(crate) fn forget(&self, slot: u32, start: usize, end: usize) {
        let Some(mask) = self.region.bitmap().masks.page(slot as usize) else { return };
        let split = split(mask, start, end);
        split.middle.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        for (word, bits) in split.edges() {
            match bits {
                u64::MAX => word.store(0, Ordering::Relaxed),
                some => _ = word.fetch_and(!some, Ordering::Relaxed),
            }
        }
    }

    /// Whether the device wrote any of `start..end`.
    #[inline]
    pub(crate) fn any_written(&self, slot: u32, start: usize, end: usize) -> bool {
        let Some(mask) = self.region.bitmap().masks.page(slot as usize) else { return false };
        let split = split(mask, start, end);
        split.edges().any(|(word, bits)| word.load(Ordering::Relaxed) & bits != 0)
            || split.middle.iter().fold(0, |all, word| all | word.load(Ordering::Relaxed)) != 0
    }

    /// Which of `start..end` the device wrote; bits outside are left alone in `out`.
    pub(crate) fn written(&self, slot: u32, start: usize, end: usize, out: &mut Bits) {
        let Some(mask) = self.region.bitmap().masks.page(slot as usize) else {
            out.clear(start, end);
            return;
        };
        let range = words(start, end);
        let from = mask.get(range.clone()).unwrap_or_default().iter();
        for ((word, at), out) in from.zip(range.clone()).zip(out.0.get_mut(range).unwrap_or_default()) {
            *out = word.load(Ordering::Relaxed) & word_mask(at, start, end);
        }
    }

    /// Slots there are.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(index(self.region.size() as u64) / PAGE).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn a_write_is_marked_when_it_happens_and_byte_exact() {
        let arena = Arena::new(4).unwrap();
        arena.prepare(1);
        let slice = arena.slice(1, 100, 200).unwrap();
        assert!(!arena.any_written(1, 0, PAGE), "building a slice is not a write");
        slice.write_slice(&[1, 2, 3], 61).unwrap();
        let mut bits = Bits::EMPTY;
        arena.written(1, 0, PAGE, &mut bits);
        assert_eq!(bits.runs().collect::<Vec<_>>(), [(161, 164)]);
        arena.forget(1, 162, 163);
        arena.written(1, 0, PAGE, &mut bits);
        assert_eq!(bits.runs().collect::<Vec<_>>(), [(161, 162), (163, 164)]);
        arena.store(1, 0, &[7; PAGE]);
        assert!(!arena.any_written(1, 0, PAGE), "what the CPU hands over is not the device's write");
        let mut out = [0; 4];
        arena.read(1, 161, &mut out);
        assert_eq!(out, [7; 4]);
    }

    #[test]
    fn the_whole_region_and_its_slices_have_the_same_marks() {
        let arena = Arena::new(2).unwrap();
        arena.prepare(1);
        let marks = arena.region.bitmap();
        marks.mark_dirty(PAGE + 10, 2);
        assert_eq!([9, 10, 11, 12].map(|at| marks.dirty_at(PAGE + at)), [false, true, true, false]);
        let mut bits = Bits::EMPTY;
        arena.written(1, 0, PAGE, &mut bits);
        assert_eq!(bits.runs().collect::<Vec<_>>(), [(10, 12)]);
    }

    #[test]
    fn slots_end_at_their_page() {
        let arena = Arena::new(2).unwrap();
        assert!(arena.slice(0, 4090, 7).is_none());
        assert!(arena.slice(2, 0, 1).is_none());
        assert_eq!(arena.slots(), 2);
    }
}
