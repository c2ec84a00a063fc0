//! Files that are not what a recorder wrote: an error with its place, never a panic, never a wrong result.

use super::kinds::record;
use super::recorder;
use crate::{End, Error, Limits, Reader, Record, replay};
use dmavet_coherence::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::sync::Arc;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

/// A run of a core with 1 MiB of RAM: a device that gets its bytes late, `rounds` times.
fn trace(rounds: u64) -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let ram = Arc::new(GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), 1 << 20, Some(FileOffset::new(file, 0)))]).unwrap());
    let memory = super::Memory::with_room(usize::MAX);
    let recorder = Arc::new(crate::Recorder::new(Box::new(memory.clone())));
    let core = Coherence::with_tap(Config::for_ram(1 << 20), Arc::clone(&ram), Some(recorder.clone())).unwrap();
    core.add_device(DEVICE, "test");
    core.set_bus_master(DEVICE, true);
    let view = core.view(DEVICE);
    let caller = |line: u64| Caller { requester: DEVICE, site: core.intern_site(vec![Frame::new(line, format!("f+{line}"))]), cpu: 0 };
    for round in 0..rounds {
        let extents = vec![Extent { gpa: Gpa(0x8000 + round % 8 * 0x1000), len: 600 }];
        let map = MapCall {
            family: Family::Single,
            extents,
            direction: Direction::Bidirectional,
            attrs: Attrs::empty(),
            limits: dmavet_coherence::Limits::default(),
            kind: PageKind::Slab,
            object: (0, 0),
            cpu_addr: 0,
        };
        let Answer::Handles(handles) = core.call(caller(1), &ApiCall::Map(map)) else { panic!("mapped") };
        let noise: Vec<u8> = (0..600u64).map(|i| (i * i * 31 + round * 7).to_le_bytes()[1]).collect();
        ram.write_slice(&noise, GuestAddress(0x8000 + round % 8 * 0x1000)).unwrap();
        let mut read = [0; 64];
        view.read_slice(&mut read, GuestAddress(handles[0].0.0)).unwrap();
        view.write_slice(&noise[..200], GuestAddress(handles[0].0.0 + 100)).unwrap();
        let ranges = vec![(handles[0].0, 600)];
        let unmap = UnmapCall { family: Family::Single, ranges, direction: Direction::Bidirectional, attrs: Attrs::empty(), cpu_addr: 0 };
        core.call(caller(2), &ApiCall::Unmap(unmap));
    }
    assert!(!core.finish().findings.is_empty());
    recorder.finish().unwrap();
    memory.bytes()
}

fn read_all(bytes: &[u8]) -> Result<(u64, Option<End>), Error> {
    let mut reader = Reader::new(bytes)?;
    while reader.next()?.is_some() {}
    Ok((reader.inputs(), reader.end()))
}

/// Offsets where a block begins, and the end.
fn blocks(bytes: &[u8]) -> Vec<usize> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut starts = vec![20 + word(12)];
    while *starts.last().unwrap() < bytes.len() {
        let at = *starts.last().unwrap();
        starts.push(at + 20 + word(at + 8));
    }
    starts
}

#[test]
fn damage_at_any_byte_is_an_error() {
    let whole = trace(3);
    assert!(matches!(read_all(&whole), Ok((_, Some(End::Whole)))));
    let starts = blocks(&whole);
    for at in 0..whole.len() {
        for flip in [1u8, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            let error = read_all(&bytes).expect_err("damage that was not seen");
            let block = starts.iter().rev().find(|start| **start <= at).copied().unwrap_or(0) as u64;
            match error {
                Error::NotATrace => assert!(at < 8),
                Error::Version { found, .. } => assert!((8..10).contains(&at) && found != crate::VERSION),
                Error::NoHeader(_) => assert!((12..16).contains(&at)),
                Error::Damaged { offset, .. } => assert_eq!(offset, block, "byte {at}"),
                other => panic!("byte {at}: {other}"),
            }
            assert!(
                replay(match Reader::new(&bytes[..]) {
                    Ok(reader) => reader,
                    Err(_) => continue,
                })
                .is_err()
            );
        }
    }
}

#[test]
fn a_cut_trace_is_good_up_to_its_last_whole_block() {
    let whole = trace(300);
    let starts = blocks(&whole);
    assert!(starts.len() > 3, "{} blocks", starts.len() - 1);
    let (all, _) = read_all(&whole).unwrap();
    let mut before = 0;
    for (number, start) in starts.iter().enumerate() {
        for cut in [*start, start + 1, start + 19, start + 20, start + 21, starts.get(number + 1).map_or(*start, |next| next - 1)] {
            let Some(part) = whole.get(..cut).filter(|part| part.len() < whole.len()) else { continue };
            let (inputs, end) = read_all(part).unwrap();
            assert_eq!(end, Some(End::Cut(*start as u64)));
            assert!(inputs >= before && inputs < all);
            before = inputs;
            let replayed = replay(Reader::new(part).unwrap()).unwrap();
            assert_eq!((replayed.inputs, replayed.divergence), (inputs, None));
            assert_eq!(replayed.summary.findings.is_empty(), inputs == 0);
        }
    }
    for cut in 0..starts[0] {
        match read_all(&whole[..cut]).unwrap_err() {
            Error::NotATrace => assert_eq!(cut, 0),
            Error::NoHeader(at) => assert_eq!(at, cut as u64),
            other => panic!("cut at {cut}: {other}"),
        }
    }
}

#[test]
fn blocks_that_are_missing_doubled_or_behind_the_end_are_seen() {
    let whole = trace(300);
    let starts = blocks(&whole);
    let without = [&whole[..starts[1]], &whole[starts[2]..]].concat();
    let doubled = [&whole[..starts[1]], &whole[starts[0]..]].concat();
    let longer = [&whole[..], &[0]].concat();
    for (bytes, offset) in [(without, starts[1]), (doubled, starts[1]), (longer, starts[starts.len() - 2])] {
        assert!(matches!(read_all(&bytes), Err(Error::Damaged { offset: at, .. }) if at == offset as u64));
    }
}

#[test]
fn other_files_and_versions_have_their_own_words() {
    assert_eq!(read_all(b"").unwrap_err().to_string(), "this is not a trace of dmavet");
    assert_eq!(read_all(b"\x7fELF....................").unwrap_err().to_string(), "this is not a trace of dmavet");
    let mut newer = trace(1);
    newer[8] = 9;
    assert_eq!(read_all(&newer).unwrap_err().to_string(), "the trace has version 9, this dmavet reads version 2");
    let bytes = trace(1);
    let small = Limits { ram: 4096 };
    assert!(matches!(Reader::with_limits(&bytes[..], &small), Err(Error::TooLarge { limit: 4096, .. })));
}

#[test]
fn a_full_disk_ends_the_recording_not_the_run() {
    let (recorder, memory) = recorder(20_000);
    let noise = |n: u64| (0..4096u64).map(|i| (i * n * 2_654_435_761).to_le_bytes()[2]).collect::<Vec<u8>>();
    for n in 1..200 {
        recorder.read(Gpa(n % 50 * 4096), &mut noise(n));
        recorder.input(&Input::Stats);
    }
    let error = recorder.finish().unwrap_err().to_string();
    assert!(error.starts_with("recording stopped: "), "{error}");
    let (_, end) = read_all(&memory.bytes()).unwrap();
    assert!(matches!(end, Some(End::Cut(_))));
}

#[test]
fn memory_does_not_grow_with_the_pages_touched() {
    let (recorder, memory) = recorder(usize::MAX);
    for n in 0..40_000u64 {
        recorder.read(Gpa(n * 4096), &mut [n.to_le_bytes()[0]; 64]);
        recorder.input(&Input::Stats);
    }
    recorder.finish().unwrap();
    let bytes = memory.bytes();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let (mut forgotten, mut patches) = (0, 0);
    while let Some(record) = reader.next().unwrap() {
        forgotten += u32::from(record == Record::Forget);
        patches += u32::from(matches!(record, Record::Patch(_)));
    }
    assert_eq!(forgotten, 2);
    assert!(patches > 39_000, "{patches}");
    assert!(replay(Reader::new(&bytes[..]).unwrap()).is_ok());
}

/// What a fuzzer would do, for a bounded time: any bytes as records, and records in any order with right checksums.
#[test]
fn any_bytes_and_any_records_are_dealt_with() {
    let mut runner = TestRunner::deterministic();
    let small = Limits { ram: 64 << 20 };
    let rounds = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    for round in 0..rounds {
        let noise = prop::collection::vec(any::<u8>(), 0..400).new_tree(&mut runner).unwrap().current();
        let _ = Record::from_bytes(&noise);
        let _ = read_all(&noise);
        let mut contents = Vec::new();
        let mut last = crate::code::Last::default();
        for record in prop::collection::vec(record(), 0..80).new_tree(&mut runner).unwrap().current() {
            record.put(&mut crate::code::Put { out: &mut contents, last: &mut last });
        }
        if round % 2 == 0 {
            contents.extend_from_slice(&noise);
        }
        let bytes = crate::sealed(&contents);
        let _ = replay(Reader::with_limits(&bytes[..], &small).unwrap());
    }
}
