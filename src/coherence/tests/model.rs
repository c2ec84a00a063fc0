//! A slow model of the two copies (byte by byte, no cleverness) and random histories on which both must agree.

use super::fixture::*;
use super::watched::*;
use crate::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const LINE: usize = 64;
/// The pages the histories play on: two that adjoin and one apart.
const PAGES: [u64; 3] = [BUF, BUF + PAGE, BUF + 5 * PAGE];

#[derive(Clone, Copy, Default)]
struct Byte {
    cpu: u8,
    device: u8,
    baseline: u8,
    fresh: bool,
    written: bool,
}

#[derive(Clone)]
struct Area {
    page: usize,
    start: usize,
    len: usize,
    direction: Direction,
    pages_family: bool,
    iova: Iova,
    /// Pages and lines the device owns.
    owned: BTreeSet<(usize, usize)>,
}

impl Area {
    fn gpa(&self) -> u64 {
        PAGES[self.page] + self.start as u64
    }
    /// The device gets or loses the lines of a range.
    fn own(&mut self, bytes: &[(usize, usize)], gets: bool) {
        for line in bytes.iter().map(|(page, at)| (*page, at / LINE)) {
            if gets {
                self.owned.insert(line);
            } else {
                self.owned.remove(&line);
            }
        }
    }
    fn bytes(&self, start: usize, len: usize) -> Vec<(usize, usize)> {
        (start..start + len)
            .map(|i| {
                let at = self.start + i;
                if at < 4096 { (self.page, at) } else { (self.page + 1, at - 4096) }
            })
            .collect()
    }
}

struct Model {
    bytes: Vec<[Byte; 4096]>,
    live: Vec<Area>,
}

impl Model {
    fn under(&self, page: usize, at: usize) -> usize {
        self.live.iter().filter(|a| a.bytes(0, a.len).contains(&(page, at))).count()
    }

    fn hand_over(&mut self, bytes: &[(usize, usize)]) {
        for (page, at) in bytes {
            let b = &mut self.bytes[*page][*at];
            if !(b.fresh || b.written) || b.cpu != b.baseline {
                (b.device, b.baseline, b.fresh, b.written) = (b.cpu, b.cpu, true, false);
            }
        }
    }

    fn poison(&mut self, bytes: &[(usize, usize)]) {
        for (page, at) in bytes {
            let b = &mut self.bytes[*page][*at];
            if !(b.fresh || b.written) {
                (b.device, b.baseline) = (0xdb, b.cpu);
            }
        }
    }

    fn take_back(&mut self, bytes: &[(usize, usize)]) {
        for (page, at) in bytes {
            let line = *at / LINE * LINE;
            let whole = (line..line + LINE).all(|other| bytes.contains(&(*page, other)));
            let b = &mut self.bytes[*page][*at];
            if b.written || (whole && b.fresh) {
                (b.cpu, b.baseline, b.fresh) = (b.device, b.device, true);
            }
            b.written = false;
        }
    }

    /// What the CPU may do with a page unseen; `None` when only what an unmap without a sync left may keep it closed.
    fn guard(&self, page: usize) -> Option<Guard> {
        let owned = |writable| {
            let theirs = self.live.iter().filter(|a| (a.direction != ToDevice) == writable);
            theirs.flat_map(|a| &a.owned).any(|(p, _)| *p == page)
        };
        if self.live.iter().all(|a| a.bytes(0, a.len).iter().all(|(p, _)| *p != page)) {
            return None;
        }
        Some(if owned(true) || self.bytes[page].iter().any(|b| b.written) {
            Guard::Closed
        } else if owned(false) {
            Guard::ReadOnly
        } else {
            Guard::Open
        })
    }

    fn leave(&mut self, area: &Area) {
        for (page, at) in area.bytes(0, area.len) {
            if self.under(page, at) == 0 {
                let b = &mut self.bytes[page][at];
                (b.fresh, b.written) = (false, false);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Map { page: usize, start: usize, len: usize, direction: u8, how: u8 },
    Unmap { which: usize, skip: bool },
    Sync { which: usize, for_cpu: bool, start: usize, len: usize },
    CpuWrite { page: usize, start: usize, len: usize, value: u8, same: bool },
    DeviceWrite { which: usize, start: usize, len: usize, value: u8 },
}

fn ops() -> impl Strategy<Value = Op> {
    let start = prop_oneof![Just(0usize), Just(64), 0usize..300, 3800usize..4096];
    let len = prop_oneof![Just(64usize), Just(4096), 1usize..300];
    prop_oneof![
        2 => (0usize..3, start.clone(), len.clone(), 0u8..3, 0u8..6)
            .prop_map(|(page, start, len, direction, how)| Op::Map { page, start, len, direction, how }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, skip)| Op::Unmap { which, skip }),
        3 => (any::<usize>(), any::<bool>(), 0usize..4096, len.clone())
            .prop_map(|(which, for_cpu, start, len)| Op::Sync { which, for_cpu, start, len }),
        3 => (0usize..3, start, len.clone(), any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|(page, start, len, value, same)| Op::CpuWrite { page, start, len, value, same }),
        3 => (any::<usize>(), 0usize..4096, len, any::<u8>())
            .prop_map(|(which, start, len, value)| Op::DeviceWrite { which, start, len, value }),
    ]
}

fn directions(n: u8) -> Direction {
    [Bidirectional, ToDevice, FromDevice][usize::from(n) % 3]
}

/// [`CASES`](super::CASES), or what `PROPTEST_CASES` asks for.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(super::CASES)
}

fn pattern(value: u8, step: usize) -> u8 {
    value.wrapping_add(u8::try_from(step % 256).unwrap())
}

fn play(history: &[Op], watch: WatchPolicy) -> Result<(), TestCaseError> {
    let w = Watched::with(|config| config.watch = watch);
    let mut m = Model { bytes: vec![[Byte::default(); 4096]; 3], live: Vec::new() };
    for op in history {
        match op.clone() {
            Op::Map { page, start, len, direction, how } => {
                let room = if page == 0 { 8192 } else { 4096 };
                let len = len.min(room - start);
                let direction = directions(direction);
                let mut area = Area { page, start, len, direction, pages_family: how == 0, iova: Iova(0), owned: BTreeSet::new() };
                let bytes = area.bytes(0, len);
                area.iova = match how {
                    0 => w.alloc_pages(area.gpa(), len as u64, direction),
                    1 => w.map_skip(area.gpa(), len as u64, direction),
                    _ => w.map(area.gpa(), len as u64, direction),
                };
                if how < 2 {
                    m.poison(&bytes)
                } else {
                    m.hand_over(&bytes)
                }
                area.own(&bytes, how != 0);
                m.live.push(area);
            }
            Op::Unmap { which, skip } if !m.live.is_empty() => {
                let area = m.live.swap_remove(which % m.live.len());
                let (len, direction) = (area.len as u64, area.direction);
                if area.pages_family {
                    w.free_pages(area.iova, area.gpa(), len, direction);
                } else if skip {
                    w.unmap_skip(area.iova, len, direction);
                } else {
                    w.unmap(area.iova, len, direction);
                    if direction != ToDevice {
                        m.take_back(&area.bytes(0, area.len));
                    }
                }
                m.leave(&area);
            }
            Op::Sync { which, for_cpu, start, len } if !m.live.is_empty() => {
                let which = which % m.live.len();
                let area = m.live[which].clone();
                let start = start % area.len;
                let len = len.min(area.len - start);
                let at = Iova(area.iova.0 + start as u64);
                let bytes = area.bytes(start, len);
                m.live[which].own(&bytes, !for_cpu);
                if !for_cpu {
                    w.for_device(at, len as u64, area.direction);
                    m.hand_over(&bytes);
                } else {
                    w.for_cpu(at, len as u64, area.direction);
                    if area.direction != ToDevice {
                        m.take_back(&bytes);
                    }
                }
            }
            Op::CpuWrite { page, start, len, value, same } => {
                let len = len.min(4096 - start);
                let data: Vec<u8> = (0..len).map(|i| if same { m.bytes[page][start + i].cpu } else { pattern(value, i / 7) }).collect();
                w.store(PAGES[page] + start as u64, &data);
                for (i, byte) in data.into_iter().enumerate() {
                    m.bytes[page][start + i].cpu = byte;
                }
            }
            Op::DeviceWrite { which, start, len, value } if !m.live.is_empty() => {
                let area = m.live[which % m.live.len()].clone();
                let start = start % area.len;
                let len = len.min(area.len - start);
                let data: Vec<u8> = (0..len).map(|i| pattern(value, i / 5)).collect();
                w.write(Iova(area.iova.0 + start as u64), &data);
                for ((page, at), byte) in area.bytes(start, len).into_iter().zip(data) {
                    m.bytes[page][at].device = byte;
                    m.bytes[page][at].written = true;
                }
            }
            _ => {}
        }
        for (page, gpa) in PAGES.iter().enumerate() {
            let cpu: Vec<u8> = m.bytes[page].iter().map(|b| b.cpu).collect();
            prop_assert!(w.cpu_read(*gpa, 4096) == cpu, "the CPU's copy after {:?}", op);
            if let Some(guard) = m.guard(page)
                && watch == WatchPolicy::All
            {
                prop_assert_eq!(w.guard(*gpa), guard, "the guard of page {} after {:?}", page, op);
            }
        }
        for area in &m.live {
            let device: Vec<u8> = area.bytes(0, area.len).iter().map(|(page, at)| m.bytes[*page][*at].device).collect();
            prop_assert!(w.read(area.iova, area.len) == device, "the device's copy after {:?}", op);
        }
    }
    for area in m.live {
        if area.pages_family {
            w.free_pages(area.iova, area.gpa(), area.len as u64, area.direction);
        } else {
            w.unmap(area.iova, area.len as u64, area.direction);
        }
    }
    let stats = w.core.stats();
    prop_assert_eq!(stats.live_mappings, 0);
    // With the watch, what an unmap without a sync left is kept for a moment.
    prop_assert!(stats.tracked_pages == 0 || watch == WatchPolicy::All);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn both_sides_see_what_the_model_says(history in prop::collection::vec(ops(), 1..60)) {
        play(&history, WatchPolicy::Off)?;
        play(&history, WatchPolicy::All)?;
    }
}
