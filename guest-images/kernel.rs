//! Guest kernels: by name from the Debian archive, or a user's own.

pub mod config;
mod debian;
mod headers;
mod manifest;
mod source;
mod tree;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use thiserror::Error;

pub(crate) use debian::applets;
pub use debian::busybox;
pub use headers::HeadersError;
pub use manifest::{Manifest, ManifestError};
pub use source::source;
pub use tree::TreeError;

use config::KernelConfig;

use crate::apt::{AptError, Tools};
use crate::bzimage::{self, BzImageError};
use crate::cache::{Cache, CacheError};
use crate::hash;
use crate::modtree::{ModTreeError, ModuleTree};
use crate::progress::{Observer, Step};

/// Why a kernel could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A name dmavet does not know.
    #[error(
        "unknown kernel {0:?}: known are debian:6.1, debian:6.12, debian:7.2 (each also with /generic behind it), or the path of a bzImage or of a build tree"
    )]
    UnknownName(String),
    /// A user's file is not there.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image is not a kernel, or cannot be unpacked.
    #[error("{path}: {source}")]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        source: BzImageError,
    },
    /// There is no source package for a kernel that is not the archive's.
    #[error("{0} does not come from the archive: its source is not known")]
    NoSource(String),
    /// The image does not say its release.
    #[error("{0} does not say which kernel release it is")]
    NoRelease(PathBuf),
    /// The packages do not hold what they should.
    #[error("the packages of {kernel} hold no {what}")]
    Incomplete {
        /// Kernel asked for.
        kernel: String,
        /// What was looked for.
        what: String,
    },
    /// Packages could not be had.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A cached file is not what was recorded.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A user's own kernel is not as it must be.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The headers cannot be made usable.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// The module tree cannot be read.
    #[error(transparent)]
    Modules(#[from] ModTreeError),
}

/// Which kernel a guest runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSpec {
    /// A stock kernel from the Debian archive.
    Debian {
        /// `6.1`, `6.12` or `7.2`.
        version: String,
        /// `cloud` (default) or `generic`, which has the drivers for old hardware.
        flavour: String,
    },
    /// A user's own.
    Own {
        /// bzImage or ELF kernel, or the build tree that holds it.
        image: PathBuf,
        /// `lib/modules/RELEASE` of that kernel, or the root it lies below; of a build tree the tree's own if not given.
        modules: Option<PathBuf>,
        /// Build tree or extracted headers, to compile modules against; of a build tree itself if not given.
        build: Option<PathBuf>,
    },
}

impl Default for KernelSpec {
    fn default() -> Self {
        Self::Debian { version: "6.1".into(), flavour: "cloud".into() }
    }
}

impl KernelSpec {
    /// The kernels there are by name, each with what it is, in the order of a list for people.
    #[must_use]
    pub fn named() -> Vec<(Self, &'static str)> {
        let of = |flavour: &'static str, purpose| {
            let spec = move |(version, _): (&str, _)| (Self::Debian { version: version.into(), flavour: flavour.into() }, purpose);
            debian::VERSIONS.into_iter().map(spec)
        };
        debian::FLAVOURS.into_iter().flat_map(|(flavour, _, purpose)| of(flavour, purpose)).collect()
    }

    /// The same kernel with drivers for more hardware, if there is one.
    #[must_use]
    pub fn with_more_drivers(&self) -> Option<Self> {
        match self {
            Self::Debian { version, flavour } if flavour == "cloud" => {
                Some(Self::Debian { version: version.clone(), flavour: "generic".into() })
            }
            Self::Debian { .. } | Self::Own { .. } => None,
        }
    }
}

impl FromStr for KernelSpec {
    type Err = KernelError;

    /// `debian`, `debian:6.12`, `debian:6.12/generic`, or a path (anything with a `/` before any `:`, or that exists).
    fn from_str(text: &str) -> Result<Self, KernelError> {
        let unknown = || KernelError::UnknownName(text.into());
        if text == "debian" {
            return Ok(Self::default());
        }
        if let Some(rest) = text.strip_prefix("debian:") {
            let (version, flavour) = rest.split_once('/').unwrap_or((rest, "cloud"));
            debian::suite(version).ok_or_else(unknown)?;
            debian::package_flavour(flavour).ok_or_else(unknown)?;
            return Ok(Self::Debian { version: version.into(), flavour: flavour.into() });
        }
        if text.contains('/') || Path::new(text).exists() {
            return Ok(Self::Own { image: text.into(), modules: None, build: None });
        }
        Err(unknown())
    }
}

impl fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { version, flavour } if flavour == "cloud" => write!(f, "debian:{version}"),
            Self::Debian { version, flavour } => write!(f, "debian:{version}/{flavour}"),
            Self::Own { image, .. } => write!(f, "{}", image.display()),
        }
    }
}

/// A kernel ready to boot, and what is needed to build and pack modules for it. All paths are absolute.
#[derive(Clone, Debug)]
pub struct KernelFiles {
    /// What the user calls it, e.g. `debian:6.1`.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// `cloud`, `generic` or `own`.
    pub flavour: String,
    /// The bzImage as shipped. For a user's ELF kernel this is that file.
    pub bzimage: PathBuf,
    /// The ELF kernel, unpacked on the host.
    pub vmlinux: PathBuf,
    /// `lib/modules/RELEASE` or a build tree, if there are modules.
    pub modules_dir: Option<PathBuf>,
    /// Build tree for out-of-tree modules.
    pub headers: Option<PathBuf>,
    /// The kernel's configuration.
    pub config: Option<PathBuf>,
    manifest: Option<Manifest>,
    /// SHA-256 of a user's image. His tree may change without its configuration or symbol versions telling.
    image_hash: Option<String>,
    listed: OnceLock<ModuleTree>,
}

impl KernelFiles {
    /// The kernel's own modules; empty for a kernel without a module directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn modules(&self) -> Result<ModuleTree, KernelError> {
        if let Some(listed) = self.listed.get() {
            return Ok(listed.clone());
        }
        let tree = match &self.modules_dir {
            Some(dir) => ModuleTree::read(dir)?,
            None => ModuleTree::default(),
        };
        // A build tree takes a while to walk, and is asked for several times.
        Ok(self.listed.get_or_init(|| tree).clone())
    }

    /// The kernel's configuration, if it is known.
    #[must_use]
    pub fn configuration(&self) -> Option<KernelConfig> {
        fs::read_to_string(self.config.as_ref()?).ok().map(|text| KernelConfig::parse(&text))
    }

    /// Version of the packages it was unpacked from, for a kernel from the archive.
    fn build_version(&self) -> Option<&str> {
        let packages = &self.manifest.as_ref()?.packages;
        packages.iter().find(|(name, ..)| name.starts_with("linux-image-")).map(|(_, version, _)| version.as_str())
    }

    /// Reads one of the kernel's own modules, decompressed, checked against the hash recorded when it was unpacked.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn read_module(&self, path: &Path) -> Result<Vec<u8>, KernelError> {
        if let Some(manifest) = &self.manifest {
            manifest.check(path)?;
        }
        Ok(crate::modtree::read_module(path)?)
    }

    /// A kernel of which only the release matters.
    #[cfg(test)]
    pub(crate) fn for_tests(release: &str, headers: Option<PathBuf>) -> Self {
        let none = PathBuf::from("/nonexistent");
        Self {
            name: "test".into(),
            release: release.into(),
            flavour: "own".into(),
            bzimage: none.clone(),
            vmlinux: none,
            modules_dir: None,
            headers,
            config: None,
            manifest: None,
            image_hash: None,
            listed: OnceLock::new(),
        }
    }

    /// Identifies the headers for the module cache: configuration, symbol versions and release.
    pub(crate) fn headers_identity(&self) -> Result<String, KernelError> {
        let mut parts = hash::Parts::default();
        parts.add(&self.release);
        if let Some(hash) = &self.image_hash {
            parts.add(hash);
        }
        if let Some(headers) = &self.headers {
            parts.add(headers.as_os_str().as_encoded_bytes());
            for file in [".config", "Module.symvers"] {
                match fs::read(headers.join(file)) {
                    Ok(contents) => parts.add(contents),
                    // A build tree that was never fully built has no Module.symvers.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => parts.add(""),
                    Err(source) => return Err(KernelError::Read { path: headers.join(file), source }),
                }
            }
        }
        Ok(parts.finish())
    }
}

/// Gets a kernel: from the cache if it is there and sound, else from the archive. `refresh` asks the archive for a newer build.
///
/// # Errors
/// See [`KernelError`]; without network everything already in the cache still works.
pub fn kernel(cache: &Cache, spec: &KernelSpec, refresh: bool, observer: Observer<'_>) -> Result<KernelFiles, KernelError> {
    match spec {
        KernelSpec::Debian { version, flavour } => debian::kernel(cache, version, flavour, refresh, &Tools::default(), observer),
        KernelSpec::Own { image, modules, build } => own(cache, image, modules.as_deref(), build.as_deref(), observer),
    }
}

/// The same, if nothing has to be fetched for it.
///
/// # Errors
/// What is wrong with a user's own kernel.
pub fn at_hand(cache: &Cache, spec: &KernelSpec, observer: Observer<'_>) -> Result<Option<KernelFiles>, KernelError> {
    match spec {
        KernelSpec::Debian { version, flavour } => Ok(debian::at_hand(cache, version, flavour)),
        KernelSpec::Own { .. } => kernel(cache, spec, false, observer).map(Some),
    }
}

fn own(
    cache: &Cache,
    image: &Path,
    modules: Option<&Path>,
    build: Option<&Path>,
    observer: Observer<'_>,
) -> Result<KernelFiles, KernelError> {
    let absolute = |path: &Path| fs::canonicalize(path).map_err(|source| KernelError::Read { path: path.into(), source });
    let named = absolute(image)?;
    let tree = named.is_dir().then_some(named.as_path());
    let bzimage = tree.map_or_else(|| Ok(named.clone()), tree::image)?;
    let contents = fs::read(&bzimage).map_err(|source| KernelError::Read { path: bzimage.clone(), source })?;
    let release = bzimage::release(&contents).ok_or_else(|| KernelError::NoRelease(bzimage.clone()))?;
    let modules = modules.map(absolute).transpose()?.or_else(|| tree.map(Path::to_path_buf));
    let build = build.map(absolute).transpose()?.or_else(|| tree.map(Path::to_path_buf));
    let config = build.as_ref().map(|b| b.join(".config")).filter(|p| p.exists());
    let image_hash = hash::of_bytes(&contents);
    let mut files = KernelFiles {
        name: named.display().to_string(),
        flavour: "own".into(),
        vmlinux: bzimage.clone(),
        modules_dir: modules.map(|dir| tree::modules(&dir, &release)).transpose()?,
        headers: build,
        config,
        release,
        bzimage,
        manifest: None,
        image_hash: Some(image_hash.clone()),
        listed: OnceLock::new(),
    };
    check_own(&files, observer)?;
    if !contents.starts_with(b"\x7fELF") {
        let path = cache.entries("vmlinux").join(image_hash);
        if !path.exists() {
            let builder = cache.lock("vmlinux", observer)?;
            observer(Step::Decompress { release: files.release.clone() });
            let kernel = bzimage::vmlinux(&contents).map_err(|source| KernelError::Image { path: files.bzimage.clone(), source })?;
            builder.publish_file(&kernel, &path)?;
        }
        files.vmlinux = path;
    }
    Ok(files)
}

/// Refuses a user's kernel that cannot be a guest before anything is built for it.
fn check_own(files: &KernelFiles, observer: Observer<'_>) -> Result<(), KernelError> {
    if let (Some(path), Some(config)) = (&files.config, files.configuration()) {
        for loss in tree::check_config(path, &config)? {
            observer(Step::Poorer { config: path.clone(), loss });
        }
    }
    if let Some(headers) = &files.headers {
        tree::check_headers(headers, &files.release)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
