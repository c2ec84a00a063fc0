//! The archive a guest under test boots from: busybox, init, agent, modules in load order, workload, the user's files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::cache::Cache;
use crate::cpio::Archive;
use crate::kernel::{KernelError, KernelFiles, busybox};
use crate::modinfo::{ModInfo, ModInfoError, normal};
use crate::modtree::{ModTreeError, ModuleTree, module_name};
use crate::progress::Observer;
use crate::sources;

/// Why an archive cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file to be packed cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name that is not UTF-8.
    #[error("{0:?} is not UTF-8 and cannot be packed")]
    Name(PathBuf),
    /// A module parameter with a line break would become another line of the module list.
    #[error("module {module}: parameter {parameter:?} has white space or a line break in it")]
    Parameter {
        /// Module.
        module: String,
        /// The parameter.
        parameter: String,
    },
    /// A module is not one, or was built for another kernel.
    #[error(transparent)]
    Module(#[from] ModInfoError),
    /// A module the kernel does not have.
    #[error(transparent)]
    ModTree(#[from] ModTreeError),
    /// The kernel's files cannot be had.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

#[derive(Debug)]
struct GuestModule {
    under_test: bool,
    name: String,
    parameters: Vec<String>,
    contents: Vec<u8>,
}

#[derive(Debug)]
enum Extra {
    File { path: String, mode: u32, contents: Vec<u8> },
    Directory { path: String },
    Symlink { path: String, target: String },
}

/// An archive being put together for one kernel.
#[derive(Debug)]
pub struct Image<'k> {
    kernel: &'k KernelFiles,
    tree: ModuleTree,
    busybox: Vec<u8>,
    applets: Vec<String>,
    agent: Vec<u8>,
    modules: Vec<GuestModule>,
    present: BTreeSet<String>,
    workload: Vec<u8>,
    extras: Vec<Extra>,
}

impl<'k> Image<'k> {
    /// Starts an archive with the agent (the stripped copy, see [`crate::module::BuiltModule::guest_ko`]).
    ///
    /// # Errors
    /// busybox or the kernel's module list cannot be had, or the agent was built for another kernel.
    pub fn new(cache: &Cache, kernel: &'k KernelFiles, agent: &Path, observer: Observer<'_>) -> Result<Self, ImageError> {
        let path = busybox(cache, observer)?;
        let applets = crate::kernel::applets(&path);
        let mut image = Self {
            tree: kernel.modules()?,
            kernel,
            busybox: read(&path)?,
            applets,
            agent: Vec::new(),
            modules: Vec::new(),
            present: BTreeSet::new(),
            workload: b"exit 0\n".to_vec(),
            extras: Vec::new(),
        };
        let contents = read(agent)?;
        ModInfo::parse(&contents)?.check_release("dmavet_agent", &kernel.release)?;
        image.agent = contents;
        Ok(image)
    }

    /// Adds some of the kernel's own modules and what they need. Built-in ones are fine and add nothing.
    ///
    /// # Errors
    /// The kernel has no such module, or its file is damaged.
    pub fn in_tree(&mut self, names: &[String], parameters: &[String]) -> Result<(), ImageError> {
        for path in self.tree.load_order(names)? {
            let name = module_name(&path).unwrap_or_default();
            let under_test = names.iter().any(|n| normal(n) == name);
            if self.present.insert(name.clone()) {
                let contents = self.kernel.read_module(&path)?;
                let parameters = if under_test { checked(&name, parameters)? } else { Vec::new() };
                self.modules.push(GuestModule { under_test, name, parameters, contents });
            }
        }
        Ok(())
    }

    /// Adds a module file (`.ko`, also compressed), after the kernel's own modules it needs.
    ///
    /// # Errors
    /// It is not a module, was built for another kernel, or needs something the kernel does not have.
    pub fn module(&mut self, path: &Path, parameters: &[String]) -> Result<(), ImageError> {
        let contents = crate::modtree::read_module(path)?;
        let info = ModInfo::parse(&contents)?;
        // The kernel registers a module under the name inside it, whatever the file is called.
        let name = info.get("name").map(normal).or_else(|| module_name(path)).unwrap_or_default();
        info.check_release(&name, &self.kernel.release)?;
        let needed: Vec<String> = info.depends().into_iter().filter(|d| !self.present.contains(d)).collect();
        for path in self.tree.load_order(&needed)? {
            let name = module_name(&path).unwrap_or_default();
            if self.present.insert(name.clone()) {
                let contents = self.kernel.read_module(&path)?;
                self.modules.push(GuestModule { under_test: false, name, parameters: Vec::new(), contents });
            }
        }
        let parameters = checked(&name, parameters)?;
        if self.present.insert(name.clone()) {
            self.modules.push(GuestModule { under_test: true, name, parameters, contents });
        }
        Ok(())
    }

    /// The shell script run once everything is loaded; without one the workload is `exit 0`.
    pub fn workload(&mut self, script: &[u8]) {
        self.workload = script.to_vec();
    }

    /// Packs a host file or directory (recursively, symbolic links kept) at `guest`, an absolute path.
    ///
    /// # Errors
    /// It cannot be read, or a name in it is not UTF-8.
    pub fn host_path(&mut self, host: &Path, guest: &str) -> Result<(), ImageError> {
        let wrap = |source| ImageError::Read { path: host.into(), source };
        // The path given is followed; links within a directory are kept as links.
        let meta = fs::metadata(host).map_err(wrap)?;
        self.add(host, guest, &meta)
    }

    fn add(&mut self, host: &Path, guest: &str, meta: &fs::Metadata) -> Result<(), ImageError> {
        let wrap = |source| ImageError::Read { path: host.into(), source };
        let path = guest.to_owned();
        if meta.is_dir() {
            self.extras.push(Extra::Directory { path });
            let mut entries: Vec<_> = fs::read_dir(host).map_err(wrap)?.collect::<Result<_, _>>().map_err(wrap)?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let name = entry.file_name().into_string().map_err(|_| ImageError::Name(entry.path()))?;
                let meta = fs::symlink_metadata(entry.path()).map_err(wrap)?;
                self.add(&entry.path(), &format!("{}/{name}", guest.trim_end_matches('/')), &meta)?;
            }
        } else if meta.is_symlink() {
            let target = fs::read_link(host).map_err(wrap)?;
            let target = target.to_str().ok_or_else(|| ImageError::Name(target.clone()))?.to_owned();
            self.extras.push(Extra::Symlink { path, target });
        } else if meta.is_file() {
            self.extras.push(Extra::File { path, mode: meta.permissions().mode() & 0o7777, contents: read(host)? });
        }
        // Sockets, pipes and devices of the host mean nothing in the guest.
        Ok(())
    }

    /// Names of the modules in load order, the kernel's own included.
    #[must_use]
    pub fn module_names(&self) -> Vec<&str> {
        self.modules.iter().map(|m| m.name.as_str()).collect()
    }

    /// Writes the archive (newc, not compressed: unpacking costs more than copying in a slow guest). Same contents, same bytes.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn write<W: Write>(&self, out: W) -> io::Result<W> {
        let mut archive = Archive::new(out);
        archive.character_device("/dev/console", 0o600, 5, 1)?;
        archive.file("/init", 0o755, sources::file("init/init").unwrap_or_default())?;
        archive.file("/bin/busybox", 0o755, &self.busybox)?;
        for applet in &self.applets {
            archive.symlink(&format!("/bin/{applet}"), "busybox")?;
        }
        archive.file("/dmavet/dmavet_agent.ko", 0o644, &self.agent)?;
        let mut list = String::new();
        for module in &self.modules {
            archive.file(&format!("/dmavet/ko/{}.ko", module.name), 0o644, &module.contents)?;
            let kind = if module.under_test { "test" } else { "dep" };
            let _ = writeln!(list, "{kind} {} {}", module.name, module.parameters.join(" "));
        }
        archive.file("/dmavet/modules", 0o644, list.as_bytes())?;
        archive.file("/dmavet/workload", 0o755, &self.workload)?;
        for (name, contents) in sources::folder("workloads/lib", false) {
            archive.file(&format!("/dmavet/lib/{}", name.display()), 0o644, &contents)?;
        }
        for extra in &self.extras {
            match extra {
                Extra::File { path, mode, contents } => archive.file(path, *mode, contents)?,
                Extra::Directory { path } => archive.directory(path)?,
                Extra::Symlink { path, target } => archive.symlink(path, target)?,
            }
        }
        archive.finish()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|source| ImageError::Read { path: path.into(), source })
}

fn checked(module: &str, parameters: &[String]) -> Result<Vec<String>, ImageError> {
    match parameters.iter().find(|p| p.contains(char::is_whitespace)) {
        Some(bad) => Err(ImageError::Parameter { module: module.into(), parameter: bad.clone() }),
        None => Ok(parameters.to_vec()),
    }
}
