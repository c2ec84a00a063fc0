//! What a module is built from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::BuildError;
use crate::cache::CacheError;
use crate::hash;
use crate::patch;
use crate::sources::{self, Variant};

/// Most a source directory may hold: a driver, not a kernel tree.
const LIMIT_BYTES: u64 = 32 << 20;
const LIMIT_FILES: usize = 2000;

/// A module's files, patched in memory: a patch that does not apply is known before anything is compiled.
#[derive(Clone, Debug)]
pub struct ModuleSource {
    /// Module name: the build must make `NAME.ko`.
    pub name: String,
    /// Directory as shown in reports and error messages.
    pub origin: String,
    /// Further arguments to make, e.g. `CONFIG_FOO=m`.
    pub make_args: Vec<String>,
    variant: Option<String>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl ModuleSource {
    /// The guest agent, `dmavet_agent`.
    #[must_use]
    pub fn agent() -> Self {
        Self::embedded("dmavet_agent", "agent")
    }

    /// The reference driver, `ncdma`.
    #[must_use]
    pub fn ncdma() -> Self {
        Self::embedded("ncdma", "drivers")
    }

    /// The reference driver with one of its variants; `correct` is the driver itself.
    ///
    /// # Errors
    /// There is no such variant, or its patch does not apply.
    pub fn ncdma_variant(name: &str) -> Result<Self, BuildError> {
        if name == "correct" {
            return Ok(Self::ncdma());
        }
        let variant = sources::variant(name).ok_or_else(|| BuildError::NoVariant {
            name: name.into(),
            known: std::iter::once("correct".to_owned())
                .chain(sources::variants().into_iter().map(|v| v.name))
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        Self::ncdma().with_variant(&variant)
    }

    fn embedded(name: &str, folder: &str) -> Self {
        Self {
            name: name.into(),
            origin: format!("guest-images/{folder}"),
            make_args: Vec::new(),
            variant: None,
            files: sources::folder(folder, false),
        }
    }

    /// A module whose files are still to be added; `origin` is the folder they are shown in.
    #[must_use]
    pub fn empty(name: &str, origin: &str) -> Self {
        Self { name: name.into(), origin: origin.into(), make_args: Vec::new(), variant: None, files: BTreeMap::new() }
    }

    /// A user's module directory with a Makefile or Kbuild. Objects of earlier builds are left out.
    ///
    /// # Errors
    /// It cannot be read, has no makefile, or is too large to be one driver.
    pub fn from_dir(name: &str, dir: &Path) -> Result<Self, BuildError> {
        let wrap = |path: &Path, detail: String| BuildError::Source { path: path.into(), detail };
        let dir = fs::canonicalize(dir).map_err(|e| wrap(dir, e.to_string()))?;
        let mut files = BTreeMap::new();
        let (mut bytes, mut todo) = (0, vec![dir.clone()]);
        while let Some(at) = todo.pop() {
            for entry in fs::read_dir(&at).map_err(|e| wrap(&at, e.to_string()))? {
                let path = entry.map_err(|e| wrap(&at, e.to_string()))?.path();
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                if path.is_dir() {
                    if !name.starts_with('.') && !path.is_symlink() {
                        todo.push(path);
                    }
                } else if path.is_file() && !is_product(&name) {
                    let contents = fs::read(&path).map_err(|e| wrap(&path, e.to_string()))?;
                    bytes += contents.len() as u64;
                    files.insert(path.strip_prefix(&dir).unwrap_or(&path).to_path_buf(), contents);
                }
                if bytes > LIMIT_BYTES || files.len() > LIMIT_FILES {
                    let limit = format!("more than {} MiB or {LIMIT_FILES} files: not one driver's directory", LIMIT_BYTES >> 20);
                    return Err(wrap(&dir, limit));
                }
            }
        }
        if !["Makefile", "Kbuild"].iter().any(|m| files.contains_key(Path::new(m))) {
            return Err(wrap(&dir, "no Makefile or Kbuild in it (one line does: `obj-m := NAME.o`)".into()));
        }
        Ok(Self { name: name.into(), origin: dir.display().to_string(), make_args: Vec::new(), variant: None, files })
    }

    /// Applies a variant of a reference driver.
    ///
    /// # Errors
    /// Its patch does not apply.
    pub fn with_variant(self, variant: &Variant) -> Result<Self, BuildError> {
        self.with_patch(&variant.name, variant.patch)
    }

    /// Applies a patch; its name becomes part of the label in messages.
    ///
    /// # Errors
    /// It does not apply.
    pub fn with_patch(mut self, name: &str, text: &[u8]) -> Result<Self, BuildError> {
        patch::apply(&mut self.files, name, text)?;
        self.variant = Some(self.variant.map_or_else(|| name.to_owned(), |v| format!("{v}+{name}")));
        Ok(self)
    }

    /// Adds or replaces a file.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>, contents: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), contents.into());
        self
    }

    /// Name with the variant, for messages: `ncdma (missing-sync)`.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.variant {
            Some(variant) => format!("{} ({variant})", self.name),
            None => self.name.clone(),
        }
    }

    /// The module's files, path below [`ModuleSource::origin`] and contents, patched.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<PathBuf, Vec<u8>> {
        &self.files
    }

    pub(super) fn hash_into(&self, parts: &mut hash::Parts) {
        parts.add(&self.name);
        parts.add(&self.origin);
        parts.add((self.make_args.len() as u64).to_le_bytes());
        self.make_args.iter().for_each(|a| parts.add(a));
        for (path, contents) in &self.files {
            parts.add(path.as_os_str().as_encoded_bytes());
            parts.add(contents);
        }
    }

    pub(super) fn write_to(&self, tree: &Path) -> Result<(), CacheError> {
        for (path, contents) in &self.files {
            let full = tree.join(path);
            let parent = full.parent().unwrap_or(tree);
            fs::create_dir_all(parent).map_err(|e| CacheError::from_io(parent, e))?;
            fs::write(&full, contents).map_err(|e| CacheError::from_io(&full, e))?;
        }
        Ok(())
    }
}

/// What kbuild leaves behind.
fn is_product(name: &str) -> bool {
    let ends = [".o", ".ko", ".mod", ".mod.c", ".cmd", ".a", ".symvers", ".order", ".orig", ".rej"];
    name.starts_with('.') || ends.iter().any(|end| name.ends_with(end))
}
