//! Compiler and binutils for module builds.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::BuildError;
use crate::cache::CacheError;
use crate::kernel::KernelFiles;

/// Environment variable that names the compiler to use.
const CC_VARIABLE: &str = "DMAVET_CC";

/// A compiler that can build modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Its command.
    pub cc: String,
    /// First line of `--version`.
    pub version: String,
    /// Major version.
    pub major: u32,
}

impl Toolchain {
    /// The compiler: `DMAVET_CC`, else the one the kernel was built with, else gcc-12, gcc and others. Modules from another gcc than the
    /// kernel's load as well.
    ///
    /// # Errors
    /// None of them exists.
    pub fn find(kernel: &KernelFiles) -> Result<Self, BuildError> {
        let mut candidates: Vec<String> = std::env::var(CC_VARIABLE).ok().into_iter().filter(|v| !v.is_empty()).collect();
        if candidates.is_empty() {
            candidates.extend(kernels_own(kernel));
            candidates.extend(["gcc-12", "gcc", "gcc-14", "gcc-13"].map(str::to_owned));
        }
        candidates.iter().find_map(|cc| Self::probe(cc)).ok_or_else(|| BuildError::NoCompiler { tried: candidates.join(", ") })
    }

    fn probe(cc: &str) -> Option<Self> {
        let run = |argument: &str| {
            let output = Command::new(cc).arg(argument).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
        };
        let major = run("-dumpversion")?.split('.').next()?.parse().ok()?;
        Some(Self { cc: cc.into(), version: run("--version")?, major })
    }

    /// Copies a module without its debug information.
    pub(super) fn strip(&self, from: &Path, to: &Path) -> Result<(), BuildError> {
        let output =
            Command::new("strip").arg("-g").arg("-o").arg(to).arg(from).stdin(Stdio::null()).output().map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => BuildError::NoTool { tool: "strip", package: "binutils" },
                _ => CacheError::from_io("strip", e).into(),
            })?;
        if output.status.success() {
            return Ok(());
        }
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(BuildError::Source { path: from.into(), detail })
    }
}

/// `CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14) 12.2.0"` -> `gcc-12`.
fn kernels_own(kernel: &KernelFiles) -> Option<String> {
    let text = fs::read_to_string(kernel.config.as_ref()?).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("CONFIG_CC_VERSION_TEXT=\""))?;
    let name = line.split_whitespace().next()?;
    let name = name.rsplit('/').next()?;
    let name = name.strip_prefix("x86_64-linux-gnu-").unwrap_or(name);
    name.starts_with("gcc").then(|| name.to_owned())
}
