//! Map and alloc calls that fail on purpose: error paths are where a third of the mistakes are, and nobody walks them by himself.

use crate::call::{Caller, MapCall};
use crate::dice::SplitMix64;
use crate::ids::{Bdf, Family, Requester};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

/// Chooses the calls that fail. Asked at every map and alloc call, with the core's lock held; must not call the core.
pub trait FaultPlan: Send + fmt::Debug {
    /// Whether this call is to fail: the driver gets `DMA_MAPPING_ERROR`, NULL or 0.
    fn fails(&mut self, caller: &Caller, call: &MapCall) -> bool;
}

/// Fails calls by their number: 1 is the first map or alloc call of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NthMaps {
    numbers: BTreeSet<u64>,
    seen: u64,
}

impl FromIterator<u64> for NthMaps {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        Self { numbers: numbers.into_iter().collect(), seen: 0 }
    }
}

impl FaultPlan for NthMaps {
    fn fails(&mut self, _caller: &Caller, _call: &MapCall) -> bool {
        self.seen += 1;
        self.numbers.contains(&self.seen)
    }
}

/// What a [`FaultSpec`] spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// `dma_map_*`.
    Map,
    /// `dma_alloc_*`.
    Alloc,
    /// A message-signalled interrupt that is not delivered.
    IrqLost,
    /// A message-signalled interrupt that comes a second time.
    IrqTwice,
}

impl FaultKind {
    /// Every kind, with what it means to people.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Map, "a dma_map_* call fails (DMA_MAPPING_ERROR, 0 for a list)"),
        (Self::Alloc, "a dma_alloc_* call fails (NULL)"),
        (Self::IrqLost, "an interrupt (MSI-X) of the device is lost"),
        (Self::IrqTwice, "an interrupt (MSI-X) of the device comes twice: the second is spurious"),
    ];

    /// Its name in a specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Alloc => "alloc",
            Self::IrqLost => "irq-lost",
            Self::IrqTwice => "irq-twice",
        }
    }

    const fn of(family: Family) -> Self {
        match family {
            Family::Single | Family::Sg | Family::Resource => Self::Map,
            Family::Coherent | Family::Pages => Self::Alloc,
        }
    }
}

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultTime {
    /// At this event of the kind, counted from 1 for each device by itself.
    Nth(u64),
    /// By chance, in the terms of Linux's fault injection (Documentation/fault-injection/fault-injection.rst).
    Chance {
        /// Percent of the events that are candidates, 1 to 100.
        probability: u8,
        /// Every so many events is a candidate.
        interval: u64,
        /// How often it strikes at most; without end when `None`.
        times: Option<u64>,
        /// Bytes that are mapped or allocated before it may strike.
        space: u64,
    },
}

/// A fault to inject, written `KIND,nth=N[,device=BDF]` or `KIND,probability=P[,interval=I][,times=T][,space=BYTES][,device=BDF]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSpec {
    /// What it spoils.
    pub kind: FaultKind,
    /// When.
    pub time: FaultTime,
    /// The device; every one when `None`.
    pub device: Option<Requester>,
}

impl FaultSpec {
    /// The keys of a specification, with what they mean to people.
    pub const KEYS: [(&'static str, &'static str); 6] = [
        ("nth", "the number of the event that fails, from 1, counted for each device by itself"),
        ("probability", "in place of nth: percent of the events that fail, drawn by --seed"),
        ("interval", "with probability: only every so many events may fail (default 1)"),
        ("times", "with probability: how often at most (default 1; -1 without end)"),
        ("space", "with probability: bytes mapped or allocated before the first may fail (default 0)"),
        ("device", "PCI address of the only device meant, such as 00:02.0"),
    ];
}

/// A specification of a fault that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{spec:?}: {what}; faults are written KIND,nth=N or KIND,probability=PERCENT (see dmavet list faults)")]
pub struct FaultSpecError {
    spec: String,
    what: String,
}

impl FromStr for FaultSpec {
    type Err = FaultSpecError;

    fn from_str(spec: &str) -> Result<Self, FaultSpecError> {
        let error = |what: String| FaultSpecError { spec: spec.to_owned(), what };
        let mut parts = spec.split(',');
        let name = parts.next().unwrap_or_default();
        let kind = FaultKind::ALL.iter().find(|(kind, _)| kind.name() == name).map(|(kind, _)| *kind);
        let kind = kind.ok_or_else(|| error(format!("there is no kind {name:?}")))?;
        let mut keys = BTreeMap::new();
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| error(format!("{part:?} is not KEY=VALUE")))?;
            if Self::KEYS.iter().all(|(known, _)| *known != key) {
                return Err(error(format!("there is no key {key:?}")));
            }
            if keys.insert(key, value).is_some() {
                return Err(error(format!("{key} is given twice")));
            }
        }
        let number = |key: &str, least: u64, most: u64| {
            let Some(value) = keys.get(key) else { return Ok(None) };
            let number = value.parse().ok().filter(|n| (least..=most).contains(n));
            let most = if most == u64::MAX { "on".to_owned() } else { format!("to {most}") };
            number.map(Some).ok_or_else(|| error(format!("{key}={value} is not a number from {least} {most}")))
        };
        let device = match keys.get("device") {
            Some(value) => {
                Some(Requester::Pci(bdf(value).ok_or_else(|| error(format!("device={value} is no PCI address such as 00:02.0")))?))
            }
            None => None,
        };
        let time = match (number("nth", 1, u64::MAX)?, number("probability", 1, 100)?) {
            (Some(nth), None) => match ["interval", "times", "space"].iter().find(|key| keys.contains_key(*key)) {
                Some(key) => return Err(error(format!("{key} belongs to probability, not to nth"))),
                None => FaultTime::Nth(nth),
            },
            (None, Some(probability)) => FaultTime::Chance {
                probability: u8::try_from(probability).unwrap_or(100),
                interval: number("interval", 1, u64::MAX)?.unwrap_or(1),
                times: if keys.get("times") == Some(&"-1") { None } else { Some(number("times", 1, u64::MAX)?.unwrap_or(1)) },
                space: number("space", 0, u64::MAX)?.unwrap_or(0),
            },
            (Some(_), Some(_)) => return Err(error("nth and probability exclude each other".to_owned())),
            (None, None) => return Err(error("nth is missing, or probability".to_owned())),
        };
        Ok(Self { kind, time, device })
    }
}

/// `BB:DD.F` in hexadecimal, with or without `0000:` before it.
fn bdf(text: &str) -> Option<Bdf> {
    let (bus, rest) = text.strip_prefix("0000:").unwrap_or(text).split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let number = |text: &str, most: u8| u8::from_str_radix(text, 16).ok().filter(|n| *n <= most);
    Some(Bdf::new(number(bus, 0xff)?, number(device, 0x1f)?, number(function, 7)?))
}

/// A fault and what of it is used up.
#[derive(Clone, Debug)]
struct Armed {
    spec: FaultSpec,
    /// Candidates seen.
    seen: u64,
    /// Strikes left; without end when `None`.
    left: Option<u64>,
    /// Bytes to go before the first strike.
    space: u64,
}

impl Armed {
    fn strikes(&mut self, nth: u64, bytes: u64, dice: &mut SplitMix64) -> bool {
        let FaultTime::Chance { probability, interval, .. } = self.spec.time else { return self.spec.time == FaultTime::Nth(nth) };
        if self.left == Some(0) {
            return false;
        }
        if self.space > bytes {
            self.space -= bytes;
            return false;
        }
        self.seen += 1;
        if !self.seen.is_multiple_of(interval) || dice.next() % 100 >= u64::from(probability) {
            return false;
        }
        self.left = self.left.map(|left| left - 1);
        true
    }
}

/// The faults of a run.
#[derive(Clone, Debug)]
pub struct Faults {
    armed: Vec<Armed>,
    seen: HashMap<(Requester, FaultKind), u64>,
    dice: SplitMix64,
}

impl Faults {
    /// Faults by `specs`; what is left to chance is drawn by `seed`.
    pub fn new(specs: impl IntoIterator<Item = FaultSpec>, seed: u64) -> Self {
        let arm = |spec: FaultSpec| {
            let (left, space) = match spec.time {
                FaultTime::Nth(_) => (None, 0),
                FaultTime::Chance { times, space, .. } => (times, space),
            };
            Armed { spec, seen: 0, left, space }
        };
        Self { armed: specs.into_iter().map(arm).collect(), seen: HashMap::new(), dice: SplitMix64::new(seed) }
    }

    /// Whether an event of `requester` is spoilt; `bytes` that it maps or allocates. Requesters must be bounded by the caller.
    pub fn strikes(&mut self, kind: FaultKind, requester: Requester, bytes: u64) -> bool {
        let seen = self.seen.entry((requester, kind)).or_default();
        *seen += 1;
        let (nth, dice) = (*seen, &mut self.dice);
        let meant = |spec: &FaultSpec| spec.kind == kind && spec.device.is_none_or(|device| device == requester);
        let mut struck = false;
        // Every one counts, whichever strikes first.
        for armed in self.armed.iter_mut().filter(|armed| meant(&armed.spec)) {
            struck |= armed.strikes(nth, bytes, dice);
        }
        struck
    }
}

impl FaultPlan for Faults {
    fn fails(&mut self, caller: &Caller, call: &MapCall) -> bool {
        let bytes = call.extents.iter().fold(0u64, |all, extent| all.saturating_add(extent.len));
        self.strikes(FaultKind::of(call.family), caller.requester, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));

    #[test]
    fn a_specification_says_what_fails_and_when() {
        let device = Some(DEVICE);
        let nth = |n| FaultTime::Nth(n);
        assert_eq!("map,nth=3".parse(), Ok(FaultSpec { kind: FaultKind::Map, time: nth(3), device: None }));
        assert_eq!("alloc,device=00:02.0,nth=1".parse(), Ok(FaultSpec { kind: FaultKind::Alloc, time: nth(1), device }));
        assert_eq!("map,nth=1,device=0000:00:02.0".parse::<FaultSpec>().unwrap().device, device);
        let chance = |probability, interval, times, space| FaultTime::Chance { probability, interval, times, space };
        let time = |text: &str| text.parse::<FaultSpec>().unwrap().time;
        assert_eq!(time("irq-lost,probability=5"), chance(5, 1, Some(1), 0));
        assert_eq!(time("irq-twice,probability=100,interval=3,times=-1,space=4096"), chance(100, 3, None, 4096));
        for (text, words) in [
            ("", "no kind"),
            ("unmap,nth=1", "no kind"),
            ("map", "nth is missing"),
            ("map,nth=0", "from 1 on"),
            ("map,nth=1,nth=2", "twice"),
            ("map,nth", "KEY=VALUE"),
            ("map,nth=1,every=2", "no key"),
            ("map,nth=1,device=2", "PCI address"),
            ("map,nth=1,device=00:20.0", "PCI address"),
            ("map,nth=1,probability=5", "exclude"),
            ("map,nth=1,times=5", "belongs to probability"),
            ("map,probability=101", "from 1 to 100"),
            ("map,probability=1,times=0", "from 1 on"),
        ] {
            let error = text.parse::<FaultSpec>().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    /// Which of the first 12 events of 100 bytes a fault spoils.
    fn struck(spec: &str, seed: u64) -> Vec<u64> {
        let mut faults = Faults::new([spec.parse().unwrap()], seed);
        (1..=12).filter(|_| faults.strikes(FaultKind::Map, DEVICE, 100)).collect()
    }

    #[test]
    fn chance_has_the_terms_of_linux() {
        let all: Vec<u64> = (1..=12).collect();
        assert_eq!(struck("map,probability=100,times=-1", 1), all);
        assert_eq!(struck("map,probability=100", 1), [1], "once unless it is told otherwise");
        assert_eq!(struck("map,probability=100,interval=5,times=-1", 1), [5, 10]);
        assert_eq!(struck("map,probability=100,interval=5,times=1", 1), [5]);
        assert_eq!(struck("map,probability=100,times=2,space=350", 1), [4, 5]);
        assert!(struck("alloc,probability=100,times=-1", 1).is_empty());
    }

    #[test]
    fn chance_is_the_seeds() {
        let spec = "map,probability=40,times=-1";
        assert_eq!(struck(spec, 7), struck(spec, 7));
        let several: BTreeSet<_> = (0..20).map(|seed| struck(spec, seed)).collect();
        assert!(several.len() > 10, "{several:?}");
        let share: usize = (0..1000).map(|seed| struck(spec, seed).len()).sum();
        assert!((4000..5600).contains(&share), "{share} of 12,000 with a probability of 40 %");
    }
}
