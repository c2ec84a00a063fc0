//! Several measurements of one thing, and what is said of them beside a budget.

use std::fmt;

/// Measurements of one thing.
#[derive(Clone, Debug, Default)]
pub struct Series(Vec<f64>);

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl Series {
    /// The one in the middle, the higher of two.
    pub fn median(&self) -> f64 {
        *self.0.get(self.0.len() / 2).expect("something was measured")
    }

    /// The same in other units.
    pub fn scaled(&self, factor: f64) -> Self {
        self.0.iter().map(|value| value * factor).collect()
    }
}

/// Median, then least and most.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let (least, most) = (self.0.first().copied().unwrap_or(f64::NAN), self.0.last().copied().unwrap_or(f64::NAN));
        f.pad(&format!("{:.digits$} ({least:.digits$} to {most:.digits$})", self.median()))
    }
}

/// The budgets met on the way, said again at the end.
#[derive(Debug, Default)]
pub struct Budgets(Vec<(String, String, bool)>);

impl Budgets {
    /// `measured` of `what` may be at most `limit`.
    pub fn at_most(&mut self, what: &str, measured: f64, limit: f64) {
        self.0.push((what.to_owned(), format!("{measured:>8.2}   at most {limit:.2}"), measured <= limit));
    }

    /// Prints them all.
    pub fn print(&self) {
        if self.0.is_empty() {
            return;
        }
        println!("\nbudgets (medians)");
        for (what, measured, holds) in &self.0 {
            println!("  {what:<64} {measured:<28} {}", if *holds { "holds" } else { "OVER" });
        }
    }
}
