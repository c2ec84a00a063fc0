//! The state machine of virtio-net (virtio 1.2 sections 5.1.6.2 to 5.1.6.4).

use super::VirtioNetSpec;
use super::spec::{FEATURES, HEADER, MERGEABLE, QUEUES, RX, TX, config, header};
use crate::peer::{LEAST_FRAME, MOST_FRAME, Peer};
use crate::virtio_pci::{Chain, Kind, Queues, VirtioDevice};
use vm_memory::GuestMemory;

/// The network device, with what is at the other end of its wire.
#[derive(Debug)]
pub struct VirtioNet {
    offers_merging: bool,
    config: [u8; 8],
    /// Accepted by the driver.
    merging: bool,
    peer: Peer,
    /// Receive buffers taken for a frame that needs more than there are.
    held: Vec<Chain>,
}

impl VirtioNet {
    pub(super) fn new(spec: &VirtioNetSpec) -> Self {
        Self { offers_merging: spec.is_mergeable(), config: config(), merging: false, peer: Peer::default(), held: Vec::new() }
    }

    /// Section 5.1.6.2: all frames the driver made available go out.
    fn transmit<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) {
        while let Some(chain) = queues.pop(TX) {
            let len = chain.readable().saturating_sub(HEADER as u64);
            // Longer than a frame can be without offloads, or too short to have an address: a real device drops it, too.
            if let Some(len) = usize::try_from(len).ok().filter(|len| (LEAST_FRAME..=MOST_FRAME).contains(len)) {
                // Every field of the header belongs to an offload that is not offered, but a device reads it.
                let (mut head, mut frame) = ([0; HEADER], vec![0; len]);
                let memory = queues.memory();
                let read = chain.read(memory, 0, &mut head).and_then(|()| chain.read(memory, HEADER as u64, &mut frame));
                if read.is_ok() {
                    self.peer.take(frame);
                }
            }
            queues.push(TX, chain, 0);
            self.receive(queues);
        }
    }

    /// Section 5.1.6.4: delivers what the peer sends, as far as there are buffers.
    fn receive<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) {
        while let Some(frame) = self.peer.pull() {
            let wanted = (HEADER + frame.len()) as u64;
            let mut room: u64 = self.held.iter().map(Chain::writable).sum();
            while room < wanted && (self.merging || self.held.is_empty()) {
                let Some(chain) = queues.pop(RX) else {
                    // The driver notifies of the next buffer.
                    self.peer.put_back(frame);
                    return;
                };
                room += chain.writable();
                self.held.push(chain);
                if self.held.len() > usize::from(QUEUES[RX]) {
                    break;
                }
            }
            self.deliver(&frame, room >= wanted, queues);
        }
    }

    /// Puts a frame into the held buffers and gives them back; empty when it does not fit.
    fn deliver<M: GuestMemory>(&mut self, frame: &[u8], fits: bool, queues: &mut Queues<'_, M>) {
        let chains = std::mem::take(&mut self.held);
        let mut bytes = header(u16::try_from(chains.len()).unwrap_or(u16::MAX)).to_vec();
        bytes.extend_from_slice(frame);
        let mut left = if fits { bytes.as_slice() } else { &[] };
        for chain in chains {
            let here = usize::try_from(chain.writable()).unwrap_or(usize::MAX).min(left.len());
            let (piece, rest) = left.split_at_checked(here).unwrap_or_default();
            left = rest;
            // A buffer that cannot be written loses its part of the frame.
            let written = chain.write(queues.memory(), 0, piece).map_or(0, |()| u32::try_from(here).unwrap_or(0));
            queues.push(RX, chain, written);
        }
    }
}

impl<M: GuestMemory> VirtioDevice<M> for VirtioNet {
    fn kind(&self) -> Kind {
        // Class: network controller, Ethernet.
        Kind { id: 1, class: 0x02_00_00, queues: &QUEUES }
    }

    fn features(&self) -> u64 {
        if self.offers_merging { FEATURES | MERGEABLE } else { FEATURES }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, features: u64) {
        self.merging = features & MERGEABLE != 0;
    }

    fn notified(&mut self, queue: usize, queues: &mut Queues<'_, M>) {
        if queue == TX {
            self.transmit(queues);
        }
        self.receive(queues);
    }

    fn reset(&mut self) {
        // Connections are the wire's, not the device's, but a peer that goes on sending to a driver that is gone helps nobody.
        self.peer = Peer::default();
        self.held = Vec::new();
        self.merging = false;
    }
}
