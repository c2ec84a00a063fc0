//! What a campaign keeps on disk: its plan, and a line for each case that is done.
//!
//! ```text
//!   campaign.json    what is run; written before the first case
//!   results.jsonl    one line per case, appended when the case is done
//!   control/         run directory of the run without faults
//!   cases/00017/     run directories of the cases with something to tell
//!   shrink/00017-2/  those of the attempts to make do with fewer faults
//!   findings.json    the findings of all cases, in the format of a run
//! ```

use crate::campaign::space::{Case, Shard, Space};
use crate::exit::{Exit, Failure};
use crate::report::build::{Identity, identity};
use crate::report::coverage::{ModuleCoverage, Reached};
use crate::report::{Report, ReportFinding};
use crate::run::explain_write;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// A campaign as it was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// Always `dmavet-campaign`.
    pub format: String,
    /// Version of the format; a reader refuses what it does not know.
    pub version: u32,
    /// The command that made it.
    pub command: Vec<String>,
    /// The same run without faults and seed, as words of a command line.
    pub repeat: Vec<String>,
    /// What is tried.
    pub space: Space,
    /// The part that is tried here.
    pub shard: Shard,
    /// Fault points there are.
    pub points: usize,
    /// All cases, those of other shards included.
    pub cases: Vec<Case>,
}

impl Campaign {
    /// What `format` holds.
    pub const FORMAT: &'static str = "dmavet-campaign";
    /// The version this program writes and reads.
    pub const VERSION: u32 = 1;
    /// File name in the campaign's directory.
    pub const FILE: &'static str = "campaign.json";

    /// Whether another is a part of the same campaign.
    #[must_use]
    pub fn is_part_with(&self, other: &Self) -> bool {
        self.repeat == other.repeat && self.space == other.space && self.cases == other.cases && self.shard.count == other.shard.count
    }

    /// The cases of this part.
    pub fn own(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| self.shard.has(case.index))
    }

    /// The command that repeats a case.
    #[must_use]
    pub fn repeat(&self, case: &Case) -> Vec<String> {
        let end = self.repeat.iter().position(|word| word == "--").unwrap_or(self.repeat.len());
        let (options, rest) = self.repeat.split_at(end);
        let faults = case.faults.iter().flat_map(|fault| ["--fault".to_owned(), fault.clone()]);
        let seed = ["--seed".to_owned(), case.seed.to_string()];
        options.iter().cloned().chain(seed).chain(faults).chain(rest.iter().cloned()).collect()
    }
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The case's number.
    pub index: u64,
    /// Its exit code.
    pub exit: Exit,
    /// Why, in one sentence.
    pub reason: String,
    /// Calls that were made to fail.
    pub injected: u64,
    /// The findings that fail a run.
    pub findings: Vec<Identity>,
    /// The DMA call sites that were reached: their numbers in each module.
    pub reached: BTreeMap<String, Vec<usize>>,
}

impl Done {
    /// How the run of a case went.
    #[must_use]
    pub fn of(index: u64, report: &Report) -> Self {
        let failing = |finding: &&ReportFinding| finding.severity <= report.verdict.fail_on && finding.accepted.is_none();
        Self {
            index,
            exit: report.verdict.result,
            reason: report.verdict.reason.clone(),
            injected: report.volatile.counters.get("injected_failures").copied().unwrap_or(0),
            findings: report.findings.iter().filter(failing).map(identity).collect(),
            reached: report.coverage.iter().map(|module| (module.module.clone(), reached(module))).collect(),
        }
    }

    /// What the guest did instead of coming to its end, if it did not.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        matches!(self.exit, Exit::Guest | Exit::Timeout).then(|| Trouble { exit: self.exit, reason: self.reason.clone() })
    }
}

fn reached(module: &ModuleCoverage) -> Vec<usize> {
    module.sites.iter().enumerate().filter(|(_, site)| site.reached == Reached::Yes).map(|(at, _)| at).collect()
}

/// A guest that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The exit code.
    pub exit: Exit,
    /// What happened.
    pub reason: String,
}

/// A campaign's directory.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    const RESULTS: &'static str = "results.jsonl";
    const SHRUNK: &'static str = "shrunk.json";

    /// The directory of a campaign.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Run directory of the run without faults.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// Run directory of a case; that of case 0 is the control.
    #[must_use]
    pub fn case(&self, index: u64) -> PathBuf {
        if index == 0 { self.control() } else { self.dir.join("cases").join(format!("{index:05}")) }
    }

    /// Run directory of an attempt at a case with fewer faults.
    #[must_use]
    pub fn attempt(&self, index: u64, number: usize) -> PathBuf {
        self.dir.join("shrink").join(format!("{index:05}-{number}"))
    }

    /// Reads the campaign.
    ///
    /// # Errors
    /// When there is none, or it is damaged or of another version.
    pub fn load(&self) -> Result<Campaign, Failure> {
        let path = self.dir.join(Campaign::FILE);
        let wrong = |what: String| Failure::usage(format!("{}: {what}", path.display()));
        let bytes = std::fs::read(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                wrong("there is no such file: is it the directory of a campaign whose first run came to its end?".into())
            }
            _ => wrong(e.to_string()),
        })?;
        let campaign: Campaign = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("not a campaign: {e}")))?;
        if campaign.format != Campaign::FORMAT || campaign.version != Campaign::VERSION {
            let Campaign { format, version, .. } = campaign;
            return Err(wrong(format!("{format:?} of version {version}; this dmavet reads version {}", Campaign::VERSION)));
        }
        Ok(campaign)
    }

    /// Writes the campaign, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, campaign: &Campaign) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(campaign).map_err(|e| Failure::internal(e.to_string()))?;
        self.write(Campaign::FILE, &json)
    }

    /// The cases that are done, by number. A last line that was cut off counts as not written.
    ///
    /// # Errors
    /// When the file cannot be read, or a line before the last makes no sense.
    pub fn done(&self) -> Result<BTreeMap<u64, Done>, Failure> {
        let path = self.dir.join(Self::RESULTS);
        let text = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(Failure::usage(format!("{}: {e}", path.display()))),
        };
        let mut all = BTreeMap::new();
        for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if !line.ends_with(b"\n") {
                break;
            }
            let done: Done = serde_json::from_slice(line).map_err(|e| Failure::usage(format!("{}:{}: {e}", path.display(), number + 1)))?;
            all.insert(done.index, done);
        }
        Ok(all)
    }

    /// What shrinking came to: the least faults known for each finding.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn shrunk(&self) -> Result<Vec<(Identity, Case)>, Failure> {
        let path = self.dir.join(Self::SHRUNK);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Failure::usage(format!("{}: {e}", path.display()))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(Failure::usage(format!("{}: {e}", path.display()))),
        }
    }

    /// Keeps what shrinking came to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_shrunk(&self, shrunk: &[(Identity, Case)]) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(shrunk).map_err(|e| Failure::internal(e.to_string()))?;
        self.write(Self::SHRUNK, &json)
    }

    /// Writes a file of the directory, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<(), Failure> {
        let (path, draft) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        std::fs::create_dir_all(&self.dir).map_err(|e| explain_write(&self.dir, &e))?;
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(contents)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)
        };
        write().map_err(|e| explain_write(&path, &e))
    }

    /// A place to append cases to, behind the last whole line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn appender(&self) -> Result<Appender, Failure> {
        let path = self.dir.join(Self::RESULTS);
        let open = || {
            let file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
            let bytes = std::fs::read(&path)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            file.set_len(whole as u64)?;
            Ok(file)
        };
        open().map(|file| Appender { file, path: path.clone() }).map_err(|e| explain_write(&path, &e))
    }
}

/// Appends cases that are done.
#[derive(Debug)]
pub struct Appender {
    file: File,
    path: PathBuf,
}

impl Appender {
    /// Appends one; it survives whatever happens to the process afterwards.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, done: &Done) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(done).map_err(|e| Failure::internal(e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(|e| explain_write(&self.path, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn done(index: u64) -> Done {
        Done { index, exit: Exit::Clean, reason: "clean: no findings".into(), injected: 1, findings: Vec::new(), reached: BTreeMap::new() }
    }

    fn campaign() -> Campaign {
        Campaign {
            format: Campaign::FORMAT.into(),
            version: Campaign::VERSION,
            command: vec!["dmavet".into(), "campaign".into()],
            repeat: ["dmavet", "run", "--device", "ncdma", "--", "sh", "-c", "x --fault"].map(str::to_owned).into(),
            space: Space { faults: vec!["map".into()], seeds: (0, 0), limit: 10, together: 1 },
            shard: Shard::WHOLE,
            points: 1,
            cases: vec![Case { index: 1, seed: 3, faults: vec!["map,nth=1".into(), "alloc,nth=2".into()] }],
        }
    }

    #[test]
    fn a_case_is_repeated_by_a_command() {
        let campaign = campaign();
        let words = campaign.repeat(&campaign.cases[0]).join(" ");
        assert_eq!(words, "dmavet run --device ncdma --seed 3 --fault map,nth=1 --fault alloc,nth=2 -- sh -c x --fault");
    }

    #[test]
    fn a_line_that_was_cut_off_is_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_path_buf());
        assert!(store.done().unwrap().is_empty());
        store.appender().unwrap().append(&done(1)).unwrap();
        store.appender().unwrap().append(&done(7)).unwrap();
        let path = dir.path().join(Store::RESULTS);
        let whole = std::fs::read(&path).unwrap();
        let line = whole.len() / 2;
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let known: Vec<u64> = store.done().unwrap().into_keys().collect();
            let lines = cut / line;
            assert_eq!(known, [1, 7][..lines], "cut at {cut}");
            store.appender().unwrap().append(&done(9)).unwrap();
            let known: Vec<u64> = store.done().unwrap().into_keys().collect();
            assert_eq!(known.len(), lines + 1, "cut at {cut}");
        }
        std::fs::write(&path, b"{}\n").unwrap();
        assert!(store.done().unwrap_err().message.contains("results.jsonl:1"));
    }

    #[test]
    fn a_campaign_is_read_back_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("new"));
        assert!(store.load().unwrap_err().message.contains("no such file"));
        let campaign = campaign();
        store.save(&campaign).unwrap();
        assert_eq!(store.load().unwrap(), campaign);
        store.save(&Campaign { version: 9, ..campaign }).unwrap();
        assert!(store.load().unwrap_err().message.contains("reads version 1"));
    }
}
