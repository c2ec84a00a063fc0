//! The coherence core: two copies of the memory a device can reach, ownership of cache lines, and the rules.
//!
//! While a device owns bytes, the CPU's copy (guest RAM) and the device's copy are different memory. A call of the DMA API
//! moves data between the copies and ownership with it; [`Coherence::call`] is told about every such call, a [`DmaView`] is
//! the only road of a device model to memory, and what breaks a rule becomes a [`Finding`].
//!
//! No KVM, no unsafe code, no I/O: guest RAM comes in as a [`vm_memory::GuestMemoryMmap`].
//!
//! Locking: everything is behind one mutex. A view holds it from the judgement of an access until the iterator over its
//! slices is exhausted or dropped, so that a copy and a hand-over of the same bytes exclude each other. Do not start a second
//! access (or any other call of this crate) on the same thread while such an iterator is alive.
#![forbid(unsafe_code)]

mod arena;
mod bits;
pub mod call;
pub mod catalogue;
mod chunk;
pub mod config;
mod copies;
mod device;
pub mod dice;
mod engine;
pub mod error;
pub mod fault;
pub mod finding;
mod findings;
mod handles;
mod held;
mod history;
pub mod ids;
mod mapping;
pub mod profile;
mod ram;
mod rules;
pub mod site;
pub mod stop;
pub mod summary;
mod table;
pub mod tap;
#[cfg(test)]
mod tests;
mod view;
mod watch;

pub use arena::{DeviceWrites, WriteMarks};
pub use call::{AllocFlags, Answer, ApiCall, Caller, Extent, Limits, MapCall, Rejected, SyncCall, UnmapCall};
pub use catalogue::Code;
pub use config::Config;
pub use engine::Coherence;
pub use error::{AccessError, Error};
pub use fault::{FaultKind, FaultPlan, FaultSpec, FaultSpecError, FaultTime, Faults, NthMaps};
pub use finding::{AccessInfo, ByteRange, Finding, Handover, HistoryEntry, MappingInfo, Offence, Severity};
pub use history::event_words;
pub use ids::{Attrs, Bdf, Direction, Family, Gpa, Iova, PageKind, Requester, SiteId};
pub use profile::{Cache, Edges, Profile};
pub use site::{Frame, SiteTable};
pub use stop::{StopOn, Stopper};
pub use summary::{CallKind, DeviceSummary, LostWrite, Stats, Summary};
pub use tap::{Detail, Input, Outcome, RamRegion, Tap};
pub use view::{DmaView, InFlight, Intent};
pub use watch::{CpuAccess, CpuOp, Gate, Guard, Seen, WatchPolicy, Witness};
