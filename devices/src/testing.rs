//! The other side for tests: an interrupt sink that remembers, and memory that logs and refuses accesses.

use crate::bus::{MsiMessage, MsiSink};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions};

/// Remembers routes and messages.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    routes: Mutex<BTreeMap<u16, MsiMessage>>,
    sent: Mutex<Vec<u16>>,
    pin: Mutex<bool>,
}

impl Sink {
    /// The message routed for a vector.
    pub(crate) fn route(&self, vector: u16) -> Option<MsiMessage> {
        self.routes.lock().unwrap().get(&vector).copied()
    }
    /// The vectors sent since the last call.
    pub(crate) fn sent(&self) -> Vec<u16> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
    /// Whether the interrupt pin is asserted.
    pub(crate) fn pin(&self) -> bool {
        *self.pin.lock().unwrap()
    }
}

impl MsiSink for Sink {
    fn set_route(&self, vector: u16, message: Option<MsiMessage>) {
        let mut routes = self.routes.lock().unwrap();
        match message {
            Some(message) => routes.insert(vector, message),
            None => routes.remove(&vector),
        };
    }
    fn trigger(&self, vector: u16) {
        assert!(self.route(vector).is_some(), "vector {vector} sent without a route");
        self.sent.lock().unwrap().push(vector);
    }
    fn set_pin(&self, asserted: bool) {
        let before = std::mem::replace(&mut *self.pin.lock().unwrap(), asserted);
        assert_ne!(before, asserted, "told what it was told before");
    }
}

/// One access a device made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dma {
    Read(u64, usize),
    Write(u64, usize),
}

#[derive(Debug, Default)]
struct Shared {
    refused: Mutex<Vec<Range<u64>>>,
    log: Mutex<Vec<Dma>>,
}

/// Memory that logs every access and refuses those that touch certain ranges.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) ram: GuestMemoryMmap,
    shared: Arc<Shared>,
}

impl Memory {
    pub(crate) fn new(ranges: &[(u64, usize)]) -> Self {
        let ranges: Vec<_> = ranges.iter().map(|(base, len)| (GuestAddress(*base), *len)).collect();
        Self { ram: GuestMemoryMmap::from_ranges(&ranges).unwrap(), shared: Arc::default() }
    }
    /// Refuses accesses that touch `range` from now on.
    pub(crate) fn refuse(&self, range: Range<u64>) {
        self.shared.refused.lock().unwrap().push(range);
    }
    /// Refuses nothing any more.
    pub(crate) fn allow(&self) {
        self.shared.refused.lock().unwrap().clear();
    }
    /// The accesses since the last call, refused ones too.
    pub(crate) fn log(&self) -> Vec<Dma> {
        std::mem::take(&mut *self.shared.log.lock().unwrap())
    }
}

impl GuestMemory for Memory {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        GuestMemory::check_range(&self.ram, addr, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        let dma = if access == Permissions::Read { Dma::Read(addr.0, count) } else { Dma::Write(addr.0, count) };
        self.shared.log.lock().unwrap().push(dma);
        let end = addr.0.checked_add(count as u64).ok_or(GuestMemoryError::GuestAddressOverflow)?;
        let refused = self.shared.refused.lock().unwrap();
        if refused.iter().any(|range| addr.0 < range.end && range.start < end) {
            return Err(GuestMemoryError::InvalidGuestAddress(addr));
        }
        GuestMemory::get_slices(&self.ram, addr, count, access)
    }
}
