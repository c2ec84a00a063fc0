//! Registers and layouts of NVM Express 1.4. No logic. Figure and section numbers are those of the base specification, revision 1.4.

use crate::pci::{BarKind, BarSpec, Identity, MsixSpec};
use crate::registers::Access::{Ro, Rw, Wo};
use crate::registers::{Register, RegisterMap, Widths};

/// NVM Express I/O controller: mass storage, non-volatile memory, NVMe (section 2.1.5).
pub(super) const IDENTITY: Identity = Identity::dmavet(0x0020, 0x01_08_02);
pub(super) const BAR: usize = 0;
/// Registers, doorbells, MSI-X table and pending bits, a page each.
pub(super) const BARS: [BarSpec; 1] = [BarSpec { index: BAR, kind: BarKind::Memory64, size: 0x4000, prefetchable: false }];
pub(super) const DOORBELLS: u64 = 0x1000;
pub(super) const MSIX_TABLE: u64 = 0x2000;

/// A vector for the admin queue and each of `queues` I/O queues.
pub(super) const fn msix(queues: u16) -> MsixSpec {
    MsixSpec { vectors: queues + 1, bar: 0, table_offset: 0x2000, pba_offset: 0x3000 }
}

// Section 3.1: controller properties.

/// A register below the doorbells. What is not here is reserved, or optional and not there: it reads as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Cap,
    Vs,
    Intms,
    Intmc,
    Cc,
    Csts,
    Nssr,
    Aqa,
    Asq,
    Acq,
}

pub(super) const REGISTERS: RegisterMap<Reg> = RegisterMap::new(
    &[
        Register::new(Reg::Cap, 0x00, 8, Ro),
        Register::new(Reg::Vs, 0x08, 4, Ro),
        Register::new(Reg::Intms, 0x0c, 4, Rw),
        Register::new(Reg::Intmc, 0x10, 4, Rw),
        Register::new(Reg::Cc, 0x14, 4, Rw),
        Register::new(Reg::Csts, 0x1c, 4, Rw),
        Register::new(Reg::Nssr, 0x20, 4, Wo),
        Register::new(Reg::Aqa, 0x24, 4, Rw),
        Register::new(Reg::Asq, 0x28, 8, Rw),
        Register::new(Reg::Acq, 0x30, 8, Rw),
    ],
    Widths::Any,
)
.with_holes(0);

/// Entries of an I/O queue.
pub(super) const MOST_ENTRIES: u16 = 256;
/// Queues contiguous, enabled within 10 s, NVM command set, 4 KiB pages only, doorbells next to each other.
pub(super) const CAP: u64 = (MOST_ENTRIES as u64 - 1) | 1 << 16 | 20 << 24 | 1 << 37;
pub(super) const VERSION: u32 = 0x0001_0400;
pub(super) const CC_ENABLE: u32 = 1;
/// Command set, page size and arbitration (bits 4 to 13): 0 is all there is.
pub(super) const CC_CHOICES: u32 = 0x3ff0;
pub(super) const CC_SHUTDOWN: u32 = 3 << 14;
pub(super) const CC_BITS: u32 = 0x00ff_fff1;
/// Log2 of the size of a submission queue entry (bits 16 to 19) and a completion queue entry (bits 20 to 23).
pub(super) const CC_SQ_ENTRY: u32 = 16;
pub(super) const CC_CQ_ENTRY: u32 = 20;
pub(super) const CSTS_READY: u32 = 1;
pub(super) const CSTS_FATAL: u32 = 1 << 1;
pub(super) const CSTS_SHUT: u32 = 2 << 2;

pub(super) const PAGE: u64 = 4096;
pub(super) const SQ_ENTRY: usize = 64;
pub(super) const SQ_ENTRY_LOG2: u32 = 6;
pub(super) const CQ_ENTRY: u64 = 16;
pub(super) const CQ_ENTRY_LOG2: u32 = 4;
/// MDTS: a command moves at most 4 MiB.
pub(super) const MOST_DATA_LOG2_PAGES: u8 = 10;
pub(super) const MOST_DATA: u64 = PAGE << MOST_DATA_LOG2_PAGES;
pub(super) const SECTOR: u64 = 512;
/// LBADS of the only format.
pub(super) const SECTOR_LOG2: u8 = 9;
pub(super) const NAMESPACE: u32 = 1;
pub(super) const EVERY_NAMESPACE: u32 = 0xffff_ffff;
/// AERL + 1.
pub(super) const MOST_EVENTS: usize = 4;
/// ELPE + 1.
pub(super) const ERROR_ENTRIES: usize = 4;
/// Units of HMMIN: 64 KiB of host memory are worth using.
pub(super) const LEAST_HOST_PAGES: u32 = 16;
/// HMMAXD.
pub(super) const MOST_HOST_DESCRIPTORS: u16 = 256;
pub(super) const HOST_DESCRIPTOR: usize = 16;

/// A submission queue entry (figure 105).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) opcode: u8,
    /// Fused operation and PRP or SGL.
    pub(super) flags: u8,
    pub(super) id: u16,
    pub(super) nsid: u32,
    pub(super) prp1: u64,
    pub(super) prp2: u64,
    pub(super) dw10: u32,
    pub(super) dw11: u32,
    pub(super) dw12: u32,
    pub(super) dw13: u32,
    pub(super) dw14: u32,
    pub(super) dw15: u32,
}

impl Command {
    /// Takes the little-endian bytes apart.
    pub(super) fn from_bytes(bytes: &[u8; SQ_ENTRY]) -> Self {
        let word = |at| dword(bytes, at);
        let [opcode, flags, id @ ..] = word(0).to_le_bytes();
        Self {
            opcode,
            flags,
            id: u16::from_le_bytes(id),
            nsid: word(4),
            prp1: qword(bytes, 24),
            prp2: qword(bytes, 32),
            dw10: word(40),
            dw11: word(44),
            dw12: word(48),
            dw13: word(52),
            dw14: word(56),
            dw15: word(60),
        }
    }

    /// SLBA of the commands that have one.
    pub(super) fn first_sector(&self) -> u64 {
        u64::from(self.dw10) | u64::from(self.dw11) << 32
    }

    /// NLB of the commands that have one, counted from 1.
    pub(super) fn sectors(&self) -> u64 {
        u64::from(self.dw12 & 0xffff) + 1
    }
}

/// The little-endian 32 bits at `at`; 0 where there is nothing.
pub(super) fn dword(bytes: &[u8], at: usize) -> u32 {
    bytes.iter().skip(at).take(4).rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The little-endian 64 bits at `at`.
pub(super) fn qword(bytes: &[u8], at: usize) -> u64 {
    u64::from(dword(bytes, at)) | u64::from(dword(bytes, at + 4)) << 32
}

/// Copies `from` to `at`, as far as it fits.
pub(super) fn put(bytes: &mut [u8], at: usize, from: &[u8]) {
    bytes.iter_mut().skip(at).zip(from).for_each(|(to, from)| *to = *from);
}

/// The low 16 bits.
pub(super) const fn word(value: u32) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// Admin commands (figure 139).
pub(super) mod admin {
    pub(in super::super) const DELETE_SQ: u8 = 0x00;
    pub(in super::super) const CREATE_SQ: u8 = 0x01;
    pub(in super::super) const GET_LOG_PAGE: u8 = 0x02;
    pub(in super::super) const DELETE_CQ: u8 = 0x04;
    pub(in super::super) const CREATE_CQ: u8 = 0x05;
    pub(in super::super) const IDENTIFY: u8 = 0x06;
    pub(in super::super) const ABORT: u8 = 0x08;
    pub(in super::super) const SET_FEATURES: u8 = 0x09;
    pub(in super::super) const GET_FEATURES: u8 = 0x0a;
    pub(in super::super) const ASYNC_EVENT: u8 = 0x0c;
    /// All of them.
    pub(in super::super) const ALL: [u8; 10] =
        [DELETE_SQ, CREATE_SQ, GET_LOG_PAGE, DELETE_CQ, CREATE_CQ, IDENTIFY, ABORT, SET_FEATURES, GET_FEATURES, ASYNC_EVENT];
}

/// Commands of the NVM command set (figure 346).
pub(super) mod nvm {
    pub(in super::super) const FLUSH: u8 = 0x00;
    pub(in super::super) const WRITE: u8 = 0x01;
    pub(in super::super) const READ: u8 = 0x02;
    pub(in super::super) const WRITE_ZEROES: u8 = 0x08;
    pub(in super::super) const DATASET_MANAGEMENT: u8 = 0x09;
    /// Those that change the namespace.
    pub(in super::super) const CHANGING: [u8; 3] = [WRITE, WRITE_ZEROES, DATASET_MANAGEMENT];
    /// Those that do not.
    pub(in super::super) const OTHERS: [u8; 2] = [FLUSH, READ];
}

/// A range of Dataset Management (figure 365): attributes, sectors, first sector.
pub(super) const RANGE: usize = 16;
/// Dataset Management, dword 11: deallocate.
pub(super) const DEALLOCATE: u32 = 1 << 2;

/// Features (figure 271).
pub(super) mod feature {
    pub(in super::super) const ARBITRATION: u8 = 0x01;
    pub(in super::super) const POWER_MANAGEMENT: u8 = 0x02;
    pub(in super::super) const TEMPERATURE_THRESHOLD: u8 = 0x04;
    pub(in super::super) const ERROR_RECOVERY: u8 = 0x05;
    pub(in super::super) const WRITE_CACHE: u8 = 0x06;
    pub(in super::super) const NUMBER_OF_QUEUES: u8 = 0x07;
    pub(in super::super) const INTERRUPT_COALESCING: u8 = 0x08;
    pub(in super::super) const INTERRUPT_VECTOR: u8 = 0x09;
    pub(in super::super) const WRITE_ATOMICITY: u8 = 0x0a;
    pub(in super::super) const ASYNC_EVENTS: u8 = 0x0b;
    pub(in super::super) const HOST_MEMORY_BUFFER: u8 = 0x0d;
}

/// Log pages (figure 191).
pub(super) mod log {
    pub(in super::super) const ERRORS: u8 = 0x01;
    pub(in super::super) const HEALTH: u8 = 0x02;
    pub(in super::super) const FIRMWARE: u8 = 0x03;
    pub(in super::super) const EFFECTS: u8 = 0x05;
}

/// OAES and feature 0Bh: namespace attribute notices, the only event a driver can switch on.
pub(super) const NAMESPACE_NOTICES: u32 = 1 << 8;
/// Health of the composite temperature, in Kelvin: as it is, where warnings begin, where it is critical.
pub(super) const TEMPERATURE: u16 = 313;
pub(super) const WARNING_TEMPERATURE: u16 = 343;
pub(super) const CRITICAL_TEMPERATURE: u16 = 353;

/// How a command ended: status code type in bits 8 to 10, status code in bits 0 to 7 (figures 128, 130 and 134).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Status {
    Success = 0x000,
    InvalidOpcode = 0x001,
    InvalidField = 0x002,
    DataTransfer = 0x004,
    Internal = 0x006,
    AbortRequested = 0x007,
    InvalidNamespace = 0x00b,
    CommandSequence = 0x00c,
    InvalidOffset = 0x013,
    WriteProtected = 0x020,
    OutOfRange = 0x080,
    InvalidCompletionQueue = 0x100,
    InvalidQueueId = 0x101,
    InvalidQueueSize = 0x102,
    TooManyEvents = 0x105,
    InvalidVector = 0x108,
    InvalidLogPage = 0x109,
    InvalidQueueDeletion = 0x10c,
    NotSaveable = 0x10d,
}

impl Status {
    /// The status field of a completion above the phase tag. Nothing that fails here would end otherwise when tried again (DNR).
    pub(super) const fn field(self) -> u16 {
        match self {
            Self::Success => 0,
            failed => failed as u16 | 1 << 14,
        }
    }
}

/// Asynchronous events of type error (figure 147).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ErrorEvent {
    /// A doorbell of a queue there is not.
    NoSuchDoorbell = 0,
    /// A value the queue cannot have.
    BadDoorbellValue = 1,
}
