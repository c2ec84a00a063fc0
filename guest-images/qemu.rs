//! A newer QEMU beside the machine's own, for the lab: unpacked from Debian's backports into the cache, nothing installed.
//!
//! Its program finds its own data relative to itself. Its shared libraries are those of the machine's QEMU package (bookworm's).

use std::path::{Path, PathBuf};

use crate::apt::{Archive, Tools};
use crate::cache::{Cache, CacheError};
use crate::kernel::{KernelError, Manifest};
use crate::progress::{Observer, Step};

/// Where it comes from; it runs with the libraries of the suite behind this name.
const SUITE: &str = "bookworm-backports";

/// Program, data and firmware.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-data", "seabios"];

/// The program within the entry.
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";

/// The newer QEMU's program, from the cache or the archive.
///
/// # Errors
/// As for [`crate::kernel::kernel`].
pub fn backports(cache: &Cache, observer: Observer<'_>) -> Result<PathBuf, KernelError> {
    let entry = cache.entries("qemu").join(SUITE);
    if let Some(program) = sound(&entry) {
        return Ok(program);
    }
    let builder = cache.lock(&format!("suite-{SUITE}"), observer)?;
    if let Some(program) = sound(&entry) {
        return Ok(program);
    }
    let archive = Archive::open(cache, SUITE, &Tools::default(), observer)?;
    let staged = builder.staging()?;
    let mut packed = Vec::new();
    let mut release = String::new();
    for name in PACKAGES {
        let package = archive.package(name)?;
        let deb = archive.fetch(&package, observer)?;
        observer(Step::Unpack { package: package.name.clone() });
        archive.unpack(&deb, staged.path())?;
        let _ = std::fs::remove_file(deb);
        if release.is_empty() {
            release.clone_from(&package.version);
        }
        packed.push((package.name, package.version, package.sha256));
    }
    Manifest::record(staged.path(), &[PathBuf::from(PROGRAM)], &release, packed).map_err(|e| CacheError::from_io(&entry, e))?;
    builder.publish_dir(staged, &entry)?;
    sound(&entry).ok_or_else(|| KernelError::Incomplete { kernel: format!("QEMU in {SUITE}"), what: PROGRAM.into() })
}

fn sound(entry: &Path) -> Option<PathBuf> {
    let program = entry.join(PROGRAM);
    Manifest::open(entry).ok()?.check(&program).ok()?;
    program.is_file().then_some(program)
}
