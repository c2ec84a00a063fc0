//! A few lines around a place in a source file, where the file is there when the report is made.

use crate::report::symbols::SourceFrame;
use crate::run;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Lines shown before and after the one that is meant.
const AROUND: usize = 4;
/// Larger files are no source code.
const MOST_BYTES: u64 = 4 << 20;
/// Characters of a line that are shown.
const MOST_CHARS: usize = 200;
/// What source code is called. Names of files come from debug information and from `findings.json`, and a report is passed on:
/// nothing else is quoted.
const ENDINGS: [&str; 8] = ["c", "h", "S", "rs", "cc", "cpp", "hpp", "inc"];

/// Lines of a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// Number of the first line.
    pub first: usize,
    /// The lines, without their ends.
    pub lines: Vec<String>,
}

/// Excerpts by `file:line`, each file read once.
#[derive(Debug, Default)]
pub struct Excerpts {
    files: HashMap<String, Option<Vec<String>>>,
    found: BTreeMap<String, Excerpt>,
}

impl Excerpts {
    /// Knows the reference drivers of a run by its command line: the source of a variant is in no file.
    #[must_use]
    pub fn of_run(command: &[String]) -> Self {
        let modules = command.iter().map(|word| word.strip_prefix("--module=").unwrap_or(word)).filter(|word| word.starts_with("ref:"));
        let mut files = HashMap::new();
        for source in modules.filter_map(run::reference_source) {
            for (path, contents) in source.files() {
                let name = Path::new(&source.origin).join(path);
                files.insert(name.to_string_lossy().into_owned(), Some(lines(contents)));
            }
        }
        Self { files, found: BTreeMap::new() }
    }

    /// Adds the lines around a frame, if they can be read. Relative names count from the current directory.
    pub fn add(&mut self, frame: &SourceFrame) {
        if frame.file.is_empty() || frame.line == 0 {
            return;
        }
        let lines = self.files.entry(frame.file.clone()).or_insert_with_key(|file| read(Path::new(file)));
        let (Some(lines), Ok(line)) = (lines, usize::try_from(frame.line)) else { return };
        if line > lines.len() {
            return;
        }
        let first = line.saturating_sub(AROUND).max(1);
        let lines = lines.iter().take(line + AROUND).skip(first - 1).cloned().collect();
        self.found.entry(format!("{}:{}", frame.file, frame.line)).or_insert(Excerpt { first, lines });
    }

    /// All of them.
    #[must_use]
    pub fn finish(self) -> BTreeMap<String, Excerpt> {
        self.found
    }
}

fn read(path: &Path) -> Option<Vec<String>> {
    let ending = path.extension()?.to_str()?;
    let metadata = std::fs::metadata(path).ok()?;
    if !ENDINGS.contains(&ending) || !metadata.is_file() || metadata.len() > MOST_BYTES {
        return None;
    }
    Some(lines(&std::fs::read(path).ok()?))
}

fn lines(contents: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(contents).lines().map(|line| line.chars().take(MOST_CHARS).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(file: &Path, line: u32) -> SourceFrame {
        SourceFrame {
            function: "f".into(),
            offset: String::new(),
            module: "m".into(),
            file: file.to_str().expect("UTF-8").into(),
            line,
            inlined: false,
        }
    }

    #[test]
    fn a_few_lines_of_source_code_and_of_nothing_else() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let text: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let (source, secret) = (dir.path().join("drv.c"), dir.path().join("secret.key"));
        std::fs::write(&source, &text).expect("write");
        std::fs::write(&secret, &text).expect("write");
        let mut excerpts = Excerpts::default();
        for (file, line) in [(&source, 2), (&source, 10), (&source, 20), (&source, 21), (&source, 0), (&secret, 3)] {
            excerpts.add(&frame(file, line));
        }
        excerpts.add(&frame(&dir.path().join("gone.c"), 3));
        let found = excerpts.finish();
        let shown: Vec<(usize, usize)> = found.values().map(|excerpt| (excerpt.first, excerpt.lines.len())).collect();
        assert_eq!(shown, [(6, 9), (1, 6), (16, 5)], "{found:?}");
    }

    #[test]
    fn a_variant_of_the_reference_driver_is_quoted_as_it_was_built() {
        let shown = |module: &str| {
            let mut excerpts = Excerpts::of_run(&["dmavet".into(), "run".into(), "--module".into(), module.into()]);
            (1..2000).for_each(|line| excerpts.add(&frame(Path::new("guest-images/drivers/ncdma.c"), line)));
            excerpts
                .finish()
                .into_values()
                .flat_map(|excerpt| excerpt.lines)
                .filter(|line| line.contains("dma_sync_single_for_cpu"))
                .count()
        };
        let (correct, variant) = (shown("ref:ncdma"), shown("ref:ncdma/rx-copybreak-no-sync"));
        assert!(variant == 0 && correct > 0, "{variant} and {correct}");
    }
}
