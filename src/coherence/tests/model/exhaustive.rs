//! All histories of a small machine: two lines of one page, one mapping or two of two devices, and every order of what can happen.
//! Shorter ones of every other machine, with a mapping that covers its second line in part.
//!
//! Each history ends with the unmap of what is mapped. Shorter histories are beginnings of longer ones and are played, too. Of two
//! histories that differ only in the names of lines or devices one is played: the first device maps first, and where the mappings
//! cover both lines the first event that names a line names line 0.

use super::model::{Batch, Op, Setup, Slip};
use crate::{Cache, Direction, Edges, Family, Profile};

/// The page and the line size.
const PAGE: usize = 2;
const LINE: usize = 64;
const SETUP: Setup = Setup {
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

/// Events after the first map in the ordinary run; `DMAVET_MODEL_DEPTH` adds to it.
fn depth(ordinary: usize) -> usize {
    let more = std::env::var("DMAVET_MODEL_DEPTH").ok().map_or(0, |n| n.parse::<isize>().expect("DMAVET_MODEL_DEPTH is a number"));
    ordinary.saturating_add_signed(more)
}

fn map(device: usize, family: Family, lines: (usize, usize), direction: Direction, skip: bool) -> Op {
    let pieces = vec![(PAGE, lines.0 * LINE, (lines.1 - lines.0) * LINE)];
    Op::Map { device, family, pieces, direction: direction as u8, skip, kind: 7 }
}

fn sync(which: usize, for_cpu: bool, line: Option<usize>) -> Op {
    let (start, len) = line.map_or((0, 2 * LINE), |line| (line * LINE, LINE));
    Op::Sync { which, for_cpu, start, len, slip: Slip::Nothing }
}

const DIRECTIONS: [Direction; 3] = [Direction::Bidirectional, Direction::ToDevice, Direction::FromDevice];

/// An event, and the line it names.
type Event = (Op, Option<usize>);

/// What the CPU can do with the lines.
fn cpu(line: usize) -> [Event; 2] {
    let (page, start) = (PAGE, line * LINE);
    let read = Op::CpuRead { page, start, len: 8 };
    // Not always the same: a value that comes back is another story.
    [(read, Some(line)), (Op::CpuWrite { page, start, len: 8, value: 0x10, same: false }, Some(line))]
}

fn write(which: usize, line: usize) -> Op {
    Op::DeviceWrite { which, start: line * LINE + 4, len: 8, value: 0x80 }
}

fn read(which: usize) -> Op {
    Op::DeviceRead { which, start: 0, len: 2 * LINE, intent: 0 }
}

/// Plays every history of `begin` and at most `depth` of `events`. Says how many.
fn play_all(batch: &mut Batch, begin: &[Op], events: &[Event], depth: usize, symmetric: bool) {
    let mut history: Vec<Op> = begin.to_vec();
    let mut stack: Vec<usize> = Vec::new();
    let mut next = 0;
    batch.play(&history);
    loop {
        if stack.len() < depth && next < events.len() {
            let named = stack.iter().any(|at| events[*at].1.is_some());
            let (op, line) = &events[next];
            // Line 1 comes after line 0.
            if symmetric && !named && *line == Some(1) {
                next += 1;
                continue;
            }
            stack.push(next);
            history.push(op.clone());
            batch.play(&history);
            next = 0;
        } else if let Some(last) = stack.pop() {
            history.pop();
            next = last + 1;
        } else {
            return;
        }
    }
}

#[test]
fn one_mapping_of_two_lines() {
    let mut batch = Batch::new(SETUP, PAGE..PAGE + 1);
    for (family, direction) in [Family::Single, Family::Pages].into_iter().flat_map(|f| DIRECTIONS.map(|d| (f, d))) {
        let mut events: Vec<Event> = [0, 1].into_iter().flat_map(cpu).collect();
        events.push((read(0), None));
        for line in [0, 1] {
            events.push((write(0, line), Some(line)));
            events.extend([true, false].map(|for_cpu| (sync(0, for_cpu, Some(line)), Some(line))));
        }
        events.extend([true, false].map(|for_cpu| (sync(0, for_cpu, None), None)));
        play_all(&mut batch, &[map(0, family, (0, 2), direction, false)], &events, depth(4), true);
    }
    println!("{} histories of one mapping agree", batch.end());
}

/// Every machine that does not act as the one above, and one of them with a cache that moves lines on its own.
fn machines() -> Vec<Setup> {
    let other = |m: &(Profile, Edges)| match m {
        (Profile::Arm64 | Profile::Riscv, Edges::Isolate) => false,
        // It has no lines.
        (Profile::Swiotlb, Edges::Line) => false,
        _ => true,
    };
    let pairs = Profile::ALL.into_iter().flat_map(|p| Edges::ALL.map(|e| (p, e)));
    let quiet = pairs.filter(other).map(|(profile, edges)| Setup { profile, edges, ..SETUP });
    let moving = [Cache::Evict, Cache::Prefetch].map(|cache| Setup { profile: Profile::Arm, edges: Edges::Line, cache, ..SETUP });
    quiet.chain(moving).collect()
}

#[test]
fn other_machines() {
    // Line 0 and half of line 1; what lies beside that is in no mapping.
    let size = LINE + LINE / 2;
    let mut count = 0;
    for setup in machines() {
        let mut batch = Batch::new(setup, PAGE..PAGE + 1);
        for direction in DIRECTIONS {
            let begin = Op::Map {
                device: 0,
                family: Family::Single,
                pieces: vec![(PAGE, 0, size)],
                direction: direction as u8,
                skip: false,
                kind: 7,
            };
            let mut events: Vec<Event> = [0, 1].into_iter().flat_map(cpu).collect();
            let beside = Op::CpuWrite { page: PAGE, start: size, len: 8, value: 0x30, same: false };
            events.extend([(beside, Some(1)), (read(0), None), (write(0, 0), Some(0)), (write(0, 1), Some(1))]);
            events.extend([true, false].map(|for_cpu| (sync(0, for_cpu, None), None)));
            events.push((sync(0, true, Some(0)), Some(0)));
            play_all(&mut batch, &[begin], &events, depth(3), false);
        }
        count += batch.end();
    }
    println!("{count} histories of other machines agree");
}

#[test]
fn two_devices() {
    let mut batch = Batch::new(SETUP, PAGE..PAGE + 1);
    for (first, second) in DIRECTIONS.into_iter().flat_map(|a| DIRECTIONS.map(|b| (a, b))) {
        for (lines, skip) in [((0, 2), false), ((0, 1), false), ((0, 2), true)] {
            let begin = [map(0, Family::Single, (0, 2), first, false), map(1, Family::Single, lines, second, skip)];
            let mut events: Vec<Event> = cpu(0).into();
            events.push(cpu(1)[1].clone());
            for which in [0, 1] {
                let unmap = Op::Unmap { which, skip: false, slip: Slip::Nothing };
                events.extend([(read(which), None), (write(which, 0), Some(0)), (unmap, None)]);
                events.extend([true, false].map(|for_cpu| (sync(which, for_cpu, None), None)));
            }
            play_all(&mut batch, &begin, &events, depth(3), lines == (0, 2));
        }
    }
    println!("{} histories of two devices agree", batch.end());
}
