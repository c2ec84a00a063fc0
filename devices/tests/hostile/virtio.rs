//! A virtio device misprogrammed (virtio 1.2, sections 2 and 4.1); offsets are those of the common configuration.

use crate::Case;
use crate::bench::{Bench, RAM};

const STATUS: u64 = 0x14;
const QUEUE: u64 = 0x16;
const SIZE: u64 = 0x18;
const VECTOR: u64 = 0x1a;
const ENABLE: u64 = 0x1c;
const DESC: u64 = 0x20;
const AVAIL: u64 = 0x28;
const USED: u64 = 0x30;
const NOTIFY: u64 = 0x3000;
const NEEDS_RESET: u64 = 64;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// A buffer nobody uses for anything else.
const BUFFER: u64 = 0x20_0000;
/// Entries of a ring here.
const ENTRIES: u16 = 8;

const fn rings(queue: u64) -> (u64, u64, u64) {
    let base = 0x1_0000 + queue * 0x1_0000;
    (base, base + 0x4000, base + 0x8000)
}

fn status(bench: &mut Bench, value: u64) -> u64 {
    bench.put(STATUS, 1, value);
    bench.get(STATUS, 1)
}

fn queues(bench: &mut Bench) -> u64 {
    bench.get(0x12, 2)
}

/// Up to FEATURES_OK with all that is offered.
fn begin(bench: &mut Bench) {
    bench.set_config(4, &[6, 0]);
    for value in [0, 1, 3] {
        status(bench, value);
    }
    for half in 0..2 {
        bench.put(0x00, 4, half);
        let offered = bench.get(0x04, 4);
        bench.put(0x08, 4, half);
        bench.put(0x0c, 4, offered);
    }
    assert_eq!(status(bench, 11), 11);
}

fn address(bench: &mut Bench, at: u64, address: u64) {
    bench.put(at, 4, address);
    bench.put(at + 4, 4, address >> 32);
}

fn set_up(bench: &mut Bench, queue: u64, size: u64, (desc, avail, used): (u64, u64, u64)) {
    bench.put(QUEUE, 2, queue);
    bench.put(SIZE, 2, size);
    address(bench, DESC, desc);
    address(bench, AVAIL, avail);
    address(bench, USED, used);
    bench.put(ENABLE, 2, 1);
}

/// A driver that has come as far as DRIVER_OK.
fn start(bench: &mut Bench) {
    bench.store(0, &vec![0; 0x10_0000]);
    begin(bench);
    for queue in 0..queues(bench) {
        set_up(bench, queue, ENTRIES.into(), rings(queue));
    }
    assert_eq!(status(bench, 15), 15);
}

fn kick(bench: &mut Bench, queue: u64) {
    bench.write(0, NOTIFY + 4 * queue, &queue.to_le_bytes()[..2]);
}

fn descriptor(bench: &Bench, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
    let mut bytes = Vec::new();
    bytes.extend(address.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    bench.store(table + u64::from(index) * 16, &bytes);
}

/// Makes heads available and tells the device.
fn offer(bench: &mut Bench, queue: u64, heads: &[u16], index: u16) {
    let (_, avail, _) = rings(queue);
    for (slot, head) in (0u64..).zip(heads) {
        bench.store(avail + 4 + slot * 2, &head.to_le_bytes());
    }
    bench.store(avail + 2, &index.to_le_bytes());
    kick(bench, queue);
}

/// The same chain on every queue of a fresh driver, `lay` it out in the table.
fn chain(bench: &mut Bench, lay: impl Fn(&Bench, u64)) {
    start(bench);
    for queue in 0..queues(bench) {
        lay(bench, rings(queue).0);
        offer(bench, queue, &[0], 1);
    }
}

/// The device asks for a reset, does nothing until it gets one, and works again then.
fn gave_up(bench: &mut Bench) {
    assert_eq!(bench.get(STATUS, 1) & NEEDS_RESET, NEEDS_RESET);
    for queue in 0..queues(bench) {
        kick(bench, queue);
    }
    start(bench);
}

/// A set-up of queues that no driver makes.
fn wrong_queues(bench: &mut Bench, size: u64, rings_of: impl Fn(u64) -> (u64, u64, u64)) {
    begin(bench);
    for queue in 0..queues(bench) {
        set_up(bench, queue, size, rings_of(queue));
    }
    status(bench, 15);
    for queue in 0..queues(bench) {
        kick(bench, queue);
    }
    gave_up(bench);
}

pub const CASES: &[Case] = &[
    ("queues of size 0", |b| wrong_queues(b, 0, rings)),
    ("queues whose size is no power of two", |b| wrong_queues(b, 7, rings)),
    ("queues larger than the device has", |b| wrong_queues(b, 0x4000, rings)),
    ("queues of 65535", |b| wrong_queues(b, 0xffff, rings)),
    ("rings that are not aligned", |b| wrong_queues(b, 8, |queue| (rings(queue).0 + 8, rings(queue).1 + 1, rings(queue).2 + 2))),
    ("rings out of memory", |b| {
        wrong_queues(b, 8, |queue| (RAM as u64 + queue * 0x1000, RAM as u64 + 0x10_0000, RAM as u64 + 0x20_0000));
    }),
    ("rings at the end of the address space", |b| wrong_queues(b, 8, |_| (!15, !1, !3))),
    ("all rings at one place", |b| {
        begin(b);
        for queue in 0..queues(b) {
            set_up(b, queue, 8, (0x1_0000, 0x1_0000, 0x1_0000));
        }
        status(b, 15);
        for round in 0..64_u16 {
            b.store(0x1_0000, &[round.to_le_bytes()[0]; 512]);
            (0..queues(b)).for_each(|queue| kick(b, queue));
        }
    }),
    ("queues that do not exist", |b| {
        begin(b);
        for queue in [queues(b), 100, 0x7fff, 0xffff] {
            set_up(b, queue, 8, rings(1));
            b.put(VECTOR, 2, 0);
            assert_eq!((b.get(SIZE, 2), b.get(ENABLE, 2)), (0, 0), "queue {queue}");
        }
        status(b, 15);
        for queue in 0..0x400 {
            b.write(0, NOTIFY + 4 * queue, &[0xff, 0xff]);
        }
    }),
    ("notifications before the driver is ready", |b| {
        b.set_config(4, &[6, 0]);
        for value in [0, 1, 3, 11] {
            status(b, value);
            (0..8).for_each(|queue| kick(b, queue));
        }
        begin(b);
        (0..8).for_each(|queue| kick(b, queue));
    }),
    ("DRIVER_OK before everything", |b| {
        b.set_config(4, &[6, 0]);
        for value in [4, 8, 15, 0xff, 0x80, 0x40, 0] {
            status(b, value);
            (0..4).for_each(|queue| kick(b, queue));
        }
    }),
    ("features that were never offered", |b| {
        b.set_config(4, &[6, 0]);
        for value in [0, 1, 3] {
            status(b, value);
        }
        for select in [0, 1, 2, 3, 0xffff_ffff] {
            b.put(0x08, 4, select);
            b.put(0x0c, 4, 0xffff_ffff);
        }
        assert_eq!(status(b, 11) & 8, 0, "no FEATURES_OK");
        status(b, 15);
        kick(b, 0);
    }),
    ("an available index far ahead", |b| {
        for ahead in [ENTRIES + 1, 0x100, 0x8000, 0xffff] {
            start(b);
            for queue in 0..queues(b) {
                offer(b, queue, &[0; 8], ahead);
            }
            gave_up(b);
        }
    }),
    ("an available index that goes back", |b| {
        start(b);
        for queue in 0..queues(b) {
            descriptor(b, rings(queue).0, 0, BUFFER, 64, WRITE, 0);
            offer(b, queue, &[0, 0, 0], 3);
            offer(b, queue, &[0], 1);
        }
        gave_up(b);
    }),
    ("heads that are not in the table", |b| {
        for head in [ENTRIES, 0x100, 0xffff] {
            start(b);
            for queue in 0..queues(b) {
                offer(b, queue, &[head], 1);
            }
        }
    }),
    ("the same head over and over", |b| {
        start(b);
        for queue in 0..queues(b) {
            descriptor(b, rings(queue).0, 0, BUFFER, 64, WRITE, 0);
            for index in 1..=0x400_u16 {
                offer(b, queue, &[0; 8], index);
            }
        }
    }),
    ("a chain that is a loop of one", |b| chain(b, |b, table| descriptor(b, table, 0, BUFFER, 4, NEXT, 0))),
    ("a chain that is a loop of two", |b| {
        chain(b, |b, table| {
            descriptor(b, table, 0, BUFFER, 4, NEXT, 1);
            descriptor(b, table, 1, BUFFER, 4, NEXT | WRITE, 0);
        });
    }),
    ("a next that is not in the table", |b| chain(b, |b, table| descriptor(b, table, 0, BUFFER, 4, NEXT, 0xffff))),
    ("readable behind writable", |b| {
        chain(b, |b, table| {
            descriptor(b, table, 0, BUFFER, 4, NEXT | WRITE, 1);
            descriptor(b, table, 1, BUFFER, 4, 0, 0);
        });
    }),
    ("chains of length 0", |b| {
        for flags in [0, WRITE] {
            chain(b, |b, table| descriptor(b, table, 0, BUFFER, 0, flags, 0));
        }
    }),
    ("buffers of 4 GiB - 1", |b| {
        for flags in [0, WRITE] {
            chain(b, |b, table| descriptor(b, table, 0, 0, u32::MAX, flags, 0));
        }
    }),
    ("buffers of 4 GiB - 1 in every descriptor", |b| {
        chain(b, |b, table| {
            for index in 0..ENTRIES {
                let more = if index + 1 < ENTRIES { NEXT } else { 0 };
                descriptor(b, table, index, 0, u32::MAX, WRITE | more, index + 1);
            }
        });
    }),
    ("buffers out of memory", |b| {
        for flags in [0, WRITE] {
            chain(b, |b, table| descriptor(b, table, 0, RAM as u64, 0x1000, flags, 0));
        }
    }),
    ("buffers around the end of the address space", |b| {
        for flags in [0, WRITE] {
            chain(b, |b, table| descriptor(b, table, 0, u64::MAX - 10, 0x1000, flags, 0));
        }
    }),
    ("buffers over the rings themselves", |b| {
        for ring in [0, 0x4000, 0x8000] {
            chain(b, |b, table| {
                descriptor(b, table, 0, table + ring, 16, NEXT, 1);
                descriptor(b, table, 1, table + ring, 0x1000, WRITE, 0);
            });
        }
    }),
    ("headers with every kind of request", |b| {
        for kind in (0..32_u64).chain([0xffff_ffff, 0x8000_0000]) {
            for sector in [0, 1, u64::MAX, u64::MAX / 512, 1 << 40] {
                start(b);
                b.store(BUFFER, &[&kind.to_le_bytes()[..], &sector.to_le_bytes()].concat());
                for queue in 0..queues(b) {
                    let table = rings(queue).0;
                    descriptor(b, table, 0, BUFFER, 16, NEXT, 1);
                    descriptor(b, table, 1, BUFFER + 0x1000, 512, NEXT | if kind % 2 == 0 { WRITE } else { 0 }, 2);
                    descriptor(b, table, 2, BUFFER + 0x2000, 1, WRITE, 0);
                    offer(b, queue, &[0], 1);
                }
            }
        }
    }),
    ("a table in a table", |b| {
        chain(b, |b, table| {
            descriptor(b, table, 0, BUFFER, 16, INDIRECT, 0);
            descriptor(b, BUFFER, 0, BUFFER, 16, INDIRECT, 0);
        });
    }),
    ("tables of wrong lengths", |b| {
        for len in [0, 1, 15, 24, 0xfff0 * 16, u32::MAX] {
            chain(b, |b, table| {
                descriptor(b, table, 0, BUFFER, len, INDIRECT, 0);
                descriptor(b, BUFFER, 0, BUFFER, 4, NEXT, 0);
            });
        }
    }),
    ("a table that is the ring's own", |b| {
        chain(b, |b, table| {
            descriptor(b, table, 0, table, 16 * 8, INDIRECT, 0);
            (1..ENTRIES).for_each(|index| descriptor(b, table, index, BUFFER, 4, NEXT, index - 1));
        });
    }),
    ("a table out of memory", |b| chain(b, |b, table| descriptor(b, table, 0, u64::MAX - 15, 16, INDIRECT, 0))),
    ("a reset with everything in flight", |b| {
        for _ in 0..32 {
            start(b);
            for queue in 0..queues(b) {
                descriptor(b, rings(queue).0, 0, BUFFER, 4096, WRITE, 0);
                offer(b, queue, &[0; 8], 8);
            }
            status(b, 0);
            assert_eq!(b.get(STATUS, 1), 0);
            (0..4).for_each(|queue| kick(b, queue));
        }
    }),
    ("rings are moved while they are live", |b| {
        start(b);
        for round in 0..64_u64 {
            for queue in 0..queues(b) {
                let (desc, avail, used) = rings(queue);
                set_up(b, queue, 1 << (round % 4), (desc + round * 16, avail + round * 2, used + round * 4));
                kick(b, queue);
            }
        }
    }),
    ("vectors that do not exist", |b| {
        start(b);
        for vector in [0x7f, 0x800, 0xfffe, 0xffff] {
            b.put(0x10, 2, vector);
            for queue in 0..queues(b) {
                b.put(QUEUE, 2, queue);
                b.put(VECTOR, 2, vector);
                assert_eq!(b.get(VECTOR, 2), 0xffff, "NO_VECTOR");
                descriptor(b, rings(queue).0, 0, BUFFER, 64, WRITE, 0);
                offer(b, queue, &[0; 8], 8);
            }
        }
    }),
    ("the window in configuration space on what is not there", |b| {
        let mut at = usize::try_from(b.config(0x34, 1)).unwrap_or(0);
        // VIRTIO_PCI_CAP_PCI_CFG is type 5 of the vendor's capabilities.
        while at != 0 && (b.config(at, 1), b.config(at + 3, 1)) != (9, 5) {
            at = usize::try_from(b.config(at + 1, 1)).unwrap_or(0);
        }
        assert_ne!(at, 0, "the window");
        for bar in [0, 1, 2, 5, 6, 255] {
            for offset in [0, 0x14, 0x37, 0x3fff, 0x4000, 0xffff_ffff_u32] {
                for len in [0, 1, 2, 3, 4, 5, 8, 0xffff_ffff_u32] {
                    b.set_config(at + 4, &[bar]);
                    b.set_config(at + 8, &offset.to_le_bytes());
                    b.set_config(at + 12, &len.to_le_bytes());
                    b.set_config(at + 16, &[0xff; 4]);
                    b.config(at + 16, 4);
                }
            }
        }
    }),
    ("the device's configuration at every offset and width", |b| {
        start(b);
        for offset in 0x2000..0x2100 {
            for len in [1, 2, 4, 8] {
                b.read(0, offset, len);
                b.write(0, offset, &vec![0xff; len]);
            }
        }
    }),
];
