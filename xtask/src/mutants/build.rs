//! The copy of the crate with every change in it: written, and rebuilt until only changes the compiler accepts are left.

use super::find::{self, Site};
use super::schema::{self, Written};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crate whose tests are tried, and where the copy goes.
#[derive(Clone, Debug)]
pub struct Project {
    /// The workspace.
    pub root: PathBuf,
    /// The crate's folder below it.
    pub folder: String,
    /// Folders and files below `folder` whose code is not changed.
    pub unchanged: Vec<String>,
    /// Where the copy and what is known of it are.
    pub work: PathBuf,
}

/// A change that compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The number the switch knows it by.
    pub number: u32,
    /// The file below the crate's folder.
    pub file: String,
    pub line: usize,
    /// `file: function: what`, with a number when that is said twice: outlives other changes of the file.
    pub key: String,
}

/// The test program with all mutants in it.
#[derive(Debug)]
pub struct Built {
    pub mutants: Vec<Mutant>,
    pub unviable: usize,
    pub program: PathBuf,
}

/// What the compiler taught about a state of the sources.
#[derive(Default)]
struct Known {
    /// Keys of changes that do not compile.
    unviable: BTreeSet<String>,
    /// Functions that have to stay `const`.
    constant: BTreeSet<String>,
}

struct Copy {
    files: BTreeMap<String, (String, Written)>,
    mutants: Vec<Mutant>,
}

/// Rounds of the compiler after which something else must be wrong.
const ROUNDS: usize = 40;

impl Project {
    /// Builds the test program.
    pub fn build(&self) -> Result<Built, String> {
        let sources = self.sources()?;
        let memory = self.work.join("unviable.json");
        let state = self.state(&sources);
        let mut known = recall(&memory, state);
        for _ in 0..ROUNDS {
            let copy = self.copy(&sources, &known)?;
            self.write(&copy)?;
            let messages = self.cargo(&["check", "--tests"])?;
            let errors: Vec<&Value> =
                messages.iter().filter_map(|m| m.get("message")).filter(|m| text(m, "level") == "error" && !spans(m).is_empty()).collect();
            if errors.is_empty() {
                fs::write(&memory, remember(&known, state)).map_err(|e| format!("{}: {e}", memory.display()))?;
                let program = self.program()?;
                return Ok(Built { mutants: copy.mutants, unviable: known.unviable.len(), program });
            }
            eprintln!("xtask: {} errors in changes of the code: leaving those out", errors.len());
            for error in errors {
                self.learn(error, &copy, &mut known)?;
            }
        }
        Err(format!("the changed copy in {} still does not compile after {ROUNDS} rounds", self.work.display()))
    }

    /// The crate's files that are changed: path below its folder, text.
    fn sources(&self) -> Result<Vec<(String, String)>, String> {
        let mut found = Vec::new();
        let folder = self.root.join(&self.folder);
        files_below(&folder, &mut found)?;
        let mut sources = Vec::new();
        for path in found {
            let name = path.strip_prefix(&folder).map_err(|e| e.to_string())?.to_string_lossy().into_owned();
            let test = name.starts_with("tests/") || name.starts_with("benches/") || name.ends_with("/tests.rs");
            let unchanged = self.unchanged.iter().any(|prefix| name.starts_with(prefix));
            if name.ends_with(".rs") && !test && !unchanged {
                sources.push((name, fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?));
            }
        }
        sources.sort();
        Ok(sources)
    }

    fn state(&self, sources: &[(String, String)]) -> u64 {
        let mut hasher = DefaultHasher::new();
        sources.hash(&mut hasher);
        hasher.finish()
    }

    fn copy(&self, sources: &[(String, String)], known: &Known) -> Result<Copy, String> {
        let mut copy = Copy { files: BTreeMap::new(), mutants: Vec::new() };
        let mut number = 0;
        for (name, source) in sources {
            let mut keys: BTreeMap<String, usize> = BTreeMap::new();
            let mut sites: Vec<(Site, Vec<Option<u32>>)> = Vec::new();
            for site in find::sites(source, &known.constant).map_err(|e| format!("{name}: {e}"))? {
                let mut numbers = Vec::new();
                for change in &site.changes {
                    let mut key = format!("{name}: {}: {}", change.function, change.what);
                    let count = keys.entry(key.clone()).or_default();
                    *count += 1;
                    if *count > 1 {
                        key = format!("{key} ({count})");
                    }
                    if known.unviable.contains(&key) {
                        numbers.push(None);
                        continue;
                    }
                    number += 1;
                    numbers.push(Some(number));
                    copy.mutants.push(Mutant { number, file: name.clone(), line: change.line, key });
                }
                sites.push((site, numbers));
            }
            copy.files.insert(name.clone(), (source.clone(), schema::write(source, &sites)));
        }
        Ok(copy)
    }

    /// Writes the copy: a workspace of its own with this one crate. Files that are the same are not touched.
    fn write(&self, copy: &Copy) -> Result<(), String> {
        let manifest = fs::read_to_string(self.root.join("Cargo.toml")).map_err(|e| format!("the workspace's Cargo.toml: {e}"))?;
        let space = self.space();
        put(&space.join("Cargo.toml"), &workspace(&manifest, &self.folder))?;
        if let (Ok(lock), false) = (fs::read_to_string(self.root.join("Cargo.lock")), space.join("Cargo.lock").exists()) {
            put(&space.join("Cargo.lock"), &lock)?;
        }
        let folder = self.root.join(&self.folder);
        let mut all = Vec::new();
        files_below(&folder, &mut all)?;
        for path in all {
            let name = path.strip_prefix(&folder).map_err(|e| e.to_string())?;
            let changed = copy.files.get(name.to_string_lossy().as_ref());
            let mut text = match changed {
                Some((_, written)) => written.text.clone(),
                None => match fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(e) => return Err(format!("{}: {e}", path.display())),
                },
            };
            if name == Path::new("lib.rs") || name == Path::new("src/lib.rs") {
                text.push_str("\nmod mutants_switch;\n");
                let switch = space.join(&self.folder).join(name.with_file_name("mutants_switch.rs"));
                put(&switch, &schema::switch(copy.mutants.len()))?;
            }
            put(&space.join(&self.folder).join(name), &text)?;
        }
        Ok(())
    }

    fn space(&self) -> PathBuf {
        self.work.join("copy")
    }

    /// The changes an error is to be blamed on are left out from now on.
    fn learn(&self, error: &Value, copy: &Copy, known: &mut Known) -> Result<(), String> {
        let before = known.unviable.len() + known.constant.len();
        if text(error.get("code").unwrap_or(&Value::Null), "code") == "E0015" {
            // cannot call non-const associated function `ids::Bdf::new` in constants
            let path = text(error, "message").split('`').nth(1).unwrap_or_default();
            let parts: Vec<&str> = path.split("::").collect();
            let name = parts.get(parts.len().saturating_sub(2)..).unwrap_or_default();
            known.constant.insert(name.join("::"));
            if let Some(last) = name.last() {
                known.constant.insert((*last).to_owned());
            }
        } else {
            for (file, bytes) in spans(error) {
                let Some(name) = file.strip_prefix(&format!("{}/", self.folder)) else { continue };
                let Some((_, written)) = copy.files.get(name) else { continue };
                for number in written.blamed(&bytes) {
                    let mutant = copy.mutants.iter().find(|m| m.number == number);
                    known.unviable.extend(mutant.map(|m| m.key.clone()));
                }
            }
        }
        if known.unviable.len() + known.constant.len() == before && !self.already(error, copy, known) {
            return Err(format!("an error in the copy is no change's fault:\n{}", text(error, "rendered")));
        }
        Ok(())
    }

    /// Whether another error of the same round was blamed on what this one is to be blamed on.
    fn already(&self, error: &Value, copy: &Copy, known: &Known) -> bool {
        let code = text(error.get("code").unwrap_or(&Value::Null), "code");
        code == "E0015"
            || spans(error).iter().any(|(file, bytes)| {
                let name = file.strip_prefix(&format!("{}/", self.folder)).unwrap_or_default();
                let numbers = copy.files.get(name).map(|(_, written)| written.blamed(bytes)).unwrap_or_default();
                numbers.iter().any(|n| copy.mutants.iter().any(|m| m.number == *n && known.unviable.contains(&m.key)))
            })
    }

    fn program(&self) -> Result<PathBuf, String> {
        let messages = self.cargo(&["test", "--no-run"])?;
        let programs = messages.iter().filter_map(|m| m.get("executable").and_then(Value::as_str));
        programs.map(PathBuf::from).next().ok_or_else(|| "the changed copy does not build (see above)".to_owned())
    }

    fn cargo(&self, args: &[&str]) -> Result<Vec<Value>, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(args)
            .args(["--lib", "--message-format", "json"])
            .current_dir(self.space())
            // Warnings of changed code mean nothing, and denied lints would reject changes.
            .env("RUSTFLAGS", "--cap-lints allow")
            .env("CARGO_TARGET_DIR", self.work.join("build"))
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|e| format!("cannot start cargo: {e}"))?;
        let messages: Vec<Value> = output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let said = messages.iter().any(|m| m.get("message").is_some_and(|m| text(m, "level") == "error"));
        if output.status.success() || said { Ok(messages) } else { Err(format!("cargo {} failed ({})", args.join(" "), output.status)) }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Where a message points: files below the copy and bytes, through macros to where they were called.
fn spans(message: &Value) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    let list = message.get("spans").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for span in list.iter().filter(|span| span.get("is_primary") == Some(&Value::Bool(true))) {
        let mut span = Some(span);
        while let Some(here) = span {
            let number = |name: &str| here.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
            found.push((text(here, "file_name").to_owned(), number("byte_start")..number("byte_end")));
            span = here.get("expansion").and_then(|e| e.get("span"));
        }
    }
    found
}

/// The manifest of a workspace with one member and the tables members and the compiler take from it.
fn workspace(manifest: &str, member: &str) -> String {
    let mut text = format!("[workspace]\nmembers = [{member:?}]\nresolver = \"3\"\n");
    let mut keep = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            keep = line.starts_with("[workspace.") || line.starts_with("[profile.");
        }
        if keep {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    fs::write(path, text).map_err(failed)
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default();
        if name == "target" || name == "proptest-regressions" {
            continue;
        }
        if path.is_dir() {
            files_below(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn recall(path: &Path, state: u64) -> Known {
    let saved: Value = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if text(&saved, "state") != state.to_string() {
        return Known::default();
    }
    let set = |name: &str| -> BTreeSet<String> {
        let list = saved.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Known { unviable: set("unviable"), constant: set("constant") }
}

fn remember(known: &Known, state: u64) -> String {
    serde_json::json!({ "state": state.to_string(), "unviable": known.unviable, "constant": known.constant }).to_string()
}
