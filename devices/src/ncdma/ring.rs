//! A ring of descriptors: what its registers hold and what they mean (section 3.2 of `docs/ncdma.md`).

use super::spec::{DESCRIPTOR_STRIDE, MAX_RING, MIN_RING};

/// One ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ring {
    /// The BASE registers.
    pub(super) base: u64,
    /// The SIZE register.
    pub(super) size: u32,
    /// BASE and SIZE as latched when the ring was switched on.
    live: Option<(u64, u32)>,
    head: u32,
    tail: u32,
}

impl Ring {
    /// Latches BASE and SIZE; `None` if they cannot be a ring, which is then off.
    pub(super) const fn switch_on(&mut self) -> Option<()> {
        self.live = None;
        let size_ok = self.size.is_power_of_two() && self.size >= MIN_RING && self.size <= MAX_RING;
        if !size_ok || !self.base.is_multiple_of(DESCRIPTOR_STRIDE) {
            return None;
        }
        self.live = Some((self.base, self.size));
        self.head = 0;
        self.tail = 0;
        Some(())
    }

    pub(super) const fn switch_off(&mut self) {
        self.live = None;
    }

    pub(super) const fn is_on(&self) -> bool {
        self.live.is_some()
    }

    pub(super) const fn head(&self) -> u32 {
        self.head
    }

    pub(super) const fn tail(&self) -> u32 {
        self.tail
    }

    /// Takes a doorbell; `None` if there is no such descriptor.
    pub(super) const fn set_tail(&mut self, tail: u32) -> Option<()> {
        match self.live {
            Some((_, size)) if tail < size => {
                self.tail = tail;
                Some(())
            }
            _ => None,
        }
    }

    /// The address of the descriptor at HEAD; `None` while the ring is off or empty. Its high bits may not be wired.
    pub(super) fn next(&self) -> Option<u64> {
        let (base, _) = self.live.filter(|_| self.head != self.tail)?;
        Some(base.wrapping_add(u64::from(self.head) * DESCRIPTOR_STRIDE))
    }

    /// Goes on to the next descriptor.
    pub(super) const fn advance(&mut self) {
        if let Some((_, size)) = self.live {
            self.head = (self.head + 1) % size;
        }
    }
}
