//! Packages from a Debian archive, without installing anything: `apt-get` and `apt-cache` with private sources, lists and cache.
//!
//! apt checks the archive's signature and gives us each package's SHA-256; every file is checked against it here as well, so a damaged or
//! truncated file in the cache is noticed whoever damaged it. The mirror is the machine's own, read from its configuration at run time.

mod mirror;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;

pub use mirror::Mirror;

use crate::cache::{Cache, CacheError, component, free_bytes};
use crate::hash;
use crate::progress::{Observer, Step};

/// A file system with less free space than this, in bytes, is full.
const FULL: u64 = 64 << 10;

/// How often a running tool is looked after.
const POLL: Duration = Duration::from_millis(20);

/// Why a package could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AptError {
    /// The machine has no apt.
    #[error(
        "{tool} not found: dmavet fetches guest kernels with Debian's apt. On another distribution give your own kernel (--kernel PATH with --modules-dir and --headers)"
    )]
    NoApt {
        /// The program that is missing.
        tool: String,
    },
    /// The archive's signing keys are not on this machine.
    #[error("none of {tried} exists: install the package debian-archive-keyring, it holds the keys that sign Debian's package index")]
    NoKeyring {
        /// Key files looked for, joined by " or ".
        tried: String,
    },
    /// The mirror did not answer.
    #[error("cannot read {suite} from {mirror}: {detail} (network, proxy or mirror down? what is already in the cache still works)")]
    Mirror {
        /// Suite asked for.
        suite: String,
        /// Mirror address.
        mirror: String,
        /// apt's own words.
        detail: String,
    },
    /// The index has no such package.
    #[error("{suite} has no package {package}")]
    NoPackage {
        /// Suite looked in.
        suite: String,
        /// Package asked for.
        package: String,
    },
    /// The index entry lacks a field dmavet needs.
    #[error("{suite}'s index entry of {package} has no {field}")]
    NoField {
        /// Suite looked in.
        suite: String,
        /// Package.
        package: String,
        /// Field name.
        field: &'static str,
    },
    /// A download failed.
    #[error("cannot download {package}: {detail}")]
    Download {
        /// Package with version.
        package: String,
        /// apt's own words.
        detail: String,
    },
    /// A file is not what the index says it is, even after a second download.
    #[error("{path} has SHA-256 {found}, the package index says {expected}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Hash of its contents.
        found: String,
        /// Hash in the index.
        expected: String,
    },
    /// A package could not be unpacked.
    #[error("cannot unpack {path}: {detail}")]
    Unpack {
        /// The package file.
        path: PathBuf,
        /// The unpacker's own words.
        detail: String,
    },
    /// The cache cannot be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// The programs used; tests put their own in place.
#[derive(Clone, Debug)]
pub struct Tools {
    /// `apt-get`
    pub apt_get: OsString,
    /// `apt-cache`
    pub apt_cache: OsString,
    /// `dpkg-deb`
    pub dpkg_deb: OsString,
}

impl Default for Tools {
    fn default() -> Self {
        Self { apt_get: "apt-get".into(), apt_cache: "apt-cache".into(), dpkg_deb: "dpkg-deb".into() }
    }
}

/// One package as the index describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version with epoch.
    pub version: String,
    /// Architecture, `amd64` or `all`.
    pub architecture: String,
    /// SHA-256 of the package file, lower-case hex.
    pub sha256: String,
    /// Size of the package file in bytes.
    pub bytes: u64,
    /// Names of the packages it depends on, first alternative of each, without versions.
    pub depends: Vec<String>,
}

impl Package {
    fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

/// One suite of the archive with apt's private state in the cache.
#[derive(Debug)]
pub struct Archive<'a> {
    cache: &'a Cache,
    suite: String,
    state: PathBuf,
    mirror: Mirror,
    tools: Tools,
}

impl<'a> Archive<'a> {
    /// Prepares the private state and reads the suite's index from the mirror.
    ///
    /// # Errors
    /// No apt, no keyring, no network, no space.
    pub fn open(cache: &'a Cache, suite: &str, tools: &Tools, observer: Observer<'_>) -> Result<Self, AptError> {
        let mirror = Mirror::of_this_machine(tools)?;
        let state = cache.root().join("apt").join(component(suite));
        let archive = Self { cache, suite: suite.into(), state, mirror, tools: tools.clone() };
        archive.write_state()?;
        observer(Step::Index { suite: suite.into() });
        archive.update()?;
        Ok(archive)
    }

    fn write_state(&self) -> Result<(), AptError> {
        for dir in ["lists/partial", "cache/archives/partial"] {
            let path = self.state.join(dir);
            fs::create_dir_all(&path).map_err(|e| CacheError::from_io(path, e))?;
        }
        for (file, contents) in [("sources.list", self.mirror.sources(&self.suite)), ("status", String::new()), ("apt.conf", String::new())]
        {
            let path = self.state.join(file);
            fs::write(&path, contents).map_err(|e| CacheError::from_io(path, e))?;
        }
        Ok(())
    }

    /// Options that keep apt away from the machine's own lists, sources and package state.
    fn options(&self) -> Vec<OsString> {
        let at = |name: &str, path: PathBuf| {
            let mut option = OsString::from(format!("{name}="));
            option.push(path);
            option
        };
        [
            at("Dir::Etc::SourceList", self.state.join("sources.list")),
            at("Dir::Etc::SourceParts", "/dev/null".into()),
            at("Dir::Etc::Preferences", "/dev/null".into()),
            at("Dir::Etc::PreferencesParts", "/dev/null".into()),
            at("Dir::State", self.state.clone()),
            at("Dir::State::Lists", self.state.join("lists")),
            at("Dir::State::Status", self.state.join("status")),
            at("Dir::Cache", self.state.join("cache")),
            "APT::Architecture=amd64".into(),
            // The unprivileged download user of a root apt cannot reach a cache under /root.
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=2".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
            "APT::Update::Error-Mode=any".into(),
        ]
        .into_iter()
        .flat_map(|option| [OsString::from("-o"), option])
        .collect()
    }

    fn run(&self, tool: &OsStr, args: &[&OsStr], dir: &Path) -> Result<Result<String, String>, AptError> {
        let mut command = Command::new(tool);
        command.args(self.options()).args(args).current_dir(dir).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        let run = run(&mut command, tool, dir)?;
        if let Err(detail) = &run
            && detail.contains("No space left on device")
        {
            return Err(CacheError::full(dir.to_path_buf()).into());
        }
        Ok(run)
    }

    fn update(&self) -> Result<(), AptError> {
        self.run(&self.tools.apt_get, &["-q".as_ref(), "update".as_ref()], &self.state)?.map_err(|detail| AptError::Mirror {
            suite: self.suite.clone(),
            mirror: self.mirror.main.clone(),
            detail,
        })?;
        Ok(())
    }

    /// The newest version of a package.
    ///
    /// # Errors
    /// There is no such package, or its entry is incomplete.
    pub fn package(&self, name: &str) -> Result<Package, AptError> {
        self.package_of(name, None)
    }

    /// A package in the version named, the newest if none is.
    ///
    /// # Errors
    /// As for [`Archive::package`].
    pub(crate) fn package_of(&self, name: &str, version: Option<&str>) -> Result<Package, AptError> {
        let wanted = version.map_or_else(|| name.to_owned(), |version| format!("{name}={version}"));
        let none = || AptError::NoPackage { suite: self.suite.clone(), package: wanted.clone() };
        let text = self
            .run(&self.tools.apt_cache, &["show".as_ref(), "--no-all-versions".as_ref(), "--".as_ref(), wanted.as_ref()], &self.state)?
            .map_err(|_| none())?;
        // A name that other packages only provide: apt-cache is content and says nothing.
        if text.trim().is_empty() {
            return Err(none());
        }
        parse_package(&text, &self.suite, name)
    }

    /// The package file in the cache, downloaded if it is not there, checked against the index in any case.
    ///
    /// # Errors
    /// The download failed, or its contents are not what the index says.
    pub fn fetch(&self, package: &Package, observer: Observer<'_>) -> Result<PathBuf, AptError> {
        let path = self.fetched(package);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| CacheError::from_io(dir, e))?;
        }
        if path.exists() {
            match check(&path, &package.sha256) {
                Ok(()) => return Ok(path),
                Err(AptError::Damaged { .. }) => {
                    observer(Step::Damaged { what: package.label() });
                    fs::remove_file(&path).map_err(|e| CacheError::from_io(&path, e))?;
                }
                Err(other) => return Err(other),
            }
        }
        observer(Step::Fetch { package: package.label(), bytes: package.bytes });
        self.download(package, &path)?;
        check(&path, &package.sha256)?;
        Ok(path)
    }

    /// Where a package's file lies once fetched.
    pub(crate) fn fetched(&self, package: &Package) -> PathBuf {
        let name = format!("{}_{}_{}.deb", package.name, component(&package.version), package.architecture);
        self.cache.root().join("debs").join(name)
    }

    fn download(&self, package: &Package, path: &Path) -> Result<(), AptError> {
        // apt names the file itself: an own directory, so that the one file in it is ours. A download that was cut off is resumed by apt
        // from its archives/partial.
        let dir = self.state.join("download");
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|e| CacheError::from_io(&dir, e))?;
        }
        fs::create_dir_all(&dir).map_err(|e| CacheError::from_io(&dir, e))?;
        let wanted = format!("{}={}", package.name, package.version);
        self.run(&self.tools.apt_get, &["-q".as_ref(), "download".as_ref(), wanted.as_ref()], &dir)?
            .map_err(|detail| AptError::Download { package: package.label(), detail })?;
        let file = fs::read_dir(&dir)
            .map_err(|e| CacheError::from_io(&dir, e))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|p| p.extension() == Some(OsStr::new("deb")))
            .ok_or_else(|| AptError::Download { package: package.label(), detail: "apt-get said nothing but left no file".into() })?;
        fs::rename(&file, path).map_err(|e| CacheError::from_io(path, e))?;
        Ok(())
    }

    /// Unpacks a package's files below `target` (nothing is installed, no maintainer script runs).
    ///
    /// # Errors
    /// `dpkg-deb` is missing or failed.
    pub fn unpack(&self, deb: &Path, target: &Path) -> Result<(), AptError> {
        let mut command = Command::new(&self.tools.dpkg_deb);
        command.arg("-x").arg(deb).arg(target).env("LC_ALL", "C");
        run(&mut command, &self.tools.dpkg_deb, target)?.map_err(|detail| {
            if detail.contains("No space left on device") {
                CacheError::full(target.to_path_buf()).into()
            } else {
                AptError::Unpack { path: deb.to_path_buf(), detail }
            }
        })?;
        Ok(())
    }
}

/// Runs a tool: its stdout, or what it said on stderr. A missing program is an error of its own.
/// Runs a tool that writes below `dir`. apt waits for ever when the disk fills up under it, so that is looked for meanwhile.
fn run(command: &mut Command, tool: &OsStr, dir: &Path) -> Result<Result<String, String>, AptError> {
    let failed = |e: io::Error| CacheError::from_io(tool, e);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => AptError::NoApt { tool: tool.to_string_lossy().into_owned() },
        _ => failed(e).into(),
    })?;
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if free_bytes(dir) < FULL {
            // Its helpers end with their pipes.
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(CacheError::full(dir.to_path_buf()).into());
        }
        thread::sleep(POLL);
    };
    let output = Output { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() };
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter(|l| l.starts_with("E:")).take(3).collect();
    let detail = if errors.is_empty() { said.trim().to_owned() } else { errors.join("; ") };
    Ok(Err(if detail.is_empty() { output.status.to_string() } else { detail }))
}

/// Reads a pipe to its end.
fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn check(path: &Path, expected: &str) -> Result<(), AptError> {
    let found = hash::of_file(path).map_err(|e| CacheError::from_io(path, e))?;
    if found == expected {
        return Ok(());
    }
    Err(AptError::Damaged { path: path.to_path_buf(), found, expected: expected.into() })
}

/// Reads the first stanza of `apt-cache show`.
fn parse_package(text: &str, suite: &str, name: &str) -> Result<Package, AptError> {
    let stanza = text.split("\n\n").next().unwrap_or_default();
    let field = |wanted: &'static str| {
        stanza.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(": ")).map(str::to_owned).ok_or_else(|| AptError::NoField {
            suite: suite.into(),
            package: name.into(),
            field: wanted,
        })
    };
    Ok(Package {
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture")?,
        sha256: field("SHA256")?,
        bytes: field("Size")?.parse().unwrap_or(0),
        depends: field("Depends").map(|d| parse_depends(&d)).unwrap_or_default(),
    })
}

/// Names of a `Depends` field: first alternative of each, versions dropped.
fn parse_depends(field: &str) -> Vec<String> {
    field
        .split(',')
        .filter_map(|entry| entry.split('|').next()?.split_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests;
