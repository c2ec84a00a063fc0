//! What a builder tells its caller while it works. The caller renders; nothing here prints.

use std::fmt;
use std::path::PathBuf;

/// One step of work that may take long enough for a person to wonder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Another dmavet process holds the cache's lock; this one waits for it.
    WaitingForLock,
    /// The package index of a suite is being read from the mirror.
    Index {
        /// Suite, e.g. `bookworm`.
        suite: String,
    },
    /// A package is being downloaded.
    Fetch {
        /// Package name with version.
        package: String,
        /// Size of the download in bytes.
        bytes: u64,
    },
    /// A package is being unpacked into the cache.
    Unpack {
        /// Package name with version.
        package: String,
    },
    /// The kernel image is being decompressed.
    Decompress {
        /// Kernel release.
        release: String,
    },
    /// A kernel module is being compiled.
    Compile {
        /// Module name, with the variant if any.
        module: String,
        /// Kernel release it is built for.
        release: String,
    },
    /// A user's kernel is configured so that a run tells less.
    Poorer {
        /// Its configuration file.
        config: PathBuf,
        /// What is not set, and what that costs.
        loss: String,
    },
    /// A cached file did not match its recorded hash and is fetched again.
    Damaged {
        /// What was damaged.
        what: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitingForLock => write!(f, "waiting for another dmavet that is filling the cache"),
            Self::Index { suite } => write!(f, "reading the package index of {suite}"),
            Self::Fetch { package, bytes } => write!(f, "fetching {package} ({:.1} MB)", *bytes as f64 / 1e6),
            Self::Unpack { package } => write!(f, "unpacking {package}"),
            Self::Decompress { release } => write!(f, "decompressing kernel {release}"),
            Self::Compile { module, release } => write!(f, "compiling {module} for {release}"),
            Self::Poorer { config, loss } => write!(f, "note: {}: {loss}", config.display()),
            Self::Damaged { what } => write!(f, "{what} is damaged in the cache: fetching it again"),
        }
    }
}

/// Receives the steps. `&|_| ()` ignores them.
pub type Observer<'a> = &'a dyn Fn(Step);
