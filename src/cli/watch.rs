//! The options of the CPU watch.

use crate::run::{PlanStress, PlanWatch, WatchBackend};
use clap::Args;
use dmavet_coherence::WatchPolicy;

/// Which accesses of the guest's CPUs are watched, and how.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Which of the CPU's accesses to memory a device owns are stopped and looked at
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Policy::Auto)]
    pub watch: Policy,

    /// How the watched pages are kept from the guest's CPUs
    #[arg(long, value_enum, value_name = "BACKEND", default_value_t = WatchBackend::Mprotect)]
    pub watch_backend: WatchBackend,

    /// Close this many random pages of guest memory besides, to test the watch itself
    #[arg(long, value_name = "PAGES[:SEED]", hide = true, value_parser = stress)]
    pub watch_stress: Option<PlanStress>,

    /// Carry every stopped instruction out by a single step, to test that path
    #[arg(long, hide = true)]
    pub watch_step: bool,
}

/// The choice of `--watch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// None: the CPU's writes are found by comparing content at hand-overs, its reads not at all
    Off,
    /// Those to pages that hold nothing but memory for DMA: dma_alloc_*, whole pages, page_pool
    Auto,
    /// Those to every page that is mapped; pages that are busy with other things fall back to comparing content
    All,
}

impl WatchArgs {
    /// What the plan keeps of them.
    #[must_use]
    pub fn plan(&self) -> PlanWatch {
        let policy = match self.watch {
            Policy::Off => WatchPolicy::Off,
            Policy::Auto => WatchPolicy::Auto,
            Policy::All => WatchPolicy::All,
        };
        PlanWatch { policy, backend: self.watch_backend, stress: self.watch_stress, step: self.watch_step }
    }

    /// The options that differ from the defaults, as one would write them.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let plan = self.plan();
        let mut words = Vec::new();
        if plan.policy != WatchPolicy::Auto {
            words.extend(["--watch".into(), plan.policy_name().to_owned()]);
        }
        if plan.backend != WatchBackend::Mprotect {
            words.extend(["--watch-backend".into(), plan.backend.name().to_owned()]);
        }
        if let Some(stress) = plan.stress {
            words.extend(["--watch-stress".into(), format!("{}:{}", stress.pages, stress.seed)]);
        }
        if plan.step {
            words.push("--watch-step".into());
        }
        words
    }
}

fn stress(text: &str) -> Result<PlanStress, String> {
    let (pages, seed) = text.split_once(':').unwrap_or((text, "0"));
    match (pages.parse(), seed.parse()) {
        (Ok(pages), Ok(seed)) if pages > 0 => Ok(PlanStress { pages, seed }),
        _ => Err("a number of pages, or PAGES:SEED".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        watch: WatchArgs,
    }

    fn parse(line: &str) -> WatchArgs {
        Line::try_parse_from(std::iter::once("dmavet").chain(line.split_whitespace())).unwrap_or_else(|e| panic!("{line}: {e}")).watch
    }

    #[test]
    fn the_default_is_auto_by_mprotect() {
        let args = parse("");
        let plan = PlanWatch { policy: WatchPolicy::Auto, backend: WatchBackend::Mprotect, stress: None, step: false };
        assert_eq!(args.plan(), plan);
        assert!(args.words().is_empty());
    }

    #[test]
    fn options_are_written_as_they_were_read() {
        let line = "--watch all --watch-backend userfaultfd --watch-stress 50:7 --watch-step";
        let args = parse(line);
        let stress = Some(PlanStress { pages: 50, seed: 7 });
        assert_eq!(args.plan(), PlanWatch { policy: WatchPolicy::All, backend: WatchBackend::Userfaultfd, stress, step: true });
        assert_eq!(args.words().join(" "), line);
        assert_eq!(parse("--watch-stress 50").plan().stress, Some(PlanStress { pages: 50, seed: 0 }));
    }

    #[test]
    fn wrong_words_are_refused() {
        for line in ["--watch some", "--watch-backend ptrace", "--watch-stress 0", "--watch-stress 5:x", "--watch-stress :1"] {
            assert!(Line::try_parse_from(std::iter::once("dmavet").chain(line.split_whitespace())).is_err(), "{line}");
        }
    }
}
