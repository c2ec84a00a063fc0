//! Stock kernels from the Debian archive, unpacked side by side in the cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::manifest::Manifest;
use super::{KernelError, KernelFiles, headers};
use crate::apt::{Archive, Package, Tools};
use crate::bzimage;
use crate::cache::{Builder, Cache, CacheError, component};
use crate::progress::{Observer, Step};

/// Kernel versions, each with the suite that carries it.
pub(super) const VERSIONS: [(&str, &str); 3] = [("6.1", "bookworm"), ("6.12", "trixie"), ("7.2", "sid")];

/// Flavours, each with what it is called in package names, and with what it is for.
pub(super) const FLAVOURS: [(&str, &str, &str); 2] = [
    ("cloud", "cloud-amd64", "for clouds: drivers of virtual hardware"),
    ("generic", "amd64", "general-purpose: drivers of old hardware, too"),
];

/// Which suite carries a kernel version.
pub(super) fn suite(version: &str) -> Option<&'static str> {
    VERSIONS.into_iter().find(|(name, _)| *name == version).map(|(_, suite)| suite)
}

/// What a flavour is called in package names.
pub(super) fn package_flavour(flavour: &str) -> Option<&'static str> {
    FLAVOURS.into_iter().find(|(name, ..)| *name == flavour).map(|(_, package, _)| package)
}

/// Packages that hold parts of a kernel. Newer ones are split: binary and modules apart from the image package.
const PARTS: [&str; 5] = ["linux-image-", "linux-binary-", "linux-modules-", "linux-headers-", "linux-kbuild-"];

pub(super) fn kernel(
    cache: &Cache,
    version: &str,
    flavour: &str,
    refresh: bool,
    tools: &Tools,
    observer: Observer<'_>,
) -> Result<KernelFiles, KernelError> {
    let (name, home) = (name_of(version, flavour), home(cache, version, flavour));
    let unknown = || KernelError::UnknownName(name.clone());
    let (suite, packaged) = (suite(version).ok_or_else(unknown)?, package_flavour(flavour).ok_or_else(unknown)?);
    if !refresh && let Some(files) = current(&home, &name, flavour, &|_| ()) {
        return Ok(files);
    }
    // By suite: apt's state for it is shared by flavours.
    let builder = cache.lock(&format!("suite-{suite}"), observer)?;
    // Another builder may have filled the entry while this one waited.
    if !refresh && let Some(files) = current(&home, &name, flavour, observer) {
        return Ok(files);
    }
    let archive = Archive::open(cache, suite, tools, observer)?;
    let packages = closure(&archive, packaged)?;
    let newest = packages.iter().find(|p| p.name.starts_with(PARTS[0])).map(|p| p.version.clone()).unwrap_or_default();
    let entry = home.join(component(&newest));
    if load(&entry, &name, flavour).is_err() {
        build(&builder, &archive, &packages, &entry, &name, observer)?;
    }
    builder.publish_file(component(&newest).as_bytes(), &home.join("current"))?;
    load(&entry, &name, flavour)
}

fn name_of(version: &str, flavour: &str) -> String {
    if flavour == "cloud" { format!("debian:{version}") } else { format!("debian:{version}/{flavour}") }
}

fn home(cache: &Cache, version: &str, flavour: &str) -> PathBuf {
    cache.entries("kernels").join(format!("debian-{version}-{flavour}"))
}

/// A kernel that is in the cache.
pub(super) fn at_hand(cache: &Cache, version: &str, flavour: &str) -> Option<KernelFiles> {
    current(&home(cache, version, flavour), &name_of(version, flavour), flavour, &|_| ())
}

/// The entry used last, if it is complete and undamaged.
fn current(home: &Path, name: &str, flavour: &str, observer: Observer<'_>) -> Option<KernelFiles> {
    let entry = home.join(component(fs::read_to_string(home.join("current")).ok()?.trim()));
    match load(&entry, name, flavour) {
        Ok(files) => Some(files),
        Err(_) => {
            observer(Step::Damaged { what: format!("kernel {name}") });
            None
        }
    }
}

/// The packages of a kernel: what the image and headers metapackages of the flavour really depend on.
fn closure(archive: &Archive<'_>, flavour: &str) -> Result<Vec<Package>, KernelError> {
    let metas = [format!("linux-image-{flavour}"), format!("linux-headers-{flavour}")];
    let mut found: BTreeMap<String, Package> = BTreeMap::new();
    let mut todo = metas.to_vec();
    while let Some(name) = todo.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let package = archive.package(&name)?;
        todo.extend(package.depends.iter().filter(|d| PARTS.iter().any(|part| d.starts_with(part))).cloned());
        found.insert(name, package);
    }
    Ok(found.into_values().filter(|p| !metas.contains(&p.name)).collect())
}

fn build(
    builder: &Builder,
    archive: &Archive<'_>,
    packages: &[Package],
    entry: &Path,
    name: &str,
    observer: Observer<'_>,
) -> Result<(), KernelError> {
    let staged = builder.staging()?;
    let root = staged.path();
    for package in packages {
        let deb = archive.fetch(package, observer)?;
        observer(Step::Unpack { package: package.name.clone() });
        archive.unpack(&deb, root)?;
    }
    let incomplete = |what: &str| KernelError::Incomplete { kernel: name.into(), what: what.into() };
    let (release, _) = modules_dir(root).ok_or_else(|| incomplete("lib/modules directory"))?;
    let image_path = image(root, &release).ok_or_else(|| incomplete("kernel image"))?;
    let io = |e| CacheError::from_io(root, e);
    let contents = fs::read(&image_path).map_err(io)?;
    observer(Step::Decompress { release: release.clone() });
    let kernel = bzimage::vmlinux(&contents).map_err(|source| KernelError::Image { path: image_path, source })?;
    fs::write(root.join("vmlinux"), kernel).map_err(io)?;
    let headers = headers_dir(root, &release);
    if headers.is_dir() {
        headers::repair(root, &headers, archive, observer)?;
    }
    let packed = packages.iter().map(|p| (p.name.clone(), p.version.clone(), p.sha256.clone())).collect();
    let hashed: Vec<PathBuf> =
        ["boot", "lib/modules", "usr/lib/modules", "vmlinux"].into_iter().map(PathBuf::from).filter(|p| root.join(p).exists()).collect();
    Manifest::record(root, &hashed, &release, packed).map_err(io)?;
    builder.publish_dir(staged, entry)?;
    // The packages have served: the entry is complete and checked by its own hashes from here on.
    for package in packages {
        let _ = fs::remove_file(archive.fetched(package));
    }
    Ok(())
}

/// An entry, its boot files checked.
fn load(entry: &Path, name: &str, flavour: &str) -> Result<KernelFiles, KernelError> {
    let manifest = Manifest::open(entry)?;
    let incomplete = |what: &str| KernelError::Incomplete { kernel: name.into(), what: what.into() };
    let (release, modules) = modules_dir(entry).ok_or_else(|| incomplete("lib/modules directory"))?;
    let bzimage = image(entry, &release).ok_or_else(|| incomplete("kernel image"))?;
    let vmlinux = entry.join("vmlinux");
    manifest.check(&bzimage)?;
    manifest.check(&vmlinux)?;
    let headers = headers_dir(entry, &release);
    let config = [entry.join(format!("boot/config-{release}")), modules.join("config"), headers.join(".config")];
    Ok(KernelFiles {
        name: name.into(),
        flavour: flavour.into(),
        bzimage,
        vmlinux,
        modules_dir: Some(modules),
        headers: headers.is_dir().then_some(headers),
        config: config.into_iter().find(|p| p.exists()),
        release,
        manifest: Some(manifest),
        image_hash: None,
        listed: OnceLock::new(),
    })
}

fn modules_dir(root: &Path) -> Option<(String, PathBuf)> {
    ["lib/modules", "usr/lib/modules"].into_iter().find_map(|dir| {
        let dirs = fs::read_dir(root.join(dir)).ok()?;
        // The headers package of newer kernels leaves a directory with only a `build` link.
        let found = dirs.filter_map(Result::ok).map(|e| e.path()).find(|p| p.join("kernel").is_dir())?;
        Some((found.file_name()?.to_str()?.to_owned(), found))
    })
}

fn image(root: &Path, release: &str) -> Option<PathBuf> {
    [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz"), format!("lib/modules/{release}/vmlinuz")]
        .into_iter()
        .map(|p| root.join(p))
        .find(|p| p.is_file())
}

fn headers_dir(root: &Path, release: &str) -> PathBuf {
    root.join("usr/src").join(format!("linux-headers-{release}"))
}

/// A static busybox for guests, from the cache or the archive.
///
/// # Errors
/// As for [`super::kernel`].
pub fn busybox(cache: &Cache, observer: Observer<'_>) -> Result<PathBuf, KernelError> {
    busybox_with(cache, &Tools::default(), observer)
}

fn busybox_with(cache: &Cache, tools: &Tools, observer: Observer<'_>) -> Result<PathBuf, KernelError> {
    let entry = cache.entries("busybox").join("bookworm");
    let sound = || {
        let manifest = Manifest::open(&entry).ok()?;
        let path = binary(&entry)?;
        manifest.check(&path).ok().map(|()| path)
    };
    if let Some(path) = sound() {
        return Ok(path);
    }
    let builder = cache.lock("suite-bookworm", observer)?;
    if let Some(path) = sound() {
        return Ok(path);
    }
    let archive = Archive::open(cache, "bookworm", tools, observer)?;
    let package = archive.package("busybox-static")?;
    let deb = archive.fetch(&package, observer)?;
    let staged = builder.staging()?;
    archive.unpack(&deb, staged.path())?;
    let incomplete = || KernelError::Incomplete { kernel: "busybox-static".into(), what: "bin/busybox".into() };
    let path = binary(staged.path()).ok_or_else(incomplete)?;
    // Asked once here, not at every packing: the list goes into every guest as links.
    if let Ok(output) = Command::new(&path).arg("--list").stdin(Stdio::null()).output()
        && output.status.success()
    {
        fs::write(path.with_file_name("applets"), output.stdout).map_err(|e| CacheError::from_io(&entry, e))?;
    }
    let relative = path.strip_prefix(staged.path()).map_err(|_| incomplete())?.to_path_buf();
    Manifest::record(staged.path(), &[relative], &package.version, vec![(package.name, package.version.clone(), package.sha256)])
        .map_err(|e| CacheError::from_io(&entry, e))?;
    builder.publish_dir(staged, &entry)?;
    let _ = fs::remove_file(deb);
    binary(&entry).ok_or_else(incomplete)
}

/// Names busybox answers to, as recorded when it was unpacked; without the record only the shell.
pub(crate) fn applets(busybox: &Path) -> Vec<String> {
    let record = busybox.with_file_name("applets");
    let text = fs::read_to_string(record).unwrap_or_else(|_| "sh".into());
    text.lines().filter(|l| !l.is_empty() && !l.contains('/') && *l != "busybox").map(str::to_owned).collect()
}

fn binary(root: &Path) -> Option<PathBuf> {
    ["bin/busybox", "usr/bin/busybox"].into_iter().map(|p| root.join(p)).find(|p| p.is_file())
}
