//! Accesses of the CPU: what the core asks of whoever can see them, and what it is told.
//!
//! The core decides for every page it tracks what the CPU may do there without being seen ([`Guard`]); a [`Gate`] makes it so.
//! What the gate stops comes back as a [`CpuOp`] through [`Coherence::cpu_access`](crate::Coherence::cpu_access).

use crate::ids::Gpa;
use crate::site::Frame;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the CPU may do with a page of guest RAM without being seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Guard {
    /// Everything.
    #[default]
    Open,
    /// Reading; writes are seen.
    ReadOnly,
    /// Nothing.
    Closed,
}

/// Keeps the CPU from pages.
///
/// Called with the core's lock held: an implementation takes only locks that are never held while the core is called.
pub trait Gate: Send + Sync + fmt::Debug {
    /// Puts a guard on each page (4096 bytes at a guest physical address; no page twice). When this returns, no CPU makes an access any more
    /// that the new guard forbids; while a page of the list is open for an instruction that is being stepped, this waits for the
    /// end of the step. A page that cannot be guarded is left open and put in `refused`.
    fn apply(&self, changes: &[(Gpa, Guard)], refused: &mut Vec<Gpa>);
}

/// Which pages are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchPolicy {
    /// None: the CPU's writes are found by comparing content, its reads not at all.
    #[default]
    Off,
    /// Pages that hold nothing but memory for DMA: dma_alloc_*, whole-page mappings, page_pool pages.
    Auto,
    /// Every page that is mapped.
    All,
}

/// Bytes of one page an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuAccess {
    /// Guest physical address of the first byte.
    pub gpa: Gpa,
    /// Bytes; the last one is in the page of the first.
    pub len: u32,
    /// The bytes are read.
    pub read: bool,
    /// The bytes are written (after they were read, when both).
    pub write: bool,
}

/// One instruction of a guest CPU (or one run of a repeated one), stopped before it touched guarded memory.
#[derive(Clone, Copy, Debug)]
pub struct CpuOp<'a> {
    /// Everything it touches in guest RAM, guarded or not.
    pub accesses: &'a [CpuAccess],
    /// Guest CPU.
    pub cpu: u32,
    /// Made in user mode (CPL 3).
    pub user: bool,
    /// Guest virtual address of the instruction.
    pub rip: u64,
}

/// Knows where an access comes from. Asked with the core's lock held, at most once per question and only when the answer matters;
/// must not call the core.
pub trait Witness {
    /// The call stack, innermost frame first: the instruction itself, then its callers.
    fn stack(&mut self) -> Vec<Frame>;
    /// Whether a frame of the stack belongs to the module of the driver called `driver`.
    fn in_driver(&mut self, driver: &str) -> bool;
    /// The function of the kernel's memory allocator that is giving memory back or out there, if one is.
    fn allocator(&mut self) -> Option<String>;
}

/// What the core made of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// It touched nothing a device owns, nor anything a device wrote that was not taken.
    pub innocent: bool,
}
