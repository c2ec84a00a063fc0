//! What can be done to any PCI function: configuration space, BARs, MSI-X, power.

use crate::Case;
use crate::bench::{Bench, CONFIG};

const COMMAND: usize = 4;
const CAP_PM: u8 = 0x01;
const CAP_MSIX: u8 = 0x11;

/// Writes configuration space with one byte, `len` bytes at every multiple of `step`.
fn sweep(bench: &mut Bench, step: usize, len: usize, byte: u8) {
    for offset in (0..CONFIG).step_by(step) {
        bench.set_config(offset, &vec![byte; len]);
    }
}

fn command(bench: &mut Bench, value: u16) {
    bench.set_config(COMMAND, &value.to_le_bytes());
}

/// Puts a BAR at `address`.
fn place(bench: &mut Bench, bar: usize, address: u64) {
    bench.set_config(0x10 + 4 * bar, &address.to_le_bytes()[..4]);
    if bench.config(0x10 + 4 * bar, 4) & 7 == 4 {
        bench.set_config(0x14 + 4 * bar, &address.to_le_bytes()[4..]);
    }
}

/// The first registers of every BAR.
fn touch(bench: &mut Bench) {
    for (bar, size) in [(0, 0x40), (1, 0x40), (2, 0x40), (4, 0x40)] {
        for offset in (0..size).step_by(4) {
            bench.read(bar, offset, 4);
            bench.write(bar, offset, &[0; 4]);
        }
    }
}

/// The MSI-X capability of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Msix {
    /// Offset of the capability.
    at: usize,
    /// BAR and offset of the table.
    table: (usize, u64),
    /// BAR and offset of the pending bits.
    pba: (usize, u64),
    vectors: u64,
}

fn msix(bench: &mut Bench) -> Option<Msix> {
    let at = bench.capability(CAP_MSIX)?;
    let place = |word: u64| (usize::try_from(word & 7).unwrap_or(0), word & !7);
    let vectors = (bench.config(at + 2, 2) & 0x7ff) + 1;
    Some(Msix { at, table: place(bench.config(at + 4, 4)), pba: place(bench.config(at + 8, 4)), vectors })
}

/// Attacks a function that has MSI-X.
fn with_msix(bench: &mut Bench, attack: impl Fn(&mut Bench, Msix)) {
    if let Some(msix) = msix(bench) {
        attack(bench, msix);
    }
}

fn power(bench: &mut Bench, state: u8) {
    if let Some(at) = bench.capability(CAP_PM) {
        bench.set_config(at + 4, &[state, 0]);
    }
}

pub const CASES: &[Case] = &[
    ("configuration is read at every offset and width", |b| {
        for offset in 0..CONFIG + 16 {
            for len in [0, 1, 2, 3, 4, 8] {
                b.config(offset, len);
            }
        }
    }),
    ("configuration is written with ones, bytes", |b| sweep(b, 1, 1, 0xff)),
    ("configuration is written with ones, words", |b| sweep(b, 2, 2, 0xff)),
    ("configuration is written with ones, dwords", |b| sweep(b, 4, 4, 0xff)),
    ("configuration is written with ones, qwords", |b| sweep(b, 8, 8, 0xff)),
    ("configuration is written with zeros, dwords", |b| sweep(b, 4, 4, 0)),
    ("configuration is written across registers", |b| sweep(b, 3, 4, 0x5a)),
    ("configuration is written in one piece", |b| {
        for byte in [0xff, 0, 0x55] {
            b.set_config(0, &[byte; CONFIG]);
        }
    }),
    ("configuration is written past its end", |b| {
        for offset in [255, 256, CONFIG - 1, CONFIG, usize::MAX - 4, usize::MAX] {
            b.set_config(offset, &[0xff; 8]);
            b.config(offset, 8);
        }
    }),
    ("identity, class and capability pointer stay", |b| {
        let fixed = [(0x00, 4), (0x08, 4), (0x0e, 1), (0x2c, 4), (0x34, 1)];
        let before = fixed.map(|(at, len)| b.config(at, len));
        sweep(b, 4, 4, 0xff);
        sweep(b, 1, 1, 0);
        assert_eq!(fixed.map(|(at, len)| b.config(at, len)), before);
    }),
    ("the list of capabilities has an end", |b| {
        sweep(b, 1, 1, 0xff);
        assert_eq!(b.capability(0xfe), None);
        sweep(b, 1, 1, 0);
        assert_eq!(b.capability(0xfe), None);
    }),
    ("BARs are sized while they are decoded", |b| {
        command(b, 7);
        let bars = b.bars();
        assert_eq!(b.bars(), bars);
        touch(b);
    }),
    ("BARs are moved while they are in use", |b| {
        command(b, 7);
        for round in 0..64_u64 {
            for bar in 0..6 {
                place(b, bar, 0xc000_0000 + round * 0x1_0000);
                touch(b);
            }
        }
    }),
    ("a 64-bit address is written in halves, with a register access in between", |b| {
        command(b, 7);
        for bar in 0..5 {
            b.set_config(0x14 + 4 * bar, &[0xff; 4]);
            touch(b);
            b.set_config(0x10 + 4 * bar, &[0; 4]);
            touch(b);
            b.set_config(0x14 + 4 * bar, &[0; 4]);
        }
    }),
    ("all BARs at one address", |b| {
        (0..6).for_each(|bar| place(b, bar, 0xd000_0000));
        command(b, 7);
        touch(b);
    }),
    ("all BARs at address 0", |b| {
        (0..6).for_each(|bar| place(b, bar, 0));
        command(b, 7);
        touch(b);
    }),
    ("all BARs at the end of the address space", |b| {
        (0..6).for_each(|bar| place(b, bar, u64::MAX));
        command(b, 7);
        touch(b);
    }),
    ("BARs over local APIC and I/O APIC", |b| {
        for address in [0xfee0_0000, 0xfec0_0000, 0xe000_0000] {
            (0..6).for_each(|bar| place(b, bar, address));
            command(b, 7);
            touch(b);
        }
    }),
    ("decoding is switched a thousand times", |b| {
        for round in 0..1000_u16 {
            command(b, round & 7);
        }
        touch(b);
    }),
    ("bus mastering is switched under every register write", |b| {
        for (bar, size) in b.bars() {
            for offset in (0..size.min(0x400)).step_by(4) {
                command(b, 6);
                b.write(bar, offset, &[0xff; 4]);
                command(b, 2);
                b.write(bar, offset, &[1, 0, 0, 0]);
            }
        }
    }),
    ("registers without decoding and without mastering", |b| {
        command(b, 0);
        for (bar, size) in b.bars() {
            for offset in (0..size.min(0x400)).step_by(4) {
                b.write(bar, offset, &[0xff; 4]);
            }
        }
    }),
    ("MSI-X is switched on with an empty table", |b| {
        with_msix(b, |b, Msix { at, .. }| {
            b.set_config(at + 2, &[0xff; 2]);
            b.set_config(at + 2, &[0, 0x80]);
            touch(b);
        });
    }),
    ("every message goes to an address of ones, unmasked", |b| {
        with_msix(b, |b, Msix { at, table: (bar, table), vectors, .. }| {
            b.set_config(at + 2, &[0, 0x80]);
            for vector in 0..vectors {
                b.write(bar, table + vector * 16, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
            }
            touch(b);
        });
    }),
    ("entries behind the last vector", |b| {
        with_msix(b, |b, Msix { at, table: (bar, table), vectors, .. }| {
            b.set_config(at + 2, &[0, 0x80]);
            for vector in vectors..vectors + 64 {
                b.write(bar, table + vector * 16, &[0; 16]);
                b.read(bar, table + vector * 16, 16);
            }
            b.write(bar, table + vectors * 16 - 8, &[0; 16]);
        });
    }),
    ("the table is written in bytes, words, qwords and across entries", |b| {
        with_msix(b, |b, Msix { at, table: (bar, table), vectors, .. }| {
            b.set_config(at + 2, &[0, 0x80]);
            for offset in 0..vectors * 16 {
                for len in [1, 2, 3, 8, 16, 32] {
                    b.write(bar, table + offset, &vec![0; len]);
                    b.read(bar, table + offset, len);
                }
            }
        });
    }),
    ("pending bits are written", |b| {
        with_msix(b, |b, Msix { at, pba: (bar, pba), .. }| {
            b.set_config(at + 2, &[0, 0x80]);
            for len in [1, 2, 4, 8, 16] {
                b.write(bar, pba, &vec![0xff; len]);
                assert!(b.read(bar, pba, 8).iter().all(|byte| *byte == 0), "nothing is pending");
            }
        });
    }),
    ("masks are switched a thousand times", |b| {
        with_msix(b, |b, Msix { at, table: (bar, table), vectors, .. }| {
            for round in 0..1000_u64 {
                b.write(bar, table + round % vectors * 16 + 12, &[u8::from(round & 1 == 0), 0, 0, 0]);
                b.set_config(at + 2, &[0, if round & 2 == 0 { 0xc0 } else { 0x80 }]);
            }
        });
    }),
    ("MSI-X is switched off with the function masked", |b| {
        with_msix(b, |b, Msix { at, .. }| {
            for control in [0xc0, 0x40, 0x80, 0, 0xff] {
                b.set_config(at + 3, &[control]);
                touch(b);
            }
        });
    }),
    ("where the table lies cannot be changed", |b| {
        with_msix(b, |b, before| {
            for byte in [0xff, 0] {
                b.set_config(before.at, &[byte; 12]);
                assert_eq!(msix(b), Some(before));
            }
        });
    }),
    ("registers in D3hot", |b| {
        command(b, 7);
        power(b, 3);
        touch(b);
        command(b, 0xffff);
        power(b, 0);
    }),
    ("power states that do not exist", |b| {
        for state in [1, 2, 0xff, 0xfd] {
            power(b, state);
            touch(b);
        }
        power(b, 0);
    }),
    ("power is switched a hundred times under registers", |b| {
        for round in 0..100_u8 {
            command(b, 7);
            b.write(0, u64::from(round) * 4, &[0xff; 4]);
            power(b, if round & 1 == 0 { 3 } else { 0 });
        }
        power(b, 0);
    }),
];
