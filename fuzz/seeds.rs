//! Inputs that go deep: what correct guests, drivers and devices do.

use crate::agent::{DEVICE, tag as guest};
use crate::devices::tag as register;
use crate::view::tag as device;
use dmavet_agent::abi;
use zerocopy::IntoBytes;

/// A call of the agent as the bytes of a slot.
fn call(number: u16, flags: u32, chunk: u32, payload: &[u8]) -> Vec<u8> {
    let header = abi::SlotHeader {
        version: abi::ABI_VERSION.into(),
        call: number.into(),
        flags: flags.into(),
        requester: DEVICE.to_wire().into(),
        site: 11.into(),
        length: u32::try_from(payload.len()).unwrap_or(0).into(),
        chunk: chunk.into(),
        status: abi::STATUS_PENDING.into(),
        ..Default::default()
    };
    [header.as_bytes(), payload].concat()
}

fn fill(index: u8, slot: &[u8]) -> Vec<u8> {
    let len = u16::try_from(slot.len()).unwrap_or(0);
    [&[guest::SLOT, index][..], &len.to_le_bytes(), slot].concat()
}

/// The slot as it was answered, with another call in it: the handles stay where the answer put them.
fn follow(index: u8, number: u16) -> Vec<u8> {
    [&[guest::PATCH, index, 2, 0, 2][..], &number.to_le_bytes()].concat()
}

fn dma(family: u8, direction: u8, first: u32, total: u32, ranges: &[(u64, u64)]) -> Vec<u8> {
    let dma = abi::Dma {
        family,
        direction,
        mask: u64::MAX.into(),
        seg_boundary: 0xffff_ffff.into(),
        max_seg_size: 65536.into(),
        count: u32::try_from(ranges.len()).unwrap_or(0).into(),
        first: first.into(),
        total: total.into(),
        ..Default::default()
    };
    let mut payload = dma.as_bytes().to_vec();
    for (addr, len) in ranges {
        payload.extend_from_slice(abi::Range { addr: (*addr).into(), len: (*len).into() }.as_bytes());
    }
    payload
}

fn hello() -> Vec<u8> {
    let hello = abi::Hello { abi: u32::from(abi::ABI_VERSION).into(), cpus: 2.into(), release: [b'6'; abi::NAME_LEN] };
    fill(0, &call(abi::CALL_HELLO, 3, 0, hello.as_bytes()))
}

fn opening() -> Vec<u8> {
    let mut symbol = [0; abi::SYMBOL_LEN];
    symbol[..17].copy_from_slice(b"probe+0x1/0x2 [m]");
    let frame = abi::FrameRecord { address: 0xffff_ffff_c000_0001.into(), symbol };
    let name = |text: &[u8]| {
        let mut name = [0; abi::NAME_LEN];
        name[..text.len()].copy_from_slice(text);
        name
    };
    let bound = abi::Bound { driver: name(b"driver"), module: name(b"m") };
    let site = fill(0, &call(abi::CALL_SITE, 3, 0, frame.as_bytes()));
    [hello(), site, fill(0, &call(abi::CALL_BOUND, 3, 0, bound.as_bytes()))].concat()
}

fn device_use(index: u8, offset: u16, len: u16, how: u8) -> Vec<u8> {
    [&[guest::DEVICE, index][..], &offset.to_le_bytes(), &len.to_le_bytes(), &[how]].concat()
}

/// Guests for [`agent`](crate::agent).
#[must_use]
pub fn agent() -> Vec<Vec<u8>> {
    let mut seeds = vec![hello(), opening()];
    for (family, direction) in [(1, 1), (1, 2), (1, 0), (3, 0), (4, 2), (5, 0)] {
        let map = call(abi::CALL_MAP, 3, 0, &dma(family, direction, 0, 1, &[(0x2_0000, 4096)]));
        let store = [guest::STORE, 0x10, 0, 2, 0, 0x40, 0, 7].to_vec();
        seeds.push(
            [
                opening(),
                fill(1, &map),
                device_use(1, 0, 64, 0),
                device_use(1, 128, 4000, 3),
                follow(1, abi::CALL_SYNC),
                store,
                follow(1, abi::CALL_SYNC),
                device_use(1, 100, 100, 2),
                follow(1, abi::CALL_UNMAP),
                follow(1, abi::CALL_UNMAP),
                device_use(1, 0, 8, 0),
                fill(0, &call(abi::CALL_UNBOUND, 3, 0, &[])),
            ]
            .concat(),
        );
    }
    let list: Vec<(u64, u64)> = (0..20).map(|n| (0x3_0000 + n * 0x1000, 100 + n * 200)).collect();
    let whole = fill(2, &call(abi::CALL_MAP, 3, 0, &dma(2, 0, 0, 20, &list)));
    seeds.push([opening(), whole, device_use(2, 0, 512, 3), follow(2, abi::CALL_SYNC), follow(2, abi::CALL_UNMAP)].concat());
    let (head, tail) = list.split_at(12);
    seeds.push(
        [
            opening(),
            fill(3, &call(abi::CALL_MAP, abi::FIRST, 0, &dma(2, 1, 0, 20, head))),
            fill(3, &call(abi::CALL_MAP, abi::LAST, 1, &dma(2, 1, 12, 20, tail))),
            fill(3, &call(abi::CALL_FETCH, 3, 0, &dma(2, 1, 0, 20, &[]))),
            fill(0, &call(abi::CALL_SET_MASK, 3, 0, &dma(1, 0, 0, 1, &[]))),
            fill(0, &call(abi::CALL_EXIT, 3, 0, &[0; 8])),
            fill(0, &call(abi::CALL_PANIC, 3, 0, b"Oops: 0000 [#1]")),
            vec![guest::RESET, guest::READ, 0x18, 0, 4, guest::REGISTER, 0x10, 0, 2, 0, 0, 0],
        ]
        .concat(),
    );
    seeds
}

/// Devices for [`view`](crate::view).
#[must_use]
pub fn view() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for direction in 0..3 {
        let map = |at: u32, len: u16| [&[device::MAP][..], &at.to_le_bytes(), &len.to_le_bytes(), &[direction, 0]].concat();
        let near = |which: u8, offset: u16, len: u16, how: u8| {
            // An access begins 64 bytes before its offset.
            [&[device::NEAR, which][..], &(offset + 64).to_le_bytes(), &len.to_le_bytes(), &[how]].concat()
        };
        let sync = |which: u8, for_cpu: u8| [device::SYNC, which, 0, 0, 0, 4, for_cpu].to_vec();
        let store = [device::STORE, 0, 0x10, 2, 0, 0x40, 0, 9].to_vec();
        let parts = [
            map(0x2_1000, 4096),
            map(0x2_2ff0, 100),
            near(0, 0, 64, 6),
            near(1, 10, 50, 0),
            sync(0, 1),
            store,
            sync(0, 0),
            near(0, 100, 3000, 2),
            near(0, 100, 3000, 3),
            near(0, 8, 64, 4),
            near(1, 0, 100, 5),
            vec![device::MASTER, 0],
            near(1, 0, 100, 0),
            vec![device::MASTER, 1],
            near(0, 4090, 10, 6),
            vec![device::UNMAP, 0, 0],
            near(0, 0, 100, 1),
            vec![device::UNMAP, 0, 0xf1],
        ];
        seeds.push(parts.concat());
        seeds.push([&[device::FAR][..], &0x10_0000_0000_u64.to_le_bytes(), &[100, 0, 6]].concat());
    }
    seeds
}

fn write(offset: u16, data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).unwrap_or(0);
    [&[register::WRITE, 0][..], &offset.to_le_bytes(), &[len], data].concat()
}

fn store(at: u32, data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).unwrap_or(0);
    [&[register::STORE][..], &at.to_le_bytes(), &[len], data].concat()
}

/// Memory and bus mastering on.
fn mastering() -> Vec<u8> {
    vec![register::CONFIG, 4, 0, 2, 6, 0]
}

/// A descriptor ring of each kind of ncdma (docs/ncdma.md, section 11).
fn ncdma() -> Vec<u8> {
    let mut program = mastering();
    for (offset, value) in [(0x24, 0xf_u32), (0x40, 0x4000), (0x0c, 5), (0x74, 1), (0x64, 100)] {
        program.extend(write(offset, &value.to_le_bytes()));
    }
    for (ring, base, opcode) in [(0x180_u16, 0x3000_u32, 0x20_u32), (0x140, 0x2000, 0x10), (0x100, 0x1000, 0x01)] {
        let words = [opcode | 0xc000_0000, 64, 0x8000, 0, 0x9000, 0, 0x5a5a_5a5a, 0];
        program.extend(store(base, &words.map(u32::to_le_bytes).concat()));
        for (offset, value) in [(0, base), (4, 0), (8, 8), (0x14, 1), (0x10, 1)] {
            program.extend(write(ring + offset, &value.to_le_bytes()));
        }
    }
    program.extend(write(0x68, &2_u32.to_le_bytes()));
    program
}

/// A virtio driver with one chain on each of two queues (virtio 1.2, section 3.1).
fn virtio() -> Vec<u8> {
    let mut program = mastering();
    for status in [0, 1, 3] {
        program.extend(write(0x14, &[status]));
    }
    for (half, bits) in [(0_u32, 0_u32), (1, 3)] {
        program.extend(write(0x08, &half.to_le_bytes()));
        program.extend(write(0x0c, &bits.to_le_bytes()));
    }
    program.extend(write(0x14, &[11]));
    for queue in 0..2_u16 {
        let base = 0x1_0000 + u32::from(queue) * 0x1_0000;
        program.extend(write(0x16, &queue.to_le_bytes()));
        program.extend(write(0x18, &8_u16.to_le_bytes()));
        for (offset, address) in [(0x20, base), (0x28, base + 0x1000), (0x30, base + 0x2000)] {
            program.extend(write(offset, &address.to_le_bytes()));
            program.extend(write(offset + 4, &[0; 4]));
        }
        program.extend(write(0x1c, &1_u16.to_le_bytes()));
        // A header of 16 bytes, a buffer and a status byte: a disk's read; others take the buffers as they are.
        let descriptors = [(0x4_0000_u32, 16_u32, 1_u16, 1_u16), (0x4_1000, 512, 3, 2), (0x4_2000, 1, 2, 0)];
        for (index, (address, len, flags, next)) in (0_u32..).zip(descriptors) {
            let bytes = [&address.to_le_bytes()[..], &[0; 4], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
            program.extend(store(base + index * 16, &bytes));
        }
        program.extend(store(base + 0x1000, &[0, 0, 1, 0, 0, 0]));
    }
    program.extend(write(0x14, &[15]));
    for queue in 0..2_u16 {
        program.extend(write(0x3000 + queue * 4, &queue.to_le_bytes()));
    }
    program
}

/// Guests for [`devices`](crate::devices): every model with both programs, again after a reset.
#[must_use]
pub fn devices() -> Vec<Vec<u8>> {
    let models = u8::try_from(dmavet_devices::models().len()).unwrap_or(u8::MAX);
    let twice = |program: Vec<u8>| [&program[..], &[register::RESET], &program].concat();
    (0..models).flat_map(|model| [ncdma(), virtio()].map(|program| [vec![model], twice(program)].concat())).collect()
}
