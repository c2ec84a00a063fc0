//! What a run is made of.

use crate::error::VmmError;
use crate::watch::WatchConfig;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dmavet_devices::DeviceSpec;
use dmavet_unwind::ModuleImage;

/// Limits on how long things may take; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the start to the agent's hello.
    pub boot: Option<Duration>,
    /// From the agent's hello to the workload's exit status.
    pub command: Option<Duration>,
    /// Without a line on the console, a device write or an agent call.
    pub silence: Option<Duration>,
    /// The whole run.
    pub total: Option<Duration>,
}

impl Timeouts {
    /// No limits at all.
    pub const NONE: Self = Self { boot: None, command: None, silence: None, total: None };
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Some(Duration::from_secs(60 * n));
        Self { boot: minutes(2), command: minutes(10), silence: minutes(1), total: None }
    }
}

/// A virtual machine to run.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// ELF vmlinux (preferred: no decompression in the guest) or bzImage.
    pub kernel: PathBuf,
    /// Initial RAM file system.
    pub initrd: Option<PathBuf>,
    /// Kernel command line; the machine itself needs nothing on it.
    pub cmdline: String,
    /// Guest RAM in bytes, a multiple of 4096.
    pub memory: u64,
    /// Number of CPUs, 1 to [`VmConfig::MAX_CPUS`].
    pub cpus: u8,
    /// Devices under test, in this order: PCI functions from 00:02.0 on, platform devices from node 0 on.
    pub devices: Vec<DeviceSpec>,
    /// Whether there is an agent. Without one this is any virtual machine: the devices are on the bus from the start and reach guest RAM
    /// by its own addresses, nothing is checked, and [`Timeouts::boot`] is the limit for all of the run.
    /// For measuring what the agent and the core cost. Platform devices cannot be had so.
    pub agent: bool,
    /// Limits.
    pub timeouts: Timeouts,
    /// The coherence core's settings.
    pub coherence: dmavet_coherence::Config,
    /// Modules the guest may load whose code the host has: for names and call stacks.
    pub modules: Vec<ModuleImage>,
    /// The CPU watch.
    pub watch: WatchConfig,
    /// Faults to inject.
    pub faults: Vec<dmavet_coherence::FaultSpec>,
    /// Sees every input of the core, to record the run.
    pub tap: Option<Arc<dyn dmavet_coherence::Tap>>,
}

impl VmConfig {
    /// The most CPUs: APIC ids stay below the broadcast id of xAPIC.
    pub const MAX_CPUS: u8 = 64;
    /// The most PCI devices under test: slots 2 to 31 of the bus.
    pub const MAX_DEVICES: usize = 30;
    /// The most platform devices: each has a pin of the I/O APIC.
    pub const MAX_PLATFORM_DEVICES: usize = 4;

    /// Whether there is room for `devices`.
    ///
    /// # Errors
    /// There are too many of a kind.
    pub fn check_devices(devices: &[DeviceSpec]) -> Result<(), VmmError> {
        let platform = devices.iter().filter(|device| device.is_platform()).count();
        let pci = devices.len() - platform;
        if pci > Self::MAX_DEVICES {
            return Err(VmmError::Devices { got: pci });
        }
        if platform > Self::MAX_PLATFORM_DEVICES {
            return Err(VmmError::PlatformDevices { got: platform });
        }
        Ok(())
    }
}
