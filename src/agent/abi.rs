//! Registers and slots as they lie in memory: the twin of `guest-images/agent/dmavet_abi.h`, no logic.
//!
//! All numbers are little-endian. The fields' meaning is documented in the header and in `docs/protocol.md`.

use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[cfg(test)]
mod tests;

/// PCI vendor of the agent's function (private, unregistered).
pub const PCI_VENDOR: u16 = 0xda5e;
/// PCI device id of the agent's function.
pub const PCI_DEVICE: u16 = 0x0001;

/// RO, [`MAGIC`].
pub const REG_MAGIC: u64 = 0x00;
/// RO, [`ABI_VERSION`].
pub const REG_ABI: u64 = 0x04;
/// RW, guest physical address of the slot array, low half.
pub const REG_SLOTS_LO: u64 = 0x08;
/// RW, high half.
pub const REG_SLOTS_HI: u64 = 0x0c;
/// RW, number of slots; writing it makes the host accept the array.
pub const REG_SLOT_COUNT: u64 = 0x10;
/// WO, index of the slot that was filled.
pub const REG_DOORBELL: u64 = 0x14;
/// RO, `STATE_*`.
pub const REG_STATUS: u64 = 0x18;
/// Size of BAR 0 in bytes.
pub const REG_BAR_SIZE: u64 = 0x1000;

/// Value of [`REG_MAGIC`].
pub const MAGIC: u32 = 0x5456_4d44;
/// Version of this protocol.
pub const ABI_VERSION: u16 = 1;
/// [`REG_STATUS`]: the slot array was accepted.
pub const STATE_READY: u32 = 1;
/// [`REG_STATUS`]: the last doorbell named no slot.
pub const STATE_REFUSED: u32 = 2;

/// Size of a slot in bytes.
pub const SLOT_SIZE: usize = 4096;
/// Most slots an array may have.
pub const MAX_SLOTS: u32 = 1025;
/// Bytes of a slot after its header.
pub const PAYLOAD_SIZE: usize = 4032;

/// [`Hello`]
pub const CALL_HELLO: u16 = 1;
/// [`FrameRecord`]s
pub const CALL_SITE: u16 = 2;
/// [`Bound`]
pub const CALL_BOUND: u16 = 3;
/// No payload.
pub const CALL_UNBOUND: u16 = 4;
/// [`Module`]
pub const CALL_MODULE: u16 = 5;
/// Text.
pub const CALL_BLIND: u16 = 6;
/// [`Dma`], maps and allocations.
pub const CALL_MAP: u16 = 16;
/// [`Dma`], unmaps and frees.
pub const CALL_UNMAP: u16 = 17;
/// [`Dma`]
pub const CALL_SYNC: u16 = 18;
/// [`Dma`], only `mask` is used.
pub const CALL_SET_MASK: u16 = 19;
/// [`Dma`], only `first` is used.
pub const CALL_FETCH: u16 = 20;
/// [`Rejected`]
pub const CALL_REJECTED: u16 = 21;
/// Bytes.
pub const CALL_OUTPUT: u16 = 32;
/// Text.
pub const CALL_PHASE: u16 = 33;
/// Text.
pub const CALL_FAIL: u16 = 34;
/// [`Exit`]
pub const CALL_EXIT: u16 = 35;
/// No payload.
pub const CALL_END: u16 = 36;
/// Text.
pub const CALL_PANIC: u16 = 37;

/// First chunk of a call.
pub const FIRST: u32 = 1;
/// Last chunk of a call.
pub const LAST: u32 = 2;

/// Done.
pub const STATUS_OK: u32 = 0;
/// Failed as the DMA API may fail.
pub const STATUS_FAILED: u32 = 1;
/// Not understood.
pub const STATUS_MALFORMED: u32 = 2;
/// Chunk taken, the call is not complete yet.
pub const STATUS_MORE: u32 = 3;
/// What the guest writes before it rings.
pub const STATUS_PENDING: u32 = 0xffff_ffff;

/// Length of a name, NUL-padded.
pub const NAME_LEN: usize = 64;
/// Length of a symbol, NUL-padded.
pub const SYMBOL_LEN: usize = 160;
/// Most frames of an announced stack.
pub const MAX_FRAMES: usize = 24;
/// Most anchors of a module.
pub const MAX_ANCHORS: usize = 4;

/// [`Rejected`]: an allocation, for its flags.
pub const REJECTED_FLAGS: u32 = 1;
/// [`Rejected`]: a map of vmalloc memory.
pub const REJECTED_VMALLOC: u32 = 2;

/// A module is about to be initialised.
pub const MODULE_COMING: u32 = 1;
/// A module's init returned.
pub const MODULE_LIVE: u32 = 2;
/// A module is going.
pub const MODULE_GOING: u32 = 3;

/// SYNC: for_cpu, else for_device.
pub const DMA_FOR_CPU: u8 = 1;

/// Ranges of one slot.
pub const RANGES_PER_SLOT: usize = 248;
/// Ranges of one call, all chunks together.
pub const MAX_RANGES: u32 = 65536;

/// Bit of a requester that is a platform node ([`Requester::to_wire`](dmavet_coherence::Requester::to_wire)).
pub const REQUESTER_PLATFORM: u32 = dmavet_coherence::Requester::Platform(0).to_wire();

/// The first 64 bytes of a slot (`struct dmavet_slot`).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SlotHeader {
    /// [`ABI_VERSION`].
    pub version: U16,
    /// `CALL_*`.
    pub call: U16,
    /// [`FIRST`] and [`LAST`].
    pub flags: U32,
    /// Wire form of a [`Requester`](dmavet_coherence::ids::Requester).
    pub requester: U32,
    /// The CPU that rings.
    pub cpu: U32,
    /// Hash of the call stack, 0 when it is not known.
    pub site: U64,
    /// Payload in bytes.
    pub length: U32,
    /// Calls the agent had to drop since it was loaded.
    pub lost: U32,
    /// Number of this chunk, from 0.
    pub chunk: U32,
    /// Zero.
    pub reserved0: U32,
    /// Zero.
    pub reserved1: U64,
    /// The answer, `STATUS_*`.
    pub status: U32,
    /// The answer's number of handles.
    pub count: U32,
    /// The answer's value.
    pub value: U64,
}

/// Payload of [`CALL_HELLO`] (`struct dmavet_hello`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Hello {
    /// The guest's [`ABI_VERSION`].
    pub abi: U32,
    /// Possible CPUs.
    pub cpus: U32,
    /// `uname -r`.
    pub release: [u8; NAME_LEN],
}

/// One frame (`struct dmavet_frame`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FrameRecord {
    /// Guest virtual address.
    pub address: U64,
    /// `func+0x1a/0x80 [module]`.
    pub symbol: [u8; SYMBOL_LEN],
}

/// Payload of [`CALL_BOUND`] (`struct dmavet_bound`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Bound {
    /// The driver's name.
    pub driver: [u8; NAME_LEN],
    /// Its module's name.
    pub module: [u8; NAME_LEN],
}

/// Payload of [`CALL_MODULE`] (`struct dmavet_module`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Module {
    /// `MODULE_*`.
    pub state: U32,
    /// Entries used in `anchor`.
    pub anchors: U32,
    /// First address of the text region.
    pub text_base: U64,
    /// Its size in bytes.
    pub text_size: U64,
    /// First address of the init text.
    pub init_base: U64,
    /// Its size in bytes.
    pub init_size: U64,
    /// The module's name.
    pub name: [u8; NAME_LEN],
    /// Functions in it.
    pub anchor: [FrameRecord; MAX_ANCHORS],
}

/// Payload of [`CALL_EXIT`] (`struct dmavet_exit`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Exit {
    /// The workload's exit status.
    pub code: I32,
    /// Zero.
    pub reserved: U32,
}

/// Payload of [`CALL_REJECTED`] (`struct dmavet_rejected`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Rejected {
    /// `REJECTED_*`.
    pub reason: U32,
    /// Bits of [`AllocFlags`](dmavet_coherence::AllocFlags), for [`REJECTED_FLAGS`].
    pub flags: U32,
}

/// One range (`struct dmavet_range`).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Range {
    /// Guest physical address for a map, a handle (IOVA) everywhere else.
    pub addr: U64,
    /// Bytes.
    pub len: U64,
}

/// Head of the payload of the DMA calls, before the ranges (`struct dmavet_dma`).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Dma {
    /// Wire form of a [`Family`](dmavet_coherence::ids::Family).
    pub family: u8,
    /// `enum dma_data_direction`.
    pub direction: u8,
    /// Wire form of a [`PageKind`](dmavet_coherence::ids::PageKind).
    pub kind: u8,
    /// [`DMA_FOR_CPU`].
    pub flags: u8,
    /// Ranges in this chunk.
    pub count: U32,
    /// Ranges in all chunks.
    pub total: U32,
    /// Index of this chunk's first range.
    pub first: U32,
    /// `DMA_ATTR_*`.
    pub attrs: U64,
    /// The device's mask.
    pub mask: U64,
    /// `dma_get_seg_boundary()`.
    pub seg_boundary: U64,
    /// `dma_get_max_seg_size()`.
    pub max_seg_size: U32,
    /// `dma_get_min_align_mask()`.
    pub min_align_mask: U32,
    /// Pointer an allocation gave the driver.
    pub cpu_addr: U64,
    /// MAP of slab memory: bytes of the same object before the mapping.
    pub object_before: U32,
    /// And behind it.
    pub object_after: U32,
}
