//! Makes extracted headers usable where they lie: relative include in the makefile, host tools that run on this machine's C library.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::apt::{AptError, Archive};
use crate::cache::CacheError;
use crate::progress::{Observer, Step};

/// Directory within a kernel's entry with the suite's own C library.
const LIBRARIES: &str = "tools";

/// Dynamic loader within a Debian package tree.
const LOADERS: [&str; 3] =
    ["usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"];

/// Why headers could not be made usable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeadersError {
    /// The makefile does not look as expected.
    #[error("{path} does not include /usr/src/...: the headers package has changed its form")]
    Makefile {
        /// The headers' makefile.
        path: PathBuf,
    },
    /// The suite's C library has no loader where it should be.
    #[error("no dynamic loader in {0}")]
    NoLoader(PathBuf),
    /// The suite's libraries could not be had.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// A file cannot be changed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> HeadersError + '_ {
    move |e| CacheError::from_io(path, e).into()
}

/// `root` is the entry, `headers` the directory of the flavour's headers in it.
pub(super) fn repair(root: &Path, headers: &Path, archive: &Archive<'_>, observer: Observer<'_>) -> Result<(), HeadersError> {
    relative_include(&headers.join("Makefile"))?;
    let tools = elf_programs(&root.join("usr/lib"))?;
    if tools.iter().all(|tool| runs_here(tool)) {
        return Ok(());
    }
    let libraries = root.join(LIBRARIES);
    fs::create_dir_all(&libraries).map_err(io(&libraries))?;
    for name in ["libc6", "libelf1t64", "libelf1", "zlib1g", "libzstd1"] {
        // libelf changed its package name with the 64-bit time transition.
        let package = match archive.package(name) {
            Err(AptError::NoPackage { .. }) if name.starts_with("libelf") => continue,
            other => other?,
        };
        let deb = archive.fetch(&package, observer)?;
        observer(Step::Unpack { package: package.name.clone() });
        archive.unpack(&deb, &libraries)?;
        let _ = fs::remove_file(deb);
    }
    let loader = LOADERS.iter().map(|l| libraries.join(l)).find(|p| p.exists()).ok_or_else(|| HeadersError::NoLoader(libraries.clone()))?;
    tools.iter().try_for_each(|tool| wrap(tool, root, &loader))
}

/// The flavour's makefile names its common part (and newer ones themselves) below /usr/src: made relative to where the makefile lies, so
/// that the cache may lie anywhere.
fn relative_include(makefile: &Path) -> Result<(), HeadersError> {
    let text = fs::read_to_string(makefile).map_err(io(makefile))?;
    if !text.contains("include /usr/src/") {
        return Err(HeadersError::Makefile { path: makefile.into() });
    }
    let fixed = format!("DMAVET_SRC := $(realpath $(dir $(lastword $(MAKEFILE_LIST)))..)\n{}", text.replace("/usr/src/", "$(DMAVET_SRC)/"));
    fs::write(makefile, fixed).map_err(io(makefile))
}

/// Executable ELF files below `dir`, where the kbuild package puts its tools.
fn elf_programs(dir: &Path) -> Result<Vec<PathBuf>, HeadersError> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> =
        fs::read_dir(dir).map_err(io(dir))?.filter_map(Result::ok).map(|e| e.path()).filter(|p| is_kbuild(p)).collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).map_err(io(&dir))?.filter_map(Result::ok) {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                todo.push(path);
            } else if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
                let mut magic = [0; 4];
                if fs::File::open(&path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF" {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_kbuild(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"linux-kbuild-")) && path.is_dir()
}

/// Programs a module build runs; the others (key tools, configuration) may lack libraries without harm.
fn needed(tool: &Path) -> bool {
    let name = tool.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    ["fixdep", "modpost", "objtool", "genksyms"].iter().any(|n| name.starts_with(n))
}

/// Whether the dynamic loader of this machine accepts a program: its complaint comes before the program's own code runs.
fn runs_here(tool: &Path) -> bool {
    if !needed(tool) {
        return true;
    }
    let output = Command::new(tool).arg("--help").env("LC_ALL", "C").stdin(Stdio::null()).output();
    output.is_ok_and(|o| {
        let said = String::from_utf8_lossy(&o.stderr);
        !said.contains("GLIBC_") && !said.contains("error while loading shared libraries")
    })
}

/// Puts a script in a program's place that runs it with the suite's own loader and libraries. Everything is found relative to the script.
fn wrap(tool: &Path, root: &Path, loader: &Path) -> Result<(), HeadersError> {
    let (Some(name), Some(dir)) = (tool.file_name().map(|n| n.to_string_lossy().into_owned()), tool.parent()) else { return Ok(()) };
    let up = dir.strip_prefix(root).map_or(0, |p| p.components().count());
    let relative = |path: &Path| format!("{}{}", "../".repeat(up), path.strip_prefix(root).unwrap_or(path).display());
    let libraries = loader.parent().map(relative).unwrap_or_default();
    // Kept under its own name in a directory of its own: some of these programs look for siblings by their own name.
    let kept = dir.join(format!(".{name}.elf"));
    fs::rename(tool, &kept).map_err(io(tool))?;
    // --argv0: objtool and modpost are front ends that run `<argv0>.real-<target>`.
    let script = format!(
        "#!/bin/sh\nd=${{0%/*}}\nexec \"$d/{}\" --library-path \"$d/{libraries}:$d/{}\" --argv0 \"$0\" \"$d/.{name}.elf\" \"$@\"\n",
        relative(loader),
        relative(&root.join(LIBRARIES).join("lib/x86_64-linux-gnu")),
    );
    fs::write(tool, script).map_err(io(tool))?;
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).map_err(io(tool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_include_becomes_relative_once() {
        let dir = tempfile::tempdir().unwrap();
        let makefile = dir.path().join("Makefile");
        fs::write(&makefile, "include /usr/src/linux-headers-6.1-common/Makefile\n").unwrap();
        relative_include(&makefile).unwrap();
        assert!(fs::read_to_string(&makefile).unwrap().ends_with("\ninclude $(DMAVET_SRC)/linux-headers-6.1-common/Makefile\n"));
        assert!(matches!(relative_include(&makefile), Err(HeadersError::Makefile { .. })));
    }
}
