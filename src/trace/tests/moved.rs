//! What the devices of a recorded run moved.

use super::Memory;
use crate::{Reader, Recorder, replay, replay_watched};
use dmavet_coherence::*;
use std::sync::Arc;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 1 << 20;
const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

fn map(core: &Coherence, family: Family, direction: Direction, gpa: u64) -> Iova {
    let call = MapCall {
        family,
        extents: vec![Extent { gpa: Gpa(gpa), len: 4096 }],
        direction,
        attrs: Attrs::empty(),
        limits: Limits::default(),
        kind: PageKind::Slab,
        object: (0, 0),
        cpu_addr: gpa,
    };
    match core.call(Caller { requester: DEVICE, site: SiteId::default(), cpu: 0 }, &ApiCall::Map(call)) {
        Answer::Handles(handles) => handles[0].0,
        other => panic!("{other:?}"),
    }
}

fn unmap(core: &Coherence, direction: Direction, dma: Iova) {
    let call = UnmapCall { family: Family::Single, ranges: vec![(dma, 4096)], direction, attrs: Attrs::empty(), cpu_addr: 0 };
    core.call(Caller { requester: DEVICE, site: SiteId::default(), cpu: 0 }, &ApiCall::Unmap(call));
}

#[test]
fn what_went_through_streaming_mappings_is_shown_and_nothing_else() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(RAM).unwrap();
    let range = (GuestAddress(0), usize::try_from(RAM).unwrap(), Some(FileOffset::new(file, 0)));
    let ram = Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).unwrap());
    let trace = Memory::with_room(1 << 20);
    let recorder = Arc::new(Recorder::new(Box::new(trace.clone())));
    let core = Coherence::with_tap(Config::for_ram(RAM), Arc::clone(&ram), Some(Arc::<Recorder>::clone(&recorder))).unwrap();
    core.add_device(DEVICE, "model");
    core.set_bus_master(DEVICE, true);
    let view = core.view(DEVICE);

    ram.write_slice(b"to the device", GuestAddress(0x1000)).unwrap();
    let tx = map(&core, Family::Single, Direction::ToDevice, 0x1000);
    // Too late for a device that is not coherent.
    ram.write_slice(b"TO", GuestAddress(0x1000)).unwrap();
    let rx = map(&core, Family::Single, Direction::FromDevice, 0x2000);
    let ring = map(&core, Family::Coherent, Direction::Bidirectional, 0x3000);
    let mut bytes = [0; 13];
    view.polling().read_slice(&mut bytes[..2], GuestAddress(tx.0)).unwrap();
    view.read_slice(&mut bytes, GuestAddress(ring.0)).unwrap();
    view.read_slice(&mut bytes, GuestAddress(tx.0)).unwrap();
    view.write_slice(b"from it", GuestAddress(rx.0 + 100)).unwrap();
    unmap(&core, Direction::ToDevice, tx);
    assert!(view.read_slice(&mut bytes, GuestAddress(tx.0)).is_err());
    unmap(&core, Direction::FromDevice, rx);
    let _ = core.finish();
    recorder.finish().unwrap();

    let mut moved = Vec::new();
    let mut see = |access: crate::Moved<'_>| {
        assert_eq!(access.device, DEVICE);
        moved.push((access.wrote, String::from_utf8_lossy(access.bytes).into_owned()));
    };
    let watched = replay_watched(Reader::new(&trace.bytes()[..]).unwrap(), &mut see).unwrap();
    assert_eq!(moved, [(false, "to the device".to_owned()), (true, "from it".to_owned())]);
    // Looking changes nothing.
    let plain = replay(Reader::new(&trace.bytes()[..]).unwrap()).unwrap();
    assert_eq!((watched.divergence, watched.inputs), (None, plain.inputs));
    assert_eq!(watched.summary.findings, plain.summary.findings);
    assert_eq!(watched.summary.stats, plain.summary.stats);
}
