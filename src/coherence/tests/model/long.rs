//! As many random events as one asks for: `cargo xtask model`.

use super::model::{history, play};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Histories of one seed.
const ROUND: u32 = 500;

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Each round of histories has a seed of its own, the next number: the one that fails is played again with `--seed`.
#[test]
#[ignore = "takes as long as one asks for: cargo xtask model"]
fn many_events() {
    let events = asked("DMAVET_MODEL_EVENTS", 1_000_000);
    let first = asked("DMAVET_MODEL_SEED", 1);
    let (begun, mut told) = (Instant::now(), Instant::now());
    let (done, histories) = (Cell::new(0u64), Cell::new(0u64));
    let mut seed = first;
    while done.get() < events {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config { cases: ROUND, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let round = runner.run(&history(60), |(setup, history)| {
            done.set(done.get() + history.len() as u64);
            histories.set(histories.get() + 1);
            play(setup, &history).map(|_| ()).map_err(TestCaseError::fail)
        });
        if let Err(error) = round {
            panic!("core and model disagree; to see it again: cargo xtask model --events 1 --seed {seed}\n{error}");
        }
        seed = seed.wrapping_add(1);
        if told.elapsed() > Duration::from_secs(5) || done.get() >= events {
            told = Instant::now();
            let speed = done.get() as f64 / begun.elapsed().as_secs_f64();
            let (done, histories) = (done.get(), histories.get());
            println!("model: {done} of {events} events in {histories} histories agree, {speed:.0} events/s, seeds {first}..{seed}");
        }
    }
}
