//! The receiver (SDM section 3.2).

use super::E1000;
use crate::e1000::spec::{
    ADDRESS_VALID, CAUSE_RX, CAUSE_RX_LOW, CAUSE_RX_OVERRUN, CRC, CTRL_VLAN, LEAST, MOST_LONG, MOST_STANDARD, RCTL_BROADCAST, RCTL_ENABLE,
    RCTL_LONG, RCTL_MULTICAST_ALL, RCTL_STRIP_CRC, RCTL_UNICAST_ALL, RCTL_VLAN_FILTER, RX_DATA_ERROR, RX_DONE, RX_END, RX_IGNORE_CHECKSUM,
    RX_INEXACT, RX_RESULT, RX_VLAN, TAG, TAG_AT, TAG_TYPE, rctl_buffer, rctl_low, rctl_multicast_shift, statistic,
};
use crate::e1000::statistics::RX;
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// How a frame got past the filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    /// By an address of its own, or because all are wanted.
    Exactly,
    /// By the multicast table, which other addresses share.
    Perhaps,
}

impl<M: GuestMemory> E1000<M> {
    /// Delivers what the peer sends, as far as there are descriptors.
    pub(super) fn receive(&mut self) {
        while self.mac.rctl & RCTL_ENABLE != 0 && self.link() && !self.loops() && self.mac.rx.owned() != 0 {
            let Some(frame) = self.peer.pull() else { return };
            if !self.take(&frame) {
                // The driver hands descriptors over when it has some.
                self.peer.put_back(frame);
                return;
            }
        }
    }

    /// Takes back a frame just sent. There is no peer to wait: without descriptors it is lost.
    pub(super) fn loop_back(&mut self, frame: Vec<u8>) {
        if self.mac.rctl & RCTL_ENABLE != 0 && !self.take(&frame) {
            self.mac.statistics.count(statistic::MISSED);
            self.cause(CAUSE_RX_OVERRUN);
        }
    }

    /// Delivers a frame or drops what is not wanted. False when there are too few descriptors for it, or none can be reached.
    fn take(&mut self, frame: &[u8]) -> bool {
        let Some(passed) = self.filter(frame) else { return true };
        let mut bytes = frame.to_vec();
        if bytes.len() < LEAST {
            bytes.resize(LEAST, 0);
        }
        let tag = tag(&bytes).filter(|_| self.mac.ctrl & CTRL_VLAN != 0);
        if tag.is_some() {
            bytes.drain(TAG_AT..TAG_AT + TAG);
        }
        let on_wire = frame.len().max(LEAST) + CRC;
        if self.mac.rctl & RCTL_STRIP_CRC == 0 {
            // Of the frame as it was on the wire: the tag is among the bytes summed up.
            let sum = crc32fast::hash(if tag.is_some() { frame } else { &bytes });
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        let buffer = rctl_buffer(self.mac.rctl);
        let needed = bytes.len().div_ceil(buffer);
        if usize::try_from(self.mac.rx.owned()).is_ok_and(|owned| owned < needed) {
            return false;
        }
        let status =
            RX_DONE | RX_IGNORE_CHECKSUM | if tag.is_some() { RX_VLAN } else { 0 } | if passed == Passed::Perhaps { RX_INEXACT } else { 0 };
        let mut pieces = bytes.chunks(buffer).peekable();
        while let Some(piece) = pieces.next() {
            let status = status | if pieces.peek().is_none() { RX_END } else { 0 };
            if !self.fill(piece, status, tag.unwrap_or_default()) {
                return false;
            }
        }
        self.mac.statistics.frame(RX, frame.get(..6).unwrap_or_default(), on_wire);
        self.cause(CAUSE_RX);
        if self.mac.rx.owned() <= self.mac.rx.size() / rctl_low(self.mac.rctl) {
            self.cause(CAUSE_RX_LOW);
        }
        true
    }

    /// Fills the buffer of the next descriptor and gives that back; false when the descriptor cannot be reached.
    fn fill(&mut self, piece: &[u8], status: u8, tag: u16) -> bool {
        let Some(address) = self.mac.rx.next() else { return false };
        let mut buffer = [0; 8];
        if self.memory.used.read_slice(&mut buffer, GuestAddress(address)).is_err() {
            return false;
        }
        let written = self.memory.used.write_slice(piece, GuestAddress(u64::from_le_bytes(buffer)));
        let errors = if written.is_err() { RX_DATA_ERROR } else { 0 };
        let [len0, len1] = u16::try_from(piece.len()).unwrap_or(u16::MAX).to_le_bytes();
        let [tag0, tag1] = tag.to_le_bytes();
        // One store: the CPU looks at the status while the rest is written.
        let result = u64::from_ne_bytes([len0, len1, 0, 0, status, errors, tag0, tag1]);
        if self.memory.used.store(result, GuestAddress(address.saturating_add(RX_RESULT)), Ordering::Release).is_err() {
            return false;
        }
        self.mac.rx.advance();
        true
    }

    /// SDM section 3.2.1: whether a frame is for this station.
    fn filter(&mut self, frame: &[u8]) -> Option<Passed> {
        let rctl = self.mac.rctl;
        let most = if rctl & RCTL_LONG != 0 { MOST_LONG } else { MOST_STANDARD };
        let vlan = tag(frame);
        if frame.len() + CRC > most + if vlan.is_some() { TAG } else { 0 } {
            self.mac.statistics.count(statistic::OVERSIZE);
            return None;
        }
        if let Some(tag) = vlan.filter(|_| rctl & RCTL_VLAN_FILTER != 0) {
            let id = usize::from(tag & 0xfff);
            let wanted = self.mac.vlan.get(id / 32).is_some_and(|bits| bits >> (id % 32) & 1 != 0);
            if !wanted {
                return None;
            }
        }
        let address: [u8; 6] = frame.first_chunk().copied()?;
        let multicast = address[0] & 1 != 0;
        let broadcast = address == [0xff; 6];
        let everybody = match (broadcast, multicast) {
            (true, _) => RCTL_BROADCAST | RCTL_MULTICAST_ALL,
            (_, true) => RCTL_MULTICAST_ALL,
            _ => RCTL_UNICAST_ALL,
        };
        if rctl & everybody != 0 || self.mac.is_own(address) {
            return Some(Passed::Exactly);
        }
        (multicast && self.mac.in_table(address)).then_some(Passed::Perhaps)
    }
}

impl super::Mac {
    /// Whether one of the receive addresses is `address` (SDM section 13.5.2).
    fn is_own(&self, address: [u8; 6]) -> bool {
        let [a, b, c, d, e, f] = address;
        let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]));
        self.addresses
            .chunks_exact(2)
            .any(|entry| matches!(*entry, [l, h] if l == low && h & (ADDRESS_VALID | 0xffff) == high | ADDRESS_VALID))
    }

    /// Whether the multicast table has the bit of `address` (SDM section 13.5.1).
    fn in_table(&self, address: [u8; 6]) -> bool {
        let [.., e, f] = address;
        let hash = usize::from(u16::from_le_bytes([e, f]) >> rctl_multicast_shift(self.rctl) & 0xfff);
        self.multicast.get(hash / 32).is_some_and(|bits| bits >> (hash % 32) & 1 != 0)
    }
}

/// The control information of a frame's VLAN tag.
fn tag(frame: &[u8]) -> Option<u16> {
    let [a, b, high, low] = frame.get(TAG_AT..TAG_AT + TAG)?.try_into().ok()?;
    (u16::from_be_bytes([a, b]) == TAG_TYPE).then_some(u16::from_be_bytes([high, low]))
}
