//! The tools outside Rust's world that building and running guests needs, and the Debian packages that bring them.

use std::env;
use std::path::Path;
use std::process::Command;

/// A tool and the package that brings it.
struct Tool {
    /// A program on the PATH, or a file.
    probe: &'static str,
    package: &'static str,
    why: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { probe: "gcc", package: "gcc", why: "builds the guest's modules" },
    Tool { probe: "make", package: "make", why: "builds the guest's modules" },
    Tool { probe: "strip", package: "binutils", why: "strips the modules the guest loads" },
    Tool { probe: "/usr/include/stdio.h", package: "libc6-dev", why: "builds kernel build tools and Rust programs" },
    Tool { probe: "/usr/lib/x86_64-linux-gnu/libc.a", package: "libc6-dev", why: "builds a program for guests without libraries (bench)" },
    Tool { probe: "/usr/lib/x86_64-linux-gnu/libelf.so.1", package: "libelf1", why: "the kernel's objtool" },
    Tool { probe: "qemu-system-x86_64", package: "qemu-system-x86", why: "the nested lab, where KVM cannot run Linux" },
    Tool { probe: "apt-get", package: "apt", why: "fetches guest kernels" },
    Tool { probe: "chromium", package: "chromium", why: "opens the HTML report in a test" },
    Tool { probe: "dpkg-deb", package: "dpkg", why: "unpacks guest kernels" },
];

fn present(probe: &str) -> bool {
    if probe.starts_with('/') {
        return Path::new(probe).exists();
    }
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(probe).is_file()))
}

fn missing() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|t| !present(t.probe)).collect()
}

/// Prints what is missing; an error if anything is.
pub fn report() -> Result<(), String> {
    let missing = missing();
    for tool in &missing {
        println!("missing: {} (package {}): {}", tool.probe, tool.package, tool.why);
    }
    if missing.is_empty() {
        println!("all tools are there");
        return Ok(());
    }
    Err(format!("install: apt-get install {}", names(&missing)))
}

/// Installs what is missing, saying so first.
pub fn ensure() -> Result<(), String> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names = names(&missing);
    if !present("apt-get") {
        return Err(format!("these tools are missing and there is no apt-get to install them: {}", probes(&missing)));
    }
    eprintln!("xtask: installing the packages {names}");
    for tool in &missing {
        eprintln!("xtask:   {}: {}", tool.package, tool.why);
    }
    apt(&["update", "--quiet"]).and_then(|()| {
        let mut args = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
        args.extend(names.split(' '));
        apt(&args)
    })?;
    let still = self::missing();
    if still.is_empty() { Ok(()) } else { Err(format!("still missing after the installation: {}", probes(&still))) }
}

fn apt(args: &[&str]) -> Result<(), String> {
    let failed = |what: String| {
        format!("apt-get {}: {what}; as a user without that right, run it yourself: sudo apt-get {}", args.join(" "), args.join(" "))
    };
    let status = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").status().map_err(|e| failed(e.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

fn names(tools: &[&Tool]) -> String {
    let mut names: Vec<&str> = tools.iter().map(|t| t.package).collect();
    names.dedup();
    names.join(" ")
}

fn probes(tools: &[&Tool]) -> String {
    tools.iter().map(|t| t.probe).collect::<Vec<_>>().join(", ")
}
