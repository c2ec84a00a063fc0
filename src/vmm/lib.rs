//! The KVM virtual machine monitor.
//!
//! [`run`] boots a stock kernel on a machine with an agent and devices under test, and says how it ended. [`probe`] tells
//! whether this host's KVM can do that.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod acpi;
mod board;
mod boot;
mod code;
mod config;
pub mod emulate;
mod end;
mod error;
mod host;
mod intx;
mod irq;
mod journal;
mod kvm;
mod layout;
mod legacy;
mod machine;
mod memory;
mod observer;
mod outcome;
mod pci;
mod platform;
mod ports;
mod run;
pub mod selfcheck;
mod spoilt;
mod supervisor;
mod trial;
mod vcpu;
mod watch;
mod watchdog;
mod wiring;

pub use code::StackStats;
pub use config::{Timeouts, VmConfig};
pub use dmavet_agent::{AgentEvent, ModuleLayout, ModuleState};
pub use dmavet_unwind::ModuleImage;
pub use end::{End, Limit};
pub use error::VmmError;
pub use host::{HostKvm, probe};
pub use kvm::KvmError;
pub use observer::{Observer, Silent};
pub use outcome::{Outcome, VmStats};
pub use ports::ResetBy;
pub use run::run;
pub use watch::{Backend, Stress, TierChoice, Traps, WatchConfig, WatchStats};
