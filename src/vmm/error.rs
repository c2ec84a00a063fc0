//! Why a machine could not be run.

use crate::acpi::AcpiError;
use crate::boot::BootError;
use crate::kvm::KvmError;
use crate::memory::MemoryError;
use crate::supervisor::SupervisorError;
use crate::watch::UffdError;

/// Everything that keeps a run from having an [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Loading the guest.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The ACPI tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The coherence core.
    #[error(transparent)]
    Coherence(dmavet_coherence::Error),
    /// The CPU watch.
    #[error(transparent)]
    Watch(#[from] UffdError),
    /// Number of CPUs.
    #[error("{got} CPUs: 1 to {max} are possible", max = crate::VmConfig::MAX_CPUS)]
    Cpus {
        /// CPUs asked for.
        got: u8,
    },
    /// Number of devices.
    #[error("{got} devices under test: the bus has room for {max}", max = crate::VmConfig::MAX_DEVICES)]
    Devices {
        /// Devices asked for.
        got: usize,
    },
    /// Number of platform devices.
    #[error("{got} platform devices: the machine has room for {max}", max = crate::VmConfig::MAX_PLATFORM_DEVICES)]
    PlatformDevices {
        /// Devices asked for.
        got: usize,
    },
    /// A device under test cannot be built.
    #[error("device {device}")]
    Device {
        /// Its specification.
        device: String,
        /// What is wrong.
        source: dmavet_devices::BuildError,
    },
    /// The self-check's guest cannot be assembled.
    #[error("the self-check's guest: {0}")]
    SelfCheck(String),
    /// The host's event loop.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// No descriptors left.
    #[error("cannot make an eventfd")]
    Descriptor(#[source] std::io::Error),
    /// No thread for a CPU.
    #[error("cannot start a thread for a virtual CPU")]
    Thread(#[source] std::io::Error),
}
