//! Compiles kernel modules against extracted headers, once per set of inputs.
//!
//! Two files come out: one with line tables, kept on the host to turn addresses into lines, and a stripped one for the guest.

mod source;
mod toolchain;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

pub use source::ModuleSource;
pub use toolchain::Toolchain;

use crate::cache::{Cache, CacheError, component};
use crate::hash;
use crate::kernel::{KernelError, KernelFiles, Manifest, ManifestError};
use crate::modinfo::{self, ModInfo, ModInfoError};
use crate::patch::PatchError;
use crate::progress::{Observer, Step};

/// Raised when the way modules are built changes, so that older results are not used.
const RECIPE: u32 = 2;

/// Lines of compiler output shown in an error.
const SHOWN_LINES: usize = 40;

/// Why a module could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No C compiler.
    #[error("no C compiler for kernel modules found (tried {tried}): install the package gcc-12 or gcc, or name one in DMAVET_CC")]
    NoCompiler {
        /// Names tried, joined by commas.
        tried: String,
    },
    /// `make` or `strip` is missing.
    #[error("{tool} not found: install the package {package}")]
    NoTool {
        /// The program.
        tool: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The kernel came without headers.
    #[error("kernel {0} has no headers to compile modules against: give its build tree (--headers)")]
    NoHeaders(String),
    /// Kernel makefiles cannot work in such a directory.
    #[error(
        "{0} has a space or a colon in its name, which kernel makefiles do not allow: choose another cache directory with DMAVET_CACHE or --cache-dir"
    )]
    BadPath(PathBuf),
    /// A source directory cannot be read.
    #[error("{path}: {detail}")]
    Source {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A patch does not apply.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// There is no variant of that name.
    #[error("no variant {name:?}; there are: {known}")]
    NoVariant {
        /// Name asked for.
        name: String,
        /// Names there are, joined by commas.
        known: String,
    },
    /// The compiler refused.
    #[error("{module} does not compile for kernel {release}:\n{output}")]
    Compile {
        /// Module and variant.
        module: String,
        /// Kernel release.
        release: String,
        /// The compiler's own lines.
        output: String,
    },
    /// The build ended well but left no such module.
    #[error("the build of {module} made no {module}.ko; it made: {made}")]
    NoModule {
        /// Module name.
        module: String,
        /// Modules it made, joined by commas.
        made: String,
    },
    /// The result is not a module for this kernel.
    #[error(transparent)]
    ModInfo(#[from] ModInfoError),
    /// The kernel's files cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A cached result is damaged.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A compiled module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltModule {
    /// Module name, as the kernel will call it.
    pub name: String,
    /// The module with DWARF, for the host.
    pub ko: PathBuf,
    /// The same module without, for the guest.
    pub guest_ko: PathBuf,
    /// Warnings of the compiler, empty if there were none (also for a result from the cache).
    pub warnings: String,
}

/// Builds a module, or finds the result of an earlier build of the very same inputs.
///
/// # Errors
/// See [`BuildError`]; the compiler's own lines are in [`BuildError::Compile`].
pub fn build(cache: &Cache, kernel: &KernelFiles, source: &ModuleSource, observer: Observer<'_>) -> Result<BuiltModule, BuildError> {
    let headers = kernel.headers.as_deref().ok_or_else(|| BuildError::NoHeaders(kernel.name.clone()))?;
    if let Some(bad) = [cache.root(), headers].into_iter().find(|p| p.as_os_str().as_encoded_bytes().iter().any(|b| b" :".contains(b))) {
        return Err(BuildError::BadPath(bad.into()));
    }
    let tools = Toolchain::find(kernel)?;
    let mut parts = hash::Parts::default();
    parts.add(RECIPE.to_le_bytes());
    parts.add(kernel.headers_identity()?);
    parts.add(&tools.version);
    source.hash_into(&mut parts);
    let key = parts.finish();
    let entry = cache.entries("modules").join(format!("{}-{}", component(source.label()), key.get(..32).unwrap_or_default()));
    if let Ok(found) = load(&entry, &source.name) {
        return Ok(found);
    }
    let builder = cache.lock(&format!("module-{}", key.get(..2).unwrap_or_default()), observer)?;
    if let Ok(found) = load(&entry, &source.name) {
        return Ok(found);
    }
    observer(Step::Compile { module: source.label(), release: kernel.release.clone() });
    let staged = builder.staging()?;
    let tree = staged.path().join("src");
    source.write_to(&tree)?;
    let warnings = compile(kernel, headers, &tree, source, &tools)?;
    let made = tree.join(format!("{}.ko", source.name));
    if !made.exists() {
        return Err(BuildError::NoModule { module: source.name.clone(), made: modules_in(&tree) });
    }
    let io = |e| CacheError::from_io(&entry, e);
    let contents = fs::read(&made).map_err(io)?;
    ModInfo::parse(&contents)?.check_release(&source.name, &kernel.release)?;
    let (ko, guest) = (staged.path().join(format!("{}.ko", source.name)), staged.path().join(format!("{}.guest.ko", source.name)));
    fs::rename(&made, &ko).map_err(io)?;
    tools.strip(&ko, &guest)?;
    fs::write(staged.path().join("warnings"), &warnings).map_err(io)?;
    fs::remove_dir_all(&tree).map_err(io)?;
    let files: Vec<PathBuf> = [&ko, &guest].iter().filter_map(|p| p.file_name().map(PathBuf::from)).collect();
    Manifest::record(staged.path(), &files, &kernel.release, Vec::new()).map_err(io)?;
    builder.publish_dir(staged, &entry)?;
    load(&entry, &source.name)
}

fn load(entry: &Path, name: &str) -> Result<BuiltModule, BuildError> {
    let manifest = Manifest::open(entry)?;
    let built = BuiltModule {
        name: modinfo::normal(name),
        ko: entry.join(format!("{name}.ko")),
        guest_ko: entry.join(format!("{name}.guest.ko")),
        warnings: fs::read_to_string(entry.join("warnings")).unwrap_or_default(),
    };
    manifest.check(&built.ko)?;
    manifest.check(&built.guest_ko)?;
    Ok(built)
}

/// Runs kbuild; gives the warnings.
fn compile(kernel: &KernelFiles, headers: &Path, tree: &Path, source: &ModuleSource, tools: &Toolchain) -> Result<String, BuildError> {
    let mut map = OsString::from("KCFLAGS=-Wno-attributes");
    // Names in line tables: what the user calls the source, not where this build happened to lie. The compiler runs in the
    // kernel's tree, whose name would be put before every relative name: it becomes `.`.
    let common = headers.with_file_name(
        headers.file_name().map(|n| n.to_string_lossy().replace(&format!("-{}", kernel_flavour(kernel)), "-common")).unwrap_or_default(),
    );
    for (from, to) in [(tree, source.origin.as_str()), (headers, "."), (&common, ".")] {
        map.push(format!(" -ffile-prefix-map={}={to}", from.display()));
    }
    let mut command = Command::new("make");
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    command.arg(format!("-j{jobs}")).arg("-C").arg(headers).arg(format!("M={}", tree.display())).arg(format!("CC={}", tools.cc)).arg(map);
    if tools.major < 14 {
        // The kernel's configuration records its own compiler's abilities; -fmin-function-alignment came with gcc 14.
        command.arg("CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=");
    }
    // BTF needs the kernel's own vmlinux with debug information, which the packages do not carry.
    command.arg("CONFIG_DEBUG_INFO_BTF_MODULES=").args(&source.make_args).arg("modules");
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARCH", "CROSS_COMPILE", "KBUILD_OUTPUT", "KCFLAGS", "CC", "LD", "M", "V", "W"] {
        command.env_remove(variable);
    }
    command.env("LC_ALL", "C").env("KBUILD_BUILD_TIMESTAMP", "1970-01-01").stdin(Stdio::null());
    let output = command.output().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => BuildError::NoTool { tool: "make", package: "make" },
        _ => CacheError::from_io("make", e).into(),
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(readable(&said, tree, source, |l| l.contains("warning:")));
    }
    if said.contains("No space left on device") {
        return Err(CacheError::full(tree.to_path_buf()).into());
    }
    let mut text = readable(&said, tree, source, |l| !l.starts_with("make"));
    if text.is_empty() {
        // Nothing but make's own words: then those.
        text = readable(&said, tree, source, |_| true);
    }
    Err(BuildError::Compile { module: source.label(), release: kernel.release.clone(), output: text })
}

/// What the flavour is called in the name of its headers directory.
fn kernel_flavour(kernel: &KernelFiles) -> &'static str {
    if kernel.release.ends_with("-cloud-amd64") { "cloud-amd64" } else { "amd64" }
}

/// The lines that pass, file names as the user knows them, at most [`SHOWN_LINES`].
fn readable(said: &str, tree: &Path, source: &ModuleSource, keep: impl Fn(&str) -> bool) -> String {
    let tree = format!("{}/", tree.display());
    let named = |line: &str| line.replace(&tree, &format!("{}/", source.origin));
    // Newer kernels say these on every build with another compiler than their own; they are about the machine, not about the module.
    let noise = |l: &str| {
        l.contains("the compiler differs from the one used")
            || l.contains("pahole version differs")
            || l.starts_with("  The kernel was built by")
            || l.starts_with("  You are using")
    };
    let lines: Vec<String> = said.lines().filter(|l| keep(l) && !noise(l)).map(named).collect();
    let mut text = lines.iter().take(SHOWN_LINES).map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n");
    if lines.len() > SHOWN_LINES {
        text.push_str(&format!("\n  ... {} more lines", lines.len() - SHOWN_LINES));
    }
    text
}

fn modules_in(tree: &Path) -> String {
    let names: Vec<String> = fs::read_dir(tree)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n.ends_with(".ko"))
        .collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
