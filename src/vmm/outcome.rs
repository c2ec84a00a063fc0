//! What a run leaves.

use crate::code::StackStats;
use crate::end::End;
use crate::watch::WatchStats;
use dmavet_coherence::Coherence;
use std::collections::BTreeMap;
use std::time::Duration;

/// Figures about a run.
#[derive(Clone, Debug, Default)]
pub struct VmStats {
    /// Exits to this process by reason, all CPUs.
    pub exits: BTreeMap<&'static str, u64>,
    /// Bytes the guest printed.
    pub console_bytes: u64,
    /// Guest RAM in bytes.
    pub guest_memory: u64,
    /// Resident memory of this process beyond guest RAM in bytes (anonymous and file pages, not the memfd), where /proc tells.
    pub memory_beyond: Option<u64>,
    /// Call stacks of stopped CPUs.
    pub stacks: StackStats,
    /// The CPU watch; all zero when it was off.
    pub watch: WatchStats,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why it ended.
    pub end: End,
    /// The coherence core, for [`Coherence::finish`].
    pub coherence: Coherence,
    /// The workload's exit status, if it got that far.
    pub exit: Option<i32>,
    /// Why the guest could not set the run up, if it said so.
    pub setup_failed: Option<String>,
    /// Phases in the order they were reached, with the time since the start.
    pub phases: Vec<(String, Duration)>,
    /// Figures.
    pub stats: VmStats,
    /// What each CPU was doing, in words, when a time limit ended the run.
    pub last_seen: Vec<String>,
}

/// Resident bytes of this process without shared memory (/proc/self/status, proc(5): RssAnon + RssFile).
pub fn resident_beyond_shared() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some((field("RssAnon:")? + field("RssFile:")?) * 1024)
}
