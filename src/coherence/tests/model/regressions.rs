//! Histories on which core and model once disagreed, shrunk and by name, with what is right.

use super::history::{Op, Setup, Slip};
use super::{Expect, played};
use crate::Family::{self, Coherent, Pages, Sg, Single};
use crate::{Cache, Edges, Profile};

const WATCHED: Setup = Setup {
    line: 64,
    watch: true,
    pedantic: false,
    loops: false,
    merge: false,
    profile: Profile::Arm64,
    edges: Edges::Isolate,
    cache: Cache::Quiet,
    seed: 0,
};
const BLIND: Setup = Setup { watch: false, ..WATCHED };
const PEDANTIC: Setup = Setup { pedantic: true, ..WATCHED };
const BOTH: u8 = 0;
const FROM: u8 = 2;
const OTHER: u8 = 0;
const SLAB: u8 = 7;

fn map(family: Family, page: usize, start: usize, len: usize, direction: u8) -> Op {
    Op::Map { device: 0, family, pieces: vec![(page, start, len)], direction, skip: false, kind: SLAB }
}

fn map_as(device: usize, page: usize, start: usize, len: usize, direction: u8, kind: u8) -> Op {
    Op::Map { device, family: Single, pieces: vec![(page, start, len)], direction, skip: false, kind }
}

fn sync(for_cpu: bool, start: usize, len: usize) -> Op {
    Op::Sync { which: 0, for_cpu, start, len, slip: Slip::Nothing }
}

fn unmap(skip: bool) -> Op {
    Op::Unmap { which: 0, skip, slip: Slip::Nothing }
}

fn load(start: usize, len: usize) -> Op {
    Op::CpuRead { page: 2, start, len }
}

fn store(page: usize, start: usize, len: usize, value: u8) -> Op {
    Op::CpuWrite { page, start, len, value, same: false }
}

fn write(which: usize, start: usize, len: usize, value: u8) -> Op {
    Op::DeviceWrite { which, start, len, value }
}

fn read(start: usize, len: usize) -> Op {
    Op::DeviceRead { which: 0, start, len, intent: 0 }
}

fn check(setup: Setup, history: &[Op], expected: &[Expect]) {
    let mut expected: Vec<_> = expected.iter().map(|(code, range)| ((*code).to_owned(), *range)).collect();
    let mut found = played(setup, history);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn memory_that_was_just_allocated_is_the_cpus() {
    check(BLIND, &[map(Single, 2, 0, 64, FROM), map(Pages, 2, 0, 64, BOTH)], &[]);
}

#[test]
fn a_second_for_cpu_makes_no_data_a_short_transfer() {
    let syncs = [sync(true, 0, 256), sync(true, 0, 256)];
    let history = [&[map(Single, 2, 0, 256, FROM), write(0, 0, 64, 1)][..], &syncs, &[load(0, 64), load(128, 64)]].concat();
    check(PEDANTIC, &history, &[("DV218", Some((128, 192))), ("DV220", Some((0, 256)))]);
}

#[test]
fn a_mapping_over_another_is_not_beside_it() {
    let setup = Setup { line: 128, ..BLIND };
    let over = Op::Map { device: 1, family: Sg, pieces: vec![(1, 0, 4096)], direction: FROM, skip: false, kind: OTHER };
    check(setup, &[map_as(1, 1, 3800, 64, FROM, OTHER), over], &[("DV116", None), ("DV301", Some((0, 64)))]);
}

#[test]
fn a_neighbour_of_another_device_hides_none() {
    let near = [map_as(1, 2, 0, 16, FROM, OTHER), map_as(0, 2, 16, 16, FROM, OTHER), map_as(0, 2, 32, 32, FROM, OTHER)];
    let notes = [("DV301", Some((0, 16))), ("DV301", Some((0, 16))), ("DV301", Some((0, 32)))];
    check(BLIND, &near, &[&[("DV302", Some((0, 32)))][..], &notes].concat());
}

#[test]
fn the_write_that_had_the_first_lost_byte_is_told_off() {
    let entries = vec![(1, 0, 64), (2, 64, 64)];
    let list = Op::Map { device: 0, family: Sg, pieces: entries, direction: FROM, skip: false, kind: SLAB };
    // The write to the second entry came first.
    let history = [list, store(2, 64, 64, 1), store(1, 0, 64, 1), unmap(false)];
    check(WATCHED, &history, &[("DV203", Some((0, 128)))]);
}

#[test]
fn a_device_that_writes_before_the_second_look_closes_the_page() {
    let first = [map(Pages, 2, 0, 64, FROM), write(0, 0, 64, 1), Op::Signal { device: 0 }, load(0, 64)];
    let again = [sync(true, 0, 64), write(0, 0, 64, 9), load(0, 64), unmap(false)];
    check(WATCHED, &[&first[..], &again].concat(), &[("DV221", Some((0, 64)))]);
}

#[test]
fn what_the_device_wrote_is_handed_over_with_the_rest() {
    let history = [map(Pages, 2, 0, 64, BOTH), write(0, 0, 64, 1), sync(false, 0, 64), store(2, 0, 64, 7), sync(true, 0, 64)];
    check(WATCHED, &history, &[("DV203", Some((0, 64))), ("DV221", Some((0, 64)))]);
}

#[test]
fn a_page_kept_for_comparison_awaits_nothing_when_it_is_mapped_again() {
    let old = [map(Single, 2, 0, 4096, FROM), sync(true, 0, 64), write(0, 64, 64, 3), unmap(true)];
    check(PEDANTIC, &[&old[..], &[map(Single, 2, 64, 64, 1), load(0, 64), unmap(false)]].concat(), &[("DV221", Some((64, 128)))]);
}

#[test]
fn a_for_device_gives_back_the_lines_that_were_written() {
    // The other device writes line 1 after that.
    let maps = [map(Single, 2, 0, 128, FROM), map_as(1, 2, 0, 128, FROM, SLAB)];
    let history = [&maps[..], &[write(0, 0, 8, 1), sync(false, 0, 128), write(1, 64, 8, 1), load(64, 8)]].concat();
    let expected = [("DV202", Some((64, 72))), ("DV202", Some((64, 72))), ("DV221", Some((0, 8))), ("DV221", Some((0, 72)))];
    check(WATCHED, &history, &[&expected[..], &[("DV221", Some((0, 72)))]].concat());
}

#[test]
fn a_wrong_sync_is_forgotten_with_the_bytes() {
    let first = [map(Single, 2, 0, 128, BOTH), store(2, 0, 8, 1), sync(true, 0, 32), sync(true, 0, 128)];
    check(
        BLIND,
        &[&first[..], &[store(2, 64, 8, 2), store(2, 0, 8, 3), read(0, 8)]].concat(),
        &[("DV201", Some((0, 8))), ("DV213", Some((0, 8)))],
    );
}

#[test]
fn what_was_found_stale_is_no_part_of_what_is_lost() {
    let history = [map(Single, 2, 0, 128, BOTH), store(2, 0, 8, 1), read(0, 64), store(2, 64, 8, 2), sync(true, 0, 128)];
    check(BLIND, &history, &[("DV201", Some((0, 8))), ("DV203", Some((64, 72)))]);
}

#[test]
fn an_offence_on_one_line_names_none_on_another() {
    let begin = [map(Single, 2, 0, 128, BOTH), read(0, 128), store(2, 0, 8, 1), sync(true, 0, 128), sync(false, 0, 128)];
    check(BLIND, &[&begin[..], &[store(2, 64, 8, 2), read(0, 128)]].concat(), &[("DV203", Some((0, 8))), ("DV217", Some((64, 72)))]);
}

#[test]
fn a_sign_of_the_device_ends_its_transfer() {
    // Events three apart are from one place.
    let setup = Setup { loops: true, ..WATCHED };
    let begin = [map(Single, 2, 0, 64, BOTH), sync(true, 0, 64), write(0, 0, 16, 1), Op::Signal { device: 0 }];
    let idle = Op::Signal { device: 1 };
    check(setup, &[&begin[..], &[idle, write(0, 16, 16, 1), load(0, 8), unmap(false)]].concat(), &[("DV212", Some((0, 8)))]);
}

#[test]
fn a_write_through_a_mapping_that_was_dropped_is_nobodys() {
    let maps = [map_as(1, 2, 0, 64, BOTH, SLAB), map(Single, 2, 0, 64, FROM)];
    let unmap_other = Op::Unmap { which: 0, skip: false, slip: Slip::Nothing };
    let history = [&maps[..], &[store(2, 0, 8, 5), Op::Unbind { device: 1 }, unmap_other]].concat();
    check(WATCHED, &history, &[("DV108", None), ("DV203", Some((0, 8)))]);
}

#[test]
fn coherent_memory_of_another_device_hides_none() {
    let theirs = Op::Map { device: 1, family: Coherent, pieces: vec![(0, 0, 64)], direction: BOTH, skip: false, kind: SLAB };
    check(BLIND, &[theirs, map(Coherent, 1, 0, 64, BOTH), map(Single, 0, 4000, 200, 1)], &[("DV219", None)]);
}

#[test]
fn a_for_cpu_of_another_direction_takes_all_the_same() {
    let wrong = Op::Sync { which: 0, for_cpu: true, start: 1, len: 1, slip: Slip::Direction };
    let history = [map(Single, 2, 64, 64, 1), write(0, 0, 64, 0), wrong, load(64, 64)];
    let found = played(WATCHED, &history);
    assert!(found.iter().any(|(code, _)| code == "DV217"), "{found:?}");
}

#[test]
fn the_write_that_hid_a_later_entry_is_told_off() {
    let setup = Setup { profile: Profile::Arm, edges: Edges::Line, ..WATCHED };
    let entries = vec![(2, 65, 64), (2, 0, 1)];
    let list = Op::Map { device: 0, family: Sg, pieces: entries, direction: FROM, skip: false, kind: SLAB };
    // A sync from 0 on is one of the whole list. The write is one to bytes of the device in the second entry only.
    let syncs = [sync(true, 0, 64), sync(false, 64, 1)];
    let history = [&[list][..], &syncs, &[write(0, 0, 64, 1), write(0, 64, 1, 1), store(2, 0, 96, 7), unmap(false)]].concat();
    let found = super::play(setup, &history).unwrap_or_else(|difference| panic!("{difference}"));
    let told: Vec<_> = found.iter().filter(|f| f.code == crate::Code::DV203).map(|f| (f.site / 8, f.range)).collect();
    assert_eq!(told, [(6, Some((0, 65)))]);
}

#[test]
fn of_two_entries_in_one_page_the_first_names_the_write() {
    let setup = Setup { profile: Profile::Mips, ..WATCHED };
    let list = Op::Map { device: 0, family: Sg, pieces: vec![(1, 0, 64), (1, 64, 33)], direction: FROM, skip: false, kind: SLAB };
    // The write to the second entry came first.
    let writes = [write(0, 0, 64, 1), write(0, 64, 33, 1), store(1, 64, 33, 7), store(1, 0, 64, 75)];
    let found = super::play(setup, &[&[list][..], &writes, &[unmap(false)]].concat()).unwrap_or_else(|difference| panic!("{difference}"));
    let told: Vec<_> = found.iter().filter(|f| f.code == crate::Code::DV203).map(|f| (f.site / 8, f.range)).collect();
    assert_eq!(told, [(5, Some((0, 97)))]);
}

#[test]
fn what_a_for_cpu_of_another_direction_discards_had_a_consequence() {
    let maps = [map(Single, 2, 123, 3, BOTH), map_as(1, 2, 64, 64, 1, SLAB)];
    let wrong = Op::Sync { which: 1, for_cpu: true, start: 0, len: 64, slip: Slip::Direction };
    check(WATCHED, &[&maps[..], &[store(2, 64, 64, 7), wrong, unmap(false)]].concat(), &[("DV216", Some((0, 64)))]);
}
