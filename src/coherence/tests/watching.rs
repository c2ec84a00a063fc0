//! What the watch counts, remembers and lets go.

use super::fixture::*;
use super::watched::*;
use crate::*;

/// An instruction the machine shows the core whatever the guard; whether it was innocent.
fn show(w: &Watched, gpa: u64, len: u32, write: bool, rip: u64) -> bool {
    let access = CpuAccess { gpa: Gpa(gpa), len, read: !write, write };
    let op = CpuOp { accesses: &[access], cpu: 0, user: false, rip };
    w.core.cpu_access(&op, &mut At(&DRIVER, rip), &mut || ()).innocent
}

#[test]
fn pages_are_counted_while_they_are_watched() {
    let w = Watched::new();
    let peak = || w.core.stats().watched_pages_peak;
    let first = w.map(BUF, 64, FromDevice);
    assert_eq!(peak(), 1);
    let second = w.map(BUF + 128, 64, FromDevice);
    assert_eq!(peak(), 1, "a page counts once");
    let third = w.map(BUF + PAGE, 64, FromDevice);
    assert_eq!(peak(), 2);
    for dma in [first, second, third] {
        w.unmap(dma, 64, FromDevice);
    }
    let wide = w.map(BUF + 2 * PAGE, 2 * PAGE, FromDevice);
    assert_eq!(peak(), 2, "those before are gone");
    w.map(BUF + 8 * PAGE, 64, FromDevice);
    assert_eq!(peak(), 3);
    w.core.abandon_page(Gpa(BUF + 2 * PAGE), "given up");
    w.core.abandon_page(Gpa(BUF + 2 * PAGE), "given up");
    w.core.abandon_page(Gpa(BUF + 20 * PAGE), "never watched");
    assert_eq!(w.core.stats().abandoned_pages, 1);
    assert_eq!((w.core.stats().watched_bytes, w.core.stats().content_bytes), (4 * 64 + PAGE, PAGE));
    w.unmap(wide, 2 * PAGE, FromDevice);
    w.map(BUF + 2 * PAGE, 2 * PAGE, FromDevice);
    assert_eq!(peak(), 3, "two pages took the place of one watched and one given up");
    w.map(BUF + 9 * PAGE, 64, FromDevice);
    assert_eq!(peak(), 4);
    let auto = Watched::with(|c| c.watch = WatchPolicy::Auto);
    auto.map(BUF, 256, FromDevice);
    auto.map(BUF + 256, 256, FromDevice);
    assert_eq!(auto.core.stats().watched_pages_peak, 0);
}

#[test]
fn all_bytes_of_a_page_are_given_up_with_it() {
    let w = Watched::new();
    w.map(BUF, 100, FromDevice);
    w.map(BUF + 1000, 200, FromDevice);
    w.core.abandon_page(Gpa(BUF), "given up");
    assert_eq!((w.core.stats().watched_bytes, w.core.stats().content_bytes), (0, 300));
    assert_eq!(w.guard(BUF), Guard::Open);
    let more = w.map(BUF + 2000, 64, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Open, "a page given up stays so while it is mapped");
    assert_eq!(w.core.stats().content_bytes, 364);
    w.for_cpu(more, 64, FromDevice);
    w.for_device(more, 64, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Open);
}

#[test]
fn a_page_mapped_twice_goes_on_being_watched() {
    let w = Watched::new();
    let one = w.map(BUF, 64, FromDevice);
    let two = w.map(BUF + 128, 64, FromDevice);
    w.for_cpu(one, 64, FromDevice);
    w.for_cpu(two, 64, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Open);
    w.for_device(one, 64, FromDevice);
    assert_eq!(w.guard(BUF), Guard::Closed);
}

#[test]
fn a_page_has_its_share_of_innocent_accesses_and_no_more() {
    let w = Watched::with(|c| c.innocent_budget = 10);
    w.map(BUF, 256, FromDevice);
    for n in 0..10 {
        assert!(show(&w, BUF + 1024, 8, n % 2 == 0, 1), "access {n}");
    }
    assert_eq!((w.core.stats().abandoned_pages, w.guard(BUF)), (0, Guard::Closed));
    show(&w, BUF + 1024, 8, false, 1);
    assert_eq!((w.core.stats().abandoned_pages, w.guard(BUF)), (1, Guard::Open));
    assert_eq!((w.core.stats().cpu_accesses, w.core.stats().innocent_accesses), (11, 11));
}

#[test]
fn a_page_that_holds_nothing_else_has_fifty_times_the_share() {
    // Mapped whole by two devices' mappings: as exclusive as by one.
    let w = Watched::with(|c| c.innocent_budget = 1);
    for _ in 0..2 {
        let dma = w.map(BUF, PAGE, Bidirectional);
        w.for_cpu(dma, PAGE, Bidirectional);
    }
    for n in 0..50 {
        assert!(show(&w, BUF + 8 * n, 8, false, 1));
    }
    assert_eq!(w.core.stats().abandoned_pages, 0);
    show(&w, BUF, 8, false, 1);
    assert_eq!(w.core.stats().abandoned_pages, 1);
}

#[test]
fn only_writes_beside_a_buffer_into_lines_the_device_owns_count() {
    let world = |at: u64, len: u64| {
        let w = Watched::new();
        let dma = w.map_call(MapCall { object: (64, 64), ..single(BUF + at, len, FromDevice) })[0].0;
        (w, dma)
    };
    // The buffer begins and ends in the middle of the one line it touches.
    let (w, _) = world(16, 32);
    for at in [8, 12, 48, 52] {
        show(&w, BUF + at, 4, false, 1);
    }
    w.silent();
    show(&w, BUF + 8, 4, true, 2);
    assert_eq!(w.bad(), ["DV303w"]);
    let (w, _) = world(16, 32);
    show(&w, BUF + 48, 4, true, 2);
    assert_eq!(w.bad(), ["DV303w"], "right behind it");
    let (w, dma) = world(16, 32);
    w.for_cpu(dma, 32, FromDevice);
    show(&w, BUF + 8, 4, true, 2);
    w.silent();
    let (w, _) = world(16, 100);
    show(&w, BUF + 128, 4, true, 2);
    w.silent();
    let w = Watched::new();
    w.map_call(MapCall { object: (64, 64), ..single(BUF + 16, 32, ToDevice) });
    show(&w, BUF + 8, 4, true, 2);
    w.silent();
}

#[test]
fn a_write_is_settled_by_the_hand_over_of_its_own_bytes_and_mapping() {
    let w = Watched::new();
    let dma = w.map(BUF, 192, FromDevice);
    let other = w.map(BUF + 256, 64, FromDevice);
    w.store(BUF + 64, &[1; 64]);
    let notes = || w.codes().into_iter().filter(|code| code.ends_with('n')).count();
    w.for_cpu(other, 64, FromDevice);
    w.for_cpu(dma, 64, FromDevice);
    w.for_cpu(Iova(dma.0 + 128), 64, FromDevice);
    assert_eq!(notes(), 0, "hand-overs of other bytes: {:?}", w.codes());
    w.for_cpu(Iova(dma.0 + 64), 64, FromDevice);
    let found: Vec<_> = w.core.finish().findings.into_iter().filter(|f| f.offence.what == "CPU write").collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].range, Some(ByteRange { start: 64, end: 128 }));
}

#[test]
fn writes_that_go_on_where_the_last_ended_are_one() {
    let range_and_count = |places: &[u64]| {
        let w = Watched::new();
        let dma = w.map(BUF, 256, FromDevice);
        for at in places {
            w.access(BUF + at, 8, Some(&[1; 8]), &DRIVER, 1, false);
        }
        w.unmap(dma, 256, FromDevice);
        let mut found: Vec<_> = w.core.finish().findings.into_iter().filter(|f| f.offence.what == "CPU write").collect();
        found.sort_by_key(|f| f.range.map(|r| r.start));
        found.into_iter().map(|f| (f.range.unwrap().start, f.range.unwrap().end, f.count)).collect::<Vec<_>>()
    };
    assert_eq!(range_and_count(&[0, 8, 16]), [(0, 24, 1)]);
    assert_eq!(range_and_count(&[16, 8, 0]), [(0, 24, 1)], "downwards");
    assert_eq!(range_and_count(&[0, 4]), [(0, 12, 1)], "overlapping");
}

#[test]
fn writes_with_a_gap_between_them_are_two() {
    for places in [[0, 128], [128, 0]] {
        let w = Watched::new();
        let dma = w.map(BUF, 256, FromDevice);
        for at in places {
            w.access(BUF + at, 8, Some(&[1; 8]), &DRIVER, 1, false);
        }
        w.for_cpu(Iova(dma.0 + 64), 64, FromDevice);
        assert!(w.codes().is_empty(), "nothing was written there: {:?}", w.codes());
        w.for_cpu(dma, 256, FromDevice);
        assert!(!w.codes().is_empty());
    }
}

#[test]
fn what_is_kept_after_an_unmap_does_not_count_as_mapped() {
    let w = Watched::with(|c| c.max_page_refs = 4);
    for n in 0..20 {
        let dma = w.map(BUF + n * PAGE, 64, FromDevice);
        w.write(dma, &[7; 64]);
        w.unmap_skip(dma, 64, FromDevice);
    }
    assert_eq!(w.core.stats().live_mappings, 0);
    w.silent();
}

#[test]
fn only_a_page_of_its_own_that_the_device_wrote_is_kept() {
    let world = |before: fn(&Watched, Iova)| {
        let w = Watched::new();
        let dma = w.map(BUF, 256, FromDevice);
        before(&w, dma);
        w.unmap_skip(dma, 256, FromDevice);
        w
    };
    assert_eq!(world(|w, dma| w.write(dma, &[7; 8])).guard(BUF), Guard::Closed);
    assert_eq!(world(|_, _| ()).guard(BUF), Guard::Open, "nothing was written");
    let given_up = world(|w, dma| {
        w.write(dma, &[7; 8]);
        w.core.abandon_page(Gpa(BUF), "given up");
    });
    assert_eq!(given_up.guard(BUF), Guard::Open);
    assert_eq!(given_up.core.stats().tracked_pages, 0);
    let shared = world(|w, dma| {
        w.map(BUF + 1024, 64, ToDevice);
        w.write(dma, &[7; 8]);
    });
    assert_eq!(shared.guard(BUF), Guard::ReadOnly, "the other mapping's page");
    let auto = Watched::with(|c| c.watch = WatchPolicy::Auto);
    let dma = auto.map(BUF, 256, FromDevice);
    auto.write(dma, &[7; 8]);
    auto.unmap_skip(dma, 256, FromDevice);
    assert_eq!(auto.core.stats().tracked_pages, 0, "not watched, not kept");
}

#[test]
fn a_line_the_cpu_overwrites_is_the_cpus_and_the_others_are_kept() {
    let kept = || {
        let w = Watched::new();
        let dma = w.map(BUF, 256, FromDevice);
        w.write(dma, &[7; 256]);
        w.unmap_skip(dma, 256, FromDevice);
        w.store(BUF + 70, &[1; 4]);
        w
    };
    let w = kept();
    assert_eq!(w.guard(BUF), Guard::Closed);
    w.load(BUF + 64, 4);
    w.load(BUF + 120, 8);
    w.silent();
    for at in [60, 128, 252] {
        let w = kept();
        w.load(BUF + at, 4);
        assert_eq!(w.bad(), ["DV402e"], "{at}");
    }
    for line in [0, 128, 192] {
        w.store(BUF + line, &[1; 8]);
    }
    assert_eq!(w.guard(BUF), Guard::Open, "nothing is left");
}

#[test]
fn bytes_the_cpu_wrote_itself_are_not_awaited_from_the_device() {
    let world = || {
        let w = Watched::with(|c| c.pedantic = true);
        let dma = w.map(BUF, 256, FromDevice);
        w.transfer(dma, &[1; 60]);
        w.for_cpu(dma, 256, FromDevice);
        (w, dma)
    };
    let (w, _) = world();
    show(&w, BUF + 60, 196, true, 1);
    show(&w, BUF + 128, 4, false, 2);
    assert!(w.codes().is_empty(), "{:?}", w.codes());
    let (w, dma) = world();
    w.for_device(dma, 256, FromDevice);
    w.transfer(dma, &[2; 256]);
    w.for_cpu(dma, 256, FromDevice);
    show(&w, BUF + 128, 4, false, 2);
    assert!(w.codes().is_empty(), "the next transfer was longer: {:?}", w.codes());
    // A copy may run a little past the end.
    let slack = rules::cpu::PAST_THE_END as u64;
    let (w, _) = world();
    show(&w, BUF + 60 + slack - 1, 1, false, 2);
    assert!(w.codes().is_empty(), "{:?}", w.codes());
    show(&w, BUF + 60 + slack, 1, false, 3);
    assert_eq!(w.codes(), ["DV218n"]);
}

#[test]
fn the_write_that_is_lost_is_named_and_not_one_that_adjoins_it() {
    for (first, second) in [((4, 0x100), (8, 0x200)), ((8, 0x200), (4, 0x100)), ((8, 0x200), (12, 0x100))] {
        let w = Watched::new();
        let dma = w.map(BUF, 64, Bidirectional);
        for (at, place) in [first, second] {
            let value = if place == 0x100 { 1 } else { 5 };
            w.access(BUF + at, 4, Some(&[value; 4]), &DRIVER, place, false);
        }
        // What was written at the first place the device writes, too: nothing is lost of it.
        w.write(dma, &[1; 64]);
        w.for_cpu(dma, 64, Bidirectional);
        let summary = w.core.finish();
        let lost: Vec<_> = summary.findings.iter().filter(|f| f.severity == Severity::Error).collect();
        assert_eq!(lost.len(), 1, "{lost:#?}");
        assert_eq!(summary.sites.frames(lost[0].offence.site)[0].address, 0x200);
        assert_eq!(lost[0].range, Some(ByteRange { start: 8, end: 12 }));
    }
    // The write that is lost was not seen: no other takes the blame.
    for at in [4, 12] {
        let w = Watched::new();
        let dma = w.map(BUF, 64, Bidirectional);
        w.access(BUF + at, 4, Some(&[1; 4]), &DRIVER, 0x100, false);
        w.cpu_write(BUF + 8, &[5; 4]);
        w.write(dma, &[1; 64]);
        w.for_cpu(dma, 64, Bidirectional);
        let found = w.core.finish().findings;
        let lost: Vec<_> = found.iter().filter(|f| f.severity == Severity::Error).map(|f| f.offence.what.as_str()).collect();
        assert_eq!(lost, ["dma_sync_single_for_cpu"]);
    }
}

#[test]
fn a_buffer_that_was_taken_before_is_one_that_is_reused() {
    for rounds in 0..4 {
        let w = Watched::new();
        let dma = w.map(BUF, 64, FromDevice);
        for n in 0..rounds {
            w.transfer(dma, &[n + 1; 64]);
            w.for_cpu(dma, 64, FromDevice);
            w.for_device(dma, 64, FromDevice);
        }
        w.transfer(dma, &[9; 64]);
        w.load(BUF, 8);
        assert_eq!(w.bad(), [if rounds == 0 { "DV202e" } else { "DV217e" }], "after {rounds} rounds");
    }
}

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Diary(std::sync::Mutex<Vec<(Gpa, Guard)>>);

impl Gate for Diary {
    fn apply(&self, changes: &[(Gpa, Guard)], _: &mut Vec<Gpa>) {
        self.0.lock().unwrap().extend(changes);
    }
}

#[test]
fn guards_are_passed_on_in_order_of_address() {
    let w = World::with(|c| c.watch = WatchPolicy::All);
    let diary = std::sync::Arc::new(Diary::default());
    w.core.set_gate(diary.clone());
    w.map_call(list(&[(BUF + 5 * PAGE, 64), (BUF, 64), (BUF + 2 * PAGE, 64)], FromDevice));
    let pages = [0, 2, 5].map(|page| (Gpa(BUF + page * PAGE), Guard::Closed));
    assert_eq!(*diary.0.lock().unwrap(), pages);
}

#[test]
fn a_write_that_is_lost_in_two_places_is_lost_once() {
    let w = Watched::new();
    let dma = w.map(BUF + 32, 32, Bidirectional);
    w.access(BUF + 32, 16, Some(&[5; 16]), &DRIVER, 0x100, false);
    w.write(dma, &[1; 4]);
    w.write(Iova(dma.0 + 8), &[1; 4]);
    w.for_cpu(dma, 32, Bidirectional);
    let f = w.finding(Code::DV203);
    assert_eq!((f.severity, f.count, f.range), (Severity::Error, 1, Some(ByteRange { start: 0, end: 12 })));
}

/// Errors when the CPU wrote bytes 64 to 72 and the device some others, and then the buffer is given.
fn overtaken(profile: Profile, at: u64, len: usize) -> usize {
    play_on(profile, Edges::Isolate, Cache::Quiet, 0);
    let w = Watched::new();
    let dma = w.map(BUF, 256, Bidirectional);
    w.access(BUF + 64, 8, Some(&[5; 8]), &DRIVER, 0x100, false);
    w.write(Iova(dma.0 + at), &vec![1; len]);
    w.for_device(dma, 256, Bidirectional);
    w.bad().iter().filter(|code| *code == "DV203e").count()
}

#[test]
fn a_write_is_overtaken_in_its_line_or_where_it_bounces_in_its_bytes() {
    for (at, len, line, bytes) in [(64, 1, 1, 1), (71, 1, 1, 1), (72, 8, 1, 0), (60, 4, 0, 0), (128, 64, 0, 0), (0, 256, 1, 1)] {
        assert_eq!((overtaken(Profile::Arm64, at, len), overtaken(Profile::Swiotlb, at, len)), (line, bytes), "{at} {len}");
    }
}

#[test]
fn a_write_that_goes_on_after_the_device_wrote_is_another() {
    play_on(Profile::Arm64, Edges::Isolate, Cache::Quiet, 0);
    let w = Watched::new();
    let dma = w.map(BUF, 64, Bidirectional);
    w.access(BUF, 4, Some(&[5; 4]), &DRIVER, 0x100, false);
    w.write(Iova(dma.0 + 32), &[1; 4]);
    w.access(BUF + 4, 4, Some(&[5; 4]), &DRIVER, 0x100, false);
    w.for_device(dma, 64, Bidirectional);
    let f = w.finding(Code::DV203);
    assert_eq!((f.range, f.count), (Some(ByteRange { start: 0, end: 4 }), 1));
}

#[test]
fn what_the_cpu_has_already_is_not_awaited_again() {
    let w = Watched::with(|c| c.pedantic = true);
    let dma = w.map(BUF, 256, FromDevice);
    w.transfer(dma, &[1; 256]);
    w.for_cpu(dma, 64, FromDevice);
    w.for_cpu(dma, 256, FromDevice);
    for at in (0..256).step_by(8) {
        w.load(BUF + at, 8);
    }
    assert!(!w.codes().contains(&"DV218n".to_owned()), "{:?}", w.codes());
}

#[test]
fn a_line_the_device_wrote_in_two_places_was_given_back() {
    let w = Watched::new();
    let dma = w.map(BUF, 64, FromDevice);
    w.transfer(dma, &[1; 4]);
    w.transfer(Iova(dma.0 + 16), &[1; 4]);
    w.for_device(dma, 64, FromDevice);
    w.load(BUF, 4);
    assert_eq!(w.bad(), ["DV213e"]);
}

#[test]
fn neighbours_are_those_of_the_same_object() {
    // Eight bytes of the object before the buffer and eight behind it.
    for (at, found) in [(7, false), (8, true), (15, true), (116, true), (123, true), (124, false)] {
        let w = Watched::new();
        w.map_call(MapCall { object: (8, 8), ..single(BUF + 16, 100, FromDevice) });
        show(&w, BUF + at, 1, true, 1);
        assert_eq!(w.bad(), Vec::from_iter(found.then_some("DV303w")), "byte {at}");
    }
}

#[test]
fn what_the_cpu_did_is_part_of_the_story() {
    let w = Watched::new();
    let dma = w.map(BUF, 128, Bidirectional);
    w.store(BUF, &[5; 4]);
    w.transfer(Iova(dma.0 + 64), &[1; 64]);
    w.load(BUF + 64, 4);
    w.for_cpu(dma, 128, Bidirectional);
    let story: Vec<_> = w.finding(Code::DV203).history.into_iter().map(|e| (e.event, e.range.start)).collect();
    let expected = [("mapped", 0), ("CPU wrote", 0), ("device wrote", 64), ("CPU read", 64)];
    assert_eq!(story[..4], expected.map(|(event, at)| (event.to_owned(), at)));
}

#[test]
fn only_what_the_device_has_is_not_innocent() {
    let w = Watched::with(|c| c.innocent_budget = 4);
    let dma = w.map(BUF, 256, Bidirectional);
    w.for_cpu(dma, 64, Bidirectional);
    assert!(show(&w, BUF, 8, true, 1) && show(&w, BUF + 8, 8, false, 1), "the CPU's bytes");
    for n in 0..20 {
        assert!(!show(&w, BUF + 64, 8, n % 2 == 0, 2), "the device's");
    }
    assert_eq!((w.core.stats().abandoned_pages, w.core.stats().innocent_accesses), (0, 2), "they use up no share");
}

#[test]
fn what_a_for_cpu_did_not_bring_is_told_of_there_and_not_at_the_read() {
    play_on(Profile::Mips, Edges::Isolate, Cache::Quiet, 0);
    let w = Watched::new();
    let dma = w.map(BUF, 128, FromDevice);
    w.for_cpu(dma, 64, FromDevice);
    w.transfer(dma, &[1; 64]);
    w.for_cpu(dma, 64, FromDevice);
    assert_eq!(w.bad(), ["DV222e"]);
    assert!(!show(&w, BUF, 8, false, 1));
    assert_eq!(w.bad(), ["DV222e"]);
    // The next line is the device's still.
    w.transfer(Iova(dma.0 + 64), &[1; 64]);
    show(&w, BUF + 64, 8, false, 2);
    assert_eq!(w.bad().len(), 2, "{:?}", w.bad());
}

#[test]
fn the_rest_of_a_line_that_was_taken_in_part_is_not_taken() {
    let w = Watched::new();
    let dma = w.map(BUF, 64, FromDevice);
    w.transfer(dma, &[1; 64]);
    w.for_cpu(dma, 16, FromDevice);
    w.load(BUF + 32, 8);
    assert_eq!(w.bad(), ["DV214e"]);
}

#[test]
fn fetches_of_coherent_memory_are_told_apart_by_their_words() {
    // Between two fetches of bytes 1024 to 1032 the device, or the CPU, writes.
    for (at, len, news) in [(1024, 8, true), (1031, 1, true), (1016, 16, true), (1016, 8, false), (1032, 8, false), (0, 64, false)] {
        for by_cpu in [false, true] {
            let w = Watched::with(|c| c.pedantic = true);
            let dma = w.alloc_coherent(BUF, PAGE);
            show(&w, BUF + 1024, 8, false, 0x7000);
            if by_cpu {
                show(&w, BUF + at, len, true, 0x7008);
            } else {
                w.write(Iova(dma.0 + at), &vec![1; usize::try_from(len).unwrap()]);
            }
            show(&w, BUF + 1024, 8, false, 0x7010);
            assert_eq!(w.codes(), Vec::from_iter((!news).then_some("DV503n")), "{at} {len} {by_cpu}");
        }
    }
    // More than eight words at once is no look at a descriptor.
    for (len, found) in [(64, true), (72, false)] {
        let w = Watched::with(|c| c.pedantic = true);
        w.alloc_coherent(BUF, PAGE);
        for rip in [0x7000, 0x7010] {
            show(&w, BUF + 1024, len, false, rip);
        }
        assert_eq!(w.codes(), Vec::from_iter(found.then_some("DV503n")), "{len}");
    }
}

#[test]
fn a_page_of_coherent_memory_is_given_up_when_it_is_used_too_much() {
    let w = Watched::with(|c| (c.pedantic, c.innocent_budget) = (true, 1));
    w.alloc_coherent(BUF, PAGE);
    assert_eq!(w.guard(BUF), Guard::Closed);
    for n in 0..50 {
        show(&w, BUF + 1024, 8, true, n);
    }
    assert_eq!((w.core.stats().abandoned_pages, w.guard(BUF)), (0, Guard::Closed));
    show(&w, BUF + 1024, 8, true, 1);
    assert_eq!((w.core.stats().abandoned_pages, w.guard(BUF)), (1, Guard::Open));
}
