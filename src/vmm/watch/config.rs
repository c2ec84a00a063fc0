//! Settings of the CPU watch.

use super::uffd::{self, UffdError};
use crate::memory::Pages;
use dmavet_coherence::WatchPolicy;

/// How a page is kept from the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// `mprotect` on the guest mapping. Splits it: the system allows some 32,000 isolated pages (vm.max_map_count).
    #[default]
    Mprotect,
    /// `userfaultfd` in MINOR and WP mode with SIGBUS: no splitting, needs Linux 5.19 or later and the permission.
    Userfaultfd,
}

impl Backend {
    /// Whether this system has it: how many pages that do not touch each other it can guard, if there is a limit.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(self) -> Result<Option<u64>, UffdError> {
        match self {
            // An isolated page splits a mapping in three: two more than before.
            Self::Mprotect => {
                Ok(std::fs::read_to_string(MAX_MAPS).ok().and_then(|text| text.trim().parse::<u64>().ok()).map(|maps| maps / 2))
            }
            Self::Userfaultfd => uffd::check().map(|()| None),
        }
    }
}

/// How many mappings a process may have.
const MAX_MAPS: &str = "/proc/sys/vm/max_map_count";

/// How the instructions that were stopped are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TierChoice {
    /// Emulated where the emulator knows the instruction (tier 1), else by a single step while the other CPUs stand still (tier 2).
    #[default]
    Auto,
    /// Always by a single step. For tests of that path.
    StepOnly,
}

/// Closes random pages of guest RAM from the agent's hello on, to test the watch itself. The core hears of each access and calls it
/// innocent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stress {
    /// Pages closed at a time.
    pub pages: u32,
    /// Seed of the choice.
    pub seed: u64,
}

/// Settings of the CPU watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchConfig {
    /// Which pages are watched. Replaces what the core's own settings say.
    pub policy: WatchPolicy,
    /// How they are kept from the guest.
    pub backend: Backend,
    /// Whether random pages are closed besides.
    pub stress: Option<Stress>,
    /// How stopped instructions are carried out.
    pub tier: TierChoice,
}

impl WatchConfig {
    /// No watch at all.
    pub const OFF: Self = Self { policy: WatchPolicy::Off, backend: Backend::Mprotect, stress: None, tier: TierChoice::Auto };

    /// The pages the guest mapping is to be made of. `mprotect` on part of a huge page makes small ones of it, and they stay small:
    /// nothing is gained by starting with small ones, which doubles the time to boot in software emulation. `userfaultfd` knows small
    /// ones only.
    pub(crate) fn pages(&self) -> Pages {
        if self.is_on() && self.backend == Backend::Userfaultfd { Pages::Small } else { Pages::Any }
    }

    /// Whether any page can ever be closed.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.policy != WatchPolicy::Off || self.stress.is_some()
    }
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { policy: WatchPolicy::Auto, ..Self::OFF }
    }
}
