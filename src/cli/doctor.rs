//! `dmavet doctor`.

use crate::cli::selfcheck::selfcheck;
use crate::exit::{Exit, Failure};
use crate::lab::Choice;
use crate::run::{Host, WatchBackend, host};
use clap::Args;
use dmavet_vmm::Backend;
use std::env;
use std::path::{Path, PathBuf};

/// How the self-check tells what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DoctorFormat {
    /// For people
    Text,
    /// For programs, form by form
    Json,
}

/// Arguments of `dmavet doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Check the CPU watch instead: run hundreds of instructions on guarded memory and compare
    #[arg(long)]
    pub watch: bool,

    /// Where the watch is checked: on this machine's KVM (also one that cannot run Linux), or in the nested lab
    #[arg(long, value_enum, default_value_t = Host::Kvm, requires = "watch")]
    pub host: Host,

    /// How the CPU is kept from pages
    #[arg(long, value_enum, default_value_t = WatchBackend::Mprotect, requires = "watch", value_name = "HOW")]
    pub watch_backend: WatchBackend,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = DoctorFormat::Text, requires = "watch")]
    pub format: DoctorFormat,

    /// QEMU of the lab: system, new (one that gives guests AVX, fetched if need be), or a path
    #[arg(long, value_name = "QEMU", requires = "watch")]
    pub lab_qemu: Option<Choice>,

    /// CPUs of the lab's outer machine
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u8).range(1..=4))]
    pub lab_cpus: Option<u8>,
}

/// One thing looked at.
struct Check {
    what: &'static str,
    /// Whether a run is impossible without it.
    needed: bool,
    result: Result<String, String>,
}

/// Looks at this machine and prints what it found.
///
/// # Errors
/// When something is missing without which nothing runs.
pub fn doctor(args: &DoctorArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    if args.watch {
        return selfcheck(args, cache);
    }
    let kvm = host::describe();
    let lab_needed = kvm.is_err();
    let tool = |name: &str, package: &str| {
        find(name).map(|p| p.display().to_string()).ok_or_else(|| format!("{name} not found; apt-get install {package}"))
    };
    let checks = [
        Check { what: "KVM that can run Linux", needed: false, result: kvm },
        Check { what: "CPU watch by mprotect", needed: false, result: backend(Backend::Mprotect) },
        Check { what: "CPU watch by userfaultfd", needed: false, result: backend(Backend::Userfaultfd) },
        Check { what: "QEMU for the lab", needed: lab_needed, result: tool("qemu-system-x86_64", "qemu-system-x86") },
        Check { what: "C compiler", needed: true, result: tool("gcc", "gcc") },
        Check { what: "make", needed: true, result: tool("make", "make") },
        Check { what: "strip", needed: true, result: tool("strip", "binutils") },
        Check { what: "apt-get", needed: false, result: tool("apt-get", "apt").map_err(|e| format!("{e}, or name a kernel of your own")) },
        Check { what: "cache", needed: true, result: cache_state(cache) },
    ];
    let mut missing = Vec::new();
    for check in &checks {
        let (mark, text) = match &check.result {
            Ok(text) => ("ok", text),
            Err(text) if check.needed => ("MISSING", text),
            Err(text) => ("no", text),
        };
        println!("{mark:<8} {:<24} {text}", check.what);
        if mark == "MISSING" {
            missing.push(check.what);
        }
    }
    println!(
        "\nGuests run {}.",
        if lab_needed { "in the lab (--host lab): slower, with the same findings" } else { "on this machine's KVM" }
    );
    if missing.is_empty() { Ok(Exit::Clean) } else { Err(Failure::cannot_run(format!("missing: {}", missing.join(", ")))) }
}

/// What this system's kernel can do; the lab brings its own.
fn backend(backend: Backend) -> Result<String, String> {
    let room = backend.check().map_err(|e| e.to_string())?;
    Ok(room.map_or_else(|| "any number of pages".to_owned(), |pages| format!("up to {pages} pages that do not touch each other")))
}

fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn cache_state(cache: Option<&Path>) -> Result<String, String> {
    dmavet_images::cache::Cache::open(cache).map(|c| c.root().display().to_string()).map_err(|e| e.to_string())
}
