//! The reference device misprogrammed, on PCI and without; offsets are those of docs/ncdma.md.

use crate::Case;
use crate::bench::{Bench, RAM};

const CTRL: u64 = 0x0c;
const RINGS: [u64; 3] = [0x100, 0x140, 0x180];
const SIZE: u64 = 0x08;
const TAIL: u64 = 0x10;
const ENABLE: u64 = 0x14;
const OWN: u32 = 1 << 31 | 1 << 30;
const OPCODES: [u32; 3] = [1, 0x10, 0x20];
const DESCRIPTORS: u64 = 0x10_0000;

fn set(bench: &mut Bench, offset: u64, value: u64) {
    bench.put(offset, 4, value);
}

/// A ring of `size` at `base`, on.
fn ring(bench: &mut Bench, ring: u64, base: u64, size: u64) {
    set(bench, ring, base);
    set(bench, ring + 4, base >> 32);
    set(bench, ring + SIZE, size);
    set(bench, ring + ENABLE, 1);
}

/// The device on, with all three rings of `size` at the same place.
fn start(bench: &mut Bench, base: u64, size: u64) {
    bench.set_config(4, &[6, 0]);
    set(bench, 0x24, 0xf);
    set(bench, CTRL, 5);
    for at in RINGS {
        ring(bench, at, base, size);
    }
}

fn descriptor(bench: &Bench, at: u64, flags: u32, len: u32, src: u64, dst: u64) {
    let mut bytes = Vec::new();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(src.to_le_bytes());
    bytes.extend(dst.to_le_bytes());
    bytes.extend([0; 8]);
    bench.store(at, &bytes);
}

/// A full ring of the same descriptor for every ring in turn, and its doorbell.
fn full(bench: &mut Bench, len: u32, src: u64, dst: u64) {
    for (at, opcode) in RINGS.into_iter().zip(OPCODES) {
        start(bench, DESCRIPTORS, 256);
        for index in 0..256 {
            descriptor(bench, DESCRIPTORS + index * 128, opcode | OWN, len, src, dst);
        }
        set(bench, 0x74, 1);
        set(bench, at + TAIL, 255);
        set(bench, 0x64, 64);
        set(bench, 0x68, 256);
        set(bench, CTRL, 2);
    }
}

/// Sizes and bases no ring has: the device says so and halts.
fn refused(bench: &mut Bench, base: u64, size: u64) {
    for at in RINGS {
        start(bench, DESCRIPTORS, 8);
        ring(bench, at, base, size);
        set(bench, at + TAIL, 1);
        assert_eq!((bench.get(0x10, 4) & 2, bench.get(0x14, 4)), (2, 3), "HALTED, bad ring set-up");
        set(bench, CTRL, 2);
        assert_eq!(bench.get(0x10, 4), 0);
    }
}

pub const CASES: &[Case] = &[
    ("a ring of size 0", |b| refused(b, DESCRIPTORS, 0)),
    ("a ring of one", |b| refused(b, DESCRIPTORS, 1)),
    ("a ring whose size is no power of two", |b| refused(b, DESCRIPTORS, 48)),
    ("a ring of 2 to the 31st", |b| refused(b, DESCRIPTORS, 1 << 31)),
    ("a ring that is not aligned", |b| refused(b, DESCRIPTORS + 64, 8)),
    ("a ring out of memory", |b| {
        start(b, RAM as u64, 256);
        RINGS.iter().for_each(|at| set(b, at + TAIL, 255));
    }),
    ("a ring at the end of the address space", |b| {
        start(b, !127, 256);
        RINGS.iter().for_each(|at| set(b, at + TAIL, 255));
    }),
    ("a tail beyond the ring", |b| {
        for tail in [8, 9, 255, 0xffff_ffff] {
            for at in RINGS {
                start(b, DESCRIPTORS, 8);
                set(b, at + TAIL, tail);
                assert_eq!(b.get(0x14, 4), 3);
                set(b, CTRL, 2);
            }
        }
    }),
    ("doorbells of rings that are off", |b| {
        set(b, CTRL, 5);
        for at in RINGS {
            for tail in 0..300 {
                set(b, at + TAIL, tail);
            }
        }
    }),
    ("descriptors of ones", |b| {
        b.store(0, &vec![0xff; RAM]);
        start(b, DESCRIPTORS, 256);
        RINGS.iter().for_each(|at| set(b, at + TAIL, 255));
    }),
    ("length 0", |b| full(b, 0, 0x1000, 0x2000)),
    ("length 4 GiB - 1", |b| full(b, u32::MAX, 0x1000, 0x2000)),
    ("buffers out of memory", |b| full(b, 4096, RAM as u64, RAM as u64 - 1)),
    ("buffers around the end of the address space", |b| full(b, 4096, u64::MAX - 100, u64::MAX)),
    ("the largest buffers in a full ring", |b| full(b, 1 << 20, 0, 0x20_0000)),
    ("buffers over the rings themselves", |b| full(b, 0x8000, DESCRIPTORS + 0x40, DESCRIPTORS)),
    ("the status block over the rings", |b| {
        set(b, 0x40, DESCRIPTORS);
        full(b, 64, 0x1000, 0x2000);
        set(b, 0x40, 0xffff_ffff);
        set(b, 0x44, 0xffff_ffff);
        full(b, 64, 0x1000, 0x2000);
    }),
    ("4 billion frames of 64 KiB", |b| {
        start(b, DESCRIPTORS, 256);
        for index in 0..256 {
            descriptor(b, DESCRIPTORS + index * 128, 0x20 | OWN, 1 << 20, 0, 0x20_0000);
        }
        set(b, RINGS[2] + TAIL, 255);
        set(b, 0x64, 65536);
        set(b, 0x68, 0xffff_ffff);
        set(b, 0x64, 0xffff_ffff);
        set(b, 0x68, 0xffff_ffff);
    }),
    ("a reset with a full ring in flight", |b| {
        for round in 0..16 {
            full(b, 64 + round, 0x1000, 0x2000);
            b.reset();
        }
    }),
    ("rings are moved while they are full", |b| {
        start(b, DESCRIPTORS, 256);
        for round in 0..64_u64 {
            for at in RINGS {
                ring(b, at, DESCRIPTORS + round * 128, 2 << (round % 8));
                set(b, at + TAIL, 1);
            }
            set(b, CTRL, if round % 3 == 0 { 2 } else { 5 });
        }
    }),
    ("interrupts are masked and acknowledged in a storm", |b| {
        full(b, 4, 0x1000, 0x2000);
        for round in 0..1000_u64 {
            set(b, 0x24, round & 0xf);
            set(b, 0x20, round >> 2 & 0xf);
            set(b, CTRL, round & 5);
        }
    }),
];
