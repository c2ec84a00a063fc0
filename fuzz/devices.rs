//! A guest that programs a device at random: configuration space, registers, and the memory the device reaches.

use crate::ops::Ops;
use dmavet_devices::bus::{DeviceContext, DeviceMemory, LineSink, PlatformContext};
use dmavet_devices::pci::NoInterrupts;
use dmavet_devices::{DeviceSpec, build, build_platform, models};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM: usize = 1 << 20;
/// Operations of one input.
const MOST: usize = 400;

/// The operations' tags.
pub(crate) mod tag {
    /// BAR, offset (u16), length (u8), bytes.
    pub(crate) const WRITE: u8 = 0;
    /// BAR, offset (u16), length (u8).
    pub(crate) const READ: u8 = 1;
    /// Offset (u16), length (u8), bytes: configuration space, or the registers of a platform device.
    pub(crate) const CONFIG: u8 = 2;
    /// Address (u32), length (u8), bytes.
    pub(crate) const STORE: u8 = 3;
    /// Back to power-on.
    pub(crate) const RESET: u8 = 4;
    pub(crate) const COUNT: u8 = 5;
}

struct NoLine;

impl LineSink for NoLine {
    fn set(&self, _high: bool) {}
}

/// Plays a guest that does these things to the device the first byte names.
///
/// # Panics
/// When the device does, or when a reset does not give its identity back.
pub fn devices(bytes: &[u8]) {
    let mut ops = Ops(bytes);
    let which = usize::from(ops.u8()) % models().len();
    let Some(model) = models().get(which) else { return };
    let spec: DeviceSpec = model.name.parse().expect("a model's name is a specification");
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).expect("memory for a guest of 1 MiB");
    let memory = DeviceMemory { used: ram.clone(), poll: ram.clone() };
    if spec.is_platform() {
        let mut device = build_platform(&spec, PlatformContext { memory, line: Arc::new(NoLine) }).expect("a platform device");
        play(ops, &ram, |what| match what {
            Access::Write(_, offset, data) => device.write(offset, data),
            Access::Config(offset, data) => device.write(offset as u64, data),
            Access::Read(_, offset, data) => device.read(offset, data),
            Access::Reset => device.reset(),
        });
    } else {
        let mut function = build(&spec, DeviceContext { memory, msi: Arc::new(NoInterrupts), number: 0 }).expect("a PCI function");
        let mut identity = [[0; 4]; 2];
        function.read_config(0, &mut identity[0]);
        play(ops, &ram, |what| match what {
            Access::Write(bar, offset, data) => function.write_bar(bar, offset, data),
            Access::Config(offset, data) => {
                function.write_config(offset, data);
                let _ = (function.ranges(), function.bus_master());
            }
            Access::Read(bar, offset, data) => function.read_bar(bar, offset, data),
            Access::Reset => function.reset(),
        });
        function.reset();
        function.read_config(0, &mut identity[1]);
        assert_eq!(identity[0], identity[1]);
    }
}

enum Access<'a> {
    Write(usize, u64, &'a [u8]),
    Read(usize, u64, &'a mut [u8]),
    Config(usize, &'a [u8]),
    Reset,
}

fn play(mut ops: Ops<'_>, ram: &GuestMemoryMmap, mut access: impl FnMut(Access<'_>)) {
    for _ in 0..MOST {
        let Some(tag) = ops.next() else { return };
        match tag % tag::COUNT {
            tag::WRITE => {
                let (bar, offset, len) = (ops.u8(), ops.u16(), ops.u8());
                access(Access::Write(usize::from(bar % 8), offset.into(), ops.take(usize::from(len % 17))));
            }
            tag::READ => {
                let (bar, offset, len) = (ops.u8(), ops.u16(), ops.u8());
                access(Access::Read(usize::from(bar % 8), offset.into(), &mut [0; 16][..usize::from(len % 17)]));
            }
            tag::CONFIG => {
                let (offset, len) = (ops.u16(), ops.u8());
                access(Access::Config(usize::from(offset % 4096), ops.take(usize::from(len % 17))));
            }
            tag::STORE => {
                let (at, len) = (ops.u32(), ops.u8());
                // What lies beyond memory is left out.
                let _ = ram.write(ops.take(usize::from(len)), GuestAddress(at.into()));
            }
            tag::RESET => access(Access::Reset),
            _ => {}
        }
    }
}
