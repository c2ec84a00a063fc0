//! `dmavet demo`: the guided first run.

use crate::cli::run::RunArgs;
use crate::cli::watch::{Policy, WatchArgs};
use crate::exit::{Exit, Failure};
use crate::progress;
use crate::report::Format;
use crate::run::{self, Host, host};
use clap::{Args, Parser};
use std::path::Path;

/// What the demo runs: folder, module, what it is.
const RUNS: [(&str, &str, &str); 3] = [
    ("good", "ref:ncdma", "The correct driver"),
    ("for-device", "ref:ncdma/stale-reuse", "The same driver without one dma_sync_single_for_device()"),
    ("for-cpu", "ref:ncdma/rx-copybreak-no-sync", "The same driver without one dma_sync_single_for_cpu()"),
];

/// Arguments of `dmavet demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Where the guests run
    #[arg(long, value_enum, default_value_t = Host::Auto)]
    pub host: Host,

    /// Guest kernel
    #[arg(long, value_name = "KERNEL", default_value = "debian:6.1")]
    pub kernel: String,

    #[command(flatten)]
    pub watch: WatchArgs,
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: RunArgs,
}

/// Runs the correct reference driver, then two buggy ones, and explains what was seen. Ends clean when all verdicts are the
/// expected ones.
///
/// # Errors
/// When a run could not be made or a verdict is not the expected one.
pub fn demo(args: &DemoArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    println!(
        "dmavet demo: a stock Linux kernel, and a DMA engine (ncdma) whose memory accesses are not coherent with the CPU's caches.\n\
         First the correct driver runs its self-test, then the same driver with one dma_sync call removed, twice.\n"
    );
    let show = run::Show { quiet: false, console: false, workload: true };
    let out = run::default_run_dir();
    let place = host::choose(args.host)?;
    progress::start();
    let mut plans = Vec::new();
    for (name, module, _) in RUNS {
        let dir = out.join(name);
        let dir = dir.to_string_lossy();
        let mut command = ["dmavet", "run", "--kernel", &args.kernel, "--module", module].map(str::to_owned).to_vec();
        command.extend(args.watch.words());
        let words = command.iter().map(String::as_str).skip(1).chain(["--run-dir", &dir]);
        let line = Line::try_parse_from(words).map_err(|e| Failure::internal(e.to_string()))?;
        plans.push(run::prepare(&line.args, cache, command, &show)?);
    }
    let results = run::execute_all(&plans, place, 1, cache, &show)?;
    for (number, (result, (_, _, what))) in results.iter().zip(RUNS).enumerate() {
        println!("\n--- {}. {what} ---\n", number + 1);
        run::print_result(result, Format::Text)?;
    }
    println!(
        "\nWhat was seen: the correct driver handed every buffer over and dmavet stayed silent. The second one changed a buffer the\n\
         device had read before and started the device without handing it over: the device worked on the old bytes. The third one\n\
         looked at a received frame without taking it from the device: the instruction that read the old bytes was stopped and\n\
         named. Both happen on a machine with non-coherent caches; on an ordinary x86 machine all three drivers pass.\n\
         \n\
         Next: dmavet list variants; dmavet run --module ref:ncdma/VARIANT; dmavet explain DV202; docs/guide.md for your own driver.\n\
         Results: {}",
        out.display()
    );
    // Without the watch nobody sees the CPU read; the self-test notices that its frame is wrong.
    let unseen = if args.watch.watch == Policy::Off { Exit::Workload } else { Exit::Findings };
    let exits: Vec<Exit> = results.iter().map(|r| r.exit).collect();
    if exits == [Exit::Clean, Exit::Findings, unseen] {
        return Ok(Exit::Clean);
    }
    Err(Failure::internal(format!(
        "the demo expects the verdicts clean, findings and {unseen:?}, and got {exits:?}; please report this with {}",
        out.display()
    )))
}
