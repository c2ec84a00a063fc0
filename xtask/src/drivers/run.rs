//! One `dmavet batch` for many runs.

use super::judge::{self, Result as Run};
use super::table::{Driver, WORKLOAD};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A run to make.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub driver: &'static Driver,
    pub module: PathBuf,
    /// Whether calls of the DMA API fail in it.
    pub faults: bool,
    /// The longest the workload may take.
    pub seconds: u32,
    /// More arguments.
    pub more: Vec<String>,
}

/// Makes the runs; the results are in the order of `wanted`.
pub fn all(wanted: &[Wanted], work: &Path, binary: &Path, labs: usize) -> Result<Vec<Run>, String> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let out = work.join("runs");
    let io = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    if out.exists() {
        fs::remove_dir_all(&out).map_err(|e| io(&out, e))?;
    }
    fs::create_dir_all(&out).map_err(|e| io(&out, e))?;
    let script = work.join("workload.sh");
    fs::write(&script, WORKLOAD).map_err(|e| io(&script, e))?;
    let mut text = String::new();
    for (n, wanted) in wanted.iter().enumerate() {
        let folder = out.join(n.to_string());
        let mut words = vec!["--kernel".to_owned(), wanted.driver.kernel.to_owned(), "--module".into(), text_of(&wanted.module)?];
        words.extend(wanted.driver.devices.iter().flat_map(|device| ["--device".to_owned(), (*device).to_owned()]));
        words.extend(["--script".to_owned(), text_of(&script)?, "--watch".into(), "all".into()]);
        let seconds = wanted.seconds.to_string();
        // Many runs share a machine that may be busy.
        words.extend(["--boot-timeout", "400", "--silence-timeout", "150", "--timeout", seconds.as_str()].map(str::to_owned));
        if wanted.faults {
            words.extend(wanted.driver.faults.iter().flat_map(|fault| ["--fault".to_owned(), (*fault).to_owned()]));
        }
        words.extend(wanted.more.iter().cloned());
        words.extend(["--run-dir".to_owned(), text_of(&folder)?]);
        text += &format!("{}\n", words.join(" "));
    }
    let file = work.join("batch");
    fs::write(&file, text).map_err(|e| io(&file, e))?;
    let mut command = Command::new(binary);
    command.args(["batch", "--quiet", "--labs", &labs.to_string()]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(|e| io(binary, e))?;
    let results: Vec<Run> = (0..wanted.len()).map(|n| judge::read(&out.join(n.to_string()))).collect();
    // A run that left nothing is a result of its own; none at all is trouble of another kind.
    if results.iter().all(|run| run.verdict == "none") {
        return Err(format!("dmavet batch left no result ({status})"));
    }
    for n in 0..wanted.len() {
        let _ = fs::remove_file(out.join(n.to_string()).join("initramfs.cpio"));
    }
    Ok(results)
}

/// The device models this dmavet has.
pub fn models(binary: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(binary).args(["list", "devices"]).output().map_err(|e| format!("{}: {e}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// A path as a word of the batch file.
fn text_of(path: &Path) -> Result<String, String> {
    path.to_str()
        .filter(|text| !text.contains([' ', '"', '\'', '\\']))
        .map(str::to_owned)
        .ok_or_else(|| format!("{}: cannot stand in a batch file", path.display()))
}
