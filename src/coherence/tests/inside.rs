//! What only the inside of the core shows.

use super::fixture::*;
use crate::*;

#[test]
fn ownership_belongs_to_mapping_and_line() {
    let w = World::new();
    let dma = w.map(BUF, 256, Bidirectional);
    let owns = |start: usize, end: usize| {
        let engine = w.core.shared().lock();
        let id = engine.find(dma.0).unwrap();
        let chunk = chunk::Chunk { page: BUF, start, end, offset: start as u64, segment: 0 };
        engine.copies.owns(&chunk, id)
    };
    assert!(owns(0, 256));
    w.for_cpu(Iova(dma.0 + 64), 64, Bidirectional);
    assert!(owns(0, 64) && !owns(64, 128) && owns(128, 256));
    w.for_device(dma, 256, Bidirectional);
    assert!(owns(64, 128));
}
