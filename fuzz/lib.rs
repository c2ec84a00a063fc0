//! Everything dmavet reads from sides that may be hostile, as functions of bytes: they panic when something is wrong.
//!
//! libFuzzer calls them from `fuzz_targets/`, and `tests/bounded.rs` attacks them for a bounded time on stable Rust, from the
//! [`seeds`] and from what the unit tests write with `cargo xtask corpus`.
#![forbid(unsafe_code)]

mod agent;
mod devices;
mod ops;
pub mod seeds;
mod trace;
mod view;

pub use agent::agent;
pub use devices::devices;
pub use dmavet_trace::unsealed;
pub use trace::{record, replay, trace};
pub use view::view;
