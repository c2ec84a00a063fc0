//! From a copied slot to a request, everything checked.

use crate::abi;
use crate::event::ModuleLayout;
use crate::slot::SlotCopy;
use crate::text::{clean, symbol};
use dmavet_coherence::call::{AllocFlags, ApiCall, Extent, Limits, MapCall, Rejected, SyncCall, UnmapCall};
use dmavet_coherence::ids::{Attrs, Direction, Family, Gpa, Iova, PageKind, Requester};
use dmavet_coherence::site::Frame;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Why a slot made no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The agent speaks another version.
    #[error("agent protocol version {0}, the host speaks {ours}", ours = abi::ABI_VERSION)]
    Version(u32),
    /// The call's number is unknown.
    #[error("unknown agent call {0}")]
    UnknownCall(u16),
    /// A call that needs the hello before it.
    #[error("agent call {0} before the hello")]
    BeforeHello(u16),
    /// A payload of the wrong length.
    #[error("agent call {call} with a payload of {length} bytes")]
    Length {
        /// The call.
        call: u16,
        /// Its payload in bytes.
        length: usize,
    },
    /// Not a device.
    #[error("agent call for requester {0:#x}, which is no device")]
    Requester(u32),
    /// A field has a value that is not defined.
    #[error("agent call with {field} {value}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The counts of a chunk do not fit together.
    #[error("agent call with {count} ranges at {first} of {total} (a slot holds {slot}, a call {call})", slot = abi::RANGES_PER_SLOT, call = abi::MAX_RANGES)]
    Count {
        /// Ranges in this chunk.
        count: u32,
        /// Index of the first.
        first: u32,
        /// Ranges in all chunks.
        total: u32,
    },
    /// A chunk that does not continue what its slot began.
    #[error("agent chunk {chunk} at range {first} does not continue its call")]
    Chunk {
        /// Number of the chunk.
        chunk: u32,
        /// Index of its first range.
        first: u32,
    },
    /// Too many unfinished calls at once.
    #[error("unfinished agent calls hold {0} ranges")]
    TooMuch(usize),
    /// A range that wraps around the address space.
    #[error("agent call with {len:#x} bytes at {addr:#x}, past the end of the address space")]
    Wraps {
        /// First address.
        addr: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The slot is not in RAM.
    #[error("agent slot at {gpa:#x} is not in RAM")]
    Memory {
        /// Guest physical address of the slot.
        gpa: u64,
    },
    /// The slot array is not one.
    #[error("agent slot array of {count} slots at {base:#x} refused: 1 to {max} whole pages of RAM are wanted", max = abi::MAX_SLOTS)]
    SlotArray {
        /// Guest physical address.
        base: u64,
        /// Number of slots.
        count: u32,
    },
    /// The doorbell named no slot.
    #[error("agent doorbell for slot {0}, which does not exist")]
    Doorbell(u32),
}

/// What a slot asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Hello { release: String, cpus: u32 },
    Site(Vec<Frame>),
    Bound { requester: Requester, driver: String, module: String },
    Unbound { requester: Requester },
    Module { name: String, state: u32, layout: ModuleLayout },
    Blind(String),
    Dma(DmaChunk),
    SetMask { requester: Requester, mask: u64 },
    Fetch { first: u32 },
    Rejected { requester: Requester, what: Rejected },
    Output(Vec<u8>),
    Phase(String),
    Fail(String),
    Exit(i32),
    End,
    Panic(String),
}

/// Which DMA call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DmaOp {
    Map,
    Unmap,
    Sync { for_cpu: bool },
}

/// What all chunks of one DMA call have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DmaHead {
    pub op: DmaOp,
    pub requester: Requester,
    pub site: u64,
    pub family: Family,
    pub direction: Direction,
    pub kind: PageKind,
    pub object: (u32, u32),
    pub attrs: Attrs,
    pub limits: Limits,
    pub cpu_addr: u64,
    /// Ranges in all chunks.
    pub total: u32,
}

/// One chunk of a DMA call; short calls are a single one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DmaChunk {
    pub head: DmaHead,
    pub chunk: u32,
    pub first: u32,
    pub begins: bool,
    pub ends: bool,
    /// Address and length; none wraps around.
    pub ranges: Vec<(u64, u64)>,
}

impl DmaHead {
    /// The whole call for the core, once all `ranges` are there.
    pub(crate) fn into_call(self, ranges: &[(u64, u64)]) -> ApiCall {
        let handles = || ranges.iter().map(|(addr, len)| (Iova(*addr), *len)).collect();
        match self.op {
            DmaOp::Map => ApiCall::Map(MapCall {
                family: self.family,
                extents: ranges.iter().map(|(addr, len)| Extent { gpa: Gpa(*addr), len: *len }).collect(),
                direction: self.direction,
                attrs: self.attrs,
                limits: self.limits,
                kind: self.kind,
                object: self.object,
                cpu_addr: self.cpu_addr,
            }),
            DmaOp::Unmap => ApiCall::Unmap(UnmapCall {
                family: self.family,
                ranges: handles(),
                direction: self.direction,
                attrs: self.attrs,
                cpu_addr: self.cpu_addr,
            }),
            DmaOp::Sync { for_cpu } => {
                ApiCall::Sync(SyncCall { for_cpu, sg: self.family == Family::Sg, ranges: handles(), direction: self.direction })
            }
        }
    }
}

/// Decodes a slot.
///
/// # Errors
/// Anything that a correct agent never writes.
pub(crate) fn decode(slot: &SlotCopy) -> Result<Request, DecodeError> {
    let header = &slot.header;
    if header.version.get() != abi::ABI_VERSION {
        return Err(DecodeError::Version(header.version.get().into()));
    }
    match header.call.get() {
        abi::CALL_HELLO => hello(slot),
        abi::CALL_SITE => frames(slot).map(Request::Site),
        abi::CALL_BOUND => {
            let bound: abi::Bound = slot.exactly()?;
            Ok(Request::Bound { requester: requester(slot)?, driver: clean(&bound.driver), module: clean(&bound.module) })
        }
        abi::CALL_UNBOUND => Ok(Request::Unbound { requester: requester(slot)? }),
        abi::CALL_MODULE => module(slot),
        abi::CALL_BLIND => Ok(Request::Blind(clean(slot.payload()))),
        abi::CALL_MAP => dma(slot, DmaOp::Map).map(Request::Dma),
        abi::CALL_UNMAP => dma(slot, DmaOp::Unmap).map(Request::Dma),
        abi::CALL_SYNC => dma(slot, DmaOp::Sync { for_cpu: false }).map(Request::Dma),
        abi::CALL_SET_MASK => Ok(Request::SetMask { requester: requester(slot)?, mask: dma_head(slot)?.0.mask.get() }),
        abi::CALL_FETCH => Ok(Request::Fetch { first: dma_head(slot)?.0.first.get() }),
        abi::CALL_REJECTED => Ok(Request::Rejected { requester: requester(slot)?, what: rejected(slot)? }),
        abi::CALL_OUTPUT => Ok(Request::Output(slot.payload().to_vec())),
        abi::CALL_PHASE => Ok(Request::Phase(clean(slot.payload()))),
        abi::CALL_FAIL => Ok(Request::Fail(clean(slot.payload()))),
        abi::CALL_EXIT => slot.exactly::<abi::Exit>().map(|exit| Request::Exit(exit.code.get())),
        abi::CALL_END => Ok(Request::End),
        abi::CALL_PANIC => Ok(Request::Panic(clean(slot.payload()))),
        other => Err(DecodeError::UnknownCall(other)),
    }
}

fn requester(slot: &SlotCopy) -> Result<Requester, DecodeError> {
    let raw = slot.header.requester.get();
    Requester::from_wire(raw).ok_or(DecodeError::Requester(raw))
}

fn rejected(slot: &SlotCopy) -> Result<Rejected, DecodeError> {
    let raw: abi::Rejected = slot.exactly()?;
    let field = |field, value: u32| DecodeError::Field { field, value: value.into() };
    match raw.reason.get() {
        abi::REJECTED_FLAGS => {
            let flags = AllocFlags::from_bits(raw.flags.get()).filter(|flags| !flags.is_empty());
            flags.map(Rejected::Flags).ok_or_else(|| field("rejected flags", raw.flags.get()))
        }
        abi::REJECTED_VMALLOC => Ok(Rejected::Vmalloc),
        other => Err(field("rejected for reason", other)),
    }
}

fn hello(slot: &SlotCopy) -> Result<Request, DecodeError> {
    let hello: abi::Hello = slot.exactly()?;
    if hello.abi.get() != u32::from(abi::ABI_VERSION) {
        return Err(DecodeError::Version(hello.abi.get()));
    }
    let cpus = hello.cpus.get();
    if cpus == 0 || cpus >= abi::MAX_SLOTS {
        return Err(DecodeError::Field { field: "possible CPUs", value: cpus.into() });
    }
    Ok(Request::Hello { release: clean(&hello.release), cpus })
}

fn frame(record: &abi::FrameRecord) -> Frame {
    Frame::new(record.address.get(), symbol(&record.symbol))
}

fn frames(slot: &SlotCopy) -> Result<Vec<Frame>, DecodeError> {
    let records = <[abi::FrameRecord]>::ref_from_bytes(slot.payload()).map_err(|_| slot.bad_length())?;
    if records.is_empty() || records.len() > abi::MAX_FRAMES {
        return Err(slot.bad_length());
    }
    Ok(records.iter().map(frame).collect())
}

fn module(slot: &SlotCopy) -> Result<Request, DecodeError> {
    let module: abi::Module = slot.exactly()?;
    let state = module.state.get();
    if !(abi::MODULE_COMING..=abi::MODULE_GOING).contains(&state) {
        return Err(DecodeError::Field { field: "module state", value: state.into() });
    }
    let anchors = module.anchor.iter().take(module.anchors.get() as usize).map(frame).collect();
    let layout = ModuleLayout {
        text_base: module.text_base.get(),
        text_size: module.text_size.get(),
        init_base: module.init_base.get(),
        init_size: module.init_size.get(),
        anchors,
    };
    Ok(Request::Module { name: clean(&module.name), state, layout })
}

/// The fixed part of a DMA call's payload and the bytes after it.
fn dma_head(slot: &SlotCopy) -> Result<(abi::Dma, &[u8]), DecodeError> {
    abi::Dma::read_from_prefix(slot.payload()).map_err(|_| slot.bad_length())
}

/// The first `count` records of `bytes`, which must hold exactly those.
fn records<'a, T>(slot: &SlotCopy, bytes: &'a [u8], count: u32) -> Result<&'a [T], DecodeError>
where
    T: FromBytes + Immutable + KnownLayout + zerocopy::Unaligned,
{
    let records = <[T]>::ref_from_bytes(bytes).map_err(|_| slot.bad_length())?;
    if records.len() == count as usize { Ok(records) } else { Err(slot.bad_length()) }
}

fn dma(slot: &SlotCopy, op: DmaOp) -> Result<DmaChunk, DecodeError> {
    let (raw, rest) = dma_head(slot)?;
    let flags = slot.header.flags.get();
    let field = |field, value: u8| DecodeError::Field { field, value: value.into() };
    let family = Family::from_wire(raw.family).ok_or_else(|| field("family", raw.family))?;
    let direction = Direction::from_wire(raw.direction).ok_or_else(|| field("direction", raw.direction))?;
    let op = match op {
        DmaOp::Sync { .. } if !matches!(family, Family::Single | Family::Sg) => return Err(field("a sync of family", raw.family)),
        DmaOp::Sync { .. } => DmaOp::Sync { for_cpu: raw.flags & abi::DMA_FOR_CPU != 0 },
        other => other,
    };
    let (count, first, total) = (raw.count.get(), raw.first.get(), raw.total.get());
    let bad_count = DecodeError::Count { count, first, total };
    let most = if family == Family::Sg { abi::MAX_RANGES } else { 1 };
    if count == 0 || total > most || first.checked_add(count).is_none_or(|end| end > total) {
        return Err(bad_count);
    }
    let ranges = records::<abi::Range>(slot, rest, count)?
        .iter()
        .map(|range| {
            let (addr, len) = (range.addr.get(), range.len.get());
            // Memory lies below the end of the address space. Handles are whatever the driver passes: DMA_MAPPING_ERROR is all-ones.
            let wraps = op == DmaOp::Map && addr.checked_add(len).is_none();
            if wraps { Err(DecodeError::Wraps { addr, len }) } else { Ok((addr, len)) }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let head = DmaHead {
        op,
        requester: requester(slot)?,
        site: slot.header.site.get(),
        family,
        direction,
        kind: PageKind::from_wire(raw.kind),
        object: (raw.object_before.get(), raw.object_after.get()),
        attrs: Attrs::from_bits_retain(raw.attrs.get()),
        limits: Limits {
            mask: raw.mask.get(),
            seg_boundary: raw.seg_boundary.get(),
            max_seg_size: raw.max_seg_size.get(),
            min_align_mask: raw.min_align_mask.get(),
        },
        cpu_addr: raw.cpu_addr.get(),
        total,
    };
    let chunk = slot.header.chunk.get();
    Ok(DmaChunk { head, chunk, first, begins: flags & abi::FIRST != 0, ends: flags & abi::LAST != 0, ranges })
}
