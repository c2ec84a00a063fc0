//! What one run needs, fully prepared: the kernel is unpacked, modules are built, the initramfs is packed.
//!
//! A plan is written as JSON into the run directory, so that the same run can be executed on this machine's KVM, inside the
//! lab, or again later.

use crate::exit::Failure;
use crate::report::baseline::Baseline;
use crate::run::rundir;
use dmavet_coherence::{Cache, Config, Edges, FaultSpec, Profile, Severity, StopOn, WatchPolicy};
use dmavet_devices::DeviceSpec;
use dmavet_vmm::{Backend, Stress, TierChoice, WatchConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A prepared run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Format version of this file.
    pub version: u32,
    /// The command that made the plan, for the report.
    pub command: Vec<String>,
    /// Name of the run for people: the modules it checks.
    pub title: String,
    /// Kernel image to boot: an ELF vmlinux or a bzImage.
    pub kernel: PathBuf,
    /// Release of that kernel (`uname -r`).
    pub release: String,
    /// The guest's initramfs.
    pub initrd: PathBuf,
    /// Words added to the kernel command line.
    pub append: Vec<String>,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// Guest CPUs.
    pub cpus: u8,
    /// Device specifications (`dmavet list devices`).
    pub devices: Vec<String>,
    /// Whether the guest meets the agent. No option switches it off, because nothing is checked without it: the benchmarks do, for
    /// something to compare with.
    #[serde(default = "with_agent")]
    pub agent: bool,
    /// Failures to inject (`dmavet list faults`).
    #[serde(default)]
    pub faults: Vec<String>,
    /// Modules under test as the guest loads them, with the host's copies that hold the debug information.
    pub modules: Vec<PlanModule>,
    /// What its caches do.
    pub machine: PlanMachine,
    /// Whether sg neighbours are merged.
    pub sg_merge: bool,
    /// The CPU watch.
    pub watch: PlanWatch,
    /// Whether a trace is kept.
    #[serde(default)]
    pub record: bool,
    /// Time limits in seconds.
    pub limits: Limits,
    /// Findings that end the run.
    #[serde(default)]
    pub stop_on: Vec<StopOn>,
    /// What fails the run.
    pub policy: Policy,
    /// Findings that do not.
    #[serde(default)]
    pub baseline: Option<Baseline>,
    /// The run directory.
    pub run_dir: PathBuf,
}

impl Plan {
    /// The version this program writes and reads.
    pub const VERSION: u32 = 3;
    /// File name in the run directory.
    pub const FILE: &'static str = "plan.json";

    /// Reads a plan back.
    ///
    /// # Errors
    /// When it cannot be read or is of another version.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let bytes = std::fs::read(path).map_err(|e| Failure::usage(format!("cannot read the plan {}: {e}", path.display())))?;
        let plan: Self = serde_json::from_slice(&bytes).map_err(|e| Failure::usage(format!("{} is no plan: {e}", path.display())))?;
        if plan.version != Self::VERSION {
            return Err(Failure::usage(format!(
                "{} is a plan of version {}, this dmavet reads version {}",
                path.display(),
                plan.version,
                Self::VERSION
            )));
        }
        Ok(plan)
    }

    /// Writes the plan into its run directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Failure::internal(e.to_string()))?;
        rundir::write(&self.run_dir, Self::FILE, &json)
    }

    /// The failures to inject.
    ///
    /// # Errors
    /// When one makes no sense.
    pub fn faults(&self) -> Result<Vec<FaultSpec>, Failure> {
        self.faults.iter().map(|spec| spec.parse().map_err(|e| Failure::usage(format!("--fault {e}")))).collect()
    }

    /// Where the plan is kept.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.run_dir.join(Self::FILE)
    }

    /// The files of this machine the run reads.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path(), self.kernel.clone(), self.initrd.clone()];
        files.extend(self.modules.iter().map(|m| m.debug.clone()));
        let specs = self.devices.iter().filter_map(|d| d.parse().ok());
        files.extend(specs.filter_map(|spec: DeviceSpec| spec.file().map(Path::to_path_buf)));
        files
    }
}

const fn with_agent() -> bool {
    true
}

/// A module of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanModule {
    /// Name in the kernel.
    pub name: String,
    /// The object with debug information, on the host.
    pub debug: PathBuf,
    /// Whether the run is meant to check this module (false for the modules it depends on).
    pub under_test: bool,
}

/// The machine whose caches the guest meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMachine {
    /// What its cache operations do.
    pub profile: Profile,
    /// What happens to lines covered in part.
    pub edges: Edges,
    /// What the cache does on its own.
    pub cache: Cache,
    /// Cache line size in bytes.
    pub line_size: u32,
    /// Seed of everything that is drawn at random.
    pub seed: u64,
}

impl PlanMachine {
    /// Tells the core.
    pub fn configure(&self, config: &mut Config) {
        config.profile = self.profile;
        config.edges = self.edges;
        config.cache = self.cache;
        config.line_size = self.line_size;
        config.seed = self.seed;
    }
}

/// How the guest's CPUs are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWatch {
    /// Which pages.
    pub policy: WatchPolicy,
    /// By which means.
    pub backend: WatchBackend,
    /// Random pages closed besides.
    pub stress: Option<PlanStress>,
    /// Whether every stopped instruction is single-stepped.
    pub step: bool,
}

impl PlanWatch {
    /// The policy as `--watch` takes it.
    #[must_use]
    pub const fn policy_name(&self) -> &'static str {
        match self.policy {
            WatchPolicy::Off => "off",
            WatchPolicy::Auto => "auto",
            WatchPolicy::All => "all",
        }
    }

    /// The settings of the machine.
    #[must_use]
    pub fn config(&self) -> WatchConfig {
        WatchConfig {
            policy: self.policy,
            backend: self.backend.backend(),
            stress: self.stress.map(|s| Stress { pages: s.pages, seed: s.seed }),
            tier: if self.step { TierChoice::StepOnly } else { TierChoice::Auto },
        }
    }
}

/// The choice of `--watch-backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchBackend {
    /// mprotect(2): works everywhere, and allows some 32,000 pages that do not touch each other
    Mprotect,
    /// userfaultfd(2): no such limit, needs Linux 5.19 and the right to use it
    Userfaultfd,
}

impl WatchBackend {
    /// The watch's own word for it.
    #[must_use]
    pub const fn backend(self) -> Backend {
        match self {
            Self::Mprotect => Backend::Mprotect,
            Self::Userfaultfd => Backend::Userfaultfd,
        }
    }

    /// The word `--watch-backend` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mprotect => "mprotect",
            Self::Userfaultfd => "userfaultfd",
        }
    }
}

/// Random pages that are closed to test the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStress {
    /// Pages closed at a time.
    pub pages: u32,
    /// Seed of the choice.
    pub seed: u64,
}

/// Time limits in seconds; 0 switches a limit off.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// From power-on until the agent answers.
    pub boot: u64,
    /// From then until the workload ended.
    pub command: u64,
    /// Without any sign of life from the guest.
    pub silence: u64,
}

/// What fails a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// The lowest severity that fails the run.
    pub fail_on: Severity,
    /// Print notes too.
    pub pedantic: bool,
    /// The share of DMA call sites, in percent, that must have been reached.
    pub require_coverage: Option<u8>,
}
