//! Split virtqueues (virtio 1.2 section 2.7): `virtio-queue` on a device's memory.

use super::chain::Chain;
use super::spec::NO_VECTOR;
use crate::bus::DeviceMemory;
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result as MemoryResult};
use vm_memory::{GuestAddress, GuestMemory, Permissions};

/// How often the entries of a queue are worked off in one register write: another CPU may go on making buffers available meanwhile. What
/// is left then waits for the next notification.
pub const ROUNDS: u32 = 8;

/// What the driver tells of a queue (section 4.1.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

/// One queue.
#[derive(Debug)]
pub(super) struct Virtqueue {
    max: u16,
    pub(super) setup: Setup,
    /// Once it is enabled.
    ring: Option<Queue>,
    /// Chains taken since the register write began.
    taken: u32,
    /// Whether chains were given back since the driver was asked whether it wants to know.
    gave: bool,
}

impl Virtqueue {
    pub(super) fn new(max: u16) -> Self {
        let setup = Setup { size: max, vector: NO_VECTOR, desc: 0, driver: 0, device: 0 };
        Self { max, setup, ring: None, taken: 0, gave: false }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    pub(super) const fn is_enabled(&self) -> bool {
        self.ring.is_some()
    }

    /// Takes the setup over; false if no queue can be like that.
    pub(super) fn enable(&mut self) -> bool {
        let Setup { size, desc, driver, device, .. } = self.setup;
        let make = || -> Result<Queue, virtio_queue::Error> {
            let mut ring = Queue::new(self.max)?;
            ring.try_set_size(size)?;
            ring.try_set_desc_table_address(GuestAddress(desc))?;
            ring.try_set_avail_ring_address(GuestAddress(driver))?;
            ring.try_set_used_ring_address(GuestAddress(device))?;
            ring.set_ready(true);
            Ok(ring)
        };
        match make() {
            Ok(ring) => self.ring = Some(ring),
            Err(_) => return false,
        }
        true
    }

    pub(super) fn set_event_idx(&mut self, on: bool) {
        if let Some(ring) = &mut self.ring {
            ring.set_event_idx(on);
        }
    }

    pub(super) const fn begin(&mut self) {
        self.taken = 0;
    }

    /// Whether the driver is to be told of chains that were given back.
    pub(super) fn interrupts<M: GuestMemory>(&mut self, memory: &DeviceMemory<M>) -> Result<bool, Broken> {
        let Some(ring) = self.ring.as_mut().filter(|_| self.gave) else { return Ok(false) };
        self.gave = false;
        let view = RingView::new(memory, ring);
        ring.needs_notification(&view).map_err(|_| Broken)
    }
}

/// A ring or a chain no driver makes: the device needs a reset (section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Memory as the rings are read: indices that the driver may be changing are polled, all else is used as it is read.
#[derive(Debug)]
struct RingView<'a, M> {
    memory: &'a DeviceMemory<M>,
    polled: [u64; 2],
}

impl<'a, M> RingView<'a, M> {
    fn new(memory: &'a DeviceMemory<M>, ring: &Queue) -> Self {
        // avail.idx and used_event (section 2.7.6).
        let avail = ring.avail_ring();
        Self { memory, polled: [avail.wrapping_add(2), avail.wrapping_add(4 + 2 * u64::from(ring.size()))] }
    }
}

impl<M: GuestMemory> GuestMemory for RingView<'_, M> {
    type PhysicalMemory = M::PhysicalMemory;
    type Bitmap = M::Bitmap;

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.memory.used.check_range(addr, count, access)
    }

    fn get_slices<'b>(
        &'b self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<impl GuestMemorySliceIterator<'b, BS<'b, Self::Bitmap>>> {
        let polls = count == 2 && self.polled.contains(&addr.0);
        if polls { &self.memory.poll } else { &self.memory.used }.get_slices(addr, count, access)
    }
}

/// The queues of a device and the memory their chains lie in.
#[derive(Debug)]
pub struct Queues<'a, M> {
    memory: &'a DeviceMemory<M>,
    queues: &'a mut [Virtqueue],
    broken: bool,
}

impl<'a, M: GuestMemory> Queues<'a, M> {
    pub(super) const fn new(memory: &'a DeviceMemory<M>, queues: &'a mut [Virtqueue]) -> Self {
        Self { memory, queues, broken: false }
    }

    /// Memory, for reading and writing chains.
    #[must_use]
    pub const fn memory(&self) -> &'a DeviceMemory<M> {
        self.memory
    }

    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// The next chain the driver made available in `queue`. After `None` the driver notifies the device of the next one.
    pub fn pop(&mut self, queue: usize) -> Option<Chain> {
        if self.broken {
            return None;
        }
        let next = self.queues.get_mut(queue).map_or(Ok(None), |queue| queue.pop(self.memory));
        self.broken = next.is_err();
        next.ok().flatten()
    }

    /// Gives `chain` back after writing its first `written` bytes.
    pub fn push(&mut self, queue: usize, chain: Chain, written: u32) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let Some(ring) = &mut queue.ring else { return };
        let view = RingView::new(self.memory, ring);
        self.broken |= ring.add_used(&view, chain.head, written).is_err();
        queue.gave = true;
    }
}

impl Virtqueue {
    fn pop<M: GuestMemory>(&mut self, memory: &DeviceMemory<M>) -> Result<Option<Chain>, Broken> {
        let Some(ring) = &mut self.ring else { return Ok(None) };
        let view = RingView::new(memory, ring);
        if self.taken >= ROUNDS * u32::from(ring.size()) {
            // As if all there is were worked off, so that the next chain comes with a notification.
            let index = ring.avail_idx(&view, Ordering::Acquire).map_err(|_| Broken)?;
            let next = ring.next_avail();
            ring.set_next_avail(index.0);
            let armed = ring.enable_notification(&view);
            ring.set_next_avail(next);
            return armed.map(|_| None).map_err(|_| Broken);
        }
        // A second look after notifications were asked for: a chain may have come in between.
        for look in 0..2 {
            let next = ring.next_avail();
            let descriptors = ring.iter(&view).map_err(|_| Broken)?.next();
            if let Some(descriptors) = descriptors {
                self.taken += 1;
                return collect(descriptors, ring.size()).map(Some);
            }
            let more = ring.enable_notification(&view).map_err(|_| Broken)?;
            if !more {
                return Ok(None);
            }
            if look == 1 && ring.next_avail() == next {
                // There is one, and its entry cannot be read.
                return Err(Broken);
            }
        }
        Err(Broken)
    }
}

/// The chain's descriptors, of which there are at most as many as the queue has entries (section 2.7.5.3.1).
fn collect<M: GuestMemory>(descriptors: virtio_queue::DescriptorChain<&RingView<'_, M>>, size: u16) -> Result<Chain, Broken> {
    let mut chain = Chain::new(descriptors.head_index());
    let mut whole = false;
    for descriptor in descriptors.take(usize::from(size)) {
        if !chain.push(&descriptor) {
            return Err(Broken);
        }
        whole = !descriptor.has_next();
    }
    // The iterator ends early where a descriptor cannot be read, points nowhere, or nests tables.
    if whole { Ok(chain) } else { Err(Broken) }
}
