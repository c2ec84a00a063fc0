//! The tests play the guest: they fill slots in a small RAM and ring.

use super::*;
use dmavet_coherence::call::{AllocFlags, Extent, MapCall, Rejected};
use dmavet_coherence::ids::{Attrs, Bdf, Direction, Family, Gpa, Iova, PageKind};
use proptest::prelude::*;
use std::sync::Mutex;
use vm_memory::Bytes;
use zerocopy::IntoBytes;

const RAM: usize = 0x4_0000;
const BASE: u64 = 0x1_0000;
const SLOTS: u32 = 3;
const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

/// A core that remembers what it was asked and answers maps with handles far above RAM.
#[derive(Debug, Default)]
struct Recorder {
    calls: Mutex<Vec<(Caller, ApiCall)>>,
    sites: Mutex<Vec<Vec<Frame>>>,
    blind: Mutex<Vec<String>>,
    answer: Mutex<Option<Answer>>,
}

impl DmaCore for Arc<Recorder> {
    fn call(&self, caller: Caller, call: &ApiCall) -> Answer {
        self.calls.lock().unwrap().push((caller, call.clone()));
        if let Some(answer) = self.answer.lock().unwrap().take() {
            return answer;
        }
        match call {
            ApiCall::Map(map) => Answer::Handles(map.extents.iter().map(|e| (Iova(e.gpa.0.wrapping_add(0x10_0000_0000)), e.len)).collect()),
            ApiCall::SetMask { mask } => Answer::Supported(*mask >= 0xff_ffff),
            _ => Answer::Done,
        }
    }
    fn intern_site(&self, stack: Vec<Frame>) -> SiteId {
        let mut sites = self.sites.lock().unwrap();
        sites.push(stack);
        SiteId(u32::try_from(sites.len()).unwrap())
    }
    fn blind_spot(&self, what: String) {
        self.blind.lock().unwrap().push(what);
    }
    fn required_mask(&self) -> u64 {
        0x1f_ffff_ffff
    }
}

struct Guest {
    agent: Agent<Arc<Recorder>>,
    core: Arc<Recorder>,
    ram: Arc<GuestMemoryMmap>,
}

impl Guest {
    /// Registers written, no hello yet.
    fn silent() -> Self {
        let ram = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap());
        let core = Arc::new(Recorder::default());
        let mut agent = Agent::new(core.clone(), ram.clone());
        for (register, value) in [(abi::REG_SLOTS_LO, 0x1_0000), (abi::REG_SLOTS_HI, 0), (abi::REG_SLOT_COUNT, SLOTS)] {
            assert!(agent.write_register(register, &u32::to_le_bytes(value)).is_empty());
        }
        Self { agent, core, ram }
    }

    fn new() -> Self {
        let mut guest = Self::silent();
        let mut release = [0; abi::NAME_LEN];
        release[..5].copy_from_slice(b"6.1.0");
        let hello = abi::Hello { abi: 1.into(), cpus: 2.into(), release };
        let (status, events) = guest.send(abi::CALL_HELLO, hello.as_bytes());
        assert_eq!(status, abi::STATUS_OK);
        assert_eq!(events, [AgentEvent::Hello { release: "6.1.0".to_owned(), cpus: 2 }]);
        assert_eq!(guest.header(0).value.get(), 0x1f_ffff_ffff);
        guest
    }

    fn header(&self, slot: u32) -> abi::SlotHeader {
        let mut header = abi::SlotHeader::default();
        self.ram.read_slice(header.as_mut_bytes(), GuestAddress(BASE + u64::from(slot) * 4096)).unwrap();
        header
    }

    fn ring(&mut self, slot: u32, header: abi::SlotHeader, payload: &[u8]) -> (u32, Vec<AgentEvent>) {
        let at = BASE + u64::from(slot) * 4096;
        self.ram.write_slice(header.as_bytes(), GuestAddress(at)).unwrap();
        self.ram.write_slice(payload, GuestAddress(at + 64)).unwrap();
        let events = self.agent.write_register(abi::REG_DOORBELL, &slot.to_le_bytes());
        (self.header(slot).status.get(), events)
    }

    fn send(&mut self, call: u16, payload: &[u8]) -> (u32, Vec<AgentEvent>) {
        self.ring(0, header(call, payload.len()), payload)
    }

    fn dma(&mut self, call: u16, dma: abi::Dma, ranges: &[(u64, u64)]) -> u32 {
        let dma = abi::Dma { count: count(ranges), total: count(ranges), ..dma };
        let payload = dma_payload(&dma, ranges);
        self.send(call, &payload).0
    }

    fn ranges(&self, slot: u32, n: usize) -> Vec<(u64, u64)> {
        let mut ranges = vec![abi::Range::default(); n];
        self.ram.read_slice(ranges.as_mut_bytes(), GuestAddress(BASE + u64::from(slot) * 4096 + 128)).unwrap();
        ranges.iter().map(|r| (r.addr.get(), r.len.get())).collect()
    }

    fn calls(&self) -> Vec<(Caller, ApiCall)> {
        self.core.calls.lock().unwrap().clone()
    }

    fn blind(&self) -> Vec<String> {
        self.core.blind.lock().unwrap().clone()
    }
}

fn count(ranges: &[(u64, u64)]) -> zerocopy::little_endian::U32 {
    u32::try_from(ranges.len()).unwrap().into()
}

fn header(call: u16, length: usize) -> abi::SlotHeader {
    abi::SlotHeader {
        version: abi::ABI_VERSION.into(),
        call: call.into(),
        flags: (abi::FIRST | abi::LAST).into(),
        requester: DEVICE.to_wire().into(),
        cpu: 1.into(),
        length: u32::try_from(length).unwrap().into(),
        status: abi::STATUS_PENDING.into(),
        ..Default::default()
    }
}

fn dma_payload(dma: &abi::Dma, ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut payload = dma.as_bytes().to_vec();
    for (addr, len) in ranges {
        payload.extend_from_slice(abi::Range { addr: (*addr).into(), len: (*len).into() }.as_bytes());
    }
    payload
}

fn single() -> abi::Dma {
    abi::Dma { family: Family::Single as u8, direction: Direction::FromDevice as u8, ..Default::default() }
}

fn sg() -> abi::Dma {
    abi::Dma { family: Family::Sg as u8, ..single() }
}

fn frame(address: u64, name: &str) -> abi::FrameRecord {
    let mut symbol = [0; abi::SYMBOL_LEN];
    symbol[..name.len()].copy_from_slice(name.as_bytes());
    abi::FrameRecord { address: address.into(), symbol }
}

#[test]
fn a_map_reaches_the_core_whole_and_its_handle_the_slot() {
    let mut guest = Guest::new();
    let dma = abi::Dma {
        kind: PageKind::Slab as u8,
        attrs: Attrs::SKIP_CPU_SYNC.bits().into(),
        mask: 0xffff_ffff.into(),
        seg_boundary: 0xffff.into(),
        max_seg_size: 512.into(),
        min_align_mask: 7.into(),
        ..single()
    };
    assert_eq!(guest.dma(abi::CALL_MAP, dma, &[(0x2040, 100)]), abi::STATUS_OK);
    assert_eq!((guest.header(0).count.get(), guest.ranges(0, 1)), (1, vec![(0x10_0000_2040, 100)]));
    let expected = MapCall {
        family: Family::Single,
        extents: vec![Extent { gpa: Gpa(0x2040), len: 100 }],
        direction: Direction::FromDevice,
        attrs: Attrs::SKIP_CPU_SYNC,
        limits: dmavet_coherence::call::Limits { mask: 0xffff_ffff, seg_boundary: 0xffff, max_seg_size: 512, min_align_mask: 7 },
        kind: PageKind::Slab,
        object: (0, 0),
        cpu_addr: 0,
    };
    let caller = Caller { requester: DEVICE, site: SiteId(0), cpu: 1 };
    assert_eq!(guest.calls(), [(caller, ApiCall::Map(expected))]);
    assert!(guest.blind().is_empty());
}

#[test]
fn unmap_and_both_syncs() {
    let mut guest = Guest::new();
    assert_eq!(guest.dma(abi::CALL_UNMAP, single(), &[(0x10_0000_2040, 100)]), abi::STATUS_OK);
    let for_cpu = abi::Dma { flags: abi::DMA_FOR_CPU, ..single() };
    assert_eq!(guest.dma(abi::CALL_SYNC, for_cpu, &[(0x10_0000_2040, 4)]), abi::STATUS_OK);
    assert_eq!(guest.dma(abi::CALL_SYNC, sg(), &[(0x10_0000_2040, 4), (1, 0)]), abi::STATUS_OK);
    let calls = guest.calls();
    assert!(matches!(&calls[0].1, ApiCall::Unmap(u) if u.ranges == [(Iova(0x10_0000_2040), 100)]));
    assert!(matches!(&calls[1].1, ApiCall::Sync(s) if s.for_cpu && !s.sg && s.ranges.len() == 1));
    assert!(matches!(&calls[2].1, ApiCall::Sync(s) if !s.for_cpu && s.sg && s.ranges.len() == 2));
}

#[test]
fn a_failure_the_core_injects_arrives_as_one() {
    let mut guest = Guest::new();
    *guest.core.answer.lock().unwrap() = Some(Answer::Failed);
    assert_eq!(guest.dma(abi::CALL_MAP, single(), &[(0x2000, 1)]), abi::STATUS_FAILED);
    assert_eq!(guest.header(0).count.get(), 0);
}

#[test]
fn what_the_kernel_rejects_is_passed_on() {
    let mut guest = Guest::new();
    let rejected = |reason: u32, flags: u32| abi::Rejected { reason: reason.into(), flags: flags.into() };
    for (reason, flags) in [(abi::REJECTED_FLAGS, 0xa), (abi::REJECTED_VMALLOC, 0)] {
        assert_eq!(guest.send(abi::CALL_REJECTED, rejected(reason, flags).as_bytes()).0, abi::STATUS_OK);
    }
    let calls: Vec<_> = guest.calls().into_iter().map(|(caller, call)| (caller.requester, call)).collect();
    let flags = Rejected::Flags(AllocFlags::DMA32 | AllocFlags::COMP);
    assert_eq!(calls, [(DEVICE, ApiCall::Rejected(flags)), (DEVICE, ApiCall::Rejected(Rejected::Vmalloc))]);
    // No flag, one that does not exist, a reason that does not.
    for (reason, flags) in [(abi::REJECTED_FLAGS, 0), (abi::REJECTED_FLAGS, 0x10), (3, 1)] {
        assert_eq!(guest.send(abi::CALL_REJECTED, rejected(reason, flags).as_bytes()).0, abi::STATUS_MALFORMED);
    }
    assert_eq!((guest.calls().len(), guest.blind().len()), (2, 3));
}

#[test]
fn masks_are_asked_for() {
    let mut guest = Guest::new();
    for (mask, fits) in [(u64::MAX, 1), (0xffff, 0)] {
        assert_eq!(guest.dma(abi::CALL_SET_MASK, abi::Dma { mask: mask.into(), ..Default::default() }, &[]), abi::STATUS_OK);
        assert_eq!(guest.header(0).value.get(), fits);
    }
}

/// Sends a list in chunks as the agent does, and fetches the handles.
fn long_map(guest: &mut Guest, slot: u32, extents: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let total = count(extents);
    let mut first = 0;
    for (n, chunk) in extents.chunks(abi::RANGES_PER_SLOT).enumerate() {
        let last = first + chunk.len() == extents.len();
        let flags = if n == 0 { abi::FIRST } else { 0 } | if last { abi::LAST } else { 0 };
        let dma = abi::Dma { count: count(chunk), total, first: u32::try_from(first).unwrap().into(), ..sg() };
        let payload = dma_payload(&dma, chunk);
        let header =
            abi::SlotHeader { flags: flags.into(), chunk: u32::try_from(n).unwrap().into(), ..header(abi::CALL_MAP, payload.len()) };
        let (status, _) = guest.ring(slot, header, &payload);
        assert_eq!(status, if last { abi::STATUS_OK } else { abi::STATUS_MORE });
        first += chunk.len();
    }
    let all = guest.header(slot).count.get() as usize;
    let mut handles = guest.ranges(slot, all.min(abi::RANGES_PER_SLOT));
    while handles.len() < all {
        let dma = abi::Dma { first: u32::try_from(handles.len()).unwrap().into(), ..Default::default() };
        let payload = dma_payload(&dma, &[]);
        assert_eq!(guest.ring(slot, header(abi::CALL_FETCH, payload.len()), &payload).0, abi::STATUS_OK);
        let n = guest.header(slot).count.get() as usize;
        handles.extend(guest.ranges(slot, n));
    }
    handles
}

#[test]
fn a_long_list_is_one_call_and_all_its_handles_come_back() {
    let mut guest = Guest::new();
    for n in [1, 247, 248, 249, 496, 1000] {
        let extents: Vec<_> = (0..n).map(|i| (0x2000 + i * 16, 16)).collect();
        let before = guest.calls().len();
        let handles = long_map(&mut guest, 1, &extents);
        assert_eq!(handles, extents.iter().map(|(a, l)| (a + 0x10_0000_0000, *l)).collect::<Vec<_>>());
        let calls = guest.calls();
        assert_eq!(calls.len(), before + 1);
        assert!(matches!(&calls[before].1, ApiCall::Map(m) if m.extents.len() as u64 == n));
    }
    assert!(guest.blind().is_empty());
}

#[test]
fn chunks_that_do_not_continue_are_refused_and_leave_nothing_behind() {
    let mut guest = Guest::new();
    let ranges = vec![(0x2000, 16); 248];
    let dma = abi::Dma { count: count(&ranges), total: 500.into(), ..sg() };
    let payload = dma_payload(&dma, &ranges);
    let begin = abi::SlotHeader { flags: abi::FIRST.into(), ..header(abi::CALL_MAP, payload.len()) };
    assert_eq!(guest.ring(0, begin, &payload).0, abi::STATUS_MORE);
    // Another direction in the second chunk.
    let other = abi::Dma { first: 248.into(), direction: 0, ..dma };
    let second = abi::SlotHeader { flags: 0.into(), chunk: 1.into(), ..begin };
    assert_eq!(guest.ring(0, second, &dma_payload(&other, &ranges)).0, abi::STATUS_MALFORMED);
    // Its beginning is gone by now.
    let right = abi::Dma { first: 248.into(), ..dma };
    assert_eq!(guest.ring(0, second, &dma_payload(&right, &ranges)).0, abi::STATUS_MALFORMED);
    // The last chunk before all is there.
    let short = abi::SlotHeader { flags: (abi::FIRST | abi::LAST).into(), ..begin };
    assert_eq!(guest.ring(0, short, &payload).0, abi::STATUS_MALFORMED);
    assert!(guest.calls().is_empty());
    assert!(guest.agent.assembly.fetch(0, 0).is_err());
}

#[test]
fn a_stack_is_announced_once_and_meant_by_its_hash_afterwards() {
    let mut guest = Guest::new();
    let stack = [frame(1, "dmavet_map_page+0x1/0x2 [dmavet_agent]"), frame(2, "dma_map_page_attrs+0x1/0x2"), frame(3, "post+0x1/0x2 [d]")];
    let announce = abi::SlotHeader { site: 0x1234.into(), ..header(abi::CALL_SITE, size_of_val(&stack)) };
    assert_eq!(guest.ring(0, announce, stack.as_bytes()).0, abi::STATUS_OK);
    assert_eq!(*guest.core.sites.lock().unwrap(), [vec![Frame::new(3, "post+0x1/0x2 [d]".to_owned())]]);
    let payload = dma_payload(&abi::Dma { count: 1.into(), total: 1.into(), ..single() }, &[(0x2000, 8)]);
    for (site, expected) in [(0x1234, SiteId(1)), (0x9999, SiteId(0))] {
        let call = abi::SlotHeader { site: u64::into(site), ..header(abi::CALL_MAP, payload.len()) };
        assert_eq!(guest.ring(0, call, &payload).0, abi::STATUS_OK);
        assert_eq!(guest.calls().last().unwrap().0.site, expected);
    }
    assert_eq!(guest.blind().len(), 1, "the hash nobody announced");
}

#[test]
fn drivers_come_and_go() {
    let mut guest = Guest::new();
    let mut bound = abi::Bound { driver: [0; 64], module: [0; 64] };
    bound.driver[..5].copy_from_slice(b"ncdma");
    bound.module[..5].copy_from_slice(b"ncdma");
    let (_, events) = guest.send(abi::CALL_BOUND, bound.as_bytes());
    assert_eq!(events, [AgentEvent::Bound { requester: DEVICE, driver: "ncdma".to_owned(), module: "ncdma".to_owned() }]);
    let (_, events) = guest.send(abi::CALL_UNBOUND, &[]);
    assert_eq!(events, [AgentEvent::Unbound { requester: DEVICE }]);
    let calls: Vec<_> = guest.calls().into_iter().map(|(_, call)| call).collect();
    assert_eq!(calls, [ApiCall::Bound { driver: "ncdma".to_owned() }, ApiCall::Unbound]);
}

#[test]
fn modules_are_told_once_for_each_thing_known_about_them() {
    let mut guest = Guest::new();
    let mut module = abi::Module {
        state: abi::MODULE_COMING.into(),
        anchors: 1.into(),
        text_base: 0xffff_ffff_c000_0000.into(),
        text_size: 0x2000.into(),
        init_base: 0.into(),
        init_size: 0.into(),
        name: [0; 64],
        anchor: [frame(0xffff_ffff_c000_0010, "ncdma_exit+0x0/0x20 [ncdma]"), frame(0, ""), frame(0, ""), frame(0, "")],
    };
    module.name[..5].copy_from_slice(b"ncdma");
    let (_, events) = guest.send(abi::CALL_MODULE, module.as_bytes());
    let [AgentEvent::Module { name, state: ModuleState::Loaded(layout) }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((name.as_str(), layout.text_base, layout.anchors.len()), ("ncdma", 0xffff_ffff_c000_0000, 1));
    assert!(guest.send(abi::CALL_MODULE, module.as_bytes()).1.is_empty(), "nothing new");
    module.anchors = 2.into();
    assert_eq!(guest.send(abi::CALL_MODULE, module.as_bytes()).1.len(), 1, "one more function");
    module.state = abi::MODULE_GOING.into();
    let (_, events) = guest.send(abi::CALL_MODULE, module.as_bytes());
    assert_eq!(events, [AgentEvent::Module { name: "ncdma".to_owned(), state: ModuleState::Going }]);
    module.anchors = u32::MAX.into();
    module.state = abi::MODULE_COMING.into();
    assert_eq!(guest.send(abi::CALL_MODULE, module.as_bytes()).1.len(), 1, "a count past the array is cut");
}

#[test]
fn the_workloads_words_come_through() {
    let mut guest = Guest::new();
    assert_eq!(guest.send(abi::CALL_OUTPUT, b"\x1b[1mraw").1, [AgentEvent::Output(b"\x1b[1mraw".to_vec())]);
    assert_eq!(guest.send(abi::CALL_PHASE, b"modules").1, [AgentEvent::Phase("modules".to_owned())]);
    assert_eq!(guest.send(abi::CALL_FAIL, b"no\x1b").1, [AgentEvent::SetupFailed("no?".to_owned())]);
    let exit = abi::Exit { code: (-3).into(), reserved: 0.into() };
    assert_eq!(guest.send(abi::CALL_EXIT, exit.as_bytes()).1, [AgentEvent::Exit(-3)]);
    assert_eq!(guest.send(abi::CALL_END, &[]).1, [AgentEvent::End]);
    assert_eq!(guest.send(abi::CALL_PANIC, b"Fatal exception").1, [AgentEvent::Panic("Fatal exception".to_owned())]);
}

#[test]
fn nothing_but_a_hello_or_a_panic_comes_first() {
    let mut guest = Guest::silent();
    assert_eq!(guest.dma(abi::CALL_MAP, single(), &[(0x2000, 1)]), abi::STATUS_MALFORMED);
    assert_eq!(guest.send(abi::CALL_EXIT, abi::Exit { code: 0.into(), reserved: 0.into() }.as_bytes()).1, []);
    assert_eq!(guest.send(abi::CALL_PANIC, b"x").1.len(), 1);
    assert!(guest.calls().is_empty());
}

#[test]
fn reset_forgets_everything() {
    let mut guest = Guest::new();
    guest.agent.reset();
    assert!(guest.agent.write_register(abi::REG_DOORBELL, &[0; 4]).is_empty());
    let mut status = [0; 4];
    guest.agent.read_register(abi::REG_STATUS, &mut status);
    assert_eq!(u32::from_le_bytes(status), abi::STATE_REFUSED);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_blind_spot() {
    let mut guest = Guest::new();
    let one = [(0x2000_u64, 16_u64)];
    let ok = dma_payload(&abi::Dma { count: 1.into(), total: 1.into(), ..single() }, &one);
    let good = header(abi::CALL_MAP, ok.len());
    let with = |dma: abi::Dma, ranges: &[(u64, u64)]| {
        let payload = dma_payload(&dma, ranges);
        (header(abi::CALL_MAP, payload.len()), payload)
    };
    let counted = |count: u32, total: u32, first: u32| abi::Dma { count: count.into(), total: total.into(), first: first.into(), ..sg() };
    let bad = [
        (abi::SlotHeader { version: 2.into(), ..good }, ok.clone()),
        (abi::SlotHeader { call: 99.into(), ..good }, ok.clone()),
        (abi::SlotHeader { requester: 0x4000_0000.into(), ..good }, ok.clone()),
        (abi::SlotHeader { length: 4033.into(), ..good }, ok.clone()),
        (abi::SlotHeader { length: u32::MAX.into(), ..good }, ok.clone()),
        (abi::SlotHeader { length: 8.into(), ..good }, ok.clone()),
        (abi::SlotHeader { flags: 0.into(), ..good }, ok.clone()),
        (header(abi::CALL_HELLO, 3), vec![0; 3]),
        (header(abi::CALL_SITE, 0), vec![]),
        (header(abi::CALL_FETCH, 64), vec![0; 64]),
        with(abi::Dma { family: 9, count: 1.into(), total: 1.into(), ..single() }, &one),
        with(abi::Dma { direction: 4, count: 1.into(), total: 1.into(), ..single() }, &one),
        with(counted(0, 0, 0), &[]),
        with(counted(1, 0, 0), &one),
        with(counted(2, 2, 0), &one),
        with(counted(1, 1, u32::MAX), &one),
        with(counted(1, abi::MAX_RANGES + 1, 0), &one),
        with(abi::Dma { count: 1.into(), total: 2.into(), ..single() }, &one),
        with(counted(1, 1, 0), &[(u64::MAX, 2)]),
    ];
    for (n, (header, payload)) in bad.into_iter().enumerate() {
        let before = guest.blind().len();
        assert_eq!(guest.ring(2, header, &payload).0, abi::STATUS_MALFORMED, "case {n}");
        assert!(guest.calls().is_empty(), "case {n}");
        assert!(guest.blind().len() >= before, "case {n}");
    }
    assert!(guest.blind().len() >= 12, "{:#?}", guest.blind());
    assert_eq!(guest.ring(2, good, &ok).0, abi::STATUS_OK, "and life goes on");
}

#[test]
fn an_error_value_is_a_handle_like_any_other() {
    let mut guest = Guest::new();
    for call in [abi::CALL_UNMAP, abi::CALL_SYNC] {
        let dma = abi::Dma { count: 1.into(), total: 1.into(), ..single() };
        let payload = dma_payload(&dma, &[(u64::MAX, 4096)]);
        assert_eq!(guest.ring(2, header(call, payload.len()), &payload).0, abi::STATUS_OK);
    }
    let ranges = [(Iova(u64::MAX), 4096)];
    let calls = guest.calls();
    assert!(matches!(&calls[0].1, ApiCall::Unmap(unmap) if unmap.ranges == ranges), "{calls:?}");
    assert!(matches!(&calls[1].1, ApiCall::Sync(sync) if sync.ranges == ranges), "{calls:?}");
}

#[test]
fn lost_calls_and_blind_spots_are_passed_on_but_bounded() {
    let mut guest = Guest::new();
    let lost = abi::SlotHeader { lost: 3.into(), ..header(abi::CALL_PHASE, 1) };
    guest.ring(0, lost, b"x");
    guest.ring(0, lost, b"x");
    assert_eq!(guest.blind().len(), 1);
    for n in 0..500 {
        guest.send(abi::CALL_BLIND, format!("spot {n}").as_bytes());
    }
    assert_eq!(guest.blind().len(), MAX_BLIND_SPOTS + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_register_access_hurts(accesses in prop::collection::vec((any::<bool>(), 0_u64..0x40, prop::collection::vec(any::<u8>(), 0..10)), 0..60)) {
        let mut guest = Guest::new();
        for (write, offset, mut data) in accesses {
            if write {
                guest.agent.write_register(offset, &data);
            } else {
                guest.agent.read_register(offset, &mut data);
            }
        }
    }

    #[test]
    fn no_slot_hurts(slots in prop::collection::vec((0_u32..SLOTS, slot_bytes()), 1..20)) {
        let mut guest = Guest::new();
        for (slot, bytes) in slots {
            guest.ram.write_slice(&bytes, GuestAddress(BASE + u64::from(slot) * 4096)).unwrap();
            guest.agent.write_register(abi::REG_DOORBELL, &slot.to_le_bytes());
            let status = guest.header(slot).status.get();
            prop_assert!(status <= abi::STATUS_MORE, "{status}");
        }
        for (_, call) in guest.calls() {
            if let ApiCall::Map(map) = call {
                prop_assert!(map.extents.len() <= abi::MAX_RANGES as usize);
                prop_assert!(map.extents.iter().all(|e| e.gpa.0.checked_add(e.len).is_some()));
            }
        }
    }
}

/// Slots that are wrong in few places, so that they get past the first check, and some that are noise.
fn slot_bytes() -> impl Strategy<Value = Vec<u8>> {
    let calls = prop::sample::select(vec![1_u16, 2, 3, 4, 5, 6, 16, 16, 17, 18, 19, 20, 32, 33, 34, 35, 36, 37, 99]);
    let shaped = (
        (calls, 0_u32..4, prop_oneof![Just(0x10_u32), any::<u32>()], 0_u32..3, prop_oneof![0_u32..300, any::<u32>()]),
        (0_u8..7, 0_u8..5, prop_oneof![0_u32..4, 246_u32..250, any::<u32>()], 0_u32..600, prop_oneof![Just(0_u32), Just(248), 0_u32..600]),
        prop::collection::vec(any::<u8>(), 4096),
        any::<bool>(),
    )
        .prop_map(|((call, flags, requester, chunk, length), (family, direction, n, total, first), mut bytes, fit)| {
            let length = if fit { 64_u32.saturating_add(n.saturating_mul(16)) } else { length };
            let header = abi::SlotHeader {
                flags: flags.into(),
                requester: requester.into(),
                chunk: chunk.into(),
                length: length.into(),
                ..header(call, 0)
            };
            let dma = abi::Dma { family, direction, count: n.into(), total: total.into(), first: first.into(), ..Default::default() };
            bytes[..64].copy_from_slice(header.as_bytes());
            bytes[64..128].copy_from_slice(dma.as_bytes());
            if fit {
                // Half of the ranges so that they do not wrap around.
                bytes[128..].chunks_mut(16).for_each(|r| r[7] = 0);
                bytes[128..].chunks_mut(16).for_each(|r| r[15] = 0);
            }
            bytes
        });
    prop_oneof![4 => shaped, 1 => prop::collection::vec(any::<u8>(), 4096)]
}
