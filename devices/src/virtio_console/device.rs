//! The state machine of virtio-console (virtio 1.2 section 5.3.6), with VIRTIO_CONSOLE_F_SIZE and without multiple ports.

use crate::virtio_pci::{Kind, Queues, VirtioDevice};
use std::collections::VecDeque;
use vm_memory::GuestMemory;

/// receiveq of port 0 and transmitq of port 0.
const RX: usize = 0;
const TX: usize = 1;
/// VIRTIO_CONSOLE_F_SIZE: cols and rows are there.
const SIZE: u64 = 1;
/// struct virtio_console_config (section 5.3.4): 80 columns, 25 rows.
const CONFIG: [u8; 4] = [80, 0, 25, 0];
/// The most bytes taken from one buffer. No driver sends more at a time; what is beyond is lost.
const MOST: usize = 64 * 1024;
/// The most bytes that wait for the guest to read them. What comes then is lost, as on a wire without flow control.
const MOST_WAITING: usize = 1 << 20;

/// The console device.
#[derive(Debug, Default)]
pub struct VirtioConsole {
    waiting: VecDeque<u8>,
}

impl VirtioConsole {
    /// Takes what the driver sends.
    fn transmit<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) {
        while let Some(chain) = queues.pop(TX) {
            let mut bytes = vec![0; usize::try_from(chain.readable()).unwrap_or(MOST).min(MOST)];
            if chain.read(queues.memory(), 0, &mut bytes).is_ok() {
                let room = MOST_WAITING.saturating_sub(self.waiting.len());
                self.waiting.extend(bytes.into_iter().take(room));
            }
            queues.push(TX, chain, 0);
        }
    }

    /// Fills the driver's buffers as far as there is something for them.
    fn receive<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) {
        while !self.waiting.is_empty() {
            let Some(chain) = queues.pop(RX) else { return };
            let room = usize::try_from(chain.writable()).unwrap_or(usize::MAX);
            let bytes: Vec<u8> = self.waiting.drain(..room.min(self.waiting.len())).collect();
            // A buffer that cannot be written loses its bytes.
            let written = chain.write(queues.memory(), 0, &bytes).map_or(0, |()| u32::try_from(bytes.len()).unwrap_or(0));
            queues.push(RX, chain, written);
        }
    }
}

impl<M: GuestMemory> VirtioDevice<M> for VirtioConsole {
    fn kind(&self) -> Kind {
        // Class: simple communication controller, other.
        Kind { id: 3, class: 0x07_80_00, queues: &[64, 64] }
    }

    fn features(&self) -> u64 {
        SIZE
    }

    fn config(&self) -> &[u8] {
        &CONFIG
    }

    fn activate(&mut self, _features: u64) {}

    fn notified(&mut self, queue: usize, queues: &mut Queues<'_, M>) {
        if queue == TX {
            self.transmit(queues);
        }
        self.receive(queues);
    }

    fn reset(&mut self) {
        self.waiting.clear();
    }
}
