//! Closes random pages of a live guest, to test the watch itself.

use super::frames::{Frames, Page};
use std::collections::HashMap;

/// Traps of one page before another is taken instead: a page that is used all the time would stop the guest from getting on.
const BUDGET: u32 = 30;
/// Pages the firmware, the boot protocol and the first CPU's start-up code use.
const FIRST: u32 = 256;
/// One part in so many is exchanged in a round.
const TURNOVER: usize = 8;

/// The choice of pages.
#[derive(Debug)]
pub struct Stress {
    pages: usize,
    random: u64,
    /// Closed now, with the traps each had.
    closed: HashMap<Page, u32>,
    /// Pages closed so far, each time counted.
    total: u64,
    /// Not to be closed again: page tables, used up.
    spent: HashMap<Page, ()>,
}

/// A change to make.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// To close.
    pub close: Vec<Page>,
    /// To open.
    pub open: Vec<Page>,
}

impl Stress {
    /// `pages` at a time, chosen by `seed`.
    #[must_use]
    pub fn new(pages: u32, seed: u64) -> Self {
        // Any state but 0 will do for xorshift.
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { pages: pages as usize, random, closed: HashMap::new(), total: 0, spent: HashMap::new() }
    }

    /// Pages closed so far, each time counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A page was hit: true when it has to be opened now.
    pub fn hit(&mut self, page: Page) -> bool {
        let Some(count) = self.closed.get_mut(&page) else { return false };
        *count += 1;
        if *count < BUDGET {
            return false;
        }
        self.drop_page(page);
        true
    }

    /// A page must not be closed again.
    pub fn drop_page(&mut self, page: Page) {
        self.closed.remove(&page);
        self.spent.insert(page, ());
    }

    /// What to change now.
    pub fn round(&mut self, frames: &Frames) -> Round {
        let mut round = Round::default();
        let mut old: Vec<_> = self.closed.keys().copied().collect();
        old.sort_unstable();
        for _ in 0..old.len() / TURNOVER {
            let at = self.below(old.len());
            let page = old.swap_remove(at);
            self.closed.remove(&page);
            round.open.push(page);
        }
        let all = frames.count().saturating_sub(FIRST);
        // A guest whose pages are all spent begins anew.
        if self.spent.len() + self.pages > all as usize {
            self.spent.clear();
        }
        for _ in 0..4 * self.pages {
            if self.closed.len() >= self.pages || all == 0 {
                break;
            }
            let page = Page(FIRST + u32::try_from(self.below(all as usize)).unwrap_or(0));
            if !self.spent.contains_key(&page) && !round.open.contains(&page) && self.closed.insert(page, 0).is_none() {
                round.close.push(page);
                self.total += 1;
            }
        }
        round
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 16).unwrap_or(0) % limit.max(1)
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_picks_the_same_pages_and_spent_ones_stay_open() {
        let frames = Frames::new(&[(0, 64 << 20)]);
        let (mut one, mut two) = (Stress::new(100, 7), Stress::new(100, 7));
        let first = one.round(&frames);
        assert_eq!(first, two.round(&frames));
        assert_eq!((first.close.len(), first.open.len()), (100, 0));
        assert!(first.close.iter().all(|page| page.0 >= FIRST && page.0 < frames.count()));
        let page = first.close[0];
        for n in 1..=BUDGET {
            assert_eq!(one.hit(page), n == BUDGET);
        }
        assert!(!one.hit(page));
        for _ in 0..50 {
            let round = one.round(&frames);
            assert!(!round.close.contains(&page));
            assert!(round.close.len() <= 13 && round.open.len() == 12, "{round:?}");
        }
        assert_ne!(Stress::new(100, 8).round(&frames), first);
    }
}
