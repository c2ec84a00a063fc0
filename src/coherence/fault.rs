//! Map and alloc calls that fail on purpose: error paths are where a third of the mistakes are, and nobody walks them by himself.

use crate::call::{Caller, MapCall};
use crate::ids::{Bdf, Family, Requester};
use std::collections::{BTreeSet, HashMap};
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

/// Which calls a [`FaultSpec`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// `dma_map_*`.
    Map,
    /// `dma_alloc_*`.
    Alloc,
}

impl FaultKind {
    /// Every kind, with what it means to people.
    pub const ALL: [(Self, &'static str); 2] =
        [(Self::Map, "a dma_map_* call fails (DMA_MAPPING_ERROR, 0 for a list)"), (Self::Alloc, "a dma_alloc_* call fails (NULL)")];

    /// Its name in a specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Alloc => "alloc",
        }
    }

    const fn of(family: Family) -> Self {
        match family {
            Family::Single | Family::Sg | Family::Resource => Self::Map,
            Family::Coherent | Family::Pages => Self::Alloc,
        }
    }
}

/// A failure to inject, written `KIND,nth=N[,device=BDF]`: the Nth call of the kind, counted for each device by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSpec {
    /// Which calls.
    pub kind: FaultKind,
    /// The number of the call that fails, from 1.
    pub nth: u64,
    /// The device; every one when `None`.
    pub device: Option<Requester>,
}

impl FaultSpec {
    /// The keys of a specification, with what they mean to people.
    pub const KEYS: [(&'static str, &'static str); 2] = [
        ("nth", "the number of the call that fails, from 1, counted for each device by itself"),
        ("device", "PCI address of the only device meant, such as 00:02.0"),
    ];
}

/// A specification of a failure that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{spec:?}: {what}; failures are written KIND,nth=N[,device=BDF] with KIND map or alloc")]
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
        let (mut nth, mut device) = (None, None);
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| error(format!("{part:?} is not KEY=VALUE")))?;
            let twice = match key {
                "nth" => {
                    let number = value.parse().ok().filter(|n| *n > 0);
                    nth.replace(number.ok_or_else(|| error(format!("nth={value} is not a number from 1 on")))?).is_some()
                }
                "device" => {
                    let bdf = bdf(value).ok_or_else(|| error(format!("device={value} is no PCI address such as 00:02.0")))?;
                    device.replace(Requester::Pci(bdf)).is_some()
                }
                other => return Err(error(format!("there is no key {other:?}"))),
            };
            if twice {
                return Err(error(format!("{key} is given twice")));
            }
        }
        Ok(Self { kind, nth: nth.ok_or_else(|| error("nth is missing".to_owned()))?, device })
    }
}

/// `BB:DD.F` in hexadecimal, with or without `0000:` before it.
fn bdf(text: &str) -> Option<Bdf> {
    let (bus, rest) = text.strip_prefix("0000:").unwrap_or(text).split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let number = |text: &str, most: u8| u8::from_str_radix(text, 16).ok().filter(|n| *n <= most);
    Some(Bdf::new(number(bus, 0xff)?, number(device, 0x1f)?, number(function, 7)?))
}

/// The failures of a run.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    specs: Vec<FaultSpec>,
    seen: HashMap<(Requester, FaultKind), u64>,
}

impl FromIterator<FaultSpec> for Faults {
    fn from_iter<I: IntoIterator<Item = FaultSpec>>(specs: I) -> Self {
        Self { specs: specs.into_iter().collect(), seen: HashMap::new() }
    }
}

impl FaultPlan for Faults {
    fn fails(&mut self, caller: &Caller, call: &MapCall) -> bool {
        let kind = FaultKind::of(call.family);
        // Requesters are bounded where calls come in.
        let seen = self.seen.entry((caller.requester, kind)).or_default();
        *seen += 1;
        self.specs.iter().any(|spec| spec.kind == kind && spec.nth == *seen && spec.device.is_none_or(|device| device == caller.requester))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_says_which_call_fails() {
        let device = Some(Requester::Pci(Bdf::new(0, 2, 0)));
        assert_eq!("map,nth=3".parse(), Ok(FaultSpec { kind: FaultKind::Map, nth: 3, device: None }));
        assert_eq!("alloc,device=00:02.0,nth=1".parse(), Ok(FaultSpec { kind: FaultKind::Alloc, nth: 1, device }));
        assert_eq!("map,nth=1,device=0000:00:02.0".parse::<FaultSpec>().unwrap().device, device);
        for (text, words) in [
            ("", "no kind"),
            ("unmap,nth=1", "no kind"),
            ("map", "nth is missing"),
            ("map,nth=0", "from 1"),
            ("map,nth=1,nth=2", "twice"),
            ("map,nth", "KEY=VALUE"),
            ("map,nth=1,every=2", "no key"),
            ("map,nth=1,device=2", "PCI address"),
            ("map,nth=1,device=00:20.0", "PCI address"),
        ] {
            let error = text.parse::<FaultSpec>().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
