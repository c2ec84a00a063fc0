//! The statistics registers (SDM section 13.7): they count, and reading one clears it.

use super::spec::statistic::{
    BROADCAST_RX, BROADCAST_TX, COUNT, GOOD_OCTETS_RX, GOOD_OCTETS_TX, GOOD_RX, GOOD_TX, MULTICAST_RX, MULTICAST_TX, OCTETS, SIZES_RX,
    SIZES_TX, TOTAL_OCTETS_RX, TOTAL_OCTETS_TX, TOTAL_RX, TOTAL_TX,
};

/// Which way a frame goes: its registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    sizes: usize,
    good: usize,
    total: usize,
    broadcast: usize,
    multicast: usize,
    octets: [usize; 2],
}

/// To the guest.
pub(super) const RX: Way = Way {
    sizes: SIZES_RX,
    good: GOOD_RX,
    total: TOTAL_RX,
    broadcast: BROADCAST_RX,
    multicast: MULTICAST_RX,
    octets: [GOOD_OCTETS_RX, TOTAL_OCTETS_RX],
};

/// From the guest.
pub(super) const TX: Way = Way {
    sizes: SIZES_TX,
    good: GOOD_TX,
    total: TOTAL_TX,
    broadcast: BROADCAST_TX,
    multicast: MULTICAST_TX,
    octets: [GOOD_OCTETS_TX, TOTAL_OCTETS_TX],
};

/// The counters.
#[derive(Clone, Debug)]
pub(super) struct Statistics([u32; COUNT]);

impl Default for Statistics {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl Statistics {
    /// Counts one of something; counters stick at their top.
    pub(super) fn count(&mut self, register: usize) {
        if let Some(counter) = self.0.get_mut(register) {
            *counter = counter.saturating_add(1);
        }
    }

    /// Counts a good frame of `len` bytes with its check sequence, to `address`.
    pub(super) fn frame(&mut self, way: Way, address: &[u8], len: usize) {
        self.count(way.good);
        self.count(way.total);
        if address.iter().all(|byte| *byte == 0xff) {
            self.count(way.broadcast);
        } else if address.first().is_some_and(|byte| byte & 1 != 0) {
            self.count(way.multicast);
        }
        let bin = match len {
            ..65 => 0,
            65..128 => 1,
            128..256 => 2,
            256..512 => 3,
            512..1024 => 4,
            1024.. => 5,
        };
        self.count(way.sizes + bin);
        for low in way.octets {
            self.octets(low, len);
        }
    }

    /// Adds to a counter of 64 bits.
    fn octets(&mut self, low: usize, len: usize) {
        if let Some([low, high]) = self.0.get_mut(low..low + 2) {
            let sum = (u64::from(*high) << 32 | u64::from(*low)).saturating_add(len as u64);
            let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default();
            (*low, *high) = (half(sum), half(sum >> 32));
        }
    }

    /// Reads a register. The low half of a 64-bit counter is cleared with its high half, which software reads second.
    pub(super) fn read(&mut self, register: usize) -> u32 {
        let Some(counter) = self.0.get_mut(register) else { return 0 };
        if OCTETS.contains(&register) {
            return *counter;
        }
        let value = std::mem::take(counter);
        let low = register.checked_sub(1).filter(|low| OCTETS.contains(low));
        if let Some(low) = low.and_then(|low| self.0.get_mut(low)) {
            *low = 0;
        }
        value
    }
}
