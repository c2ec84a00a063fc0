//! The memory of a device: the only road from a device model to memory.

use crate::arena::DeviceWrites;
use crate::bits::index;
use crate::chunk::chunks;
use crate::engine::{Engine, Open, Shared, Wish};
use crate::error::AccessError;
use crate::finding::ByteRange;
use crate::ids::Iova;
use crate::tap::{Input, Outcome};
use std::iter::FusedIterator;
use std::sync::{Arc, MutexGuard};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryResult, Permissions, VolatileSlice};

/// What a device reads for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// The bytes are used now: they must have been handed over.
    Use,
    /// A look at an ownership word or an index the CPU may be changing: never judged.
    Poll,
    /// The bytes are copied for later: judged when the device says [`consume`](DmaView::consume).
    Prefetch,
}

/// The memory of one device. Addresses are handles (IOVA) as [`GuestAddress`].
///
/// Every access is checked: the device's mastership of the bus, liveness and bounds of the mapping to the byte, direction, and
/// for a read of [`Intent::Use`] whether the CPU's changes were handed over. What fails the first three is refused with an
/// error and nothing is transferred.
///
/// The iterator over the slices of an access keeps the core locked until it is exhausted or dropped: do not start another access
/// on the same thread before. A write is remembered as the device's when it happens, not when its slice is made; keep slices no
/// longer than the transfer.
#[derive(Clone, Debug)]
pub struct DmaView {
    shared: Arc<Shared>,
    /// `None` for a requester there was no room for: it reaches nothing.
    device: Option<u32>,
    intent: Intent,
}

impl DmaView {
    pub(crate) fn new(shared: Arc<Shared>, device: Option<u32>) -> Self {
        Self { shared, device, intent: Intent::Use }
    }

    /// The same memory for looking at words another side may be changing.
    #[must_use]
    pub fn polling(&self) -> Self {
        Self { intent: Intent::Poll, ..self.clone() }
    }

    /// The same memory for fetching ahead.
    #[must_use]
    pub fn prefetching(&self) -> Self {
        Self { intent: Intent::Prefetch, ..self.clone() }
    }

    /// What this view reads for.
    #[must_use]
    pub fn intent(&self) -> Intent {
        self.intent
    }

    /// The device begins a transfer of `len` bytes at `iova` that goes on after the register write that asked for it. A driver that
    /// unmaps them before the transfer ends is told off for the unmap (DV115) when the device comes back to them.
    pub fn begin(&self, iova: Iova, len: usize) -> InFlight {
        let number = self.device.map_or(0, |device| {
            let mut engine = self.shared.lock();
            let number = engine.begin_flight(device, iova.0, len as u64);
            let requester = engine.requester(device);
            engine.ram.feed.input(|| Input::Begin { requester, iova, len: len as u64, number });
            number
        });
        InFlight { shared: Arc::clone(&self.shared), number }
    }

    /// The device uses `len` bytes it prefetched from `iova`: judged now.
    ///
    /// # Errors
    /// The bytes are not mapped for this device any more.
    pub fn consume(&self, iova: Iova, len: usize) -> Result<(), AccessError> {
        let device = self.device.ok_or(AccessError::NotMapped(iova))?;
        let mut engine = self.shared.lock();
        let result = engine.consume(device, iova.0, len);
        if len != 0 {
            let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Refused };
            let requester = engine.requester(device);
            engine.ram.feed.input(|| Input::Consume { requester, iova, len: len as u64, outcome });
        }
        result
    }
}

/// A transfer a device is working on: it goes on until this is dropped. Do not drop it while an iterator over slices is alive on the
/// same thread.
#[derive(Debug)]
#[must_use = "the transfer ends when this is dropped"]
pub struct InFlight {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.number != 0 {
            let (mut engine, number) = (self.shared.lock(), self.number);
            engine.end_flight(number);
            engine.ram.feed.input(|| Input::EndFlight { number });
        }
    }
}

impl GuestMemory for DmaView {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = DeviceWrites;

    fn check_range(&self, addr: GuestAddress, count: usize, _access: Permissions) -> bool {
        self.device.is_some_and(|device| self.shared.lock().reachable(device, addr.0, count))
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, BS<'a, DeviceWrites>>> {
        let shared = &*self.shared;
        if count == 0 {
            return Ok(Slices { shared, engine: None });
        }
        let device = self.device.ok_or(AccessError::NotMapped(Iova(addr.0)))?;
        let wish =
            Wish { read: access.allow(Permissions::Read) && access != Permissions::No, write: access.has_write(), intent: self.intent };
        let mut engine = shared.lock();
        let access = engine.access(device, addr.0, count, wish);
        let recorded = engine.ram.feed.tap().map(|_| {
            let (requester, outcome) = (engine.requester(device), if access.is_ok() { Outcome::Done } else { Outcome::Refused });
            let Wish { read, write, intent } = wish;
            Box::new(Input::Access { requester, iova: Iova(addr.0), len: count as u64, read, write, intent, outcome })
        });
        if let (Err(_), Some(input)) = (&access, &recorded) {
            engine.access_refused(input);
        }
        let access = access?;
        engine.open = Open { access, at: access.range.start, recorded };
        Ok(Slices { shared, engine: Some(engine) })
    }
}

/// The slices of one access, page by page.
struct Slices<'a> {
    shared: &'a Shared,
    /// Held while there are slices to come.
    engine: Option<MutexGuard<'a, Engine>>,
}

type Slice<'a> = VolatileSlice<'a, BS<'a, DeviceWrites>>;

impl<'a> Slices<'a> {
    /// Ends the access: unlocks the core.
    #[inline]
    fn release(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            engine.access_over();
        }
    }

    /// The next slice, or the handle that cannot be reached.
    #[inline]
    fn slice(&self, engine: &Engine) -> Result<Slice<'a>, AccessError> {
        let Open { access, at, .. } = &engine.open;
        let mapping = engine.mappings.get(access.mapping).ok_or(AccessError::NotMapped(Iova(0)))?;
        let left = ByteRange { start: *at, end: access.range.end };
        let chunk = chunks(&mapping.segments, left).next().ok_or_else(|| AccessError::NotMapped(Iova(mapping.first())))?;
        let shared = self.shared;
        let slice = if access.two_copies {
            engine.copies.slot(chunk.page).and_then(|slot| shared.arena.slice(slot, chunk.start, chunk.end - chunk.start))
        } else {
            let end = mapping.segments.get(chunk.segment as usize).map_or(left.end, |s| (s.offset + s.len).min(left.end));
            shared.ram.shared(chunk.page + chunk.start as u64, index(end - left.start)).ok()
        };
        slice.ok_or_else(|| {
            let segment = mapping.segments.get(chunk.segment as usize);
            AccessError::NotShared(Iova(segment.map_or(0, |s| s.iova + (chunk.offset - s.offset))))
        })
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = GuestMemoryResult<Slice<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let engine = self.engine.as_ref()?;
        if engine.open.at >= engine.open.access.range.end {
            self.release();
            return None;
        }
        let slice = self.slice(engine);
        match slice {
            Ok(slice) => {
                if let Some(engine) = &mut self.engine {
                    engine.open.at += slice.len() as u64;
                }
                Some(Ok(slice))
            }
            Err(error) => {
                if let Some(engine) = &mut self.engine {
                    engine.blind_spot("coherent memory in guest RAM without a file behind it cannot be reached by devices");
                    if let Some(Input::Access { outcome, .. }) = engine.open.recorded.as_deref_mut() {
                        *outcome = Outcome::Broken;
                    }
                }
                self.release();
                Some(Err(error.into()))
            }
        }
    }
}

impl Drop for Slices<'_> {
    #[inline]
    fn drop(&mut self) {
        self.release();
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, BS<'a, DeviceWrites>> for Slices<'a> {
    fn stop_on_error(mut self) -> GuestMemoryResult<impl Iterator<Item = Slice<'a>>> {
        // The default peeks; here the first slice is made once and kept.
        let first = self.next().transpose()?;
        Ok(first.into_iter().chain(self.map_while(Result::ok)))
    }
}
