//! Every test of the core, recorded and replayed: both give the same.

// The tests of the core refer to it as `crate`.
pub use dmavet_coherence::*;

mod again;
