//! The driver's side of virtio-rng.

use super::{VirtioRng, VirtioRngSpec};
use crate::testing::Dma;
use crate::virtio_pci::driver::{Board, Part, RAM};

fn board(seed: u64) -> Board<VirtioRng> {
    Board::running(VirtioRng::new(&VirtioRngSpec { seed }), 64, 0)
}

#[test]
fn buffers_are_filled_with_the_seeds_bytes() {
    let mut rng = board(1);
    let first = rng.run(0, &[Part::In(64)]);
    assert_eq!((first.len, first.bytes.len()), (64, 64));
    assert!(first.bytes.iter().any(|byte| *byte != 0));
    let second = rng.run(0, &[Part::In(60), Part::In(4)]);
    assert_ne!(first.bytes, second.bytes);
    assert_eq!(board(1).run(0, &[Part::In(64)]).bytes, first.bytes, "a seed gives the same bytes every time");
    assert_ne!(board(2).run(0, &[Part::In(64)]).bytes, first.bytes);
    rng.start(64, 0);
    assert_eq!(rng.run(0, &[Part::In(64)]).bytes, first.bytes, "also after a reset");
}

#[test]
fn only_what_is_delivered_is_written() {
    let mut rng = board(0);
    let huge = rng.run(0, &[Part::In(0x1_0100)]);
    assert_eq!((huge.len, &huge.bytes[0x1_0000..]), (0x1_0000, &[0; 0x100][..]));
    assert_eq!(rng.run(0, &[Part::Out(vec![1; 4])]).len, 0, "nothing to write to");
    assert_eq!(rng.run(0, &[Part::In(0)]).len, 0);
    rng.memory.log();
    rng.memory.refuse(0x40_0000..RAM as u64);
    assert_eq!(rng.run(0, &[Part::In(8)]).len, 0, "a buffer that cannot be written comes back empty");
    assert!(rng.memory.log().iter().any(|dma| matches!(dma, Dma::Write(0x40_0000.., 8))));
    assert_eq!(rng.status(), 15);
}
