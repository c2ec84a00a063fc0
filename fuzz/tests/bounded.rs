//! The fuzz targets for a bounded time on stable Rust: random changes of inputs that go deep.
//!
//! The same inputs in every run unless `DMAVET_FUZZ_SEED` is set; `DMAVET_FUZZ_CASES` sets how many times a default number.
//! `DMAVET_CORPUS` names a folder of more inputs, one folder for each target: the unit tests of agent and trace leave theirs there,
//! these add their own, and libFuzzer takes them from `fuzz/corpus` (`cargo xtask corpus`).

use dmavet_fuzz::seeds;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest input made of another.
const LONGEST: usize = 1 << 16;
/// A single input that takes longer has found a hang.
const HANG: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
enum Change {
    Byte(Index, u8),
    Bit(Index, u8),
    Number(Index, u8, u64),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index),
    Splice(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let special =
        prop::sample::select(vec![0, 1, 2, 63, 64, 255, 4095, 4096, 0xffff, 0xffff_ffff, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 4095]);
    let number = prop_oneof![special, any::<u64>(), 0u64..5000];
    prop_oneof![
        3 => any::<(Index, u8)>().prop_map(|(at, byte)| Change::Byte(at, byte)),
        3 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Change::Bit(at, bit)),
        3 => (any::<Index>(), 0u8..4, number).prop_map(|(at, size, number)| Change::Number(at, size, number)),
        1 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..24)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| Change::Remove(from, to)),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| Change::Repeat(from, to)),
        1 => any::<(Index, Index, Index)>().prop_map(|(other, at, from)| Change::Splice(other, at, from)),
    ]
}

fn range(a: Index, b: Index, len: usize) -> std::ops::Range<usize> {
    let (a, b) = (a.index(len + 1), b.index(len + 1));
    a.min(b)..a.max(b)
}

fn apply(change: Change, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let len = bytes.len();
    match change {
        Change::Byte(at, byte) if len > 0 => bytes[at.index(len)] = byte,
        Change::Bit(at, bit) if len > 0 => bytes[at.index(len)] ^= 1 << bit,
        Change::Number(at, size, number) if len > 0 => {
            let at = at.index(len);
            let number = number.to_le_bytes();
            let size = (1 << size).min(len - at);
            bytes[at..at + size].copy_from_slice(&number[..size]);
        }
        Change::Insert(at, new) => {
            let at = at.index(len + 1);
            bytes.splice(at..at, new);
        }
        Change::Remove(from, to) => drop(bytes.drain(range(from, to, len))),
        Change::Repeat(from, to) => bytes.extend_from_within(range(from, to, len)),
        Change::Splice(other, at, from) => {
            let other = &seeds[other.index(seeds.len())];
            bytes.truncate(at.index(len + 1));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
        _ => {}
    }
    bytes.truncate(LONGEST);
}

/// A target's corpus: file names and contents.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let Some(folder) = env::var_os("DMAVET_CORPUS") else { return Vec::new() };
    let folder = PathBuf::from(folder).join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect()).unwrap_or_default();
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))).collect()
}

/// Adds inputs to a target's corpus.
fn keep(name: &str, seeds: &[Vec<u8>]) {
    let Some(folder) = env::var_os("DMAVET_CORPUS") else { return };
    let folder = PathBuf::from(folder).join(name);
    fs::create_dir_all(&folder).unwrap();
    for (n, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("made-{n:03}")), seed).unwrap();
    }
}

fn attack(name: &str, target: fn(&[u8]), cases: u32, mut seeds: Vec<Vec<u8>>) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|e| panic!("{name}={text}: {e}")));
    let seed = number("DMAVET_FUZZ_SEED").unwrap_or(1);
    let cases = cases * u32::try_from(number("DMAVET_FUZZ_CASES").unwrap_or(1)).expect("a multiple that makes sense");
    let made = seeds.len();
    seeds.extend(corpus(name).into_iter().filter(|(file, _)| !file.starts_with("made-")).map(|(_, bytes)| bytes));
    println!("{name}: {made} inputs made here, {} from unit tests, {cases} changed ones, DMAVET_FUZZ_SEED={seed}", seeds.len() - made);
    keep(name, &seeds[..made]);
    seeds.push(Vec::new());
    for bytes in &seeds {
        target(bytes);
    }
    let input = (any::<Index>(), prop::collection::vec(change(), 1..8)).prop_map(|(which, changes)| {
        let mut bytes = seeds[which.index(seeds.len())].clone();
        for change in changes {
            apply(change, &mut bytes, &seeds);
        }
        bytes
    });
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let start = Instant::now();
    let result = TestRunner::new(config).run(&input, |bytes| {
        let start = Instant::now();
        target(&bytes);
        let time = start.elapsed();
        prop_assert!(time < HANG, "one input takes {time:?}");
        Ok(())
    });
    println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    if let Err(error) = result {
        panic!("{name} with DMAVET_FUZZ_SEED={seed}: {error}");
    }
}

#[test]
fn agent() {
    attack("agent", dmavet_fuzz::agent, 3000, seeds::agent());
}

#[test]
fn devices() {
    attack("devices", dmavet_fuzz::devices, 15_000, seeds::devices());
}

#[test]
fn view() {
    attack("view", dmavet_fuzz::view, 1200, seeds::view());
}

#[test]
fn trace() {
    attack("trace", dmavet_fuzz::trace, 10_000, vec![dmavet_trace::sealed(&[])]);
}

#[test]
fn record() {
    attack("record", dmavet_fuzz::record, 40_000, (0..32).map(|kind| vec![kind, 0, 0, 0, 0, 0, 0, 0]).collect());
}

#[test]
fn replay() {
    let mut seeds: Vec<Vec<u8>> = (0..32).map(|kind| vec![kind, 0, 0, 0, 0, 0, 0, 0]).collect();
    seeds.extend(corpus("trace").iter().map(|(_, trace)| dmavet_fuzz::unsealed(trace)).filter(|contents| !contents.is_empty()));
    attack("replay", dmavet_fuzz::replay, 4000, seeds);
}
