use super::*;
use crate::bus::BarSpace;
use crate::testing::Sink;
use proptest::prelude::*;

/// Remembers what it was asked; a write of vector numbers raises them.
#[derive(Debug, Default)]
struct Probe {
    reads: Vec<(usize, u64, usize)>,
    writes: Vec<(usize, u64, usize)>,
    resets: usize,
    /// The interrupt it asks for by its pin.
    asks: bool,
}

impl Model for Probe {
    fn identity(&self) -> Identity {
        Identity::dmavet(0x1234, 0x08_80_00)
    }
    fn bars(&self) -> Vec<BarSpec> {
        vec![BarSpec::memory32(0, 0x1000), BarSpec::memory64(2, 0x2000), BarSpec::io(4, 0x10)]
    }
    fn msix(&self) -> Option<MsixSpec> {
        // In the model's own BAR, away from its beginning.
        Some(MsixSpec { vectors: 3, bar: 2, table_offset: 0x1000, pba_offset: 0x1800 })
    }
    fn power_management(&self) -> bool {
        true
    }
    fn interrupt(&self) -> Option<bool> {
        Some(self.asks)
    }
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        self.reads.push((bar, offset, data.len()));
        data.fill(0x5a);
    }
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Vectors {
        self.writes.push((bar, offset, data.len()));
        data.iter().fold(Vectors::NONE, |vectors, byte| vectors.with(u16::from(*byte)))
    }
    fn reset(&mut self) {
        self.resets += 1;
    }
}

fn function() -> (Function<Probe>, Arc<Sink>) {
    let sink = Arc::new(Sink::default());
    (Function::new(Probe::default(), sink.clone()), sink)
}

fn msix_capability(function: &mut Function<Probe>) -> usize {
    let mut pointer = [0];
    function.read_config(0x34, &mut pointer);
    loop {
        let mut head = [0; 2];
        function.read_config(usize::from(pointer[0]), &mut head);
        if head[0] == 0x11 {
            return usize::from(pointer[0]);
        }
        assert_ne!(head[1], 0, "no MSI-X capability");
        pointer = [head[1]];
    }
}

#[test]
fn accesses_go_to_the_model_or_to_msix() {
    let (mut function, sink) = function();
    let mut data = [0; 4];
    function.read_bar(0, 0xffc, &mut data);
    assert_eq!(data, [0x5a; 4]);
    function.read_bar(2, 0x100c, &mut data);
    assert_eq!(data, [1, 0, 0, 0], "the mask bit of vector 0");
    function.write_bar(2, 0x1000, &[0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    function.write_bar(2, 0x1800, &[0xff; 8]);
    let capability = msix_capability(&mut function);
    function.write_config(capability + 3, &[0x80]);
    function.write_bar(0, 0, &[0, 1, 200]);
    assert_eq!(sink.sent(), [0]);
    function.read_bar(2, 0x1800, &mut data);
    assert_eq!(data, [2, 0, 0, 0]);
    assert_eq!(function.model().reads, [(0, 0xffc, 4)]);
    assert_eq!(function.model().writes, [(0, 0, 3)]);
}

#[test]
fn accesses_outside_a_bar_do_not_reach_the_model() {
    let (mut function, _sink) = function();
    for (bar, offset) in [(0, 0xffd), (0, 0x1000), (0, u64::MAX), (1, 0), (3, 0), (4, 0xe), (5, 0), (6, 0), (usize::MAX, 0)] {
        let mut data = [0; 4];
        function.read_bar(bar, offset, &mut data);
        assert_eq!(data, [0xff; 4], "{bar} {offset:#x}");
        function.write_bar(bar, offset, &data);
    }
    assert!(function.model().reads.is_empty() && function.model().writes.is_empty());
}

#[test]
fn a_soft_reset_reaches_model_and_vectors() {
    let (mut function, sink) = function();
    function.write_bar(2, 0x1000, &[0; 16]);
    let capability = msix_capability(&mut function);
    function.write_config(capability + 3, &[0x80]);
    assert!(sink.route(0).is_some());
    function.write_config(0x44, &[3]);
    let change = function.write_config(0x44, &[0]);
    assert!(change.contains(ConfigChange::RESET));
    assert_eq!((function.model().resets, sink.route(0)), (1, None));
    function.reset();
    assert_eq!(function.model().resets, 2);
}

#[test]
fn the_host_bridge_is_a_bare_bridge() {
    let mut bridge = crate::pci::host_bridge();
    let mut data = [0; 16];
    bridge.read_config(0, &mut data);
    assert_eq!(data, [0x5e, 0xda, 0, 0, 0, 0, 0, 0, 1, 0, 0, 6, 0, 0, 0, 0]);
    assert!(bridge.ranges().is_empty());
    bridge.write_config(4, &[0xff, 0xff]);
    bridge.write_bar(0, 0, &[1]);
    bridge.read_bar(0, 0, &mut data);
    assert_eq!(data, [0xff; 16]);
}

#[derive(Clone, Debug)]
enum Op {
    ReadConfig(usize, usize),
    WriteConfig(usize, Vec<u8>),
    ReadBar(usize, u64, usize),
    WriteBar(usize, u64, Vec<u8>),
    Raise(u16),
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    let config = prop_oneof![8 => 0..0x60_usize, 1 => 0..5000_usize, 1 => Just(usize::MAX)];
    let bar = 0..7_usize;
    let offset = prop_oneof![4 => 0..0x2010_u64, 4 => 0x1000..0x1040_u64, 1 => any::<u64>()];
    let bytes = || prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0xff)], 0..17);
    prop_oneof![
        2 => (config.clone(), 0..17_usize).prop_map(|(offset, len)| Op::ReadConfig(offset, len)),
        6 => (config, bytes()).prop_map(|(offset, data)| Op::WriteConfig(offset, data)),
        2 => (bar.clone(), offset.clone(), 0..17_usize).prop_map(|(bar, offset, len)| Op::ReadBar(bar, offset, len)),
        4 => (bar, offset, bytes()).prop_map(|(bar, offset, data)| Op::WriteBar(bar, offset, data)),
        2 => (0..70_u16).prop_map(Op::Raise),
        1 => Just(Op::Reset),
    ]
}

proptest! {
    /// Whatever the guest does: no panic, only sane ranges, changes told exactly when they happen, no message without a route.
    #[test]
    fn any_history_is_answered(ops in prop::collection::vec(op(), 1..80)) {
        let (mut function, sink) = function();
        for op in ops {
            let (ranges, master) = (function.ranges(), function.bus_master());
            match op {
                Op::ReadConfig(offset, len) => function.read_config(offset, &mut vec![0; len]),
                Op::WriteConfig(offset, data) => {
                    let change = function.write_config(offset, &data);
                    prop_assert_eq!(change.contains(ConfigChange::DECODE), function.ranges() != ranges);
                    prop_assert_eq!(change.contains(ConfigChange::BUS_MASTER), function.bus_master() != master);
                }
                Op::ReadBar(bar, offset, len) => function.read_bar(bar, offset, &mut vec![0; len]),
                Op::WriteBar(bar, offset, data) => function.write_bar(bar, offset, &data),
                Op::Raise(vector) => function.raise(Vectors::NONE.with(vector)),
                Op::Reset => function.reset(),
            }
            for range in function.ranges() {
                prop_assert_eq!(range.base % range.size, 0);
                prop_assert!(range.base != 0 && range.base.checked_add(range.size).is_some());
                let limit = if range.space == BarSpace::Io { 1 << 16 } else { u64::MAX };
                prop_assert!(range.base + range.size <= limit);
            }
            sink.sent();
        }
    }
}

#[test]
fn the_pin_follows_the_model_as_far_as_configuration_space_lets_it() {
    const COMMAND: usize = 4;
    const STATUS: usize = 6;
    let (mut function, sink) = function();
    let mut pin = [0; 2];
    function.read_config(0x3c, &mut pin);
    assert_eq!(pin, [0, 1], "no line yet, INTA#");
    function.write_config(0x3d, &[4]);
    function.read_config(0x3d, &mut pin[..1]);
    assert_eq!(pin[0], 1, "read-only");
    let state = |function: &mut Function<Probe>| {
        let mut status = [0; 2];
        function.read_config(STATUS, &mut status);
        (status[0] & 1 << 3 != 0, sink.pin())
    };
    assert_eq!(state(&mut function), (false, false));
    function.model_mut().asks = true;
    function.raise(Vectors::NONE);
    assert_eq!(state(&mut function), (true, true));
    function.write_config(COMMAND, &[0, 4]);
    assert_eq!(state(&mut function), (true, false), "Interrupt Disable");
    function.write_config(COMMAND, &[0, 0]);
    assert_eq!(state(&mut function), (true, true));
    // A read may be what the model waits for.
    function.model_mut().asks = false;
    function.read_bar(0, 0, &mut [0]);
    assert_eq!(state(&mut function), (false, false));
    function.model_mut().asks = true;
    function.write_bar(0, 0, &[0]);
    assert_eq!(state(&mut function), (true, true));
    let msix = msix_capability(&mut function);
    function.write_config(msix + 3, &[0x80]);
    assert_eq!(state(&mut function), (true, false), "MSI-X is on");
    function.write_config(msix + 3, &[0]);
    assert_eq!(state(&mut function), (true, true));
    let mut pointer = [0];
    function.read_config(0x34, &mut pointer);
    // The first capability is power management.
    function.write_config(usize::from(pointer[0]) + 4, &[3]);
    assert_eq!(state(&mut function), (true, false), "D3hot");
    function.write_config(COMMAND, &[0, 4]);
    function.write_config(STATUS, &[0xff, 0xff]);
    function.reset();
    assert_eq!(state(&mut function), (true, true), "it is the model that asks");
}
