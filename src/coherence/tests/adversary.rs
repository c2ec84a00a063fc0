//! The cache on its own.

use super::fixture::*;
use super::watched::*;
use crate::*;

fn with(profile: Profile, cache: Cache, seed: u64) -> World {
    play_on(profile, Edges::Isolate, cache, seed);
    World::new()
}

#[test]
fn a_line_written_while_the_device_owns_it_goes_over_what_the_device_wrote() {
    for profile in [Profile::Arm64, Profile::Riscv, Profile::Arm, Profile::Mips, Profile::Parisc, Profile::Worst] {
        let w = with(profile, Cache::Evict, 0);
        let dma = w.map(BUF, 256, FromDevice);
        w.cpu_write(BUF + 4, &[5; 4]);
        w.write(dma, &[1; 64]);
        w.write(Iova(dma.0 + 128), &[2; 64]);
        w.unmap(dma, 256, FromDevice);
        let seen = w.cpu_read(BUF, 256);
        assert_eq!((&seen[..8], &seen[8..64]), (&[0, 0, 0, 0, 5, 5, 5, 5][..], &[0; 56][..]), "{profile}: all of the line");
        assert_eq!(seen[128..192], [2; 64], "{profile}: other lines are not dirty");
        let f = w.finding(Code::DV203);
        assert!(f.message.contains("--cache evict"), "{}", f.message);
        assert_eq!((w.bad(), f.range), (vec!["DV203e".to_owned()], Some(ByteRange { start: 0, end: 64 })), "{profile}");
    }
}

#[test]
fn a_for_device_does_not_save_what_was_written_too_early() {
    let w = with(Profile::Arm64, Cache::Quiet, 0);
    let history = |w: &World| {
        let dma = w.map(BUF, 64, Bidirectional);
        w.cpu_write(BUF, &[5; 4]);
        w.write(Iova(dma.0 + 32), &[1; 32]);
        w.for_device(dma, 64, Bidirectional);
        w.for_cpu(dma, 64, Bidirectional);
    };
    history(&w);
    assert_eq!((w.cpu_read(BUF + 32, 1), w.bad()), (vec![1], vec![]), "by luck");
    let w = with(Profile::Arm64, Cache::Evict, 0);
    history(&w);
    assert_eq!((w.cpu_read(BUF + 32, 1), w.bad()), (vec![0], vec!["DV203e".to_owned()]));
}

#[test]
fn lines_never_handed_over_are_dirty_still() {
    for (pages, code) in [(false, "DV401e"), (true, "DV210e")] {
        for cache in [Cache::Quiet, Cache::Evict] {
            let w = with(Profile::Arm64, cache, 0);
            w.cpu_write(BUF, &[7; 4096]);
            let dma = if pages { w.alloc_pages(BUF, PAGE, FromDevice) } else { w.map_skip(BUF, PAGE, FromDevice) };
            w.write(dma, &[1; 64]);
            w.for_cpu(dma, PAGE, FromDevice);
            let evicted = cache == Cache::Evict;
            assert_eq!(w.cpu_read(BUF, 64), [if evicted { 7 } else { 1 }; 64]);
            assert_eq!(w.bad(), Vec::from_iter(evicted.then_some(code)));
            // From then on they are clean.
            w.write(dma, &[2; 64]);
            w.for_cpu(dma, PAGE, FromDevice);
            assert_eq!(w.cpu_read(BUF, 64), [2; 64]);
        }
    }
}

#[test]
fn what_is_fetched_early_is_half_a_transfer() {
    let w = with(Profile::Arm64, Cache::Prefetch, 0);
    let dma = w.map(BUF, 512, FromDevice);
    w.write(dma, &[1; 16]);
    w.write(Iova(dma.0 + 16), &[2; 112]);
    // The line the transfer began in, as it was by then; none of the rest.
    assert_eq!(w.cpu_read(BUF, 128), [vec![1; 16], vec![2; 48], vec![0; 64]].concat());
    w.write(Iova(dma.0 + 16), &[3; 112]);
    w.for_cpu(dma, 512, FromDevice);
    assert_eq!(w.cpu_read(BUF, 128), [vec![1; 16], vec![3; 112]].concat());
    w.silent();
}

#[test]
fn cpus_that_do_not_drop_after_the_transfer_do_not_fetch_before() {
    for profile in [Profile::Mips, Profile::Worst] {
        let w = with(profile, Cache::Prefetch, 0);
        let dma = w.map(BUF, 64, FromDevice);
        w.write(dma, &[1; 64]);
        assert_eq!(w.cpu_read(BUF, 64), [0; 64], "{profile}");
    }
}

#[test]
fn nothing_is_fetched_over_a_write_of_the_cpu_or_beside_the_mapping() {
    let w = with(Profile::Arm64, Cache::Prefetch, 0);
    w.cpu_write(BUF, &[7; 256]);
    let dma = w.map(BUF + 32, 128, FromDevice);
    w.cpu_write(BUF + 64, &[5; 4]);
    w.write(dma, &[1; 128]);
    w.write(Iova(dma.0 + 32), &[1; 64]);
    w.write(Iova(dma.0 + 96), &[1; 32]);
    assert_eq!(w.cpu_read(BUF, 256), [vec![7; 64], vec![5; 4], vec![7; 188]].concat());
}

/// Rounds of a driver that writes too early.
fn rounds(seed: u64) -> (Vec<u8>, u64) {
    let w = with(Profile::Arm64, Cache::Random, seed);
    let dma = w.map(BUF, PAGE, Bidirectional);
    for n in 0..64 {
        w.cpu_write(BUF + n * 64, &[5; 4]);
        w.write(Iova(dma.0 + n * 64), &[1; 64]);
        w.for_cpu(Iova(dma.0 + n * 64), 64, Bidirectional);
    }
    let found = w.core.finish().findings.iter().map(|f| f.count).sum();
    (w.cpu_read(BUF, 4096), found)
}

#[test]
fn random_is_the_same_with_the_same_seed_and_differs_with_another() {
    let (data, found) = rounds(1);
    assert!((data.clone(), found) == rounds(1));
    assert!(data != rounds(2).0);
    let evicted = data.chunks(64).filter(|line| line[63] == 0).count();
    assert!((8..56).contains(&evicted), "{evicted} of 64");
    assert_eq!(found, 64, "lost on the one side or on the other");
}

#[test]
fn a_line_with_a_byte_that_was_never_handed_over_is_not_fetched() {
    for (from, fetched) in [(0, true), (1, false)] {
        let w = with(Profile::Arm64, Cache::Prefetch, 0);
        let dma = w.alloc_pages(BUF, PAGE, FromDevice);
        w.for_device(Iova(dma.0 + from), 64 - from, FromDevice);
        w.write(dma, &[1; 64]);
        assert_eq!(w.cpu_read(BUF, 128), [[if fetched { 1 } else { 0 }; 64], [0; 64]].concat(), "from byte {from}");
    }
}

#[test]
fn a_for_cpu_with_a_wrong_direction_is_a_hand_over_too() {
    let w = with(Profile::Arm64, Cache::Evict, 0);
    let dma = w.map(BUF, 128, Bidirectional);
    w.cpu_write(BUF + 4, &[5; 4]);
    w.write(dma, &[1; 128]);
    w.for_cpu(dma, 128, ToDevice);
    assert_eq!(w.read(dma, 128), [vec![0; 4], vec![5; 4], vec![0; 56], vec![1; 64]].concat());
    assert_eq!(w.bad(), ["DV203e", "DV216e"]);
    assert_eq!(w.finding(Code::DV203).range, Some(ByteRange { start: 0, end: 64 }));
}

fn watched() -> Watched {
    play_on(Profile::Arm64, Edges::Isolate, Cache::Evict, 0);
    Watched::with(|config| config.watch = WatchPolicy::All)
}

#[test]
fn a_write_that_cost_the_device_its_line_is_told_of_once() {
    let w = watched();
    let dma = w.map(BUF, 128, Bidirectional);
    w.access(BUF + 4, 4, Some(&[5; 4]), &DRIVER, 0x100, false);
    w.write(dma, &[1; 64]);
    w.for_device(dma, 128, Bidirectional);
    assert_eq!(w.codes(), ["DV203e"]);
    let f = w.finding(Code::DV203);
    assert_eq!((f.offence.what.as_str(), f.range), ("CPU write", Some(ByteRange { start: 0, end: 64 })));
}

#[test]
fn the_write_in_the_lost_line_is_named_and_not_one_in_the_line_beside_it() {
    let w = watched();
    let dma = w.map(BUF, 192, Bidirectional);
    // The first line is dirty, but the device writes nothing there.
    w.access(BUF + 60, 4, Some(&[5; 4]), &DRIVER, 0x100, false);
    w.access(BUF + 68, 4, Some(&[6; 4]), &DRIVER, 0x200, false);
    w.access(BUF + 80, 4, Some(&[7; 4]), &DRIVER, 0x300, false);
    w.write(Iova(dma.0 + 64), &[1; 64]);
    w.unmap(dma, 192, Bidirectional);
    let summary = w.core.finish();
    let mut found: Vec<_> =
        summary.findings.iter().map(|f| (f.severity, summary.sites.frames(f.offence.site)[0].address, f.range)).collect();
    found.sort_by_key(|f| f.1);
    let range = |start, end| Some(ByteRange { start, end });
    // The first write is dropped by the unmap, the line of the others was written back by then.
    assert_eq!(found, [(Severity::Error, 0x100, range(60, 64)), (Severity::Error, 0x200, range(64, 128))]);
}

fn evicting() -> World {
    with(Profile::Arm64, Cache::Evict, 0)
}

#[test]
fn a_line_the_buffer_covers_in_part_is_not_the_caches_to_write_back() {
    for (start, len) in [(0, 96), (32, 96)] {
        let w = evicting();
        let dma = w.map(BUF + start, len, Bidirectional);
        // The part of a line before or behind the line that is covered whole.
        let at = if start == 0 { 64 } else { 32 };
        w.cpu_write(BUF + at, &[5; 4]);
        w.write(dma, &[1; 96]);
        w.for_cpu(dma, len, Bidirectional);
        let here = usize::try_from(start).unwrap();
        assert_eq!(w.cpu_read(BUF, 160)[here..here + 96], [1; 96], "what the device wrote arrives");
        assert_eq!(w.finding(Code::DV203).range.map(|r| r.end - r.start), Some(4), "the write is what is lost");
    }
}

#[test]
fn a_line_that_is_the_cpus_is_not_lost_to_the_cache() {
    let w = evicting();
    let dma = w.map(BUF, 128, Bidirectional);
    w.for_cpu(dma, 128, Bidirectional);
    w.cpu_write(BUF, &[5; 4]);
    w.write(dma, &[1; 64]);
    w.for_device(dma, 128, Bidirectional);
    assert_eq!(w.read(dma, 64), [vec![5; 4], vec![1; 60]].concat(), "the driver's write was in order");
    assert!(!w.bad().contains(&"DV203e".to_owned()), "{:?}", w.bad());
}

#[test]
fn a_line_another_mapping_handed_over_is_clean() {
    let w = evicting();
    let first = w.map(BUF, 128, FromDevice);
    let second = w.map_skip(BUF, 128, FromDevice);
    w.unmap_skip(first, 128, FromDevice);
    w.write(second, &[1; 128]);
    w.for_cpu(second, 128, FromDevice);
    assert_eq!(w.cpu_read(BUF, 128), [1; 128]);
    w.silent();
}

#[test]
fn all_that_is_lost_to_the_cache_is_told_from_its_first_byte_to_its_last() {
    let w = evicting();
    let dma = w.map(BUF, 256, Bidirectional);
    // The device writes of the first line bytes 8 to 16, of the third 4 and of the fourth nothing the CPU has not.
    for line in [0, 128, 192] {
        w.cpu_write(BUF + line + 20, &[5; 4]);
    }
    w.write(Iova(dma.0 + 8), &[1; 8]);
    w.write(Iova(dma.0 + 128), &[1; 4]);
    w.write(Iova(dma.0 + 196), &[0; 4]);
    w.for_cpu(dma, 256, Bidirectional);
    let f = w.finding(Code::DV203);
    assert_eq!(f.range, Some(ByteRange { start: 8, end: 132 }));
    assert_eq!((f.bytes_at, f.cpu_bytes[8], f.device_bytes[8]), (0, 0, 1));
    assert_eq!(w.read(dma, 256), w.cpu_read(BUF, 256), "the lines are clean");
}

#[test]
fn whose_line_is_lost_does_not_depend_on_other_mappings_of_the_page() {
    let w = evicting();
    let other = w.map(BUF + 256, 64, Bidirectional);
    w.for_cpu(other, 64, Bidirectional);
    let list = w.map_call(list(&[(BUF, 64), (BUF + 128, 64)], Bidirectional));
    for at in [0, 128] {
        w.cpu_write(BUF + at, &[5; 4]);
    }
    w.write(list[0].0, &[1; 64]);
    w.write(list[1].0, &[1; 64]);
    w.sync_call(SyncCall { for_cpu: true, sg: true, ranges: list, direction: Bidirectional });
    assert_eq!(w.cpu_read(BUF, 192), [vec![5; 4], vec![0; 124], vec![5; 4], vec![0; 60]].concat());
    assert_eq!(w.finding(Code::DV203).range, Some(ByteRange { start: 0, end: 128 }));
}
