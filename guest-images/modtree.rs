//! A kernel's own modules: names, files and what needs what.
//!
//! Packages carry no `modules.dep` (the install script makes it), so dependencies come from each module's `.modinfo`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::compress::{DecompressError, decompress};
use crate::modinfo::{ModInfo, ModInfoError, normal};

/// Why a module cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModTreeError {
    /// A directory or file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A compressed module is damaged.
    #[error("{path}: {source}")]
    Compressed {
        /// The module.
        path: PathBuf,
        /// What is wrong.
        source: DecompressError,
    },
    /// A file is not a module.
    #[error("{path}: {source}")]
    NotAModule {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ModInfoError,
    },
    /// Neither a module nor built in.
    #[error("this kernel has no module {name}{needed_by} (built as a module or in: neither; another flavour may have it)")]
    NoModule {
        /// Name asked for.
        name: String,
        /// `, needed by X`, or empty.
        needed_by: String,
    },
}

/// Reads a module file, decompressed by its contents.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn read_module(path: &Path) -> Result<Vec<u8>, ModTreeError> {
    let contents = fs::read(path).map_err(|source| ModTreeError::Read { path: path.into(), source })?;
    if contents.starts_with(b"\x7fELF") {
        return Ok(contents);
    }
    decompress(&contents).map_err(|source| ModTreeError::Compressed { path: path.into(), source })
}

/// Module names of a kernel. Names use `_`.
#[derive(Clone, Debug, Default)]
pub struct ModuleTree {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl ModuleTree {
    /// Lists `lib/modules/RELEASE`, or a kernel's build tree.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(dir: &Path) -> Result<Self, ModTreeError> {
        let mut tree = Self::default();
        let mut todo = vec![dir.to_path_buf()];
        while let Some(place) = todo.pop() {
            let listing = fs::read_dir(&place).map_err(|source| ModTreeError::Read { path: place.clone(), source })?;
            for entry in listing.filter_map(Result::ok) {
                let path = entry.path();
                // Not through links: `build` and `source` point at whole kernel trees.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if place != dir || !holds_no_modules(&path) {
                        todo.push(path);
                    }
                } else if let Some(name) = module_name(&path) {
                    tree.files.insert(name, path);
                }
            }
        }
        tree.prefer_listed(dir);
        if let Ok(text) = fs::read_to_string(dir.join("modules.builtin")) {
            tree.builtin = text.lines().filter_map(|line| module_name(Path::new(line))).collect();
        }
        Ok(tree)
    }

    /// Of several files of one name, the one `modules.order` lists is the one that was built last: a driver that moved leaves its old
    /// module behind in a build tree.
    fn prefer_listed(&mut self, dir: &Path) {
        let Ok(text) = fs::read_to_string(dir.join("modules.order")) else { return };
        for line in text.lines() {
            // Names of modules as they will be installed, as they are in the tree, or (since Linux 6.3) of the objects they are made of.
            let line = line.strip_suffix(".o").map_or_else(|| line.to_owned(), |stem| format!("{stem}.ko"));
            let places = [Some(line.as_str()), line.strip_prefix("kernel/")];
            let file = places.into_iter().flatten().map(|place| dir.join(place)).find(|file| file.is_file());
            if let Some((file, name)) = file.and_then(|file| module_name(&file).map(|name| (file, name))) {
                self.files.insert(name, file);
            }
        }
    }

    /// Whether there is no module at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// File of a module.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&Path> {
        self.files.get(&normal(name)).map(PathBuf::as_path)
    }

    /// Whether the kernel has the driver built in.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&normal(name))
    }

    /// Whether the kernel lists what it has built in; packages of some do not.
    #[must_use]
    pub fn lists_builtin(&self) -> bool {
        !self.builtin.is_empty()
    }

    /// The modules to load, in order, so that every one of `names` is there: dependencies first, each once, built-in ones left out.
    ///
    /// # Errors
    /// A module is neither there nor built in, or cannot be read.
    pub fn load_order(&self, names: &[String]) -> Result<Vec<PathBuf>, ModTreeError> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        for name in names {
            self.visit(name, None, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        needed_by: Option<&str>,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<PathBuf>,
    ) -> Result<(), ModTreeError> {
        let name = normal(name);
        // Marked before its dependencies: a cycle, which the kernel does not have, would otherwise never end.
        if self.builtin.contains(&name) || !seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(path) = self.files.get(&name) else {
            return Err(ModTreeError::NoModule { name, needed_by: needed_by.map(|n| format!(", needed by {n}")).unwrap_or_default() });
        };
        let info = ModInfo::parse(&read_module(path)?).map_err(|source| ModTreeError::NotAModule { path: path.clone(), source })?;
        for dependency in info.depends() {
            self.visit(&dependency, Some(&name), seen, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// Folders of a build tree that are large and hold no modules. `lib/modules/RELEASE` has none of these names.
fn holds_no_modules(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with('.') || ["Documentation", "LICENSES", "include", "scripts", "tools"].contains(&name.as_str())
}

/// `drivers/virtio/virtio-ring.ko.xz` -> `virtio_ring`.
pub(crate) fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|end| name.strip_suffix(end))?;
    Some(normal(stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modinfo::tests::module;

    fn tree(modules: &[(&str, &str)]) -> (tempfile::TempDir, ModuleTree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kernel")).unwrap();
        for (name, depends) in modules {
            fs::write(dir.path().join("kernel").join(name), module(&[&format!("depends={depends}")])).unwrap();
        }
        fs::write(dir.path().join("modules.builtin"), "kernel/fs/ext4-x.ko\n").unwrap();
        let tree = ModuleTree::read(dir.path()).unwrap();
        (dir, tree)
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().filter_map(|p| module_name(p)).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let (_dir, tree) = tree(&[("kvm-amd.ko", "kvm,ccp"), ("ccp.ko", ""), ("kvm.ko", "irqbypass,ext4_x"), ("irqbypass.ko", "")]);
        let order = tree.load_order(&["kvm_amd".into(), "irqbypass".into()]).unwrap();
        assert_eq!(names(&order), ["irqbypass", "kvm", "ccp", "kvm_amd"]);
        assert!(tree.lists_builtin() && tree.is_builtin("ext4-x") && tree.file("kvm-amd").is_some());
    }

    #[test]
    fn a_build_tree_is_searched_and_what_it_lists_is_preferred() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["drivers/old/my-drv.ko", "drivers/new/my-drv.ko", "net/x.ko", "tools/testing/fake.ko", ".cache/y.ko"] {
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            fs::write(dir.path().join(file), module(&["depends="])).unwrap();
        }
        for listed in ["drivers/new/my-drv.o\n", "drivers/new/my-drv.ko\n", "kernel/drivers/new/my-drv.ko\ndrivers/gone.ko\n"] {
            fs::write(dir.path().join("modules.order"), listed).unwrap();
            let tree = ModuleTree::read(dir.path()).unwrap();
            assert!(tree.file("my_drv").unwrap().ends_with("drivers/new/my-drv.ko"), "{listed}");
            assert!(tree.file("x").is_some() && tree.file("fake").is_none() && tree.file("y").is_none() && tree.file("gone").is_none());
        }
    }

    #[test]
    fn a_cycle_ends_and_a_hole_is_named() {
        let (_dir, tree) = tree(&[("a.ko", "b"), ("b.ko", "a"), ("c.ko", "gone")]);
        assert_eq!(tree.load_order(&["a".into()]).unwrap().len(), 2);
        let error = tree.load_order(&["c".into()]).unwrap_err().to_string();
        assert!(error.contains("gone, needed by c"), "{error}");
    }
}
