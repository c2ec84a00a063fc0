//! The agent on the real coherence core: what a guest writes into a slot comes out as a finding, and nothing it writes hurts.

use dmavet_agent::{Agent, abi};
use dmavet_coherence::{Bdf, Code, Coherence, Config, Requester};
use proptest::prelude::*;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

const RAM: u64 = 64 << 20;
const SLOT: u64 = 0x10_0000;
const BUFFER: u64 = 0x20_0000;
const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

struct Guest {
    agent: Agent,
    core: Coherence,
    ram: Arc<GuestMemoryMmap>,
    /// The slots that were sent, as the fuzz target `agent` takes them.
    sent: Vec<u8>,
}

/// Leaves the slots for the fuzzers in the folder `DMAVET_CORPUS` names, if it does.
impl Drop for Guest {
    fn drop(&mut self) {
        let Some(folder) = std::env::var_os("DMAVET_CORPUS") else { return };
        // Random calls are many and alike.
        let test = std::thread::current().name().unwrap_or("test").to_owned();
        if std::thread::panicking() || test.contains("hostile") {
            return;
        }
        let folder = std::path::PathBuf::from(folder).join("agent");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(test), &self.sent).unwrap();
    }
}

impl Guest {
    fn new() -> Self {
        let size = usize::try_from(RAM).unwrap();
        let ram: Arc<GuestMemoryMmap> = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap());
        let core = Coherence::new(Config::for_ram(RAM), ram.clone()).unwrap();
        core.add_device(DEVICE, "ncdma");
        let mut agent = Agent::new(core.clone(), ram.clone());
        for (register, value) in [(abi::REG_SLOTS_LO, 0x10_0000_u32), (abi::REG_SLOTS_HI, 0), (abi::REG_SLOT_COUNT, 2)] {
            agent.write_register(register, &value.to_le_bytes());
        }
        let mut guest = Self { agent, core, ram, sent: Vec::new() };
        let hello = abi::Hello { abi: 1.into(), cpus: 1.into(), release: [b'6'; abi::NAME_LEN] };
        assert_eq!(guest.send(abi::CALL_HELLO, 0, hello.as_bytes()).status.get(), abi::STATUS_OK);
        guest
    }

    fn send(&mut self, call: u16, site: u64, payload: &[u8]) -> abi::SlotHeader {
        let mut header = abi::SlotHeader {
            version: abi::ABI_VERSION.into(),
            call: call.into(),
            flags: (abi::FIRST | abi::LAST).into(),
            requester: DEVICE.to_wire().into(),
            site: site.into(),
            length: u32::try_from(payload.len()).unwrap().into(),
            status: abi::STATUS_PENDING.into(),
            ..Default::default()
        };
        self.sent.extend([0, 0]);
        self.sent.extend(u16::try_from(64 + payload.len()).unwrap().to_le_bytes());
        self.sent.extend([header.as_bytes(), payload].concat());
        self.ram.write_slice(header.as_bytes(), GuestAddress(SLOT)).unwrap();
        self.ram.write_slice(payload, GuestAddress(SLOT + 64)).unwrap();
        self.agent.write_register(abi::REG_DOORBELL, &[0; 4]);
        self.ram.read_slice(header.as_mut_bytes(), GuestAddress(SLOT)).unwrap();
        header
    }

    fn dma(&mut self, call: u16, site: u64, dma: &abi::Dma, ranges: &[(u64, u64)]) -> (u32, u64) {
        let n = u32::try_from(ranges.len()).unwrap();
        let mut payload = abi::Dma { count: n.into(), total: n.into(), ..*dma }.as_bytes().to_vec();
        for (addr, len) in ranges {
            payload.extend_from_slice(abi::Range { addr: (*addr).into(), len: (*len).into() }.as_bytes());
        }
        let status = self.send(call, site, &payload).status.get();
        let mut handle = [0; 8];
        self.ram.read_slice(&mut handle, GuestAddress(SLOT + 128)).unwrap();
        (status, u64::from_le_bytes(handle))
    }

    fn announce(&mut self, hash: u64, names: &[&str]) {
        let frames: Vec<_> = names
            .iter()
            .zip(1_u64..)
            .map(|(name, n)| {
                let mut symbol = [0; abi::SYMBOL_LEN];
                symbol[..name.len()].copy_from_slice(name.as_bytes());
                abi::FrameRecord { address: (0xffff_ffff_c000_0000 + n).into(), symbol }
            })
            .collect();
        assert_eq!(self.send(abi::CALL_SITE, hash, frames.as_bytes()).status.get(), abi::STATUS_OK);
    }
}

fn single(direction: u8) -> abi::Dma {
    abi::Dma {
        family: 1,
        direction,
        mask: u64::MAX.into(),
        seg_boundary: 0xffff_ffff.into(),
        max_seg_size: 65536.into(),
        ..Default::default()
    }
}

#[test]
fn a_second_unmap_in_a_slot_is_dv101_at_the_drivers_line() {
    let mut guest = Guest::new();
    guest.announce(11, &["dma_map_page_attrs+0x1/0x2", "post_rx+0x10/0x80 [ncdma]"]);
    guest.announce(12, &["dma_unmap_page_attrs+0x1/0x2", "drop_rx+0x20/0x90 [ncdma]"]);
    let (status, handle) = guest.dma(abi::CALL_MAP, 11, &single(2), &[(BUFFER, 1500)]);
    assert_eq!(status, abi::STATUS_OK);
    assert!(handle >= RAM, "a handle is never an address of RAM here: {handle:#x}");
    for _ in 0..2 {
        assert_eq!(guest.dma(abi::CALL_UNMAP, 12, &single(2), &[(handle, 1500)]).0, abi::STATUS_OK);
    }
    let summary = guest.core.finish();
    let finding = summary.findings.iter().find(|f| f.code == Code::DV101).expect("a double unmap");
    assert_eq!(summary.sites.frames(finding.offence.site)[0].symbol, "drop_rx+0x20/0x90 [ncdma]");
}

#[test]
fn a_buffer_mapped_and_unmapped_in_order_is_no_finding() {
    let mut guest = Guest::new();
    let required = guest.send(abi::CALL_HELLO, 0, abi::Hello { abi: 1.into(), cpus: 1.into(), release: [b'6'; 64] }.as_bytes()).value.get();
    assert!(required > 0xffff_ffff, "{required:#x}");
    let (_, handle) = guest.dma(abi::CALL_MAP, 0, &single(1), &[(BUFFER + 100, 1500)]);
    assert_eq!(handle & 0xfff, 100, "the offset in the page stays");
    guest.dma(abi::CALL_UNMAP, 0, &single(1), &[(handle, 1500)]);
    let summary = guest.core.finish();
    assert!(summary.findings.is_empty(), "{:#?}", summary.findings);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Well-formed slots with hostile contents reach the core: it must answer every one.
    #[test]
    fn hostile_calls_are_answered(calls in prop::collection::vec(call(), 1..40)) {
        let mut guest = Guest::new();
        let mut handles = vec![0, u64::MAX, BUFFER];
        for (call, mut dma, ranges, pick) in calls {
            let known = handles[pick % handles.len()];
            let ranges: Vec<_> = ranges.into_iter().map(|(addr, len)| (if call == abi::CALL_MAP { addr } else { known.wrapping_add(addr & 0xfff) }, len)).collect();
            if dma.family != 2 {
                dma.total = 1.into();
            }
            let (status, handle) = guest.dma(call, 0, &dma, &ranges);
            prop_assert!(status <= abi::STATUS_MORE);
            if call == abi::CALL_MAP && status == abi::STATUS_OK {
                handles.push(handle);
            }
        }
        let _ = guest.core.finish();
    }
}

type Call = (u16, abi::Dma, Vec<(u64, u64)>, usize);

fn call() -> impl Strategy<Value = Call> {
    let addr = prop_oneof![3 => 0..RAM, 1 => RAM - 8192..RAM + 8192, 1 => any::<u64>()];
    let len = prop_oneof![4 => 0_u64..9000, 1 => Just(RAM), 1 => any::<u64>()];
    let mask = prop::sample::select(vec![0, 1, 0xff_ffff, 0xffff_ffff, u64::MAX]);
    let boundary = prop::sample::select(vec![0, 1, 0xfff, 0xffff, 0xffff_ffff, u64::MAX]);
    let head = (1_u8..6, 0_u8..4, 0_u8..5, 0_u8..2, prop_oneof![Just(0_u64), any::<u64>()]);
    let limits = (mask, boundary, prop_oneof![Just(65536_u32), any::<u32>()], prop_oneof![Just(0_u32), any::<u32>()]);
    let which = prop::sample::select(vec![abi::CALL_MAP, abi::CALL_MAP, abi::CALL_UNMAP, abi::CALL_SYNC, abi::CALL_SET_MASK]);
    (which, head, limits, prop::collection::vec((addr, len), 1..5), any::<usize>()).prop_map(|(which, head, limits, mut ranges, pick)| {
        let (family, direction, kind, flags, attrs) = head;
        if family != 2 {
            ranges.truncate(1);
        }
        let dma = abi::Dma {
            family,
            direction,
            kind,
            flags,
            attrs: attrs.into(),
            mask: limits.0.into(),
            seg_boundary: limits.1.into(),
            max_seg_size: limits.2.into(),
            min_align_mask: limits.3.into(),
            cpu_addr: (pick as u64).into(),
            ..Default::default()
        };
        (which, dma, ranges, pick)
    })
}
