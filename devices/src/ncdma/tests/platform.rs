//! The same machine without a bus: one window, one line.

use super::*;
use crate::bus::{Description, LineSink, PlatformContext, PlatformDevice};
use crate::platform::Node;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
struct Line(AtomicBool);

impl LineSink for Line {
    fn set(&self, high: bool) {
        assert_ne!(self.0.swap(high, Ordering::Relaxed), high, "only changes are told");
    }
}

struct Bench {
    node: Node<Ncdma<Memory>>,
    memory: Memory,
    line: Arc<Line>,
}

impl Bench {
    fn new(spec: &str) -> Self {
        let crate::DeviceSpec::NcdmaPlatform(spec) = spec.parse().unwrap() else { panic!("{spec}") };
        let (memory, line) = (Memory::new(&[(0, RAM)]), Arc::new(Line::default()));
        let views = DeviceMemory { used: memory.clone(), poll: memory.clone() };
        let node = super::super::new_platform(PlatformContext { memory: views, line: line.clone() }, &spec);
        Self { node, memory, line }
    }
    fn set(&mut self, offset: u64, value: u32) {
        self.node.write(offset, &value.to_le_bytes());
    }
    fn get(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.node.read(offset, &mut data);
        u32::from_le_bytes(data)
    }
    fn high(&self) -> bool {
        self.line.0.load(Ordering::Relaxed)
    }
    /// One FILL with IRQ at index 0 of a fresh command ring.
    fn fill(&mut self) {
        let words = [FILL | OWN | IRQ, 4, 0, 0, low(DST), 0, 0x1234_5678, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        self.memory.ram.write_slice(&bytes, GuestAddress(CMD_RING)).unwrap();
        for (offset, value) in [(CMD, low(CMD_RING)), (CMD + 8, 4), (CMD + 0x14, 1), (CMD + 0x10, 1)] {
            self.set(offset, value);
        }
    }
}

#[test]
fn it_is_the_same_engine() {
    let mut bench = Bench::new("ncdma-platform,mask=36");
    assert_eq!(bench.node.description(), Description { compatible: "dmavet,ncdma", size: 0x1000 });
    assert_eq!((bench.get(0), bench.get(4), bench.get(8)), (0x4e43_4d41, 0x0001_0000, 0x0400_0824));
    bench.set(CTRL, 1);
    bench.fill();
    let mut filled = [0; 4];
    bench.memory.ram.read_slice(&mut filled, GuestAddress(DST)).unwrap();
    assert_eq!((u32::from_le_bytes(filled), bench.get(CMD + 0x0c)), (0x1234_5678, 1));
}

#[test]
fn the_line_is_high_while_something_waits_that_may_interrupt() {
    let mut bench = Bench::new("ncdma-platform");
    bench.set(CTRL, 5);
    bench.fill();
    assert!(!bench.high(), "masked");
    bench.set(INT_MASK, 1);
    assert!(bench.high());
    bench.set(CTRL, 1);
    assert!(!bench.high(), "INT_ENABLE off");
    bench.set(CTRL, 5);
    bench.set(INT_STATUS, 0xe);
    assert!(bench.high(), "another bit was acknowledged");
    bench.set(INT_STATUS, 1);
    assert!(!bench.high());
    bench.fill();
    assert!(bench.high());
    bench.set(CTRL, 2);
    assert!(!bench.high(), "RESET");
    bench.set(CTRL, 5);
    bench.set(INT_MASK, 0xf);
    bench.fill();
    assert!(bench.high());
    bench.node.reset();
    assert!(!bench.high());
    assert_eq!((bench.get(CTRL), bench.get(INT_STATUS)), (0, 0));
}
