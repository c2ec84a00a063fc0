//! Files of a kernel's own source, from the source package of the very build it is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::manifest::Manifest;
use super::{KernelError, KernelFiles, KernelSpec, debian};
use crate::apt::{Archive, Tools};
use crate::cache::{Cache, CacheError, component};
use crate::hash;
use crate::progress::{Observer, Step};

/// A folder that holds `paths` of the source tree of a stock kernel, files or whole folders (`drivers/virtio`), with what the
/// distribution changed in them. Fetched once for each set of paths.
///
/// # Errors
/// The kernel is a user's own, the archive no longer has the source of this build, or it has no such path.
pub fn source(cache: &Cache, kernel: &KernelFiles, paths: &[&str], observer: Observer<'_>) -> Result<PathBuf, KernelError> {
    let spec: KernelSpec = kernel.name.parse()?;
    let KernelSpec::Debian { version, .. } = spec else { return Err(KernelError::NoSource(kernel.name.clone())) };
    let suite = debian::suite(&version).ok_or_else(|| KernelError::UnknownName(kernel.name.clone()))?;
    let build = kernel.build_version().ok_or_else(|| KernelError::NoSource(kernel.name.clone()))?;
    let mut parts = hash::Parts::default();
    paths.iter().for_each(|path| parts.add(path));
    let key = parts.finish();
    let entry = cache.entries("sources").join(format!("linux-{}-{}", component(build), key.get(..16).unwrap_or_default()));
    if Manifest::open(&entry).is_ok() {
        return Ok(entry);
    }
    let builder = cache.lock(&format!("suite-{suite}"), observer)?;
    if Manifest::open(&entry).is_ok() {
        return Ok(entry);
    }
    let archive = Archive::open(cache, suite, &Tools::default(), observer)?;
    let package = archive.package_of(&format!("linux-source-{version}"), Some(build))?;
    let deb = archive.fetch(&package, observer)?;
    observer(Step::Unpack { package: package.name.clone() });
    let staged = builder.staging()?;
    let unpacked = staged.path().join("package");
    archive.unpack(&deb, &unpacked)?;
    let folder = format!("linux-source-{version}");
    let packed = unpacked.join("usr/src").join(format!("{folder}.tar.xz"));
    let tree = staged.path().join("tree");
    extract(&packed, &folder, paths, &tree, &kernel.name)?;
    let result = builder.staging()?;
    let io = |e| CacheError::from_io(&entry, e);
    for path in paths {
        let to = result.path().join(path);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        std::fs::rename(tree.join(path), &to).map_err(io)?;
    }
    let hashed: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    Manifest::record(
        result.path(),
        &hashed,
        &kernel.release,
        vec![(package.name.clone(), package.version.clone(), package.sha256.clone())],
    )
    .map_err(io)?;
    builder.publish_dir(result, &entry)?;
    let _ = std::fs::remove_file(deb);
    Ok(entry)
}

/// Takes `paths` out of the source tarball. By the machine's own programs: the tarball is large and xz the slowest of the decoders.
fn extract(packed: &Path, folder: &str, paths: &[&str], to: &Path, kernel: &str) -> Result<(), KernelError> {
    let missing = |what: String| KernelError::Incomplete { kernel: format!("the source of {kernel}"), what };
    if !packed.is_file() {
        return Err(missing(packed.file_name().unwrap_or_else(|| OsStr::new("tarball")).to_string_lossy().into_owned()));
    }
    std::fs::create_dir_all(to).map_err(|e| CacheError::from_io(to, e))?;
    let mut command = Command::new("tar");
    command.arg("--extract").arg("--xz").arg("--file").arg(packed).arg("--directory").arg(to).arg("--strip-components=1");
    command.args(paths.iter().map(|path| format!("{folder}/{path}"))).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|e| CacheError::from_io("tar", e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No space left on device") {
        return Err(CacheError::full(to.to_path_buf()).into());
    }
    Err(missing(said.lines().next().unwrap_or("such path").to_owned()))
}
