//! What can be done to any register window.

use crate::Case;
use crate::bench::Bench;

/// Values that are often the end of something.
const EDGES: [u64; 12] = [0, 1, 2, 3, 0x7f, 0x80, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX];

/// Writes one value to every register of every BAR, `len` bytes at every multiple of `step`.
fn sweep(bench: &mut Bench, step: usize, len: usize, value: u64) {
    for (bar, size) in bench.bars() {
        for offset in (0..size.min(0x4000)).step_by(step) {
            bench.write(bar, offset, &value.to_le_bytes()[..len]);
        }
    }
}

/// The same in descending order, so that switches come before what they switch.
fn sweep_down(bench: &mut Bench, len: usize, value: u64) {
    for (bar, size) in bench.bars() {
        for offset in (0..size.min(0x4000)).step_by(len).collect::<Vec<_>>().into_iter().rev() {
            bench.write(bar, offset, &value.to_le_bytes()[..len]);
        }
    }
}

pub const CASES: &[Case] = &[
    ("every byte of every BAR is written with ones", |b| sweep(b, 1, 1, u64::MAX)),
    ("every word is written with ones", |b| sweep(b, 2, 2, u64::MAX)),
    ("every dword is written with ones", |b| sweep(b, 4, 4, u64::MAX)),
    ("every qword is written with ones", |b| sweep(b, 8, 8, u64::MAX)),
    ("dwords are written across registers", |b| sweep(b, 3, 4, u64::MAX)),
    ("qwords are written across registers", |b| sweep(b, 5, 8, u64::MAX)),
    ("every dword is written with ones, from the last", |b| sweep_down(b, 4, u64::MAX)),
    ("every register gets the edges of numbers", |b| EDGES.iter().for_each(|value| sweep(b, 4, 4, *value))),
    ("every register gets the edges of numbers, from the last", |b| EDGES.iter().for_each(|value| sweep_down(b, 4, *value))),
    ("every register gets a valid address", |b| [0x1000, 0x2000].iter().for_each(|value| sweep(b, 4, 4, *value))),
    ("every register is switched on and off", |b| {
        for (bar, size) in b.bars() {
            for offset in (0..size.min(0x4000)).step_by(4) {
                for value in [1u32, 0, 1, 2, 3, 4, 7, 0] {
                    b.write(bar, offset, &value.to_le_bytes());
                }
            }
        }
    }),
    ("reads at every offset and width", |b| {
        for (bar, size) in b.bars() {
            for offset in 0..size.min(0x1000) {
                for len in [1, 2, 3, 4, 5, 8, 16] {
                    assert_eq!(b.read(bar, offset, len).len(), len);
                }
            }
        }
    }),
    ("accesses without a byte", |b| {
        for (bar, size) in b.bars() {
            for offset in [0, 1, size - 1, size, u64::MAX] {
                b.read(bar, offset, 0);
                b.write(bar, offset, &[]);
            }
        }
    }),
    ("accesses that stick out of a BAR", |b| {
        for (bar, size) in b.bars() {
            for (offset, len) in [(size - 1, 2), (size - 3, 4), (size - 7, 8), (size, 4), (size + 1, 1)] {
                b.write(bar, offset, &vec![0xff; len]);
                assert_eq!(b.read(bar, offset, len), vec![0xff; len], "BAR {bar} at {offset:#x}");
            }
        }
    }),
    ("accesses at the end of the address space", |b| {
        for bar in 0..6 {
            for offset in [u64::MAX, u64::MAX - 3, u64::MAX - 7, 1 << 63, 1 << 32] {
                b.write(bar, offset, &[0xff; 8]);
                assert_eq!(b.read(bar, offset, 8), [0xff; 8], "BAR {bar} at {offset:#x}");
            }
        }
    }),
    ("BARs that no function has", |b| {
        for bar in [6, 7, 255, usize::MAX] {
            b.write(bar, 0, &[0; 4]);
            assert_eq!(b.read(bar, 0, 4), [0xff; 4], "BAR {bar}");
        }
    }),
    ("an access of 4 KiB at once", |b| {
        for (bar, _) in b.bars() {
            b.write(bar, 0, &[0xff; 4096]);
            b.read(bar, 0, 4096);
        }
    }),
    ("a reset between all writes", |b| {
        for (bar, size) in b.bars() {
            for offset in (0..size.min(0x400)).step_by(4) {
                b.write(bar, offset, &[0xff; 4]);
                b.reset();
            }
        }
    }),
    ("memory full of ones under every register value", |b| {
        b.store(0, &vec![0xff; crate::bench::RAM]);
        EDGES.iter().for_each(|value| sweep(b, 4, 4, *value));
    }),
    ("memory full of patterns under random registers", |b| {
        let pattern: Vec<u8> = (0..crate::bench::RAM).map(|i| (i * 7 + i / 253).to_le_bytes()[0]).collect();
        b.store(0, &pattern);
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let bars = b.bars();
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (bar, size) = bars[usize::try_from(seed >> 60).unwrap_or(0) % bars.len()];
            let offset = ((seed >> 20) % size.min(0x400)) & !3;
            let value = match seed >> 56 & 3 {
                0 => seed >> 32 & 0xf,
                1 => seed >> 24 & 0x003f_ff80,
                _ => seed >> 16,
            };
            b.write(bar, offset, &value.to_le_bytes()[..4]);
        }
    }),
];
