//! The state machine of virtio-rng (virtio 1.2 section 5.4.6): every buffer is filled with bytes.

use super::VirtioRngSpec;
use crate::virtio_pci::{Kind, Queues, VirtioDevice};
use vm_memory::GuestMemory;

/// requestq.
const QUEUE: usize = 0;
/// The most bytes delivered for one buffer. A device may deliver fewer than asked for, and does so for buffers no driver here makes.
const MOST: usize = 64 * 1024;

/// The entropy device.
#[derive(Debug)]
pub struct VirtioRng {
    seed: u64,
    bytes: fastrand::Rng,
}

impl VirtioRng {
    pub(super) fn new(spec: &VirtioRngSpec) -> Self {
        Self { seed: spec.seed(), bytes: fastrand::Rng::with_seed(spec.seed()) }
    }
}

impl<M: GuestMemory> VirtioDevice<M> for VirtioRng {
    fn kind(&self) -> Kind {
        // Class: unclassified, other.
        Kind { id: 4, class: 0x00_ff_00, queues: &[64] }
    }

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn activate(&mut self, _features: u64) {}

    fn notified(&mut self, _queue: usize, queues: &mut Queues<'_, M>) {
        while let Some(chain) = queues.pop(QUEUE) {
            let mut bytes = vec![0; usize::try_from(chain.writable()).unwrap_or(MOST).min(MOST)];
            self.bytes.fill(&mut bytes);
            // A buffer that cannot be written is given back empty.
            let written = chain.write(queues.memory(), 0, &bytes).map_or(0, |()| u32::try_from(bytes.len()).unwrap_or(0));
            queues.push(QUEUE, chain, written);
        }
    }

    fn reset(&mut self) {
        self.bytes = fastrand::Rng::with_seed(self.seed);
    }
}
