//! `dmavet demo`: the guided first run.

use crate::cli::run::RunArgs;
use crate::exit::{Exit, Failure};
use crate::report::Format;
use crate::run::{self, Host, host};
use clap::{Args, Parser};
use std::path::Path;

/// The variant the demo shows.
const BUGGY: &str = "ref:ncdma/stale-reuse";

/// Arguments of `dmavet demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Where the guests run
    #[arg(long, value_enum, default_value_t = Host::Auto)]
    pub host: Host,

    /// Guest kernel
    #[arg(long, value_name = "KERNEL", default_value = "debian:6.1")]
    pub kernel: String,
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: RunArgs,
}

/// Runs the correct reference driver, then a buggy one, and explains what was seen. Ends clean when both verdicts are the
/// expected ones.
///
/// # Errors
/// When a run could not be made or a verdict is not the expected one.
pub fn demo(args: &DemoArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    println!(
        "dmavet demo: a stock Linux kernel, and a DMA engine (ncdma) whose memory accesses are not coherent with the CPU's caches.\n\
         First the correct driver runs its self-test, then the same driver with one dma_sync call removed.\n"
    );
    let show = run::Show { quiet: false, console: false, workload: true };
    let out = run::default_run_dir();
    let place = host::choose(args.host)?;
    let mut plans = Vec::new();
    for (name, module) in [("good", "ref:ncdma"), ("buggy", BUGGY)] {
        let dir = out.join(name);
        let dir = dir.to_string_lossy();
        let words = ["dmavet run", "--kernel", &args.kernel, "--module", module, "--run-dir", &dir];
        let line = Line::try_parse_from(words).map_err(|e| Failure::internal(e.to_string()))?;
        let command = ["dmavet", "run", "--kernel", &args.kernel, "--module", module].map(str::to_owned).to_vec();
        plans.push(run::prepare(&line.args, cache, command, &show)?);
    }
    let results = run::execute_all(&plans, place, cache, &show)?;
    let [good, buggy] = results.as_slice() else {
        return Err(Failure::internal("the demo's two runs did not leave two results"));
    };

    println!("\n--- 1. The correct driver ---\n");
    run::print_result(good, Format::Text)?;
    println!("\n--- 2. The same driver without one dma_sync_single_for_device() ---\n");
    run::print_result(buggy, Format::Text)?;
    println!(
        "\nWhat was seen: the correct driver handed every buffer over and dmavet stayed silent. The buggy one changed a buffer the\n\
         device had read before and started the device without handing it over: the device worked on the old bytes, as it would on\n\
         a machine with non-coherent caches. On an ordinary x86 machine both drivers pass.\n\
         \n\
         Next: dmavet list variants; dmavet run --module ref:ncdma/VARIANT; dmavet explain DV201; docs/guide.md for your own driver.\n\
         Results: {}",
        out.display()
    );
    match (good.exit, buggy.exit) {
        (Exit::Clean, Exit::Findings) => Ok(Exit::Clean),
        (good, buggy) => Err(Failure::internal(format!(
            "the demo expects the verdicts clean and findings, and got {:?} and {:?}; please report this with {}",
            good,
            buggy,
            out.display()
        ))),
    }
}
