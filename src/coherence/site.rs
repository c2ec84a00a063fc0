//! Interned call stacks.
//!
//! The guest announces a stack once; afterwards it is a [`SiteId`]. Addresses are guest kernel virtual addresses.

use crate::ids::SiteId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// One frame of a call stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Guest virtual address: a return address, or the address after the instruction for the first frame of a kick, unless it is exact.
    pub address: u64,
    /// The guest's own `%pS`-style name (`func+0x1a/0x80 [module]`), empty when the guest could not tell.
    pub symbol: String,
    /// Whether the frame was found by unwinding. A word of the stack that merely looks like a return address is not: the kernel
    /// prints such frames with a question mark.
    pub reliable: bool,
    /// The address is that of the instruction meant, not the one behind it: the instruction a CPU was stopped at, or one that was
    /// interrupted. Then `symbol` is the kernel's `%pS` name, else its `%pB` name.
    pub exact: bool,
}

impl Frame {
    /// A frame that is certain.
    #[must_use]
    pub const fn new(address: u64, symbol: String) -> Self {
        Self { address, symbol, reliable: true, exact: false }
    }

    /// The frame of the instruction at `address`.
    #[must_use]
    pub const fn at(address: u64, symbol: String) -> Self {
        Self { address, symbol, reliable: true, exact: true }
    }
}

/// All stacks of a run, each once.
#[derive(Clone, Debug, Default)]
pub struct SiteTable {
    stacks: Vec<Vec<Frame>>,
    index: HashMap<Vec<Frame>, SiteId>,
}

impl SiteTable {
    /// The most stacks a run keeps; a guest that announces more gets [`SiteId::default`].
    pub const MAX: usize = 1 << 16;

    /// Interns `stack` (innermost frame first). An empty stack, or one too many, is site 0.
    pub fn intern(&mut self, stack: Vec<Frame>) -> SiteId {
        if stack.is_empty() {
            return SiteId::default();
        }
        if let Some(id) = self.index.get(&stack) {
            return *id;
        }
        let Some(next) = u32::try_from(self.stacks.len() + 1).ok().filter(|n| *n as usize <= Self::MAX) else {
            return SiteId::default();
        };
        self.stacks.push(stack.clone());
        self.index.insert(stack, SiteId(next));
        SiteId(next)
    }

    /// The frames of `id`, innermost first; empty for site 0 and for ids of another run.
    #[must_use]
    pub fn frames(&self, id: SiteId) -> &[Frame] {
        (id.0 as usize).checked_sub(1).and_then(|i| self.stacks.get(i)).map_or(&[], Vec::as_slice)
    }

    /// All stacks, innermost frame first, in the order they were interned.
    pub fn iter(&self) -> impl Iterator<Item = &[Frame]> {
        self.stacks.iter().map(Vec::as_slice)
    }

    /// Number of stacks known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stacks.len()
    }

    /// Whether no stack was interned yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }
}
