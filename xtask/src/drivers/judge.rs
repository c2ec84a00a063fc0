//! Whether the findings of a run name the mistake of a mutant.

use super::rules::Mutant;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A finding, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub code: String,
    pub severity: String,
    /// Files and lines of its places, outermost function last: made, handed over, offence, consequence.
    pub places: Vec<(String, u32)>,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Result {
    /// The verdict in a word, `none` when the run left nothing.
    pub verdict: String,
    pub seen: Vec<Seen>,
    /// Whether a finding that was waited for ended it.
    pub stopped: bool,
    /// Calls the run's driver said it came to.
    pub reached: Vec<(String, u32)>,
}

/// Reads what a run left in its folder.
pub fn read(folder: &Path) -> Result {
    let console = fs::read(folder.join("console.log")).unwrap_or_default();
    let reached = String::from_utf8_lossy(&console).lines().filter_map(announced).collect();
    let Some(findings) = fs::read(folder.join("findings.json")).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) else {
        return Result { verdict: "none".into(), reached, ..Result::default() };
    };
    let list = findings["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let verdict = findings["verdict"]["result"].as_str().unwrap_or("none").to_owned();
    let stopped = findings["verdict"]["stopped_at"].is_string();
    Result { verdict, seen: list.iter().map(seen).collect(), stopped, reached }
}

fn announced(line: &str) -> Option<(String, u32)> {
    let (file, line) = line.split_once("dmavet-reached ")?.1.trim().rsplit_once(':')?;
    Some((file.to_owned(), line.parse().ok()?))
}

fn seen(finding: &Value) -> Seen {
    let sites = [&finding["offence"], &finding["consequence"], &finding["handover"], &finding["mapping"]["made"]];
    let frames = sites.into_iter().flat_map(|site| site["frames"].as_array().map(Vec::as_slice).unwrap_or_default());
    let place = |frame: &Value| {
        let line = frame["line"].as_u64().and_then(|line| u32::try_from(line).ok()).filter(|line| *line > 0)?;
        Some((frame["file"].as_str()?.to_owned(), line))
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Seen { code: text(&finding["code"]), severity: text(&finding["severity"]), places: frames.filter_map(place).collect() }
}

impl Seen {
    pub fn counts(&self) -> bool {
        matches!(self.severity.as_str(), "error" | "warning")
    }
}

/// The finding that catches a mutant: an error or warning with a code of its class that names a line of the function changed, or
/// else, since a call that is not made has no place, the line of one of the driver's own DMA calls, such as the one that made the mapping.
pub fn catching<'a>(mutant: &Mutant, calls: &[(String, u32)], seen: &'a [Seen]) -> Option<(&'a Seen, (String, u32))> {
    let fits = |seen: &&Seen| seen.counts() && mutant.class.codes().contains(&seen.code.as_str());
    let inside = |place: &&(String, u32)| place.0 == mutant.file && mutant.lines.contains(&place.1);
    let own = |place: &&(String, u32)| calls.contains(place);
    let find = |wanted: &dyn Fn(&&(String, u32)) -> bool| {
        seen.iter().filter(fits).find_map(|seen| Some((seen, seen.places.iter().find(wanted)?.clone())))
    };
    find(&inside).or_else(|| find(&own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::api;
    use crate::drivers::rules;
    use crate::drivers::scan::Source;
    use serde_json::json;

    fn finding(code: &str, severity: &str, file: &str, line: u32) -> Value {
        let frames = json!([{"function": "kmalloc", "file": "", "line": 0}, {"function": "f", "file": file, "line": line}]);
        json!({"code": code, "severity": severity, "mapping": {"made": {"frames": frames}}})
    }

    #[test]
    fn the_code_the_severity_and_the_line_have_to_be_right() {
        let text = "void f(void)\n{\n\tdma_unmap_single(d, h, 4, DMA_TO_DEVICE);\n}\nvoid g(void)\n{\n\th = dma_map_single(d, p, 4, DMA_TO_DEVICE);\n}\n";
        let sources = [("d.c".to_owned(), Source::new(text))];
        let table = api::table(&sources);
        let mutants = rules::mutants("d.c", &sources[0].1, &table);
        let calls = [("d.c".to_owned(), 3), ("d.c".to_owned(), 7)];
        let caught = |finding: Value| catching(&mutants[0], &calls, &[seen(&finding)]).map(|(_, place)| place.1);
        assert_eq!(caught(finding("DV108", "error", "d.c", 3)), Some(3));
        assert_eq!(caught(finding("DV108", "warning", "d.c", 7)), Some(7));
        assert_eq!(caught(finding("DV108", "note", "d.c", 7)), None);
        assert_eq!(caught(finding("DV207", "error", "d.c", 7)), None);
        assert_eq!(caught(finding("DV108", "error", "other.c", 7)), None);
        assert_eq!(caught(finding("DV108", "error", "d.c", 6)), None);
    }

    #[test]
    fn calls_announced_on_the_console_are_read() {
        assert_eq!(announced("[    1.2] dmavet-reached drivers/x.c:12\r"), Some(("drivers/x.c".to_owned(), 12)));
        assert_eq!(announced("[    1.2] something else"), None);
    }
}
