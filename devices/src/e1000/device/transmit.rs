//! The transmitter (SDM sections 3.3 to 3.6).

use super::E1000;
use crate::e1000::offload::{Options, frames, insert_checksum};
use crate::e1000::spec::{
    BUDGET, CAUSE_TX_EMPTY, CAUSE_TX_WRITTEN, CRC, CTRL_VLAN, DESCRIPTOR, DESCRIPTOR_COST, FRAME_COST, LEAST, MOST_PACKET, MOST_TX_FRAME,
    Piece, TAG_AT, TCTL_ENABLE, TCTL_PAD, TX_DONE, TX_RESULT, TxDescriptor, TxKind, VET, statistic,
};
use crate::e1000::statistics::TX;
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// A packet whose pieces are being gathered.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet {
    bytes: Vec<u8>,
    /// What its first piece asked for; `None` before that.
    options: Option<Options>,
    /// A piece could not be read, or it is too long: it goes nowhere.
    lost: bool,
}

impl<M: GuestMemory> E1000<M> {
    /// Works off the descriptors the driver handed over, if it may send. TDT is a promise that they are ready.
    pub(super) fn transmit(&mut self) {
        let head = self.mac.tx.next();
        let mut budget = BUDGET;
        while self.mac.tctl & TCTL_ENABLE != 0 && (self.link() || self.loops()) && budget > 0 {
            let Some(address) = self.mac.tx.next() else { break };
            let mut bytes = [0; DESCRIPTOR];
            // A ring that cannot be reached stays where it is.
            if self.memory.used.read_slice(&mut bytes, GuestAddress(address)).is_err() {
                break;
            }
            let descriptor = TxDescriptor::parse(bytes);
            let cost = self.step(&descriptor);
            budget = budget.saturating_sub(DESCRIPTOR_COST + cost);
            if descriptor.report {
                // One store: the CPU may be looking. A failure is the view's to tell.
                let status = (descriptor.upper | TX_DONE).to_le();
                let _ = self.memory.used.store(status, GuestAddress(address.saturating_add(TX_RESULT)), Ordering::Release);
                self.cause(CAUSE_TX_WRITTEN);
            }
            self.mac.tx.advance();
        }
        if head.is_some() && self.mac.tx.next().is_none() {
            self.cause(CAUSE_TX_EMPTY);
        }
    }

    /// Does what one descriptor says; its cost.
    fn step(&mut self, descriptor: &TxDescriptor) -> usize {
        match &descriptor.kind {
            TxKind::Context(segment, context) => {
                if let Some(to) = self.mac.contexts.get_mut(usize::from(*segment)) {
                    *to = *context;
                }
                0
            }
            TxKind::Data(piece) => {
                let gathered = self.gather(piece);
                let sent = if piece.end { self.send(piece) } else { 0 };
                gathered + sent
            }
        }
    }

    /// Reads a piece of a packet; the bytes read.
    fn gather(&mut self, piece: &Piece) -> usize {
        let [ip_checksum, tcp_checksum] = piece.checksums;
        let packet = &mut self.mac.packet;
        let options = *packet.options.get_or_insert(Options { segment: piece.segment, ip_checksum, tcp_checksum });
        let most = if options.segment { MOST_PACKET } else { MOST_TX_FRAME };
        let (from, to) = (packet.bytes.len(), packet.bytes.len() + piece.len);
        if packet.lost || to > most {
            packet.lost = true;
            return 0;
        }
        packet.bytes.resize(to, 0);
        let room = packet.bytes.get_mut(from..).unwrap_or_default();
        packet.lost = self.memory.used.read_slice(room, GuestAddress(piece.address)).is_err();
        piece.len
    }

    /// Sends the packet that `last` completes; the cost.
    fn send(&mut self, last: &Piece) -> usize {
        let Packet { mut bytes, options, lost } = std::mem::take(&mut self.mac.packet);
        let options = options.unwrap_or_default();
        if lost {
            return 0;
        }
        if let Some([start, field]) = last.checksum_at {
            insert_checksum(&mut bytes, start, field, 0);
        }
        let [checksums, segmentation] = self.mac.contexts;
        let frames = frames(bytes, options, if options.segment { &segmentation } else { &checksums });
        if options.segment {
            self.mac.statistics.count(if frames.is_some() { statistic::SEGMENTED } else { statistic::NOT_SEGMENTED });
        }
        let cost = |frame: Vec<u8>| {
            let cost = FRAME_COST + frame.len();
            self.put_on_wire(frame, last);
            cost
        };
        frames.into_iter().flatten().map(cost).sum()
    }

    fn put_on_wire(&mut self, mut frame: Vec<u8>, last: &Piece) {
        if !last.insert_crc {
            // The driver made the check sequence, and the wire here carries none.
            frame.truncate(frame.len().saturating_sub(CRC));
        }
        if let Some(tag) = last.tag.filter(|_| self.mac.ctrl & CTRL_VLAN != 0 && frame.len() >= TAG_AT) {
            let [.., high, low] = self.mac.plain.get(&VET).copied().unwrap_or_default().to_be_bytes();
            let [first, second] = tag.to_be_bytes();
            frame.splice(TAG_AT..TAG_AT, [high, low, first, second]);
        }
        if frame.len() < LEAST && self.mac.tctl & TCTL_PAD != 0 {
            frame.resize(LEAST, 0);
        }
        self.mac.statistics.frame(TX, frame.get(..6).unwrap_or_default(), frame.len() + CRC);
        if self.loops() {
            self.loop_back(frame);
        } else {
            self.peer.take(frame);
            self.receive();
        }
    }
}
