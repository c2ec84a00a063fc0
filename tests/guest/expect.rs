//! What a variant of the reference driver is expected to give: the header lines of its patch.
//!
//! ```text
//! Expect: CODE SITE FILE "text of the source line"     an error or warning; SITE is offence, consequence, map or handover
//! Expect: nothing                                      legal: not even a note
//! Expect-note: ...                                     a note
//! Near-miss: DV201 DV304                               legal: the rules it comes near to and does not break
//! Arguments: --watch all                               what the run needs besides
//! Campaign: --fault map                                the findings are those of a campaign with these arguments; a plain run is clean
//! Workload: ok | fails                                 does the self-test itself notice?
//! ```

use dmavet_coherence::Code;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One expected finding.
pub struct Expect {
    pub code: String,
    pub site: String,
    pub file: String,
    pub text: String,
}

/// A variant with its expectations and its patched sources.
pub struct Variant {
    pub name: String,
    pub alarms: Vec<Expect>,
    pub notes: Vec<Expect>,
    pub workload_fails: bool,
    /// It breaks no rule: not even a note is right.
    pub legal: bool,
    /// The rules it comes near to without breaking them.
    pub near_misses: Vec<Code>,
    /// Arguments of `dmavet run` besides the module.
    pub arguments: String,
    /// Arguments of the campaign that has the findings, which a plain run has not.
    pub campaign: Option<String>,
    sources: BTreeMap<PathBuf, Vec<u8>>,
}

impl Variant {
    /// The line of a batch that runs it.
    pub fn command(&self) -> String {
        format!("--module ref:ncdma/{} {}", self.name, self.arguments)
    }

    /// The findings of a plain run.
    pub fn plain(&self) -> &[Expect] {
        if self.campaign.is_some() { &[] } else { &self.alarms }
    }

    /// Number of the one line of `expect`'s file, patched, that holds its text.
    pub fn line(&self, expect: &Expect) -> u64 {
        let source = self.sources.get(Path::new(&expect.file)).unwrap_or_else(|| panic!("{}: no {}", self.name, expect.file));
        let source = String::from_utf8_lossy(source);
        let lines: Vec<u64> = source.lines().zip(1..).filter(|(text, _)| text.contains(&expect.text)).map(|(_, n)| n).collect();
        assert_eq!(lines.len(), 1, "{}: {:?} stands on {} lines of the patched {}", self.name, expect.text, lines.len(), expect.file);
        lines[0]
    }
}

/// The folder of the reference driver.
fn drivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-images/drivers")
}

/// Every variant, by name.
pub fn variants() -> Vec<Variant> {
    let mut driver = BTreeMap::new();
    for entry in std::fs::read_dir(drivers()).expect("guest-images/drivers") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            driver.insert(PathBuf::from(path.file_name().expect("name")), std::fs::read(&path).expect("source"));
        }
    }
    dmavet_images::sources::variants().iter().map(|v| parse(&v.name, v.patch, driver.clone())).collect()
}

fn parse(name: &str, patch: &[u8], mut sources: BTreeMap<PathBuf, Vec<u8>>) -> Variant {
    dmavet_images::patch::apply(&mut sources, name, patch).unwrap_or_else(|e| panic!("{e}"));
    let text = String::from_utf8_lossy(patch);
    let header = text.split("\n--- ").next().unwrap_or_default();
    let lines = |key: &str| -> Vec<String> {
        header.lines().filter_map(|l| Some(l.strip_prefix(key)?.strip_prefix(": ")?.trim().to_owned())).collect()
    };
    let expects = |key: &str| lines(key).iter().filter(|l| *l != "nothing").map(|l| expect(name, l)).collect();
    let alarms: Vec<Expect> = expects("Expect");
    let legal = lines("Expect") == ["nothing"];
    assert_eq!(legal, name.starts_with("legal-"), "{name}: variants that are legal, and only those, are called legal-*");
    let campaign = lines("Campaign").first().cloned();
    assert_eq!(campaign.is_some(), name.starts_with("error-"), "{name}: variants that need a campaign, and only those, are called error-*");
    assert!(alarms.is_empty() || !lines("Expect").iter().any(|l| l == "nothing"), "{name}: nothing and something");
    let near_misses: Vec<Code> = lines("Near-miss").iter().flat_map(|l| codes(name, l)).collect();
    assert!(legal || near_misses.is_empty(), "{name}: only what is legal is a near miss");
    let workload_fails = match lines("Workload").as_slice() {
        [one] if one == "fails" => true,
        [one] if one == "ok" => false,
        other => panic!("{name}: Workload: {other:?}"),
    };
    Variant {
        name: name.into(),
        alarms,
        notes: expects("Expect-note"),
        workload_fails,
        legal,
        near_misses,
        arguments: lines("Arguments").join(" "),
        campaign,
        sources,
    }
}

/// The codes of a line.
pub fn codes(name: &str, line: &str) -> Vec<Code> {
    line.split_whitespace().map(|word| word.parse().unwrap_or_else(|e| panic!("{name}: {e}"))).collect()
}

fn expect(name: &str, line: &str) -> Expect {
    let mut words = line.splitn(4, ' ').map(str::to_owned);
    let mut next = || words.next().unwrap_or_else(|| panic!("{name}: {line:?} lacks a word"));
    let (code, site, file, text) = (next(), next(), next(), next());
    assert!(["offence", "consequence", "map", "handover"].contains(&site.as_str()), "{name}: {line:?}");
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or_else(|| panic!("{name}: {line:?} lacks quotes"));
    Expect { code, site, file, text: text.into() }
}
