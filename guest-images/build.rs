//! Lists the C sources, patches and init script beside this file, so that they travel inside the program and a new variant is one new file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose files are embedded.
const FOLDERS: [&str; 4] = ["agent", "drivers", "init", "workloads"];

fn main() {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let mut table =
        String::from("/// Path below guest-images and contents, in path order.\npub(crate) static FILES: &[(&str, &[u8])] = &[\n");
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    for file in files {
        let name = file.strip_prefix(&root).expect("below the root").display().to_string();
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", file.display()).expect("a string");
    }
    table.push_str("];\n");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    fs::write(out, table).expect("the build directory is writable");
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    // Named even when it is missing: it may appear.
    println!("cargo::rerun-if-changed={}", dir.display());
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if source(&path) {
            println!("cargo::rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
}

/// Sources only: a build in the folder leaves objects there.
fn source(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let kind = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    !name.starts_with('.')
        && !name.ends_with(".mod.c")
        && (matches!(kind.as_str(), "c" | "h" | "S" | "patch" | "sh") || matches!(name.as_str(), "Makefile" | "Kbuild" | "init"))
}
