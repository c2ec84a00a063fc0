//! A small set of page addresses.

use super::PAGE;

/// Fetch on two pages and two operands on two pages each, five tables deep, is 30.
const CAPACITY: usize = 32;

/// Guest physical addresses of pages, each once, in the order they were met.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    pages: [u64; CAPACITY],
    len: usize,
}

impl Default for Pages {
    fn default() -> Self {
        Self { pages: [0; CAPACITY], len: 0 }
    }
}

impl Pages {
    /// Adds the page of `gpa`.
    pub fn add(&mut self, gpa: u64) {
        let page = gpa & !(PAGE - 1);
        if self.as_slice().contains(&page) {
            return;
        }
        if let Some(slot) = self.pages.get_mut(self.len) {
            *slot = page;
            self.len += 1;
        }
    }

    /// The pages.
    pub fn as_slice(&self) -> &[u64] {
        self.pages.get(..self.len).unwrap_or(&self.pages)
    }
}
