//! The core's figures as ratios to what they are measured beside, with their budgets.

use std::fs;
use std::path::Path;

/// Prints the ratios of the last run of the core's benchmark from the samples Criterion left below `target`: the fastest of each, since
/// whatever else the machine does only ever makes a sample slower.
pub fn print(target: &Path) -> Result<(), String> {
    let time = |name: &str| {
        let path = target.join("criterion").join(name).join("new/sample.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        fastest(&text).ok_or_else(|| format!("{} holds no samples", path.display()))
    };
    println!("\ndevice view beside plain GuestMemoryMmap (fastest samples)");
    for side in ["read", "write"] {
        let (plain, view) = (time(&format!("view_16/plain_{side}"))?, time(&format!("view_16/view_{side}"))?);
        println!("  16 bytes, {side:<6} {:+6.0} ns           (budget: at most +60 ns: {})", view - plain, holds(view - plain <= 60.0));
        let (plain, view) = (time(&format!("view_4096/plain_{side}"))?, time(&format!("view_4096/view_{side}"))?);
        println!("  4 KiB, {side:<9} {:6.2} of throughput (budget: at least 0.5: {})", plain / view, holds(plain / view >= 0.5));
    }
    let copy = time("copy/4096")?;
    let budget = 3.0 * copy + 300.0;
    println!(
        "calls of the core, 4 KiB, in copies of 4 KiB ({copy:.0} ns each), and the share of the budget of 3 copies + 300 ns = {budget:.0} ns"
    );
    println!("  {:<28} {:>8} {:>8} {:>8} {:>8} {:>15} {:>9}", "live mappings", 1, "1e3", "1e5", "1e6", "1e6 to 1 (flat)", "of budget");
    let live = [1, 1000, 100_000, 1_000_000];
    for call in ["map_unmap_4k_to_device", "map_unmap_4k_from_device", "sync_pair_4k_untouched", "sync_pair_4k_both_write_all"] {
        let times = live.iter().map(|live| time(&format!("calls_{live}/{call}"))).collect::<Result<Vec<_>, _>>()?;
        let copies: String = times.iter().map(|one| format!(" {:>8.1}", one / copy)).collect();
        let (least, most) = times.iter().fold((f64::MAX, 0.0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
        let flat = times.last().unwrap_or(&most) / times.first().unwrap_or(&least);
        println!("  {call:<28}{copies} {flat:>15.2} {:>9.2} {}", most / budget, holds(most <= budget));
    }
    println!("lists of 1,000 pages, for each page in copies of 4 KiB");
    for call in ["map_unmap_1000_pages", "sync_pair_1000_pages"] {
        println!("  {call:<28} {:>8.1}", time(&format!("lists/{call}"))? / 1000.0 / copy);
    }
    let path = target.join("tmp/core-memory");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("memory for each live mapped page, in pages (budget: at most 3, for one mapping of a page)");
    for line in text.lines() {
        let (pages, name) = memory(line).ok_or_else(|| format!("{}: {line:?} makes no sense", path.display()))?;
        println!("  {name:<40} {pages:>6.2} {}", if name.starts_with("one mapping") { holds(pages <= 3.0) } else { "" });
    }
    Ok(())
}

const fn holds(budget: bool) -> &'static str {
    if budget { "holds" } else { "OVER" }
}

/// Pages of memory for each mapped page, and how they are mapped, from a line `bytes pages name`.
fn memory(line: &str) -> Option<(f64, &str)> {
    let mut parts = line.splitn(3, ' ');
    let mut number = || parts.next()?.parse::<f64>().ok();
    let (bytes, pages) = (number()?, number()?);
    Some((bytes / pages / 4096.0, parts.next()?))
}

/// Nanoseconds of one iteration in the fastest sample of one of Criterion's `sample.json`.
fn fastest(text: &str) -> Option<f64> {
    let samples: serde_json::Value = serde_json::from_str(text).ok()?;
    let numbers = |name: &str| Some(samples.get(name)?.as_array()?.iter().filter_map(serde_json::Value::as_f64).collect::<Vec<_>>());
    numbers("times")?.into_iter().zip(numbers("iters")?).map(|(time, iterations)| time / iterations).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_sample_counts() {
        assert_eq!(fastest(r#"{"sampling_mode":"Linear","iters":[1.0,2.0,4.0],"times":[5.0,4.0,12.0]}"#), Some(2.0));
        assert_eq!(fastest(r#"{"iters":[],"times":[]}"#), None);
        assert_eq!(fastest("{}"), None);
    }

    #[test]
    fn memory_is_counted_in_pages() {
        assert_eq!(memory("40960 5 one mapping"), Some((2.0, "one mapping")));
        assert_eq!(memory("40960 x one"), None);
    }
}
