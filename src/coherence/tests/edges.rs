//! `--edges line`: lines that a buffer covers in part.

use super::fixture::*;
use super::watched::*;
use crate::*;

fn on(profile: Profile) -> World {
    play_on(profile, Edges::Line, Cache::Quiet, 0);
    World::new()
}

/// A buffer in the middle of two lines, on a page the driver laid out.
fn buffer(w: &World, direction: Direction) -> Iova {
    w.cpu_write(BUF, &[7; 192]);
    w.map_call(MapCall { kind: PageKind::Other, ..single(BUF + 32, 64, direction) })[0].0
}

const CACHED: [Profile; 6] = [Profile::Arm64, Profile::Riscv, Profile::Arm, Profile::Mips, Profile::Parisc, Profile::Worst];

#[test]
fn a_neighbour_that_nobody_writes_is_left_alone() {
    for profile in CACHED {
        let w = on(profile);
        let dma = buffer(&w, FromDevice);
        w.write(dma, &[1; 64]);
        w.unmap(dma, 64, FromDevice);
        assert_eq!(w.cpu_read(BUF, 192), [vec![7; 32], vec![1; 64], vec![7; 96]].concat(), "{profile}");
        w.silent();
    }
}

#[test]
fn a_neighbour_written_meanwhile_costs_one_side_the_line() {
    for profile in CACHED {
        let w = on(profile);
        let dma = buffer(&w, FromDevice);
        w.cpu_write(BUF + 8, &[5; 4]);
        w.write(dma, &[1; 64]);
        w.for_cpu(dma, 64, FromDevice);
        let seen = w.cpu_read(BUF, 192);
        let cpu_survives = matches!(profile, Profile::Arm64 | Profile::Arm | Profile::Mips);
        assert_eq!((seen[8], seen[40]), if cpu_survives { (5, 7) } else { (7, 1) }, "{profile}");
        assert_eq!(seen[64..96], [1; 32], "{profile}: the other line");
        assert_eq!(w.bad(), ["DV303e"], "{profile}");
        let f = w.finding(Code::DV303);
        let text =
            if cpu_survives { "What the device wrote to bytes 0..32 of 64 was lost" } else { "The CPU's writes before the beginning" };
        assert!(f.message.starts_with(text), "{profile}: {}", f.message);
        let memory = w.read(dma, 1)[0];
        let written_back = matches!(profile, Profile::Arm64 | Profile::Arm);
        assert_eq!(memory, if written_back { 7 } else { 1 }, "{profile}");
    }
}

#[test]
fn with_isolate_the_same_is_no_loss() {
    for profile in CACHED {
        play_on(profile, Edges::Isolate, Cache::Quiet, 0);
        let w = World::new();
        let dma = buffer(&w, FromDevice);
        w.cpu_write(BUF + 8, &[5; 4]);
        w.write(dma, &[1; 64]);
        w.unmap(dma, 64, FromDevice);
        let expected = [vec![7; 8], vec![5; 4], vec![7; 20], vec![1; 64], vec![7; 96]].concat();
        assert_eq!(w.cpu_read(BUF, 192), expected, "{profile}");
        w.silent();
    }
}

#[test]
fn mips_drops_the_neighbour_at_the_for_device() {
    for (profile, kept) in [(Profile::Arm, true), (Profile::Mips, false), (Profile::Riscv, true)] {
        let w = on(profile);
        let dma = buffer(&w, FromDevice);
        w.for_cpu(dma, 64, FromDevice);
        w.cpu_write(BUF + 100, &[5; 4]);
        w.for_device(dma, 64, FromDevice);
        assert_eq!(w.cpu_read(BUF + 100, 4), [if kept { 5 } else { 7 }; 4], "{profile}");
        assert_eq!(w.bad(), Vec::from_iter((!kept).then_some("DV303e")), "{profile}");
    }
}

#[test]
fn parisc_flushes_a_shared_line_of_a_bidirectional_buffer() {
    let w = on(Profile::Parisc);
    let dma = buffer(&w, Bidirectional);
    w.cpu_write(BUF + 8, &[5; 4]);
    w.write(dma, &[1; 64]);
    w.for_cpu(dma, 64, Bidirectional);
    assert_eq!((w.cpu_read(BUF + 8, 1), w.cpu_read(BUF + 40, 1), w.read(dma, 1)), (vec![5], vec![7], vec![7]));
    assert_eq!(w.bad(), ["DV303e"]);
}

#[test]
fn the_neighbour_of_another_object_is_a_warning() {
    let w = on(Profile::Riscv);
    w.cpu_write(BUF, &[7; 192]);
    let dma = w.map(BUF + 32, 64, FromDevice);
    w.cpu_write(BUF + 8, &[5; 4]);
    w.unmap(dma, 64, FromDevice);
    assert_eq!(w.bad(), ["DV303w"]);
    assert!(w.finding(Code::DV303).advice.contains("ARCH_DMA_MINALIGN"));
}

#[test]
fn dv303_seen_when_it_happens_is_an_error_and_not_told_twice() {
    play_on(Profile::Arm64, Edges::Line, Cache::Quiet, 0);
    let w = Watched::with(|config| config.watch = WatchPolicy::All);
    let dma = buffer(&w, FromDevice);
    w.access(BUF + 8, 4, Some(&[5; 4]), &DRIVER, 0x100, false);
    w.write(dma, &[1; 64]);
    w.for_cpu(dma, 64, FromDevice);
    assert_eq!(w.bad(), ["DV303e"]);
    assert_eq!(w.finding(Code::DV303).offence.what, "CPU write");
}

#[test]
fn dv304_is_a_warning_and_always_looked_for() {
    let w = on(Profile::Arm64);
    let dma = w.map(BUF, 256, FromDevice);
    w.for_cpu(Iova(dma.0 + 20), 10, FromDevice);
    assert_eq!(w.bad(), ["DV304w"]);
    let w = on(Profile::Arm64);
    let dma = w.map(BUF + 8, 100, FromDevice);
    w.for_cpu(dma, 100, FromDevice);
    w.for_cpu(dma, 64, FromDevice);
    w.silent();
}

#[test]
fn worst_poisons_whole_lines_of_a_transfer_only() {
    let w = on(Profile::Worst);
    w.cpu_write(BUF, &[7; 128]);
    let dma = w.map(BUF, 128, FromDevice);
    // The line comes as a whole, but not as a whole line of the call.
    w.for_cpu(dma, 32, FromDevice);
    assert_eq!(w.cpu_read(BUF, 128), [7; 128]);
    w.unmap(dma, 128, FromDevice);
    assert_eq!(w.cpu_read(BUF, 128), [vec![7; 64], vec![0xdb; 64]].concat());
}

/// What is found, and what both sides see.
type Told = (Vec<(Code, Severity, Option<ByteRange>, u64)>, Vec<u8>, Vec<u8>);

/// Whether the memory is of dma_alloc_pages(), what happens to it, and what is found.
type Case = (bool, fn(&Watched, Iova), Vec<(Code, Option<ByteRange>)>);

/// Plays a history of four whole lines.
fn told(edges: Edges, pages: bool, history: fn(&Watched, Iova)) -> Told {
    play_on(Profile::Arm64, edges, Cache::Quiet, 0);
    let w = Watched::new();
    w.cpu_write(BUF, &[7; 256]);
    let dma = if pages { w.alloc_pages(BUF, PAGE, Bidirectional) } else { w.map(BUF, 256, Bidirectional) };
    history(&w, dma);
    let mut found: Vec<_> = w.core.finish().findings.into_iter().map(|f| (f.code, f.severity, f.range, f.count)).collect();
    found.sort_by_key(|f| (f.0, f.2.map(|r| r.start)));
    (found, w.cpu_read(BUF, 256), w.read(dma, 256))
}

#[test]
fn whole_lines_are_the_same_with_either_kind_of_edges() {
    let range = |start, end| Some(ByteRange { start, end });
    let cases: [Case; 5] = [
        // What was found stale is no part of what is lost.
        (
            false,
            |w, dma| {
                w.cpu_write(BUF + 64, &[5; 4]);
                w.cpu_write(BUF + 128, &[5; 4]);
                w.read(Iova(dma.0 + 128), 64);
                w.for_cpu(dma, 256, Bidirectional);
            },
            vec![(Code::DV201, range(128, 132)), (Code::DV203, range(64, 68))],
        ),
        // Bytes that were never handed over; those the device used are not told of twice.
        (
            true,
            |w, dma| {
                w.cpu_write(BUF + 64, &[5; 4]);
                w.cpu_write(BUF + 128, &[5; 4]);
                w.read(Iova(dma.0 + 128), 64);
                w.for_cpu(dma, 256, Bidirectional);
            },
            vec![(Code::DV210, range(64, 68)), (Code::DV210, range(128, 192))],
        ),
        // A loss on a line is not a buffer that is used again.
        (
            false,
            |w, dma| {
                w.read(dma, 256);
                w.cpu_write(BUF + 64, &[5; 4]);
                w.cpu_write(BUF + 80, &[5; 4]);
                w.for_cpu(dma, 256, Bidirectional);
                w.for_device(dma, 256, Bidirectional);
                w.cpu_write(BUF + 64, &[6; 4]);
                w.read(Iova(dma.0 + 64), 64);
            },
            vec![(Code::DV201, range(64, 68)), (Code::DV203, range(64, 84))],
        ),
        // Bytes both sides wrote that were never handed over.
        (
            true,
            |w, dma| {
                w.cpu_write(BUF + 8, &[5; 4]);
                w.write(Iova(dma.0 + 8), &[1; 4]);
                w.for_cpu(dma, 256, Bidirectional);
            },
            vec![(Code::DV210, range(8, 12))],
        ),
        // What was stale is forgotten with the bytes: the next write is lost to a wrong sync.
        (
            false,
            |w, dma| {
                w.cpu_write(BUF + 64, &[5; 4]);
                w.read(Iova(dma.0 + 64), 64);
                w.for_cpu(dma, 256, Bidirectional);
                w.cpu_write(BUF + 64, &[6; 4]);
                w.for_cpu(dma, 256, Bidirectional);
            },
            vec![(Code::DV201, range(64, 68)), (Code::DV213, range(64, 68))],
        ),
    ];
    for (n, (pages, history, expected)) in cases.into_iter().enumerate() {
        let isolate = told(Edges::Isolate, pages, history);
        let found: Vec<_> = isolate.0.iter().map(|f| (f.0, f.2)).collect();
        assert_eq!(found, expected, "history {n}");
        assert_eq!(told(Edges::Line, pages, history), isolate, "history {n}");
    }
}

#[test]
fn what_was_never_handed_over_and_is_lost_is_told_byte_by_byte() {
    for edges in Edges::ALL {
        play_on(Profile::Arm64, edges, Cache::Quiet, 0);
        let w = World::new();
        let dma = w.map_skip(BUF, 128, Bidirectional);
        w.cpu_write(BUF + 8, &[5; 4]);
        w.write(dma, &[1; 64]);
        w.for_cpu(dma, 128, Bidirectional);
        assert_eq!(w.cpu_read(BUF, 64), [1; 64], "{edges}");
        let ranges: Vec<_> = w.core.finish().findings.iter().map(|f| f.range).collect();
        assert_eq!(ranges, [Some(ByteRange { start: 8, end: 12 })], "{edges}: {:?}", w.codes());
    }
}

#[test]
fn a_mapping_that_ends_leaves_nothing_in_its_lines() {
    for other in [0, 192] {
        let w = on(Profile::Arm64);
        w.map(BUF + other, 64, Bidirectional);
        let dma = w.map(BUF + 64 + 16, 64, FromDevice);
        w.write(dma, &[1; 64]);
        w.unmap_skip(dma, 64, FromDevice);
        let dma = w.map(BUF + 64 + 16, 64, FromDevice);
        w.for_cpu(dma, 64, FromDevice);
        assert_eq!(w.cpu_read(BUF, 256), [0; 256], "beside a mapping at {other}");
    }
}
