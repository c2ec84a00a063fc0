//! A hostile guest: slots, registers, its memory, and a device that uses the handles it was given.

use crate::ops::Ops;
use dmavet_agent::{Agent, abi};
use dmavet_coherence::{Bdf, Coherence, Config, Requester, WatchPolicy};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 4 << 20;
const RAM_BYTES: usize = 4 << 20;
/// Where the slot array is before the guest says something else.
pub(crate) const SLOTS: u64 = 0x4000;
const SLOT_COUNT: u32 = 4;
/// Operations of one input: a list of 65,536 entries takes 265 slots.
const MOST: usize = 300;
pub(crate) const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

/// The operations' tags.
pub(crate) mod tag {
    /// Slot index, length (u16), bytes: written to the slot's beginning, doorbell.
    pub(crate) const SLOT: u8 = 0;
    /// Slot index, offset (u16), length (u8), bytes: written into the slot as it was answered, doorbell.
    pub(crate) const PATCH: u8 = 1;
    /// Offset (u16), value (u32): a register.
    pub(crate) const REGISTER: u8 = 2;
    /// Slot index, offset (u16), length (u16), how (u8): the device uses the first range in the slot.
    pub(crate) const DEVICE: u8 = 3;
    /// Address (u32), length (u16), value: the guest's CPU writes.
    pub(crate) const STORE: u8 = 4;
    /// A register is read.
    pub(crate) const READ: u8 = 5;
    /// The function is reset.
    pub(crate) const RESET: u8 = 6;
    pub(crate) const COUNT: u8 = 7;
}

/// Plays a guest that writes these slots and registers.
///
/// # Panics
/// When the agent or the core does, and when the core keeps more than what is mapped accounts for.
pub fn agent(bytes: &[u8]) {
    let ram: Arc<GuestMemoryMmap> =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).expect("memory for a guest of 4 MiB"));
    let mut ops = Ops(bytes);
    let config = Config { pedantic: true, watch: WatchPolicy::Off, ..Config::for_ram(RAM) };
    let core = Coherence::new(config, Arc::clone(&ram)).expect("the configuration is right");
    core.add_device(DEVICE, "fuzz");
    core.set_bus_master(DEVICE, true);
    let view = core.view(DEVICE);
    let mut agent = Agent::new(core.clone(), Arc::clone(&ram));
    let mut set = |register: u64, value: u32| agent.write_register(register, &value.to_le_bytes());
    set(abi::REG_SLOTS_LO, u32::try_from(SLOTS).unwrap_or(0));
    set(abi::REG_SLOTS_HI, 0);
    set(abi::REG_SLOT_COUNT, SLOT_COUNT);
    for _ in 0..MOST {
        let Some(tag) = ops.next() else { break };
        match tag % tag::COUNT {
            tag::SLOT => {
                let index = ops.u8();
                let len = usize::from(ops.u16()) % (abi::SLOT_SIZE + 1);
                let _ = ram.write_slice(ops.take(len), GuestAddress(slot(index)));
                agent.write_register(abi::REG_DOORBELL, &u32::from(index).to_le_bytes());
            }
            tag::PATCH => {
                let index = ops.u8();
                let (offset, len) = (u64::from(ops.u16()) % 4096, usize::from(ops.u8()));
                let _ = ram.write_slice(ops.take(len), GuestAddress(slot(index) + offset));
                agent.write_register(abi::REG_DOORBELL, &u32::from(index).to_le_bytes());
            }
            tag::REGISTER => {
                let offset = u64::from(ops.u16());
                agent.write_register(offset, &ops.u32().to_le_bytes());
            }
            tag::DEVICE => {
                let mut handle = [0; 8];
                let _ = ram.read_slice(&mut handle, GuestAddress(slot(ops.u8()) + 128));
                let at = GuestAddress(u64::from_le_bytes(handle).wrapping_add(ops.u16().into()));
                let mut data = vec![0x5a; usize::from(ops.u16()) % 9000];
                let _ = match ops.u8() % 4 {
                    0 => view.read_slice(&mut data, at),
                    1 => view.polling().read_slice(&mut data, at),
                    2 => view.prefetching().read_slice(&mut data, at),
                    _ => view.write_slice(&data, at),
                };
            }
            tag::STORE => {
                let (at, len) = (u64::from(ops.u32()) % RAM, usize::from(ops.u16()) % 9000);
                let _ = ram.write_slice(&vec![ops.u8(); len], GuestAddress(at));
            }
            tag::READ => agent.read_register(ops.u16().into(), &mut vec![0; usize::from(ops.u8() % 9)]),
            _ => agent.reset(),
        }
    }
    let summary = core.finish();
    let stats = &summary.stats;
    assert!(stats.tracked_pages <= RAM / 4096, "{} pages are tracked", stats.tracked_pages);
    assert!(stats.live_mappings + stats.unmaps.min(stats.maps) <= stats.maps + stats.unmaps, "{stats:?}");
    assert!(summary.findings.len() <= Config::for_ram(RAM).max_findings + 1, "{} findings", summary.findings.len());
}

fn slot(index: u8) -> u64 {
    SLOTS + u64::from(index) * abi::SLOT_SIZE as u64
}
