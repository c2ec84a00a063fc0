//! Random histories. Numbers are taken modulo what there is when an event is played, so that every part of a history is one.

use crate::*;
use proptest::prelude::*;

/// The pages the histories play on: two that adjoin and one apart.
pub(crate) const PAGES: usize = 3;
/// Devices.
pub(crate) const DEVICES: usize = 2;

/// The machine a history is played on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) line: u32,
    pub(crate) watch: bool,
    pub(crate) pedantic: bool,
    /// Events share places: what happens there twice is one finding.
    pub(crate) loops: bool,
    /// Lists are merged.
    pub(crate) merge: bool,
    pub(crate) profile: Profile,
    pub(crate) edges: Edges,
    pub(crate) cache: Cache,
    /// Of `Cache::Random`.
    pub(crate) seed: u64,
}

/// What a call does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    Nothing,
    /// Another size, or past the end.
    Size,
    Direction,
    Family,
    /// A mapping that ended.
    Dead,
    OtherDevice,
    /// A handle from the middle.
    Middle,
    /// DMA_MAPPING_ERROR.
    Error,
    /// Fewer entries of a list.
    Entries,
    /// Another cpu_addr.
    Address,
}

/// Where a device goes that it was not told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Astray {
    Dead,
    OtherDevice,
    PastTheEnd,
    BeforeTheStart,
    /// The physical address of memory.
    Physical,
    Error,
    Null,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Map {
        device: usize,
        family: Family,
        pieces: Vec<(usize, usize, usize)>,
        direction: u8,
        skip: bool,
        kind: u8,
    },
    /// A map call that is made to fail.
    Fail {
        device: usize,
        family: Family,
    },
    Unmap {
        which: usize,
        skip: bool,
        slip: Slip,
    },
    Sync {
        which: usize,
        for_cpu: bool,
        start: usize,
        len: usize,
        slip: Slip,
    },
    CpuRead {
        page: usize,
        start: usize,
        len: usize,
    },
    CpuWrite {
        page: usize,
        start: usize,
        len: usize,
        value: u8,
        same: bool,
    },
    DeviceRead {
        which: usize,
        start: usize,
        len: usize,
        intent: u8,
    },
    /// What was fetched before is used.
    Consume {
        which: usize,
        start: usize,
        len: usize,
    },
    DeviceWrite {
        which: usize,
        start: usize,
        len: usize,
        value: u8,
    },
    Stray {
        which: usize,
        to: Astray,
        len: usize,
        write: bool,
    },
    Begin {
        which: usize,
        start: usize,
        len: usize,
    },
    End {
        which: usize,
    },
    Signal {
        device: usize,
    },
    Master {
        device: usize,
        on: bool,
    },
    Unbind {
        device: usize,
    },
    Bind {
        device: usize,
    },
}

fn start() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0usize), 3 => Just(64), 2 => (0usize..9).prop_map(|n| n * 32), 3 => 0usize..300, 1 => 3800usize..4096]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(64usize), 2 => (1usize..9).prop_map(|n| n * 32), 3 => 1usize..300, 1 => 1usize..9, 1 => Just(4096)]
}

fn family() -> impl Strategy<Value = Family> {
    use Family::{Coherent, Pages, Resource, Sg, Single};
    prop_oneof![8 => Just(Single), 3 => Just(Sg), 3 => Just(Pages), 1 => Just(Coherent), 1 => Just(Resource)]
}

fn slip() -> impl Strategy<Value = Slip> {
    use Slip::{Address, Dead, Direction, Entries, Error, Family, Middle, Nothing, OtherDevice, Size};
    let wrong = prop::sample::select(vec![Size, Direction, Family, Dead, OtherDevice, Middle, Error, Entries, Address]);
    prop_oneof![6 => Just(Nothing), 1 => wrong]
}

fn astray() -> impl Strategy<Value = Astray> {
    use Astray::{BeforeTheStart, Dead, Error, Null, OtherDevice, PastTheEnd, Physical};
    prop::sample::select(vec![Dead, Dead, OtherDevice, PastTheEnd, BeforeTheStart, Physical, Error, Null])
}

/// One event.
pub(crate) fn op() -> impl Strategy<Value = Op> {
    let at = || (any::<u16>().prop_map(usize::from), prop_oneof![2 => Just(0usize), 1 => start()], len());
    let here = || (0..PAGES, start(), len());
    let device = || 0..DEVICES;
    prop_oneof![
        6 => (device(), family(), prop::collection::vec(here(), 1..4), 0u8..3, prop::bool::weighted(0.15), 0u8..8)
            .prop_map(|(device, family, pieces, direction, skip, kind)| Op::Map { device, family, pieces, direction, skip, kind }),
        3 => (any::<u16>(), prop::bool::weighted(0.3), slip()).prop_map(|(which, skip, slip)| Op::Unmap { which: which.into(), skip, slip }),
        9 => (at(), any::<bool>(), slip(), any::<bool>()).prop_map(|((which, start, len), for_cpu, slip, whole)| {
            Op::Sync { which, for_cpu, start: if whole { 0 } else { start }, len: if whole { 8192 } else { len }, slip }
        }),
        7 => here().prop_map(|(page, start, len)| Op::CpuRead { page, start, len }),
        8 => (here(), any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|((page, start, len), value, same)| Op::CpuWrite { page, start, len, value, same }),
        6 => (at(), 0u8..6).prop_map(|((which, start, len), intent)| Op::DeviceRead { which, start, len, intent }),
        1 => at().prop_map(|(which, start, len)| Op::Consume { which, start, len }),
        8 => (at(), any::<u8>()).prop_map(|((which, start, len), value)| Op::DeviceWrite { which, start, len, value }),
        2 => (at(), astray(), any::<bool>()).prop_map(|((which, _, len), to, write)| Op::Stray { which, to, len, write }),
        1 => at().prop_map(|(which, start, len)| Op::Begin { which, start, len }),
        1 => any::<u16>().prop_map(|which| Op::End { which: which.into() }),
        3 => device().prop_map(|device| Op::Signal { device }),
        1 => (device(), prop::bool::weighted(0.7)).prop_map(|(device, on)| Op::Master { device, on }),
        1 => (device(), family()).prop_map(|(device, family)| Op::Fail { device, family }),
        1 => (device(), prop::bool::weighted(0.25))
            .prop_map(|(device, gone)| if gone { Op::Unbind { device } } else { Op::Bind { device } }),
    ]
}

/// A machine and what happens on it.
pub(crate) fn history(longest: usize) -> impl Strategy<Value = (Setup, Vec<Op>)> {
    let machine = prop_oneof![
        3 => Just((Profile::Arm64, Edges::Isolate)),
        4 => (prop::sample::select(Profile::ALL.to_vec()), prop::sample::select(Edges::ALL.to_vec())),
    ];
    let cache = prop_oneof![
        3 => Just((Cache::Quiet, 0)),
        2 => Just((Cache::Evict, 0)),
        2 => Just((Cache::Prefetch, 0)),
        2 => (0u64..1 << 16).prop_map(|seed| (Cache::Random, seed)),
    ];
    let line = prop::sample::select(vec![64u32, 64, 32, 128]);
    let setup = (line, any::<[bool; 4]>(), machine, cache).prop_map(|(line, flags, machine, cache)| {
        let [watch, pedantic, loops, merge] = flags;
        // There are no lines between a buffer and its bounce buffer.
        let (edges, (cache, seed)) = if machine.0.bounces() { (Edges::Isolate, (Cache::Quiet, 0)) } else { (machine.1, cache) };
        Setup { line, watch, pedantic, loops, merge, profile: machine.0, edges, cache, seed }
    });
    (setup, prop::collection::vec(op(), 1..longest))
}
