//! Registers and layouts of ncdma, section by section of `docs/ncdma.md`. No logic.

use crate::pci::{BarSpec, Identity, MsixSpec};
use crate::registers::Access::{self, Ro, Rw, W1c, Wo};
use crate::registers::{Register, RegisterMap, Widths};

// Section 2: identity on PCI, and without.
pub(super) const IDENTITY: Identity = Identity::dmavet(0x0010, 0x08_01_00);
pub(super) const REGISTER_BAR: usize = 0;
pub(super) const BARS: [BarSpec; 2] = [BarSpec::memory32(REGISTER_BAR, REGISTER_BYTES), BarSpec::memory32(1, 0x1000)];
pub(super) const MSIX: MsixSpec = MsixSpec::own_bar(4, 1);
pub(super) const ERROR_VECTOR: u16 = 3;
/// Bytes of the register window.
pub(super) const REGISTER_BYTES: u64 = 0x1000;
/// What a driver matches where there is no PCI.
pub(super) const COMPATIBLE: &str = "dmavet,ncdma";

// Section 3: registers.
pub(super) const ID: u32 = 0x4e43_4d41;
pub(super) const VERSION: u32 = 0x0001_0000;
pub(super) const CAPS_MAX_RING_LOG2: u32 = 8 << 8;
pub(super) const CAPS_MAX_BUFFER_KIB: u32 = 1024 << 16;
pub(super) const CTRL_ENABLE: u32 = 1;
pub(super) const CTRL_RESET: u32 = 1 << 1;
pub(super) const CTRL_INT_ENABLE: u32 = 1 << 2;
pub(super) const STATUS_ENABLED: u32 = 1;
pub(super) const STATUS_HALTED: u32 = 1 << 1;
pub(super) const INT_ERROR: u32 = 1 << ERROR_VECTOR;
pub(super) const INT_ALL: u32 = 0xf;
pub(super) const TX_LOOPBACK: u32 = 1;
pub(super) const RING_ENABLE: u32 = 1;
pub(super) const STATUS_BLOCK_ALIGN: u32 = 64;

pub(super) const MAX_FRAME: u32 = 65536;
pub(super) const MAX_FRAMES: u32 = 256;
pub(super) const MAX_BUFFER: u32 = 1024 * 1024;
pub(super) const MIN_RING: u32 = 2;
pub(super) const MAX_RING: u32 = 256;

/// A register of BAR 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Id,
    Version,
    Caps,
    Ctrl,
    Status,
    Error,
    ErrAddrLo,
    ErrAddrHi,
    IntStatus,
    IntMask,
    StatusBlockLo,
    StatusBlockHi,
    GenSeed,
    GenLen,
    GenCount,
    GenDone,
    GenDropped,
    TxCtrl,
    LoopDropped,
    Ring(RingId, RingReg),
}

/// One of the three rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingId {
    Command,
    Transmit,
    Receive,
}

impl RingId {
    /// Its interrupt vector, which is also its bit in INT_STATUS and INT_MASK.
    pub(super) const fn vector(self) -> u16 {
        match self {
            Self::Command => 0,
            Self::Transmit => 1,
            Self::Receive => 2,
        }
    }
}

/// A register of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingReg {
    BaseLo,
    BaseHi,
    Size,
    Head,
    Tail,
    Ctrl,
}

const fn row(reg: Reg, offset: u64, access: Access) -> Register<Reg> {
    Register::new(reg, offset, 4, access)
}

/// The register of the ring at `base`, in the order of the datasheet.
const fn ring(id: RingId, base: u64, reg: RingReg) -> Register<Reg> {
    let (offset, access) = match reg {
        RingReg::BaseLo => (0x00, Rw),
        RingReg::BaseHi => (0x04, Rw),
        RingReg::Size => (0x08, Rw),
        RingReg::Head => (0x0c, Ro),
        RingReg::Tail => (0x10, Rw),
        RingReg::Ctrl => (0x14, Rw),
    };
    row(Reg::Ring(id, reg), base + offset, access)
}

/// BAR 0. Registers are 32 bits wide and only aligned 32-bit accesses work.
pub(super) const REGISTERS: RegisterMap<Reg> = RegisterMap::new(TABLE, Widths::Exact);

const TABLE: &[Register<Reg>] = &[
    row(Reg::Id, 0x000, Ro),
    row(Reg::Version, 0x004, Ro),
    row(Reg::Caps, 0x008, Ro),
    row(Reg::Ctrl, 0x00c, Rw),
    row(Reg::Status, 0x010, Ro),
    row(Reg::Error, 0x014, Ro),
    row(Reg::ErrAddrLo, 0x018, Ro),
    row(Reg::ErrAddrHi, 0x01c, Ro),
    row(Reg::IntStatus, 0x020, W1c),
    row(Reg::IntMask, 0x024, Rw),
    row(Reg::StatusBlockLo, 0x040, Rw),
    row(Reg::StatusBlockHi, 0x044, Rw),
    row(Reg::GenSeed, 0x060, Rw),
    row(Reg::GenLen, 0x064, Rw),
    row(Reg::GenCount, 0x068, Wo),
    row(Reg::GenDone, 0x06c, Ro),
    row(Reg::GenDropped, 0x070, Ro),
    row(Reg::TxCtrl, 0x074, Rw),
    row(Reg::LoopDropped, 0x078, Ro),
    ring(RingId::Command, 0x100, RingReg::BaseLo),
    ring(RingId::Command, 0x100, RingReg::BaseHi),
    ring(RingId::Command, 0x100, RingReg::Size),
    ring(RingId::Command, 0x100, RingReg::Head),
    ring(RingId::Command, 0x100, RingReg::Tail),
    ring(RingId::Command, 0x100, RingReg::Ctrl),
    ring(RingId::Transmit, 0x140, RingReg::BaseLo),
    ring(RingId::Transmit, 0x140, RingReg::BaseHi),
    ring(RingId::Transmit, 0x140, RingReg::Size),
    ring(RingId::Transmit, 0x140, RingReg::Head),
    ring(RingId::Transmit, 0x140, RingReg::Tail),
    ring(RingId::Transmit, 0x140, RingReg::Ctrl),
    ring(RingId::Receive, 0x180, RingReg::BaseLo),
    ring(RingId::Receive, 0x180, RingReg::BaseHi),
    ring(RingId::Receive, 0x180, RingReg::Size),
    ring(RingId::Receive, 0x180, RingReg::Head),
    ring(RingId::Receive, 0x180, RingReg::Tail),
    ring(RingId::Receive, 0x180, RingReg::Ctrl),
];

// Section 4: descriptor.
pub(super) const DESCRIPTOR_STRIDE: u64 = 128;
/// What the device reads of a descriptor.
pub(super) const DESCRIPTOR_READ: usize = 0x20;
/// Where the write-back area begins.
pub(super) const WRITE_BACK: u64 = 0x40;
pub(super) const FLAG_IRQ: u32 = 1 << 30;
pub(super) const FLAG_OWN: u32 = 1 << 31;
pub(super) const FLAGS_OPCODE: u32 = 0xff;
pub(super) const FLAGS_RESERVED: u32 = !(FLAG_IRQ | FLAG_OWN | FLAGS_OPCODE);
pub(super) const OP_COPY: u32 = 0x01;
pub(super) const OP_FILL: u32 = 0x02;
pub(super) const OP_CHECKSUM: u32 = 0x03;
pub(super) const OP_SEND: u32 = 0x10;
pub(super) const OP_RECEIVE: u32 = 0x20;
pub(super) const STATUS_OK: u32 = 1;
pub(super) const STATUS_ERROR: u32 = 1 << 31;
pub(super) const FNV_BASIS: u32 = 0x811c_9dc5;
pub(super) const FNV_PRIME: u32 = 0x0100_0193;

/// The 32 bytes the device reads of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) flags: u32,
    pub(super) len: u32,
    pub(super) src: u64,
    pub(super) dst: u64,
    pub(super) param: u32,
    pub(super) reserved: u32,
}

impl Descriptor {
    /// Takes the little-endian bytes apart.
    pub(super) fn from_bytes(bytes: &[u8; DESCRIPTOR_READ]) -> Self {
        let word = |offset| {
            let bytes = bytes.iter().skip(offset).take(4);
            bytes.rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
        };
        let long = |offset| u64::from(word(offset)) | u64::from(word(offset + 4)) << 32;
        Self { flags: word(0x00), len: word(0x04), src: long(0x08), dst: long(0x10), param: word(0x18), reserved: word(0x1c) }
    }
}

// Section 7: status block.
pub(super) const STATUS_BLOCK_SIZE: usize = 64;

/// Section 8: errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ErrorCode {
    DescriptorFault = 1,
    BadDescriptor = 2,
    BadRing = 3,
    DataFault = 4,
    BadLength = 5,
}

impl ErrorCode {
    /// Whether the device halts.
    pub(super) const fn halts(self) -> bool {
        matches!(self, Self::DescriptorFault | Self::BadDescriptor | Self::BadRing)
    }
}
