//! Host side of dmavet's guest agent: a register page, an array of slots in guest RAM, and what the calls in them mean.
//!
//! The guest fills a slot and writes its index to the doorbell register; [`Agent::write_register`] decodes the slot, asks the
//! coherence core, and has written the answer into the slot when it returns. `docs/protocol.md` is the reference of both
//! sides, `guest-images/agent/dmavet_abi.h` the guest's twin of [`abi`].
//!
//! Everything a guest writes is hostile: a slot is copied once before it is looked at, every count and length is bounded, and
//! what makes no sense is answered with an error status and reported as a blind spot.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod abi;
mod agent;
mod assembly;
mod decode;
mod dma_core;
mod event;
mod registers;
mod sites;
mod slot;
mod text;

pub use agent::Agent;
pub use decode::DecodeError;
pub use dma_core::DmaCore;
pub use event::{AgentEvent, ModuleLayout, ModuleState};
