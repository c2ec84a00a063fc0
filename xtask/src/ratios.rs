//! The core's figures as ratios to what they are measured beside, with their budgets.

use std::fs;
use std::path::Path;

/// Prints the ratios of the last run of the core's benchmark from the medians Criterion left below `target`.
pub fn print(target: &Path) -> Result<(), String> {
    let median = |name: &str| {
        let path = target.join("criterion").join(name).join("new/estimates.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        parse(&text).ok_or_else(|| format!("{} holds no median", path.display()))
    };
    println!("\ndevice view beside plain GuestMemoryMmap (medians)");
    for side in ["read", "write"] {
        let (plain, view) = (median(&format!("view_16/plain_{side}"))?, median(&format!("view_16/view_{side}"))?);
        println!("  16 bytes, {side:<6} {:+6.0} ns           (budget: at most +60 ns)", view - plain);
        let (plain, view) = (median(&format!("view_4096/plain_{side}"))?, median(&format!("view_4096/view_{side}"))?);
        println!("  4 KiB, {side:<9} {:6.2} of throughput (budget: at least 0.5)", plain / view);
    }
    let copy = median("copy/4096")?;
    println!(
        "calls of the core, 4 KiB, in copies of 4 KiB ({copy:.0} ns each; budget: at most 3 copies + 300 ns = {:.0} ns)",
        3.0 * copy + 300.0
    );
    println!("  {:<28} {:>10} {:>10} {:>10} {:>18}", "live mappings", 1, 1000, 1_000_000, "1,000,000 to 1");
    for call in ["map_unmap_4k_to_device", "map_unmap_4k_from_device", "sync_pair_4k_untouched", "sync_pair_4k_both_write_all"] {
        let [one, thousand, million] = [1, 1000, 1_000_000].map(|live| median(&format!("calls_{live}/{call}")));
        let (one, thousand, million) = (one?, thousand?, million?);
        println!("  {call:<28} {:>10.1} {:>10.1} {:>10.1} {:>18.2}", one / copy, thousand / copy, million / copy, million / one);
    }
    Ok(())
}

/// The median's point estimate in nanoseconds from one of Criterion's `estimates.json`.
fn parse(text: &str) -> Option<f64> {
    let median = text.split_once("\"median\":")?.1;
    let number = median.split_once("\"point_estimate\":")?.1;
    number.split([',', '}']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_read_and_not_the_mean() {
        let text =
            r#"{"mean":{"point_estimate":1.5,"x":0},"median":{"confidence_interval":{"lower_bound":2.0},"point_estimate":2.25,"y":1}}"#;
        assert_eq!(parse(text), Some(2.25));
        assert_eq!(parse("{}"), None);
    }
}
