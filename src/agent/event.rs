//! What the machine has to act on after a doorbell.

use dmavet_coherence::ids::Requester;
use dmavet_coherence::site::Frame;

/// Something the guest told that concerns the machine and not only the coherence core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// The agent is there and will see every call from now on: devices under test may appear on the bus.
    Hello {
        /// The guest kernel's release (`uname -r`).
        release: String,
        /// CPUs the guest may bring up.
        cpus: u32,
    },
    /// A driver is about to be probed for a device. The core has been told already.
    Bound {
        /// The device.
        requester: Requester,
        /// Name of the driver.
        driver: String,
        /// Name of the driver's module; empty when it is built in.
        module: String,
    },
    /// The driver let go of the device, all its managed resources are released. The core has been told already.
    Unbound {
        /// The device.
        requester: Requester,
    },
    /// A module came, finished its init, or is gone.
    Module {
        /// The module's name.
        name: String,
        /// What happened to it.
        state: ModuleState,
    },
    /// Bytes the workload wrote to `/dev/dmavet-out`.
    Output(Vec<u8>),
    /// `phase NAME` was written to `/dev/dmavet`.
    Phase(String),
    /// `fail TEXT` was written to `/dev/dmavet`: the guest could not set the run up.
    SetupFailed(String),
    /// `exit N` was written to `/dev/dmavet`: the workload's exit status.
    Exit(i32),
    /// `end` was written to `/dev/dmavet`: modules are unloaded, nothing more will come.
    End,
    /// The guest kernel panicked; the text is its message.
    Panic(String),
}

/// State of a guest module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// It is in memory and about to be initialised, or more became known about where it lies (a driver of it was bound).
    Loaded(ModuleLayout),
    /// Its init function returned and the memory of its init sections is free again.
    Live,
    /// It is going: addresses in it mean nothing from now on.
    Going,
}

/// Where a module lies in the guest's kernel address space, in bytes; all zero where the guest's kernel does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleLayout {
    /// First address of its text region (its executable sections, in the order of the file).
    pub text_base: u64,
    /// Size of that region.
    pub text_size: u64,
    /// First address of its init text, gone when the state is [`ModuleState::Live`].
    pub init_base: u64,
    /// Size of that.
    pub init_size: u64,
    /// Addresses of functions with their names. With the ELF symbol table of the module they give the base of each section.
    pub anchors: Vec<Frame>,
}
