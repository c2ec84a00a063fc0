//! Which cases a campaign has: fault points, and the order in which they are tried.

use crate::exit::Failure;
use crate::report::Report;
use crate::report::build::{CALLS_ALLOC, CALLS_MAP};
use dmavet_coherence::dice::SplitMix64;
use dmavet_coherence::{FaultKind, FaultSpec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Counters of a run's report that say how often a device had events of a kind; the device's name follows.
const CALLS: [(FaultKind, &str); 2] = [(FaultKind::Map, CALLS_MAP), (FaultKind::Alloc, CALLS_ALLOC)];

/// One run of a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Its number in the campaign, from 1; 0 is the run without faults.
    pub index: u64,
    /// Seed of everything drawn at random.
    pub seed: u64,
    /// The faults of the run (`dmavet list faults`).
    pub faults: Vec<String>,
}

/// What `--fault` means in a campaign: a fault as in a run, every fault of a range, or every one there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// One fault, the same in every case.
    One(String),
    /// One after the other of a range.
    Range {
        /// The kind.
        kind: FaultKind,
        /// First and last number.
        nth: RangeInclusive<u64>,
        /// What else the specification says, with a comma before it.
        rest: String,
    },
    /// One after the other of all the run without faults had.
    Every(FaultKind),
}

/// The longest range taken: a campaign never gets further.
const LONGEST: u64 = 1_000_000;

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(',').unwrap_or((text, ""));
        let kind = FaultKind::ALL.iter().find(|(kind, _)| kind.name() == name).map(|(kind, _)| *kind);
        if let (Some(kind), "") = (kind, rest) {
            return if CALLS.iter().any(|(known, _)| *known == kind) {
                Ok(Self::Every(kind))
            } else {
                Err(format!("{text:?}: which ones? Nothing counts them: write {name},nth=FIRST..LAST"))
            };
        }
        let range = rest.split(',').find_map(|part| Some((part, part.strip_prefix("nth=")?.split_once("..")?)));
        let (Some(kind), Some((part, (first, last)))) = (kind, range) else {
            text.parse::<FaultSpec>().map_err(|e| e.to_string())?;
            return Ok(Self::One(text.to_owned()));
        };
        let rest: String = rest.split(',').filter(|other| *other != part).map(|other| format!(",{other}")).collect();
        // Whatever else is wrong is wrong with one number, too.
        format!("{name},nth=1{rest}").parse::<FaultSpec>().map_err(|e| e.to_string())?;
        match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first > 0 && first <= last && last - first < LONGEST => {
                Ok(Self::Range { kind, nth: first..=last, rest })
            }
            _ => Err(format!("{text:?}: {part} is no range FIRST..LAST from 1 on of at most {LONGEST} numbers")),
        }
    }
}

impl Template {
    /// The faults of the template, the most promising first. `control`: the run without faults.
    fn points(&self, control: &Report) -> Vec<String> {
        match self {
            Self::One(spec) => vec![spec.clone()],
            Self::Range { kind, nth, rest } => {
                let count = nth.end() - nth.start() + 1;
                spread(count).into_iter().map(|n| format!("{},nth={}{rest}", kind.name(), nth.start() + n)).collect()
            }
            Self::Every(kind) => {
                let calls = calls(control, *kind);
                let several = calls.len() > 1;
                let of = |(device, count): (&String, &u64)| {
                    // A platform device has no address to tell it by: its calls are counted together with the others'.
                    let only = if several && !device.starts_with("platform") { format!(",device={device}") } else { String::new() };
                    let one = |n: u64| format!("{},nth={}{only}", kind.name(), n + 1);
                    spread((*count).min(LONGEST)).into_iter().map(one).collect::<Vec<_>>()
                };
                interleave(calls.iter().map(of).collect())
            }
        }
    }
}

/// How often each device had calls of the kind in a run.
fn calls(report: &Report, kind: FaultKind) -> BTreeMap<String, u64> {
    let prefix = CALLS.iter().find(|(known, _)| *known == kind).map_or("", |(_, prefix)| prefix);
    let of = |(name, count): (&String, &u64)| Some((name.strip_prefix(prefix)?.to_owned(), *count));
    report.volatile.counters.iter().filter_map(of).collect()
}

/// `0..count` in the order in which they are tried: the first ones as they come, because a driver's probe makes each of its calls once,
/// then the rest spread evenly, because what goes on for long repeats itself.
fn spread(count: u64) -> Vec<u64> {
    const IN_ORDER: u64 = 24;
    let mut rest: Vec<u64> = (IN_ORDER..count).collect();
    // Fibonacci hashing: neighbours land far apart, and every part of the list is spread over the whole range.
    rest.sort_by_key(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..count.min(IN_ORDER)).chain(rest).collect()
}

/// The first of each list, then the second of each, and so on.
fn interleave<T>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut all = Vec::new();
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    while !lists.is_empty() {
        lists.retain_mut(|list| list.next().map(|item| all.push(item)).is_some());
    }
    all
}

/// What a campaign tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// `--fault` as it was given.
    pub faults: Vec<String>,
    /// First and last seed.
    pub seeds: (u64, u64),
    /// Cases at most.
    pub limit: u64,
    /// Faults that strike in one run at most.
    pub together: u8,
}

impl Space {
    /// The templates.
    ///
    /// # Errors
    /// When one makes no sense.
    pub fn templates(&self) -> Result<Vec<Template>, Failure> {
        self.faults.iter().map(|text| text.parse().map_err(|e| Failure::usage(format!("--fault {e}")))).collect()
    }

    /// The cases in order, and how many fault points there are. `control`: the run without faults.
    ///
    /// # Errors
    /// When a template makes no sense.
    pub fn cases(&self, control: &Report) -> Result<(Vec<Case>, usize), Failure> {
        let points = interleave(self.templates()?.iter().map(|template| template.points(control)).collect());
        let seen: BTreeSet<&String> = points.iter().collect();
        let count = seen.len();
        let (first, last) = self.seeds;
        // Without faults there is still the cache and the devices that the seed drives.
        let sets: Vec<Vec<String>> = if points.is_empty() { vec![Vec::new()] } else { points.iter().map(|p| vec![p.clone()]).collect() };
        let singles = (first..=last).flat_map(|seed| sets.iter().map(move |faults| (seed, faults.clone())));
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut cases: Vec<_> = singles.take(limit).collect();
        let mut dice = SplitMix64::new(first);
        let most = usize::from(self.together).min(count);
        while most > 1 && cases.len() < limit {
            let wanted = 2 + index(dice.next(), most - 1);
            let mut drawn = BTreeSet::new();
            while drawn.len() < wanted {
                drawn.insert(index(dice.next(), points.len()));
            }
            cases.push((dice.next() >> 1, drawn.iter().filter_map(|at| points.get(*at).cloned()).collect()));
        }
        Ok(((1..).zip(cases).map(|(index, (seed, faults))| Case { index, seed, faults }).collect(), count))
    }
}

/// A number below `count`, which is small.
fn index(random: u64, count: usize) -> usize {
    usize::try_from(random % count as u64).unwrap_or(0)
}

/// A part of a campaign: the cases whose number leaves `index` when divided by `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which part, from 1.
    pub index: u64,
    /// Parts in all.
    pub count: u64,
}

impl Shard {
    /// The whole campaign.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Whether a case is in this part.
    #[must_use]
    pub const fn has(self, case: u64) -> bool {
        case % self.count == self.index % self.count
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((index, count)) if 1 <= index && index <= count => Ok(Self { index, count }),
            _ => Err("I/N with I from 1 to N".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    fn control(counters: &[(&str, u64)]) -> Report {
        let mut report = report(Vec::new(), None);
        report.volatile.counters = counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        report
    }

    fn space(faults: &[&str], limit: u64, together: u8) -> Space {
        Space { faults: faults.iter().map(|f| (*f).to_owned()).collect(), seeds: (5, 6), limit, together }
    }

    #[test]
    fn templates_are_faults_ranges_or_everything() {
        assert_eq!("map".parse(), Ok(Template::Every(FaultKind::Map)));
        assert_eq!("map,nth=3".parse(), Ok(Template::One("map,nth=3".into())));
        assert_eq!("alloc,probability=5".parse(), Ok(Template::One("alloc,probability=5".into())));
        let range = Template::Range { kind: FaultKind::IrqLost, nth: 2..=9, rest: ",device=00:02.0".into() };
        assert_eq!("irq-lost,nth=2..9,device=00:02.0".parse(), Ok(range));
        for (text, words) in [
            ("irq-lost", "which ones"),
            ("map,nth=0..3", "no range"),
            ("map,nth=3..2", "no range"),
            ("map,nth=1..9999999", "no range"),
            ("map,nth=1..5,times=2", "belongs to probability"),
            ("dma", "no kind"),
            ("map,nth=x", "from 1 on"),
        ] {
            let error = text.parse::<Template>().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn every_call_of_every_device_is_a_point_once() {
        let control = control(&[("calls_map_0000:00:02.0", 100), ("calls_map_0000:00:03.0", 1), ("calls_alloc_0000:00:02.0", 2)]);
        let (cases, points) = space(&["map", "alloc"], 1000, 1).cases(&control).unwrap();
        assert_eq!((points, cases.len()), (103, 206), "for each seed");
        let first: Vec<&str> = cases.iter().take(4).map(|case| case.faults[0].as_str()).collect();
        assert_eq!(first, ["map,nth=1,device=0000:00:02.0", "alloc,nth=1", "map,nth=1,device=0000:00:03.0", "alloc,nth=2"]);
        let distinct: BTreeSet<_> = cases.iter().map(|case| (case.seed, case.faults.clone())).collect();
        assert_eq!(distinct.len(), cases.len());
        assert!(cases.iter().zip(1..).all(|(case, index)| case.index == index));
    }

    #[test]
    fn a_short_campaign_reaches_all_parts_of_a_long_run() {
        let control = control(&[("calls_map_0000:00:02.0", 10_000)]);
        let (cases, _) = space(&["map"], 64, 1).cases(&control).unwrap();
        let number = |case: &Case| case.faults[0].split('=').nth(1).unwrap().parse::<u64>().unwrap();
        let tenths: BTreeSet<u64> = cases.iter().map(|case| (number(case) - 1) / 1000).collect();
        assert_eq!(tenths.len(), 10, "{cases:?}");
        assert_eq!(cases.iter().filter(|case| number(case) <= 24).count(), 24);
    }

    #[test]
    fn room_that_is_left_is_for_several_at_once() {
        let control = control(&[]);
        let (cases, points) = space(&["map,nth=1..4", "alloc,nth=2"], 40, 3).cases(&control).unwrap();
        assert_eq!((points, cases.len()), (5, 40));
        assert!(cases[..10].iter().all(|case| case.faults.len() == 1));
        assert!(cases[10..].iter().all(|case| (2..=3).contains(&case.faults.len())));
        assert_eq!(space(&["map,nth=1..4", "alloc,nth=2"], 40, 3).cases(&control).unwrap().0, cases, "the same every time");
        assert_eq!(space(&[], 40, 3).cases(&control).unwrap().0.len(), 2, "the seeds alone");
        assert_eq!(space(&["map,nth=7"], 40, 3).cases(&control).unwrap().0.len(), 2, "nothing to combine");
    }

    #[test]
    fn shards_share_the_cases() {
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].iter().map(|text| text.parse().unwrap()).collect();
        for case in 1..50 {
            assert_eq!(shards.iter().filter(|shard| shard.has(case)).count(), 1, "{case}");
        }
        assert!((1..50).all(|case| Shard::WHOLE.has(case)));
        for text in ["0/3", "4/3", "1", "1/0", "a/b"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
