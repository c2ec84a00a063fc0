//! Traces: everything the coherence core took in during a run, to be judged again without a virtual machine.
//!
//! A [`Recorder`] is the core's [`Tap`](dmavet_coherence::Tap) while a run goes on; [`replay`] gives a fresh core the same inputs
//! in the same order and so gets the same findings. What the core reads of guest RAM is part of its input: the trace holds
//! the bytes that changed since the page was last read. `docs/trace.md` describes the format.
//!
//! A trace is read as a stream and trusted in nothing: lengths are bounded before memory is taken for them, every block carries
//! checksums, and a record that makes no sense is an error with its place. A trace that ends in the middle, because the run was
//! killed, is good up to its last whole block.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing))]

mod block;
mod calls;
mod code;
mod error;
mod header;
mod inputs;
mod player;
mod reader;
mod record;
mod recorder;
mod replay;
mod shadow;
mod streamed;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use header::{Header, Limits};
pub use reader::{End, Reader};
pub use record::{Patch, Record};
pub use recorder::{Figures, Recorder};
pub use replay::{Divergence, Replay, replay, replay_watched};
pub use streamed::Moved;

/// A trace of a machine with 8 MiB of RAM whose one block has these contents, with checksums that match: for fuzzers, which would not
/// get past them.
#[cfg(any(test, feature = "fuzzing"))]
#[must_use]
pub fn sealed(contents: &[u8]) -> Vec<u8> {
    let ram = dmavet_coherence::RamRegion { base: 0, len: 8 << 20, shared: true };
    let header = Header { writer: String::new(), config: dmavet_coherence::Config::for_ram(8 << 20), ram: vec![ram] };
    let mut bytes = Vec::new();
    let written = header.write(&mut bytes).and_then(|_| block::write(&mut bytes, 0, contents));
    if written.is_err() {
        bytes.clear();
    }
    bytes
}

/// The contents of a trace's first block, as [`sealed`] takes them; empty when there is none.
#[cfg(any(test, feature = "fuzzing"))]
#[must_use]
pub fn unsealed(trace: &[u8]) -> Vec<u8> {
    Reader::new(trace).map(Reader::first_block).unwrap_or_default()
}

/// Version of the format this crate writes; it reads no other.
pub const VERSION: u16 = 2;
