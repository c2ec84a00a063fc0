//! From a command line to a verdict: prepare a plan, execute it on KVM or in the lab, judge the outcome.

mod accept;
mod children;
mod describe;
mod execute;
pub mod host;
mod in_lab;
mod plan;
mod prepare;
mod record;
mod rundir;
mod verdict;
mod watcher;

pub use accept::write_baselines;
pub use describe::describe;
pub use execute::{RunDone, RunResult, Show, execute_all, execute_each, execute_here, print_report, print_result, render};
pub use host::Host;
pub use plan::{Limits, Plan, PlanMachine, PlanModule, PlanStress, PlanWatch, Policy, WatchBackend};
pub use prepare::{prepare, reference_source};
pub use record::{NOTE_PLAN, NOTE_TOLD, TRACE};
pub use rundir::{default_run_dir, explain as explain_write, today};
pub use verdict::{Facts, Stop, Verdict, judge};
