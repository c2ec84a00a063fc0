//! A user's own kernel as it lies about: a build tree, headers, modules that were installed somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::config::KernelConfig;

/// Where a build leaves the image, the best first: the ELF kernel of a tree carries its debug information along, which no guest needs.
const IMAGES: [&str; 2] = ["arch/x86/boot/bzImage", "vmlinux"];

/// Why a user's kernel cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A directory that is something else.
    #[error("{0} is a directory, but no kernel build tree: it has neither a .config nor a Makefile")]
    NotATree(PathBuf),
    /// A tree that was not built.
    #[error(
        "{0} has no arch/x86/boot/bzImage and no vmlinux: build it (make), or name the image with --kernel FILE and this tree with --headers"
    )]
    NoImage(PathBuf),
    /// A tree modules cannot be built against.
    #[error("no module can be built against {tree}: it has no {missing} ({advice})")]
    NotPrepared {
        /// The tree.
        tree: PathBuf,
        /// The file that is not there.
        missing: &'static str,
        /// What makes it.
        advice: &'static str,
    },
    /// Tree and image are not of the same build.
    #[error(
        "the image is Linux {image}, but {tree} makes modules for {headers}: build the tree anew (make), or name what belongs together"
    )]
    OtherRelease {
        /// The tree.
        tree: PathBuf,
        /// Release in the image.
        image: String,
        /// Release in the tree.
        headers: String,
    },
    /// The configuration lacks something.
    #[error("this kernel cannot be a guest of dmavet, {config} says:{}", list(.lacks))]
    Config {
        /// The configuration file.
        config: PathBuf,
        /// What is not as it should be.
        lacks: Vec<String>,
    },
    /// No modules of that release where they should be.
    #[error("{dir} holds no modules for Linux {release}; it has those of {there}")]
    NoModules {
        /// The directory named.
        dir: PathBuf,
        /// Release of the image.
        release: String,
        /// Releases there are modules of.
        there: String,
    },
}

fn list(lacks: &[String]) -> String {
    lacks.iter().map(|lack| format!("\n  {lack}")).collect()
}

/// The image in a build tree.
pub(super) fn image(tree: &Path) -> Result<PathBuf, TreeError> {
    if let Some(image) = IMAGES.iter().map(|image| tree.join(image)).find(|image| image.is_file()) {
        return Ok(image);
    }
    let built_like_one = [".config", "Makefile"].iter().any(|file| tree.join(file).is_file());
    Err(if built_like_one { TreeError::NoImage(tree.into()) } else { TreeError::NotATree(tree.into()) })
}

/// Whether modules for `release` can be built against a tree or headers.
pub(super) fn check_headers(tree: &Path, release: &str) -> Result<(), TreeError> {
    for (missing, advice) in [
        (".config", "is it a build tree or extracted headers?"),
        ("include/generated/autoconf.h", "make modules_prepare makes it"),
        ("Module.symvers", "make, or make modules, makes it"),
    ] {
        if !tree.join(missing).exists() {
            return Err(TreeError::NotPrepared { tree: tree.into(), missing, advice });
        }
    }
    // What modules built here say of themselves. Where it cannot be read, the module is refused once it is built.
    let text = fs::read_to_string(tree.join("include/generated/utsrelease.h")).unwrap_or_default();
    match text.lines().find_map(|line| line.strip_prefix("#define UTS_RELEASE ")).map(|name| name.trim().trim_matches('"')) {
        Some(headers) if headers != release => {
            Err(TreeError::OtherRelease { tree: tree.into(), image: release.into(), headers: headers.into() })
        }
        _ => Ok(()),
    }
}

/// Whether the kernel of that configuration can be a guest; what it can be, but tells less with.
pub(super) fn check_config(path: &Path, config: &KernelConfig) -> Result<Vec<String>, TreeError> {
    let texts = |lacks: Vec<super::config::Lack>| lacks.iter().map(ToString::to_string).collect::<Vec<_>>();
    let lacks = config.lacks();
    if lacks.is_empty() { Ok(texts(config.loses())) } else { Err(TreeError::Config { config: path.into(), lacks: texts(lacks) }) }
}

/// The modules of `release` in what the user named: `lib/modules/RELEASE` itself, or what `make modules_install` was given as
/// `INSTALL_MOD_PATH`.
pub(super) fn modules(dir: &Path, release: &str) -> Result<PathBuf, TreeError> {
    let roots = ["lib/modules", "usr/lib/modules"].map(|below| dir.join(below));
    if let Some(found) = roots.iter().map(|root| root.join(release)).find(|modules| modules.is_dir()) {
        return Ok(found);
    }
    let mut there: Vec<String> = roots
        .iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    if there.is_empty() {
        return Ok(dir.into());
    }
    there.sort();
    Err(TreeError::NoModules { dir: dir.into(), release: release.into(), there: there.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::config::tests::whole;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, if file.ends_with("utsrelease.h") { "#define UTS_RELEASE \"6.1.0-x\"\n" } else { "" }).unwrap();
        }
        dir
    }

    #[test]
    fn the_compressed_image_is_preferred() {
        let dir = tree(&["vmlinux", "arch/x86/boot/bzImage"]);
        assert!(image(dir.path()).unwrap().ends_with("arch/x86/boot/bzImage"));
        assert!(image(tree(&["vmlinux"]).path()).unwrap().ends_with("vmlinux"));
        let not_built = image(tree(&[".config"]).path()).unwrap_err().to_string();
        assert!(not_built.contains("build it (make)") && not_built.contains("--headers"), "{not_built}");
        assert!(image(tree(&["notes.txt"]).path()).unwrap_err().to_string().contains("no kernel build tree"));
    }

    #[test]
    fn a_tree_that_is_not_ready_says_what_makes_it_so() {
        let told = |files: &[&str]| check_headers(tree(files).path(), "6.1.0-x").map_err(|e| e.to_string());
        let all = [".config", "include/generated/autoconf.h", "Module.symvers", "include/generated/utsrelease.h"];
        assert_eq!(told(&all), Ok(()));
        assert_eq!(told(&all[..3]), Ok(()));
        assert!(told(&all[..1]).unwrap_err().contains("make modules_prepare"));
        assert!(told(&all[..2]).unwrap_err().contains("(make, or make modules, makes it)"));
        let other = check_headers(tree(&all).path(), "6.1.0-y").unwrap_err().to_string();
        assert!(other.contains("6.1.0-x") && other.contains("6.1.0-y"), "{other}");
    }

    #[test]
    fn all_lacks_are_told_at_once() {
        let config = KernelConfig::parse(&whole().replace("CONFIG_PCI_MSI=y", "").replace("CONFIG_ACPI=y", ""));
        let told = check_config(Path::new("/k/.config"), &config).unwrap_err().to_string();
        assert!(
            told.contains("/k/.config says:\n  CONFIG_ACPI is not set: ") && told.contains("\n  CONFIG_PCI_MSI is not set: "),
            "{told}"
        );
        assert_eq!(check_config(Path::new("c"), &KernelConfig::parse(&whole())).unwrap(), [""; 0]);
    }

    #[test]
    fn installed_modules_are_found_below_the_root_they_were_installed_to() {
        let dir = tree(&["lib/modules/6.1.0-x/modules.order", "lib/modules/6.1.0-y/modules.order"]);
        assert_eq!(modules(dir.path(), "6.1.0-y").unwrap(), dir.path().join("lib/modules/6.1.0-y"));
        let own = dir.path().join("lib/modules/6.1.0-x");
        assert_eq!(modules(&own, "6.1.0-x").unwrap(), own);
        let told = modules(dir.path(), "6.2").unwrap_err().to_string();
        assert!(told.contains("6.2") && told.contains("6.1.0-x, 6.1.0-y"), "{told}");
    }
}
