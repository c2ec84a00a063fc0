//! One bit per byte of a page, and comparing pages eight bytes at a time.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes in a page.
pub(crate) const PAGE: usize = 4096;
/// The same as an address.
pub(crate) const PAGE_U64: u64 = 4096;
/// Words of a page's bit mask.
pub(crate) const WORDS: usize = PAGE / 64;

/// A `u64` length or offset as an index. On 64-bit hosts, the only ones with KVM, nothing is lost.
#[inline]
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// An index as the 32-bit number it is stored as; saturates.
#[inline]
pub(crate) fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The bytes of a page.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(8))]
pub(crate) struct PageBytes(pub(crate) [u64; PAGE / 8]);

impl PageBytes {
    pub(crate) const ZERO: Self = Self([0; PAGE / 8]);

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_bytes()
    }
}

/// One bit per byte of a page. Ranges are `start..end` with `end` at most [`PAGE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bits(pub(crate) [u64; WORDS]);

/// The bits of word `word` that belong to `start..end`.
#[inline]
pub(crate) fn word_mask(word: usize, start: usize, end: usize) -> u64 {
    let base = word * 64;
    let low = start.saturating_sub(base).min(64);
    let high = end.saturating_sub(base).min(64);
    if high <= low {
        return 0;
    }
    let len = high - low;
    if len == 64 { !0 } else { ((1 << len) - 1) << low }
}

/// The words that hold bits of `start..end`.
#[inline]
pub(crate) fn words(start: usize, end: usize) -> std::ops::Range<usize> {
    if start >= end { 0..0 } else { start / 64..end.min(PAGE).div_ceil(64) }
}

/// The words of a mask that hold `start..end`: the first and the last with the bits that belong to it, and those in between,
/// which belong to it entirely. Most accesses are a whole page or within one word; neither computes a mask for each word.
pub(crate) struct Split<'a, T> {
    pub(crate) first: Option<(&'a T, u64)>,
    pub(crate) middle: &'a [T],
    pub(crate) last: Option<(&'a T, u64)>,
}

/// See [`Split`].
#[inline]
pub(crate) fn split<T>(mask: &[T; WORDS], start: usize, end: usize) -> Split<'_, T> {
    let slice = mask.get(words(start, end)).unwrap_or_default();
    let (head, tail) = (start % 64, end % 64);
    let head_mask = !0 << head;
    let tail_mask = if tail == 0 { !0 } else { !0 >> (64 - tail) };
    match slice {
        [] => Split { first: None, middle: &[], last: None },
        [one] => Split { first: Some((one, head_mask & tail_mask)), middle: &[], last: None },
        [first, middle @ .., last] => Split { first: Some((first, head_mask)), middle, last: Some((last, tail_mask)) },
    }
}

impl<T> Split<'_, T> {
    /// The words at the edges with their masks.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (&T, u64)> {
        self.first.into_iter().chain(self.last)
    }
}

impl Bits {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    #[inline]
    pub(crate) fn any(&self, start: usize, end: usize) -> bool {
        let split = split(&self.0, start, end);
        split.edges().any(|(bits, mask)| bits & mask != 0) || split.middle.iter().fold(0, |all, bits| all | bits) != 0
    }

    #[inline]
    pub(crate) fn all(&self, start: usize, end: usize) -> bool {
        let split = split(&self.0, start, end);
        split.edges().all(|(bits, mask)| bits & mask == mask) && split.middle.iter().fold(!0, |all, bits| all & bits) == !0
    }

    pub(crate) fn get(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    pub(crate) fn set(&mut self, start: usize, end: usize) {
        self.change(start, end, |bits, mask| *bits |= mask);
    }

    pub(crate) fn clear(&mut self, start: usize, end: usize) {
        self.change(start, end, |bits, mask| *bits &= !mask);
    }

    fn change(&mut self, start: usize, end: usize, change: impl Fn(&mut u64, u64)) {
        let (head, tail) = (!0 << (start % 64), if end.is_multiple_of(64) { !0 } else { !0 >> (64 - end % 64) });
        match self.0.get_mut(words(start, end)).unwrap_or_default() {
            [] => {}
            [one] => change(one, head & tail),
            [first, middle @ .., last] => {
                change(first, head);
                middle.iter_mut().for_each(|bits| change(bits, !0));
                change(last, tail);
            }
        }
    }

    /// Number of set bits in `start..end`.
    pub(crate) fn count(&self, start: usize, end: usize) -> u64 {
        let split = split(&self.0, start, end);
        let edges: u64 = split.edges().map(|(bits, mask)| u64::from((bits & mask).count_ones())).sum();
        edges + split.middle.iter().map(|bits| u64::from(bits.count_ones())).sum::<u64>()
    }

    /// First and one past the last set bit.
    pub(crate) fn hull(&self) -> Option<(usize, usize)> {
        let first = self.0.iter().position(|word| *word != 0)?;
        let last = self.0.iter().rposition(|word| *word != 0)?;
        let low = first * 64 + self.0.get(first)?.trailing_zeros() as usize;
        let high = last * 64 + 64 - self.0.get(last)?.leading_zeros() as usize;
        Some((low, high))
    }

    /// The runs of set bits, in order, as `(start, end)`.
    pub(crate) fn runs(&self) -> Runs<'_> {
        Runs { bits: self, at: 0 }
    }

    /// First bit at or after `at` that is `value`; [`PAGE`] if there is none.
    fn next(&self, at: usize, value: bool) -> usize {
        let mut word = at / 64;
        let mut keep = !0u64 << (at % 64);
        while let Some(bits) = self.0.get(word) {
            let found = if value { *bits } else { !*bits } & keep;
            if found != 0 {
                return word * 64 + found.trailing_zeros() as usize;
            }
            keep = !0;
            word += 1;
        }
        PAGE
    }
}

/// See [`Bits::runs`].
pub(crate) struct Runs<'a> {
    bits: &'a Bits,
    at: usize,
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let start = self.bits.next(self.at, true);
        if start >= PAGE {
            return None;
        }
        let end = self.bits.next(start, false);
        self.at = end;
        Some((start, end))
    }
}

/// One bit for each byte of `x` that is not zero, least significant byte first.
fn nonzero_bytes(x: u64) -> u64 {
    let mut t = x | (x >> 4);
    t |= t >> 2;
    t |= t >> 1;
    t &= 0x0101_0101_0101_0101;
    t.wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Whether the 64-byte block `word` differs at all.
#[inline]
pub(crate) fn block_differs(a: &PageBytes, b: &PageBytes, word: usize) -> bool {
    a.0.as_chunks::<8>().0.get(word) != b.0.as_chunks::<8>().0.get(word)
}

/// The bytes of the 64-byte block `word` in which `a` and `b` differ.
pub(crate) fn differing_word(a: &PageBytes, b: &PageBytes, word: usize) -> u64 {
    let (Some(a), Some(b)) = (a.0.as_chunks::<8>().0.get(word), b.0.as_chunks::<8>().0.get(word)) else { return 0 };
    let mut bits = 0;
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        // Little-endian hosts only (x86-64): the byte at the lowest address is the least significant.
        let diff = u64::from_le(x ^ y);
        if diff != 0 {
            bits |= nonzero_bytes(diff) << (i * 8);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_agree_with_a_set_of_bytes(ranges in prop::collection::vec((0usize..=PAGE, 0usize..=PAGE, any::<bool>()), 0..12)) {
            let mut bits = Bits::EMPTY;
            let mut plain = vec![false; PAGE];
            for (a, b, on) in ranges {
                let (start, end) = (a.min(b), a.max(b));
                if on { bits.set(start, end) } else { bits.clear(start, end) }
                plain[start..end].fill(on);
                prop_assert_eq!(bits.any(start, end), on && start < end);
                prop_assert_eq!(bits.all(start, end), on || start == end);
            }
            prop_assert_eq!(bits.count(0, PAGE), plain.iter().filter(|b| **b).count() as u64);
            let mut again = vec![false; PAGE];
            for (start, end) in bits.runs() {
                again[start..end].fill(true);
            }
            prop_assert_eq!(&plain, &again);
            prop_assert_eq!(bits.hull().map(|h| h.0), plain.iter().position(|b| *b));
            prop_assert_eq!(bits.hull().map(|h| h.1 - 1), plain.iter().rposition(|b| *b));
        }

        #[test]
        fn differing_bytes_are_found(changes in prop::collection::vec((0usize..PAGE, any::<u8>()), 0..40)) {
            let a = PageBytes::ZERO;
            let mut b = PageBytes::ZERO;
            for (at, value) in changes {
                b.bytes_mut()[at] = value;
            }
            for word in 0..WORDS {
                let expected = (0..64).filter(|i| b.bytes()[word * 64 + i] != 0).fold(0u64, |m, i| m | 1 << i);
                prop_assert_eq!(differing_word(&a, &b, word), expected);
            }
        }
    }
}
