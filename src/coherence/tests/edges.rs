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
