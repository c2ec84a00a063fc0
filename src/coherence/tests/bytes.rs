//! Every byte of a hand-over to the CPU: who wrote it, where it lies in its line, and what becomes of it (design, section 4).

use super::fixture::*;
use crate::*;

/// Bytes around the mapping that are looked at.
const WINDOW: usize = 512;
const ORIGINAL: u8 = 0x11;
const BY_DEVICE: u8 = 0xd0;
const BY_CPU: u8 = 0xc0;

/// Who writes a byte of the window.
type Writes = fn(usize) -> bool;

const DEVICE_WRITES: [Writes; 7] =
    [|_| false, |_| true, |i| i % 3 == 0, |i| i / 8 % 2 == 0, |i| i < 100, |i| i == 70, |i| (64..128).contains(&i)];
const CPU_WRITES: [Writes; 6] = [|_| false, |_| true, |i| i % 5 == 0, |i| i / 8 % 3 == 0, |i| i == 130, |i| (60..66).contains(&i)];
const RANGES: [(usize, usize); 9] = [(0, 256), (16, 240), (0, 100), (64, 128), (70, 90), (0, 64), (33, 200), (100, 300), (127, 385)];

fn runs(mine: impl Fn(usize) -> bool, from: usize, to: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for i in (from..to).filter(|i| mine(*i)) {
        match runs.last_mut() {
            Some((_, end)) if *end == i => *end += 1,
            _ => runs.push((i, i + 1)),
        }
    }
    runs
}

/// One mapping of `range`, written by both sides and given to the CPU.
fn check(line: usize, range: (usize, usize), device: Writes, cpu: Writes, unmap: bool) {
    let what = format!("{range:?} with lines of {line}");
    let w = World::with(|c| c.line_size = u32::try_from(line).unwrap());
    let (start, end) = range;
    let len = (end - start) as u64;
    w.cpu_write(BUF, &[ORIGINAL; WINDOW]);
    let dma = w.map(BUF + start as u64, len, Bidirectional);
    for (from, to) in runs(device, start, end) {
        w.write(Iova(dma.0 + (from - start) as u64), &vec![BY_DEVICE; to - from]);
    }
    for (from, to) in runs(cpu, 0, WINDOW) {
        w.cpu_write(BUF + from as u64, &vec![BY_CPU; to - from]);
    }
    if unmap {
        w.unmap(dma, len, Bidirectional);
    } else {
        w.for_cpu(dma, len, Bidirectional);
    }
    let inside = |i: usize| (start..end).contains(&i);
    let whole = |i: usize| start <= i / line * line && (i / line + 1) * line <= end;
    let expected: Vec<u8> = (0..WINDOW)
        .map(|i| match () {
            () if inside(i) && device(i) => BY_DEVICE,
            () if inside(i) && whole(i) => ORIGINAL,
            () if cpu(i) => BY_CPU,
            () => ORIGINAL,
        })
        .collect();
    assert!(w.cpu_read(BUF, WINDOW) == expected, "{what}");
    let changed = (0..WINDOW).filter(|i| expected[*i] != if cpu(*i) { BY_CPU } else { ORIGINAL }).count();
    // Blocks without a byte the CPU changed move as a whole.
    let moved = w.core.stats().bytes_to_cpu;
    assert!((changed as u64..=len).contains(&moved) && (changed == 0) == (moved == 0), "{what}: {moved} bytes moved for {changed}");
    let lost = runs(|i| inside(i) && cpu(i) && expected[i] != BY_CPU, 0, WINDOW);
    let found = w.core.finish().findings;
    let found: Vec<_> = found.iter().filter(|f| f.code == Code::DV203).collect();
    assert_eq!(found.len(), usize::from(!lost.is_empty()), "{what}: {found:#?}");
    if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
        let hull = ByteRange { start: (first.0 - start) as u64, end: (last.1 - start) as u64 };
        assert_eq!(found[0].range, Some(hull), "{what}");
    }
    if !unmap {
        // Given back, the device has what the CPU has.
        w.for_device(dma, len, Bidirectional);
        assert!(w.read(dma, end - start) == expected[start..end], "{what}");
        // And nothing is left to take or to give.
        let stats = w.core.stats();
        w.for_cpu(dma, len, Bidirectional);
        w.for_device(dma, len, Bidirectional);
        let again = w.core.stats();
        assert_eq!((again.bytes_to_cpu, again.bytes_to_device), (stats.bytes_to_cpu, stats.bytes_to_device), "{what}");
        assert!(w.cpu_read(BUF, WINDOW) == expected, "{what}");
    }
}

#[test]
fn every_byte_ends_where_it_belongs() {
    // Every range with every writer of each side, and a third of the pairs.
    for (r, range) in RANGES.into_iter().enumerate() {
        for (d, device) in DEVICE_WRITES.into_iter().enumerate() {
            for (_, cpu) in CPU_WRITES.into_iter().enumerate().filter(|(c, _)| (r + d + c) % 3 == 0) {
                check(64, range, device, cpu, false);
            }
        }
    }
}

#[test]
fn lines_of_other_sizes_and_unmaps() {
    for line in [32, 128] {
        for range in RANGES {
            for (device, cpu) in DEVICE_WRITES.into_iter().zip(CPU_WRITES.into_iter().rev()) {
                check(line, range, device, cpu, true);
            }
        }
    }
}

#[test]
fn a_sync_for_the_cpu_where_one_for_the_device_belonged_is_found_line_by_line() {
    for (line, lines) in [(32u64, 8u64), (64, 4), (128, 2)] {
        for changed in 0..lines {
            for used in 0..lines {
                let w = World::with(|c| c.line_size = u32::try_from(line).unwrap());
                let dma = w.map(BUF, 256, ToDevice);
                w.cpu_write(BUF + changed * line + 5, &[1]);
                w.for_cpu(dma, 256, ToDevice);
                w.read(Iova(dma.0 + used * line), usize::try_from(line).unwrap());
                let expected: &[&str] = if used == changed { &["DV213e"] } else { &[] };
                assert_eq!(w.bad(), expected, "line {changed} of {line} bytes was changed, line {used} was used");
            }
        }
    }
}

#[test]
fn bytes_moved_to_the_device_are_counted() {
    let w = World::new();
    let to_device = || w.core.stats().bytes_to_device;
    let dma = w.map(BUF + 10, 300, Bidirectional);
    assert_eq!(to_device(), 300, "all of it the first time");
    w.for_device(dma, 300, Bidirectional);
    assert_eq!(to_device(), 300, "nothing changed");
    w.write(Iova(dma.0 + 100), &[9; 100]);
    w.for_device(dma, 300, Bidirectional);
    assert_eq!(to_device(), 300, "what the device wrote stays");
    assert_eq!(w.read(Iova(dma.0 + 100), 100), [9; 100]);
    // Over bytes of the device, what the CPU changed goes, and only that.
    w.cpu_write(BUF + 10 + 150, &[1, 2, 3]);
    w.for_device(dma, 300, Bidirectional);
    assert_eq!(to_device(), 303);
    let now = w.read(Iova(dma.0 + 148), 7);
    assert_eq!(now, [9, 9, 1, 2, 3, 9, 9]);
    let other = w.map(BUF + 10, 300, ToDevice);
    assert_eq!(to_device(), 303, "the same bytes again");
    assert_eq!(w.read(other, 10), w.read(dma, 10));
}

#[test]
fn pages_alloc_poisons_only_what_nobody_handed_over() {
    let w = World::new();
    w.cpu_write(BUF, &[5; 4096]);
    let first = w.map(BUF + 64, 64, Bidirectional);
    w.write(first, &[6; 8]);
    let pages = w.alloc_pages(BUF, 4096, Bidirectional);
    let seen = w.view.polling();
    let mut bytes = [0; 256];
    vm_memory::Bytes::read_slice(&seen, &mut bytes, vm_memory::GuestAddress(pages.0)).unwrap();
    assert_eq!(bytes[..64], [0xdb; 64]);
    assert_eq!(bytes[64..72], [6; 8]);
    assert_eq!(bytes[72..128], [5; 56]);
    assert_eq!(bytes[128..], [0xdb; 128]);
}

#[test]
fn in_a_partly_covered_line_the_cpus_bytes_stay_and_the_device_does_not_see_them() {
    let cases = [(64, 20), (64, 63), (64, 200), (64, 249), (32, 20), (32, 31), (32, 224), (32, 249), (128, 20), (128, 127), (128, 130)];
    for (line, changed) in cases {
        let world = || {
            let w = World::with(|c| c.line_size = line);
            // Bytes 16 to 250: the first and the last line are not covered whole.
            let dma = w.map(BUF + 16, 234, Bidirectional);
            w.cpu_write(BUF + changed, &[1]);
            w.for_cpu(dma, 234, Bidirectional);
            assert_eq!(w.cpu_read(BUF + changed, 1), [1]);
            w.silent();
            (w, dma)
        };
        let (w, dma) = world();
        w.read(dma, 234);
        let f = w.finding(Code::DV213);
        assert_eq!(f.range, Some(ByteRange { start: changed - 16, end: changed - 15 }), "byte {changed}, lines of {line}");
        assert_eq!(w.bad(), ["DV213e"]);
        // Given to the device after all, it is in order.
        let (w, dma) = world();
        w.for_device(dma, 234, Bidirectional);
        assert_eq!(w.read(Iova(dma.0 + changed - 16), 1), [1]);
        w.silent();
        // Other lines were in order all the time.
        let (w, dma) = world();
        let other = if changed < 125 { 234 - 8 } else { 0 };
        w.read(Iova(dma.0 + other), 8);
        w.silent();
        // What the CPU changes there afterwards has not seen that for_cpu.
        let line = u64::from(line);
        for at in (0..250 / line + 1).filter(|at| *at != changed / line).map(|at| (at * line).max(16)) {
            let (w, dma) = world();
            w.cpu_write(BUF + at, &[2]);
            w.read(Iova(dma.0 + at - 16), 1);
            assert_eq!(w.bad(), ["DV201e"], "byte {at} after byte {changed}, lines of {line}");
        }
    }
}

#[test]
fn changes_far_apart_in_one_line_are_one_wrong_sync() {
    let w = World::with(|c| c.line_size = 128);
    let dma = w.map(BUF + 16, 112, Bidirectional);
    w.cpu_write(BUF + 20, &[1]);
    w.cpu_write(BUF + 100, &[1]);
    w.for_cpu(dma, 112, Bidirectional);
    w.read(dma, 16);
    assert_eq!(w.bad(), ["DV213e"]);
}

#[test]
fn a_byte_both_sides_changed_to_the_same_is_not_lost() {
    let w = World::new();
    let dma = w.map(BUF, 64, Bidirectional);
    w.cpu_write(BUF, &[5; 4]);
    w.cpu_write(BUF + 40, &[1; 4]);
    w.write(dma, &[1; 64]);
    w.for_cpu(dma, 64, Bidirectional);
    assert_eq!(w.cpu_read(BUF, 64), [1; 64]);
    assert_eq!(w.finding(Code::DV203).range, Some(ByteRange { start: 0, end: 4 }));
}

#[test]
fn what_the_device_used_stale_is_not_found_again_when_it_is_discarded() {
    let world = |changed: &[u64]| {
        let w = World::new();
        let dma = w.map(BUF, 256, Bidirectional);
        for at in changed {
            w.cpu_write(BUF + at, &[1]);
        }
        w.read(Iova(dma.0 + 64), 64);
        w.for_cpu(dma, 256, Bidirectional);
        assert_eq!(w.cpu_read(BUF + changed[0], 1), [0]);
        w.bad()
    };
    assert_eq!(world(&[70]), ["DV201e"]);
    assert_eq!(world(&[70, 200]), ["DV201e", "DV203e"], "the other line was not used");
    assert_eq!(world(&[200]), ["DV203e"]);
}

#[test]
fn a_for_cpu_of_a_sent_buffer_is_wrong_for_what_was_changed_by_then() {
    for (before, after, code) in [(8, 8, "DV213e"), (8, 64, "DV201e"), (70, 8, "DV201e"), (70, 200, "DV201e")] {
        let w = World::new();
        let dma = w.map(BUF, 256, ToDevice);
        w.cpu_write(BUF + before, &[1]);
        w.for_cpu(dma, 256, ToDevice);
        w.cpu_write(BUF + after, &[2]);
        w.read(Iova(dma.0 + after), 1);
        assert_eq!(w.bad(), [code], "byte {before}, then byte {after}");
    }
}
