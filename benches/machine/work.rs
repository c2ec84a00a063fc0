//! How much slower work is under the watch: that of the device's driver, and work that has nothing to do with the device.

use crate::batch;
use crate::figures::Series;
use std::path::Path;

/// Guests for each policy, in turn.
const ROUNDS: usize = 3;
const POLICIES: [&str; 3] = ["off", "auto", "all"];
/// Kinds of work: name, the phases its time lies between.
const KINDS: [(&str, [&str; 2]); 2] = [("ncdma's self-test", ["workload", "teardown"]), ("file work, ncdma idle", ["files", "idle"])];

/// Measures and prints.
pub fn measure(binary: &Path, dir: &Path) {
    let innocent = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guest/innocent.sh");
    let script = format!("--script {}", innocent.display());
    let round = || POLICIES.iter().flat_map(|policy| ["", &script].map(|work| format!("--module ref:ncdma --watch {policy} {work}")));
    let lines: Vec<String> = (0..ROUNDS).flat_map(|_| round()).collect();
    let run_dirs = batch::run(binary, dir, &lines);
    println!("\nwork, seconds and times of the same with --watch off in the same round: median of {ROUNDS} (least to most)");
    for (kind, (name, [from, to])) in KINDS.iter().enumerate() {
        let seconds: Vec<f64> = run_dirs
            .iter()
            .skip(kind)
            .step_by(KINDS.len())
            .map(|dir| {
                let report = batch::report(dir);
                batch::phase(&report, to) - batch::phase(&report, from)
            })
            .collect();
        for (index, policy) in POLICIES.iter().enumerate() {
            let rounds = || seconds.chunks(POLICIES.len());
            let own: Series = rounds().map(|round| round[index]).collect();
            let ratio: Series = rounds().map(|round| round[index] / round[0]).collect();
            println!("  {name:<24} {policy:<6} {own:<24} {ratio}");
        }
    }
}
