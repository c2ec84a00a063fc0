//! Applies unified diffs to the files of a module before it is built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use diffy::patch_set::{FileOperation, ParseOptions, PatchSet};
use thiserror::Error;

/// Why a patch does not apply.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PatchError {
    /// Not a unified diff.
    #[error("patch {patch}: {detail}")]
    Malformed {
        /// Name of the patch.
        patch: String,
        /// The parser's words.
        detail: String,
    },
    /// It changes a file the module does not have.
    #[error("patch {patch} changes {file}, which the module does not have (it has {have})")]
    NoSuchFile {
        /// Name of the patch.
        patch: String,
        /// File named in the patch.
        file: String,
        /// Files there are, joined by commas.
        have: String,
    },
    /// A hunk finds no place.
    #[error("patch {patch} does not apply to {file}: {detail}; was the driver changed after the patch was made?")]
    DoesNotApply {
        /// Name of the patch.
        patch: String,
        /// File it should change.
        file: String,
        /// Which hunk.
        detail: String,
    },
}

/// Applies `text` to `files` (path -> contents). Paths in the patch may have leading directories the module does not know (`a/`,
/// `a/guest-images/drivers/`): the file with the longest common end is meant.
///
/// # Errors
/// The patch is malformed, names an unknown file, or a hunk does not fit. `files` is then unchanged.
pub fn apply(files: &mut BTreeMap<PathBuf, Vec<u8>>, patch: &str, text: &[u8]) -> Result<(), PatchError> {
    let malformed = |detail: String| PatchError::Malformed { patch: patch.into(), detail };
    let text = std::str::from_utf8(text).map_err(|e| malformed(e.to_string()))?;
    let mut changed = BTreeMap::new();
    for part in PatchSet::parse(text, ParseOptions::unidiff()) {
        let part = part.map_err(|e| malformed(e.to_string()))?;
        let named = match part.operation() {
            FileOperation::Modify { modified, .. } => modified.as_ref(),
            FileOperation::Create(path) => path.as_ref(),
            FileOperation::Delete(path) => return Err(malformed(format!("it deletes {path}; a variant may only change or add files"))),
            _ => return Err(malformed("it renames or copies a file; a variant may only change or add files".into())),
        };
        let create = part.operation().is_create();
        let diff = part.patch().as_text().ok_or_else(|| malformed(format!("{named} is a binary change")))?;
        let target = if create {
            PathBuf::from(named.strip_prefix("b/").unwrap_or(named))
        } else {
            find(files, named).ok_or_else(|| PatchError::NoSuchFile {
                patch: patch.into(),
                file: named.into(),
                have: files.keys().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
            })?
        };
        let empty = Vec::new();
        let before = changed.get(&target).or_else(|| files.get(&target)).unwrap_or(&empty);
        let refuse = |detail: String| PatchError::DoesNotApply { patch: patch.into(), file: target.display().to_string(), detail };
        let before = std::str::from_utf8(before).map_err(|e| refuse(e.to_string()))?;
        let after = diffy::apply(before, diff).map_err(|e| refuse(e.to_string()))?;
        changed.insert(target, after.into_bytes());
    }
    if changed.is_empty() {
        return Err(malformed("it holds no unified diff".into()));
    }
    files.extend(changed);
    Ok(())
}

/// The file whose path shares the longest tail with `named`; its whole path must match.
fn find(files: &BTreeMap<PathBuf, Vec<u8>>, named: &str) -> Option<PathBuf> {
    let named = Path::new(named);
    files.keys().filter(|path| named.ends_with(path)).max_by_key(|path| path.components().count()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "Say what is wrong.\n\n--- a/guest-images/drivers/ncdma.c\n+++ b/guest-images/drivers/ncdma.c\n@@ -1,3 +1,2 @@\n one\n-two\n three\n";

    fn files() -> BTreeMap<PathBuf, Vec<u8>> {
        [("ncdma.c", "one\ntwo\nthree\n"), ("Makefile", "")].map(|(p, c)| (p.into(), c.into())).into()
    }

    #[test]
    fn leading_directories_do_not_matter_and_prose_is_skipped() {
        let mut files = files();
        apply(&mut files, "p", PATCH.as_bytes()).unwrap();
        assert_eq!(files[Path::new("ncdma.c")], b"one\nthree\n");
    }

    #[test]
    fn git_format_and_new_files_work() {
        let git = "diff --git a/ncdma.c b/ncdma.c\nindex 1..2 100644\n--- a/ncdma.c\n+++ b/ncdma.c\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n\
                   diff --git a/new.h b/new.h\nnew file mode 100644\n--- /dev/null\n+++ b/new.h\n@@ -0,0 +1 @@\n+x\n";
        let mut files = files();
        apply(&mut files, "p", git.as_bytes()).unwrap();
        assert_eq!(files[Path::new("ncdma.c")], b"one\n2\nthree\n");
        assert_eq!(files[Path::new("new.h")], b"x\n");
    }

    #[test]
    fn a_hunk_that_does_not_fit_names_patch_and_file_and_changes_nothing() {
        let mut files = files();
        files.insert("ncdma.c".into(), b"quite\ndifferent\n".to_vec());
        let before = files.clone();
        let error = apply(&mut files, "no-sync.patch", PATCH.as_bytes()).unwrap_err();
        assert!(matches!(error, PatchError::DoesNotApply { .. }), "{error}");
        assert!(error.to_string().contains("no-sync.patch") && error.to_string().contains("ncdma.c"), "{error}");
        assert_eq!(files, before);
    }

    #[test]
    fn unknown_files_and_no_patch_at_all_are_errors() {
        let other = PATCH.replace("ncdma.c", "other.c");
        assert!(matches!(apply(&mut files(), "p", other.as_bytes()), Err(PatchError::NoSuchFile { .. })));
        assert!(matches!(apply(&mut files(), "p", b"hello\n"), Err(PatchError::Malformed { .. })));
        assert!(matches!(apply(&mut files(), "p", b"\xff"), Err(PatchError::Malformed { .. })));
    }
}
