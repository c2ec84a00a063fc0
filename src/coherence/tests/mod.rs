//! Tests of the core as a whole: a machine of RAM, a CPU and two devices, without a guest.

mod adversary;
mod alias;
mod beyond;
mod bus;
mod bytes;
mod correct;
mod edges;
#[path = "model/exhaustive.rs"]
mod exhaustive;
mod faults;
mod fixture;
mod flights;
mod idioms;
mod inside;
mod life;
mod limits;
mod lines;
#[path = "model/long.rs"]
mod long;
mod maps;
mod masks;
mod model;
mod ownership;
mod profiles;
mod regressions;
mod space;
mod stop;
mod syncs;
mod tapped;
mod view;
mod watch;
mod watched;
mod watching;
mod wire;

use crate::{Coherence, Config};
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

/// Random histories the model plays by default.
const CASES: u32 = 96;

/// What a machine keeps to its end. Whoever plays these tests on another core (the recorder does) has its own.
struct Kept;

/// The core a machine is built on.
fn core_over(config: Config, ram: Arc<GuestMemoryMmap>) -> (Coherence, Kept) {
    (Coherence::new(config, ram).unwrap(), Kept)
}
