//! Guest RAM as both sides of a trace know it: the recorder to tell what changed, the replay to give it back.

use std::collections::HashMap;

pub(crate) const PAGE: usize = 4096;
pub(crate) const PAGE_U64: u64 = 4096;

/// Pages remembered; the recorder forgets all of them once an input leaves more.
pub(crate) const KEPT: usize = 16 << 10;
/// Pages there can be at once: what is remembered, and what one input touches.
pub(crate) const MOST: usize = KEPT + (256 << 10);

/// Bytes that are equal between two runs are written with them when they are so few.
const GAP: usize = 16;
const WORD: usize = 8;

/// What was last seen of a page; zeros where nothing was.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) bytes: [u8; PAGE],
    /// The input that touched it last.
    pub(crate) input: u64,
}

/// All pages remembered, by number.
#[derive(Debug, Default)]
pub(crate) struct Shadows(HashMap<u64, Box<Shadow>>);

/// A guest physical address as the number of its page and the offset there.
pub(crate) fn split(gpa: u64) -> (u64, usize) {
    (gpa / PAGE_U64, usize::try_from(gpa % PAGE_U64).unwrap_or(0))
}

impl Shadows {
    /// The page, made of zeros when it is new; `None` when there are too many.
    pub(crate) fn page(&mut self, page: u64) -> Option<&mut Shadow> {
        if self.0.len() >= MOST && !self.0.contains_key(&page) {
            return None;
        }
        Some(self.0.entry(page).or_insert_with(|| Box::new(Shadow { bytes: [0; PAGE], input: u64::MAX })))
    }

    pub(crate) fn full(&self) -> bool {
        self.0.len() > KEPT
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Where `new` differs from `old`: ranges of whole words, those that nearly touch as one.
pub(crate) fn differences(old: &[u8], new: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, (a, b)) in old.chunks(WORD).zip(new.chunks(WORD)).enumerate() {
        if a == b {
            continue;
        }
        let (start, end) = (at * WORD, at * WORD + b.len());
        match runs.last_mut() {
            Some(last) if start - last.1 <= GAP => last.1 = end,
            _ => runs.push((start, end)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_few_and_complete() {
        let old = [0u8; 100];
        let mut new = old;
        assert!(differences(&old, &new).is_empty());
        new[0] = 1;
        new[30] = 1;
        new[99] = 1;
        assert_eq!(differences(&old, &new), [(0, 32), (96, 100)]);
    }
}
