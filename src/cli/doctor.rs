//! `dmavet doctor`.

use crate::exit::{Exit, Failure};
use crate::run::host;
use clap::Args;
use std::env;
use std::path::{Path, PathBuf};

/// Arguments of `dmavet doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {}

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
pub fn doctor(_args: &DoctorArgs, cache: Option<&Path>) -> Result<Exit, Failure> {
    let kvm = host::describe();
    let lab_needed = kvm.is_err();
    let tool = |name: &str, package: &str| {
        find(name).map(|p| p.display().to_string()).ok_or_else(|| format!("{name} not found; apt-get install {package}"))
    };
    let checks = [
        Check { what: "KVM that can run Linux", needed: false, result: kvm },
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

fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn cache_state(cache: Option<&Path>) -> Result<String, String> {
    dmavet_images::cache::Cache::open(cache).map(|c| c.root().display().to_string()).map_err(|e| e.to_string())
}
