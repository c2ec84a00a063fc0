//! The machines, cell by cell: what each does that others do not.

use super::fixture::*;
use super::watched::*;
use crate::profile::{Edge, Op};
use crate::*;

fn on(profile: Profile) -> World {
    play_on(profile, Edges::Isolate, Cache::Quiet, 0);
    World::new()
}

/// The machines with cache lines.
fn cached() -> impl Iterator<Item = Profile> {
    Profile::ALL.into_iter().filter(|p| !p.bounces())
}

#[test]
fn the_table_is_complete_and_its_words_are_read_back() {
    for profile in Profile::ALL {
        let machine = profile.machine();
        assert_eq!(profile.name().parse(), Ok(profile));
        assert_eq!(serde_json::to_string(&profile).unwrap(), format!("\"{profile}\""));
        for row in [machine.map, machine.for_device, machine.for_cpu, machine.unmap] {
            for direction in [ToDevice, FromDevice, Bidirectional] {
                let cell = row.cell(direction);
                assert!(profile == Profile::Worst || cell.source.contains(".c: "), "{profile}: {}", cell.source);
            }
        }
        // What dma-direct does, and what no machine may leave out: a buffer that is given is cleaned.
        assert!(profile.bounces() || (machine.map == machine.for_device && machine.unmap == machine.for_cpu), "{profile}");
        for op in [machine.for_device.to_device.op, machine.for_device.bidirectional.op] {
            assert!(matches!(op, Op::Clean | Op::CleanInvalidate | Op::CopyIn), "{profile}");
        }
        assert_eq!(machine.edge.is_none(), profile == Profile::Swiotlb);
    }
    assert!(matches!(Profile::Arm.machine().edge, Some((Edge::WrittenBack, _))));
    let error = "vax".parse::<Profile>().unwrap_err().to_string();
    assert_eq!(error, "\"vax\" is none of arm64, riscv, arm, mips, parisc, swiotlb, worst");
    for cache in Cache::ALL {
        assert_eq!(cache.name().parse(), Ok(cache));
    }
}

#[test]
fn for_cpu_brings_whole_lines_and_only_mips_keeps_what_it_holds() {
    for profile in Profile::ALL {
        let w = on(profile);
        let dma = w.map(BUF, 256, FromDevice);
        w.write(dma, &[1; 256]);
        w.for_cpu(dma, 256, FromDevice);
        assert_eq!(w.cpu_read(BUF, 256), [1; 256], "{profile}");
        // The driver forgets the for_device; the device writes again.
        w.kick();
        w.write(dma, &[2; 256]);
        w.for_cpu(dma, 256, FromDevice);
        let keeps = profile.machine().keeps_lines;
        assert_eq!(w.cpu_read(BUF, 256), [if keeps { 1 } else { 2 }; 256], "{profile}");
        assert_eq!(w.codes(), [if keeps { "DV222e" } else { "DV222n" }], "{profile}");
        // With it all is well again.
        w.for_device(dma, 256, FromDevice);
        w.write(dma, &[3; 256]);
        w.unmap(dma, 256, FromDevice);
        assert_eq!(w.cpu_read(BUF, 256), [3; 256], "{profile}");
    }
}

#[test]
fn a_bidirectional_buffer_used_again_breaks_on_mips_too() {
    for (profile, bad) in
        [(Profile::Arm64, None), (Profile::Parisc, None), (Profile::Mips, Some("DV222e")), (Profile::Worst, Some("DV222e"))]
    {
        let w = on(profile);
        let dma = w.map(BUF, 128, Bidirectional);
        w.for_cpu(dma, 128, Bidirectional);
        w.write(dma, &[2; 100]);
        w.for_cpu(dma, 128, Bidirectional);
        assert_eq!(w.bad(), Vec::from_iter(bad), "{profile}");
        if bad.is_some() {
            let f = w.finding(Code::DV222);
            assert_eq!((f.kind, f.range), (Some(Code::DV202), Some(ByteRange { start: 0, end: 100 })));
            assert_eq!((&f.cpu_bytes[..2], &f.device_bytes[..2]), (&[0, 0][..], &[2, 2][..]));
        }
    }
}

#[test]
fn mips_holds_bytes_not_lines_where_lines_are_covered_in_part() {
    let w = on(Profile::Mips);
    // Entries of a completion queue, several in a line.
    let dma = w.map(BUF, 256, FromDevice);
    for n in 0..8u8 {
        let at = u64::from(n) * 16;
        w.write(Iova(dma.0 + at), &[n + 1; 16]);
        w.for_cpu(Iova(dma.0 + at), 16, FromDevice);
        assert_eq!(w.cpu_read(BUF + at, 16), [n + 1; 16]);
    }
    w.silent();
    w.write(dma, &[9; 16]);
    w.for_cpu(dma, 16, FromDevice);
    assert_eq!(w.cpu_read(BUF, 16), [1; 16], "the first entry is in the cache");
}

#[test]
fn a_missing_first_hand_over_shows_where_for_cpu_does_nothing() {
    for (profile, map, pages) in [(Profile::Arm64, None, None), (Profile::Mips, Some("DV401e"), Some("DV210e"))] {
        let w = on(profile);
        w.cpu_write(BUF, &[7; 4096]);
        let dma = w.map_skip(BUF, PAGE, FromDevice);
        w.write(dma, &[1; 64]);
        w.for_cpu(dma, 64, FromDevice);
        assert_eq!(w.cpu_read(BUF, 64), [if map.is_some() { 7 } else { 1 }; 64], "{profile}");
        assert_eq!(w.bad(), Vec::from_iter(map), "{profile}");
        let w = on(profile);
        let dma = w.alloc_pages(BUF, PAGE, FromDevice);
        w.write(dma, &[1; 64]);
        w.for_cpu(dma, 64, FromDevice);
        assert_eq!(w.bad(), Vec::from_iter(pages), "{profile}");
    }
}

#[test]
fn for_device_of_a_receive_buffer_cleans_or_drops_what_the_cpu_wrote() {
    for profile in Profile::ALL {
        let w = on(profile);
        let dma = w.map(BUF, 256, FromDevice);
        w.write(dma, &[1; 256]);
        w.for_cpu(dma, 256, FromDevice);
        w.cpu_write(BUF + 8, &[0; 4]);
        w.for_device(dma, 256, FromDevice);
        let now = w.cpu_read(BUF + 8, 4)[0];
        w.unmap(dma, 256, FromDevice);
        let after = w.cpu_read(BUF + 8, 4)[0];
        let expected = match profile {
            Profile::Arm64 | Profile::Riscv | Profile::Parisc => (0, 0),
            Profile::Arm | Profile::Mips | Profile::Worst => (1, 1),
            Profile::Swiotlb => (0, 1),
        };
        assert_eq!((now, after), expected, "{profile}");
        let dropped = matches!(profile, Profile::Arm | Profile::Mips | Profile::Worst);
        assert_eq!(w.codes(), Vec::from_iter(dropped.then_some("DV203n")), "{profile}: lost, but nobody says it was wanted");
    }
}

#[test]
fn an_invalidation_cleans_lines_it_covers_in_part() {
    let w = on(Profile::Arm);
    let dma = w.map(BUF, 256, FromDevice);
    w.for_cpu(dma, 256, FromDevice);
    w.cpu_write(BUF, &[5; 256]);
    w.for_device(Iova(dma.0 + 32), 128, FromDevice);
    let seen = w.cpu_read(BUF, 256);
    let expected: Vec<u8> = (0..256).map(|at| if (64..128).contains(&at) { 0 } else { 5 }).collect();
    assert_eq!(seen, expected);
    assert_eq!(w.finding(Code::DV203).range, Some(ByteRange { start: 64, end: 128 }));
}

#[test]
fn a_write_to_a_buffer_the_device_owns_loses_one_side() {
    for profile in Profile::ALL {
        let w = on(profile);
        let dma = w.map(BUF, 128, Bidirectional);
        w.cpu_write(BUF + 4, &[5; 4]);
        w.write(Iova(dma.0 + 16), &[6; 16]);
        w.for_cpu(dma, 128, Bidirectional);
        let cpu = w.cpu_read(BUF, 64);
        // On parisc the flush writes the CPU's line over the device's; on mips the line stays in the cache.
        let device_loses = matches!(profile, Profile::Parisc | Profile::Mips);
        assert_eq!((cpu[4], cpu[16]), if device_loses { (5, 0) } else { (0, 6) }, "{profile}");
        assert_eq!(w.bad(), ["DV203e"], "{profile}");
        let range = w.finding(Code::DV203).range.unwrap();
        assert_eq!((range.start, range.end), if device_loses { (16, 32) } else { (4, 8) }, "{profile}");
        let memory = w.read(Iova(dma.0 + 16), 1)[0];
        assert_eq!(memory, if profile == Profile::Parisc { 0 } else { 6 }, "{profile}");
    }
}

#[test]
fn for_cpu_of_a_sent_buffer_cleans_on_parisc_only() {
    for profile in Profile::ALL {
        let w = on(profile);
        let dma = w.map(BUF, 128, ToDevice);
        w.for_cpu(dma, 128, ToDevice);
        w.cpu_write(BUF, &[5; 128]);
        w.for_cpu(dma, 128, ToDevice);
        let parisc = profile == Profile::Parisc;
        assert_eq!(w.read(dma, 1), [if parisc { 5 } else { 0 }], "{profile}");
        assert_eq!(w.bad(), Vec::from_iter((!parisc).then_some("DV213e")), "{profile}");
    }
}

#[test]
fn a_changed_buffer_is_stale_for_the_device_everywhere() {
    for profile in Profile::ALL {
        let w = on(profile);
        let dma = w.map(BUF, 128, ToDevice);
        w.cpu_write(BUF, &[5; 128]);
        assert_eq!(w.read(dma, 128), [0; 128], "{profile}");
        w.unmap(dma, 128, ToDevice);
        assert_eq!(w.bad(), ["DV201e"], "{profile}");
    }
}

#[test]
fn worst_poisons_what_neither_side_wrote() {
    for profile in cached() {
        let w = on(profile);
        w.cpu_write(BUF, &[7; 256]);
        let dma = w.map(BUF, 200, FromDevice);
        w.write(dma, &[1; 40]);
        w.unmap(dma, 200, FromDevice);
        let worst = profile == Profile::Worst;
        let expected: Vec<u8> = (0..256)
            .map(|at| {
                if at < 40 {
                    1
                } else if at < 192 && worst {
                    0xdb
                } else {
                    7
                }
            })
            .collect();
        assert_eq!(w.cpu_read(BUF, 256), expected, "{profile}");
        w.silent();
    }
}

#[test]
fn worst_poisons_once_and_not_what_was_written_since() {
    let w = on(Profile::Worst);
    w.cpu_write(BUF, &[7; 256]);
    let dma = w.map(BUF, 256, FromDevice);
    w.for_cpu(Iova(dma.0 + 64), 64, FromDevice);
    assert_eq!(w.cpu_read(BUF, 256), [vec![7; 64], vec![0xdb; 64], vec![7; 128]].concat());
    w.cpu_write(BUF + 64, &[8; 64]);
    w.for_device(Iova(dma.0 + 32), 96, FromDevice);
    w.unmap(dma, 256, FromDevice);
    assert_eq!(w.cpu_read(BUF, 256), [0xdb; 256], "the CPU's writes are dropped by the for_device");
    w.silent();
    // Bytes under a second mapping are not its alone to lose.
    let w = on(Profile::Worst);
    w.cpu_write(BUF, &[7; 256]);
    let a = w.map(BUF, 256, ToDevice);
    let b = w.map(BUF + 64, 64, FromDevice);
    w.unmap(b, 64, FromDevice);
    assert_eq!((w.cpu_read(BUF, 256), w.read(a, 256)), (vec![7; 256], vec![7; 256]));
}

#[test]
fn bounce_buffers_are_byte_exact_and_always_filled() {
    let w = on(Profile::Swiotlb);
    w.cpu_write(BUF, &[7; 300]);
    let dma = w.map_call(MapCall { attrs: Attrs::SKIP_CPU_SYNC, ..single(BUF + 10, 100, Bidirectional) })[0].0;
    assert_eq!(w.read(dma, 100), [7; 100], "whatever the attributes say");
    w.write(Iova(dma.0 + 20), &[1; 8]);
    w.cpu_write(BUF + 10, &[2; 20]);
    w.cpu_write(BUF + 110, &[3; 4]);
    w.for_cpu(Iova(dma.0 + 20), 8, Bidirectional);
    let seen = w.cpu_read(BUF, 114);
    assert_eq!((&seen[10..30], &seen[30..38], &seen[38..110], &seen[110..]), (&[2; 20][..], &[1; 8][..], &[7; 72][..], &[3; 4][..]));
    w.silent();
    // A for_device copies all of its range: over what the device wrote and nobody took, too.
    w.write(dma, &[9; 50]);
    w.for_device(dma, 50, Bidirectional);
    assert_eq!(w.read(dma, 100), seen[10..110]);
    assert_eq!(w.codes(), ["DV221n"]);
    w.unmap_skip(dma, 100, Bidirectional);
}

#[test]
fn allocated_memory_needs_no_hand_over_with_bounce_buffers() {
    let w = on(Profile::Swiotlb);
    let dma = w.alloc_pages(BUF, PAGE, Bidirectional);
    w.cpu_write(BUF, &[3; 64]);
    assert_eq!(w.read(dma, 64), [3; 64]);
    w.write(dma, &[4; 8]);
    assert_eq!(w.cpu_read(BUF, 9), [4, 4, 4, 4, 4, 4, 4, 4, 3]);
    w.free_pages(dma, BUF, PAGE, Bidirectional);
    w.silent();
}

#[test]
fn a_for_cpu_that_moves_nothing_is_no_for_device() {
    // On mips a for_cpu leaves the CPU's writes in the cache.
    let w = on(Profile::Mips);
    let dma = w.map(BUF, 256, Bidirectional);
    w.cpu_write(BUF, &[5; 8]);
    w.for_cpu(dma, 256, Bidirectional);
    assert_eq!(w.cpu_read(BUF, 8), [5; 8]);
    w.silent();
    assert_eq!(w.read(dma, 8), [0; 8]);
    assert_eq!(w.bad(), ["DV213e"]);
    // The other lines were the device's all the time: what the CPU does there later is an offence of its own.
    w.cpu_write(BUF + 64, &[6; 8]);
    w.core.kick(w.device, w.site("second+0x1"));
    w.read(Iova(dma.0 + 64), 8);
    assert_eq!(w.bad(), ["DV201e", "DV213e"]);
}

#[test]
fn a_for_cpu_after_a_stale_read_is_not_what_is_wrong() {
    let w = on(Profile::Mips);
    let dma = w.map(BUF, 256, Bidirectional);
    w.cpu_write(BUF, &[5; 8]);
    w.read(dma, 8);
    w.for_cpu(dma, 256, Bidirectional);
    w.core.kick(w.device, w.site("second+0x1"));
    w.read(dma, 8);
    assert!(w.bad().iter().all(|code| code == "DV201e"), "{:?}", w.bad());
}

#[test]
fn what_the_cpu_changed_in_part_of_a_line_is_not_given_by_a_for_cpu() {
    for profile in [Profile::Worst, Profile::Mips] {
        let w = on(profile);
        // The first 32 bytes of a line, and a whole one.
        let dma = w.map(BUF + 32, 96, Bidirectional);
        w.cpu_write(BUF + 40, &[5; 4]);
        w.for_cpu(dma, 96, Bidirectional);
        assert_eq!(w.cpu_read(BUF + 40, 4), [5; 4], "{profile}");
        w.read(dma, 32);
        assert_eq!(w.bad(), ["DV213e"], "{profile}");
        assert_eq!(w.finding(Code::DV213).range, Some(ByteRange { start: 8, end: 12 }), "{profile}");
    }
}

#[test]
fn parisc_writes_back_what_the_cpu_changed_in_part_of_a_line() {
    let w = on(Profile::Parisc);
    let dma = w.map(BUF + 32, 64, Bidirectional);
    w.cpu_write(BUF + 40, &[5; 8]);
    w.write(Iova(dma.0 + 12), &[1; 8]);
    w.for_cpu(dma, 64, Bidirectional);
    // What the device wrote comes, over the CPU's bytes, too; the others go.
    let both = [vec![5; 4], vec![1; 8]].concat();
    assert_eq!((w.cpu_read(BUF + 40, 12), w.read(Iova(dma.0 + 8), 12)), (both.clone(), both));
    assert_eq!(w.bad(), ["DV203e"]);
    assert_eq!(w.finding(Code::DV203).range, Some(ByteRange { start: 12, end: 16 }));
}

#[test]
fn of_several_writes_the_one_that_hid_what_the_device_wrote_is_told_off() {
    for profile in [Profile::Mips, Profile::Parisc] {
        play_on(profile, Edges::Isolate, Cache::Quiet, 0);
        let w = Watched::new();
        let dma = w.map(BUF, 512, Bidirectional);
        for (at, place) in [(84, 0x100), (148, 0x200), (276, 0x300)] {
            w.access(BUF + at, 4, Some(&[5; 4]), &DRIVER, place, false);
        }
        w.write(Iova(dma.0 + 128), &[1; 16]);
        w.for_cpu(dma, 512, Bidirectional);
        let summary = w.core.finish();
        let place = |f: &Finding| summary.sites.frames(f.offence.site)[0].address;
        let mut found: Vec<_> = summary.findings.iter().map(|f| (place(f), f.code, f.severity, f.range, f.count)).collect();
        found.sort_by_key(|f| f.0);
        let range = |start, end| Some(ByteRange { start, end });
        // Nothing came of the others.
        let expected = [
            (0x100, Code::DV203, Severity::Note, range(84, 88), 1),
            (0x200, Code::DV203, Severity::Error, range(128, 144), 1),
            (0x300, Code::DV203, Severity::Note, range(276, 280), 1),
        ];
        assert_eq!(found, expected, "{profile}");
    }
}

#[test]
fn lines_are_counted_from_the_beginning_of_the_page() {
    for line in [32, 64, 128] {
        play_on(Profile::Mips, Edges::Isolate, Cache::Quiet, 0);
        let w = World::with(|c| c.line_size = u32::try_from(line).unwrap());
        let dma = w.map(BUF + 2048, 2 * line, Bidirectional);
        w.cpu_write(BUF + 2048 + line - 8, &[5; 8]);
        w.write(Iova(dma.0 + line), &[1; 32]);
        w.for_cpu(dma, 2 * line, Bidirectional);
        assert_eq!(w.cpu_read(BUF + 2048 + line, 32), [1; 32], "the dirty line is the one before, with lines of {line}");
        w.silent();
    }
}

#[test]
fn worst_poisons_what_is_the_mappings_alone() {
    // The neighbour was mapped before, in the last line or in part of it, or behind.
    for (at, len) in [(192, 64), (200, 56), (256, 64)] {
        for neighbour_first in [true, false] {
            let w = on(Profile::Worst);
            let old = [[7; 256], [0; 256]].concat();
            w.cpu_write(BUF, &old);
            let neighbour = || w.map(BUF + at, len, Bidirectional);
            let before = neighbour_first.then(neighbour);
            let dma = w.map(BUF, 256, FromDevice);
            let after = if neighbour_first || at < 256 { None } else { Some(neighbour()) };
            w.unmap(dma, 256, FromDevice);
            let alone = if neighbour_first { usize::try_from(at / 64 * 64).unwrap() } else { 256 };
            assert_eq!(w.cpu_read(BUF, 512), [&vec![0xdb; alone], &old[alone..]].concat(), "{at} {len} {neighbour_first}");
            if let Some(dma) = before.or(after) {
                let mine = w.cpu_read(BUF + at, usize::try_from(len).unwrap());
                w.unmap(dma, len, Bidirectional);
                assert_eq!(w.cpu_read(BUF + at, usize::try_from(len).unwrap()), mine, "{at} {len} {neighbour_first}");
            }
        }
    }
}

#[test]
fn what_two_mappings_could_not_bring_is_not_lost_once_more() {
    let w = on(Profile::Mips);
    let one = w.map(BUF, 64, FromDevice);
    let two = w.map(BUF, 64, FromDevice);
    w.for_cpu(one, 64, FromDevice);
    w.write(one, &[1; 64]);
    w.for_cpu(one, 64, FromDevice);
    w.for_cpu(two, 64, FromDevice);
    w.unmap_skip(one, 64, FromDevice);
    assert!(!w.codes().contains(&"DV221n".to_owned()), "{:?}", w.codes());
}
