//! The C sources that travel inside the program: the agent, the reference drivers and their variants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Contents of an embedded file, by path below `guest-images`.
pub(crate) fn file(path: &str) -> Option<&'static [u8]> {
    embedded::FILES.iter().find(|(name, _)| *name == path).map(|(_, contents)| *contents)
}

/// Files of an embedded folder by path below it; folders within it only if `deep`.
pub(crate) fn folder(folder: &str, deep: bool) -> BTreeMap<PathBuf, Vec<u8>> {
    embedded::FILES
        .iter()
        .filter_map(|(name, contents)| Some((Path::new(name).strip_prefix(folder).ok()?, contents)))
        .filter(|(path, _)| deep || path.components().count() == 1)
        .map(|(path, contents)| (path.to_path_buf(), contents.to_vec()))
        .collect()
}

/// The reference driver's workload script: its self-test.
#[must_use]
pub fn reference_workload() -> &'static [u8] {
    file("drivers/workload.sh").unwrap_or_default()
}

/// The workload script of a device model that the kernel has drivers of, by the model's name.
#[must_use]
pub fn device_workload(model: &str) -> Option<&'static [u8]> {
    // One script serves all network devices.
    let script = if matches!(model, "e1000" | "virtio-net") { "net" } else { model };
    file(&format!("workloads/{script}.sh"))
}

/// A named change to a reference driver, usually one mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// File name of the patch without `.patch`.
    pub name: String,
    /// First line of the patch's own text, what it changes.
    pub summary: String,
    /// The patch.
    pub patch: &'static [u8],
}

/// All variants of the reference drivers: every `guest-images/drivers/variants/**/*.patch`, by name.
#[must_use]
pub fn variants() -> Vec<Variant> {
    let mut found: Vec<Variant> = embedded::FILES
        .iter()
        .filter_map(|(path, patch)| {
            let below = path.strip_prefix("drivers/variants/")?.strip_suffix(".patch")?;
            Some(Variant { name: below.replace('/', "-"), summary: summary(patch), patch })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// One variant by name.
#[must_use]
pub fn variant(name: &str) -> Option<Variant> {
    variants().into_iter().find(|v| v.name == name)
}

/// The prose above the diff, its first line; mail headers and `#` are skipped.
fn summary(patch: &[u8]) -> String {
    let text = String::from_utf8_lossy(patch);
    let prose = text.lines().take_while(|l| !["--- ", "diff ", "Index: ", "@@"].iter().any(|mark| l.starts_with(mark)));
    let mut lines = prose.map(|l| l.trim_start_matches('#').trim()).filter(|l| !l.is_empty() && !l.starts_with("SPDX-") && *l != "---");
    let first = lines.find(|l| !l.starts_with("From ") && !l.starts_with("From: ") && !l.starts_with("Date: "));
    first.map(|l| l.strip_prefix("Subject: ").unwrap_or(l).to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_script_is_inside() {
        assert!(file("init/init").is_some_and(|text| text.starts_with(b"#!/bin/")));
        assert!(folder("init", false).contains_key(Path::new("init")));
    }

    #[test]
    fn every_variant_has_a_name_of_its_own() {
        let names: Vec<_> = variants().into_iter().map(|v| v.name).collect();
        let mut unique = names.clone();
        unique.dedup();
        assert_eq!(names, unique);
    }

    #[test]
    fn the_summary_is_the_first_line_of_prose() {
        assert_eq!(summary(b"# SPDX-License-Identifier: GPL-2.0\n# Forgets a sync.\n--- a\n+++ b\n"), "Forgets a sync.");
        assert_eq!(summary(b"From: x\nSubject: No sync\n\n--- a\n"), "No sync");
        assert_eq!(summary(b"--- a\n+++ b\n"), "");
    }
}
