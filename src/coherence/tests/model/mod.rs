//! A slow model of the core without any cleverness, and random histories on which both must agree: on every byte of the CPU's copy
//! after every event, on every byte a device reads, on the guards of the pages, and on the findings (code, kind, severity, device,
//! place of the map, place of the offence, bytes of the mapping).
//!
//! `state` is the memory, byte by byte, `machine` what other machines than arm64 do to it, `cache` what the cache does on its own;
//! `judge`, `held`, `lines` and `access` are the rules, `maps` those of map calls; `history` makes histories, `compare`, `calls` and `stray` play them on both.
//! `exhaustive` plays all short ones of a small machine, `long` as many random ones as one asks for.
//!
//! What is not modelled, and why:
//! - DV110, DV111, DV112: about a map call's arguments alone; they move no byte and depend on no history.
//! - DV106, DV117, DV404, DV405, DV503: need attributes, an allocator or a place in a function, which the histories have not.
//! - Foreign pages, where only the place of an access decides.
//! - DV303 seen when it happens in slab objects, DV901: the histories do nothing that is either.
//! - What the core forgets because its memory is bounded: a mapping with more than ten events is unmapped.

mod access;
mod batch;
mod cache;
mod calls;
mod compare;
mod held;
mod history;
mod judge;
mod lines;
mod machine;
mod maps;
mod regressions;
mod state;
mod stray;

pub(super) use batch::Batch;
pub(super) use compare::play;
pub(super) use history::{Op, Setup, Slip, history};
use proptest::prelude::*;

/// A finding of a regression: its code and the bytes.
type Expect = (&'static str, Option<(usize, usize)>);

/// Code and bytes of what core and model both find.
fn played(setup: Setup, history: &[Op]) -> Vec<(String, Option<(usize, usize)>)> {
    let found = play(setup, history).unwrap_or_else(|difference| panic!("{difference}"));
    found.iter().map(|f| (f.code.to_string(), f.range)).collect()
}

/// 36 times [`CASES`](super::CASES), which is 100,000 events, or what `PROPTEST_CASES` asks for.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(super::CASES * 36)
}

proptest! {
    #![proptest_config(super::fixture::property(cases()))]

    #[test]
    fn core_and_model_agree((setup, history) in history(60)) {
        play(setup, &history).map_err(TestCaseError::fail)?;
    }
}
