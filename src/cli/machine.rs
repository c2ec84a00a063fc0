//! The options that choose the machine: what its caches do.

use crate::exit::Failure;
use crate::run::PlanMachine;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use dmavet_coherence::{Cache, Edges, Profile};
use std::str::FromStr;

/// What kind of machine the guest's memory behaves like (docs/profiles.md).
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// Machine whose cache operations the DMA API performs (see dmavet list profiles)
    #[arg(long, value_name = "PROFILE", default_value_t = Profile::Arm64, value_parser = words::<Profile, 7>(Profile::ALL.map(Profile::name)))]
    pub profile: Profile,

    /// Cache lines that a buffer covers in part: only the covered bytes take part (isolate), or the whole line does and
    /// neighbours in guest memory are overwritten as on the machine (line); line is for guests and modules built with a real
    /// ARCH_DMA_MINALIGN
    #[arg(long, value_name = "EDGES", default_value_t = Edges::Isolate, value_parser = words::<Edges, 2>(Edges::ALL.map(Edges::name)))]
    pub edges: Edges,

    /// What the cache does on its own: nothing (quiet), write dirty lines back after the device wrote them (evict), fetch lines
    /// while the device works on them (prefetch), or either as --seed has it (random)
    #[arg(long, value_name = "CACHE", default_value_t = Cache::Quiet, value_parser = words::<Cache, 4>(Cache::ALL.map(Cache::name)))]
    pub cache: Cache,

    /// Cache line size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = line_size)]
    pub line_size: u32,

    /// Seed of everything drawn at random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

fn words<T, const N: usize>(names: [&'static str; N]) -> impl clap::builder::TypedValueParser<Value = T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|word| word.parse::<T>())
}

fn line_size(text: &str) -> Result<u32, String> {
    match text {
        "32" => Ok(32),
        "64" => Ok(64),
        "128" => Ok(128),
        _ => Err("a cache line has 32, 64 or 128 bytes".into()),
    }
}

impl MachineArgs {
    /// What the plan keeps of them.
    ///
    /// # Errors
    /// A [`Failure`] when the choices do not go together.
    pub fn plan(&self) -> Result<PlanMachine, Failure> {
        let Self { profile, edges, cache, line_size, seed } = *self;
        let plan = PlanMachine { profile, edges, cache, line_size, seed };
        let mut config = dmavet_coherence::Config::for_ram(1 << 20);
        plan.configure(&mut config);
        config.validate().map_err(|e| Failure::usage(e.to_string()))?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: MachineArgs,
    }

    fn plan(line: &str) -> Result<PlanMachine, String> {
        let parsed = Line::try_parse_from(["dmavet"].into_iter().chain(line.split_whitespace())).map_err(|e| e.to_string())?;
        parsed.args.plan().map_err(|e| e.to_string())
    }

    #[test]
    fn the_words_are_those_of_the_core_and_the_defaults_its_own() {
        let config = dmavet_coherence::Config::for_ram(1 << 20);
        let defaults = plan("").unwrap();
        assert_eq!((defaults.profile, defaults.edges, defaults.cache), (config.profile, config.edges, config.cache));
        assert_eq!((defaults.line_size, defaults.seed), (config.line_size, config.seed));
        let all = plan("--profile mips --edges line --cache random --seed 7 --line-size 32").unwrap();
        let expected = PlanMachine { profile: Profile::Mips, edges: Edges::Line, cache: Cache::Random, line_size: 32, seed: 7 };
        assert_eq!(all, expected);
        assert!(plan("--profile vax").unwrap_err().contains("possible values: arm64, riscv, arm, mips, parisc, swiotlb, worst"));
    }

    #[test]
    fn what_means_nothing_is_the_users_mistake() {
        assert!(plan("--profile swiotlb").is_ok());
        assert!(plan("--profile swiotlb --edges line").unwrap_err().contains("--edges line means nothing with --profile swiotlb"));
        assert!(plan("--profile swiotlb --cache evict").unwrap_err().contains("--cache evict means nothing"));
    }
}
