//! What a user writes to get a device: `NAME[,KEY=VALUE]...`, as in `--device ncdma,mask=32`.

use crate::bus::{DeviceContext, PciFunction, PlatformContext, PlatformDevice};
use crate::disk::{DiskError, DiskSpec};
use crate::e1000::{self, E1000Spec};
use crate::ncdma::{self, NcdmaPlatformSpec, NcdmaSpec};
use crate::nvme::{self, NvmeSpec};
use crate::virtio_blk::{self, VirtioBlkSpec};
use crate::virtio_console::{self, VirtioConsoleSpec};
use crate::virtio_net::{self, VirtioNetSpec};
use crate::virtio_rng::{self, VirtioRngSpec};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use vm_memory::GuestMemory;

/// A device to build.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// The Intel 82540EM network controller.
    E1000(E1000Spec),
    /// The reference DMA engine.
    Ncdma(NcdmaSpec),
    /// The reference DMA engine as a platform device.
    NcdmaPlatform(NcdmaPlatformSpec),
    /// The NVMe controller.
    Nvme(NvmeSpec),
    /// The virtio block device.
    VirtioBlk(VirtioBlkSpec),
    /// The virtio console device.
    VirtioConsole(VirtioConsoleSpec),
    /// The virtio network device.
    VirtioNet(VirtioNetSpec),
    /// The virtio entropy device.
    VirtioRng(VirtioRngSpec),
}

/// A model that can be built, for lists and help texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name in a device specification.
    pub name: &'static str,
    /// What it is, one line.
    pub summary: &'static str,
    /// Its keys.
    pub keys: &'static [KeyInfo],
    /// The kernel's own modules that drive it, without those they need; none where the driver is not the kernel's.
    pub drivers: &'static [&'static str],
}

/// A key of a device specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub name: &'static str,
    /// What it sets, one line.
    pub help: &'static str,
    /// The values allowed.
    pub values: &'static str,
    /// The value it has when not given.
    pub default: &'static str,
}

/// What is wrong with a device specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There is no name.
    #[error("device specification {spec:?} does not begin with a model name; models: {known}")]
    NoModel {
        /// What was given.
        spec: String,
        /// The names there are.
        known: String,
    },
    /// There is no such model.
    #[error("there is no device model {name:?}; models: {known}")]
    UnknownModel {
        /// What was given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A part after the name is not `key=value`.
    #[error("device {model}: {part:?} (part {position}) is not KEY=VALUE; keys: {known}")]
    NotKeyValue {
        /// The model.
        model: &'static str,
        /// The part.
        part: String,
        /// Its number, counted from 1 after the name.
        position: usize,
        /// The keys there are.
        known: String,
    },
    /// The model has no such key.
    #[error("device {model} has no key {key:?}; keys: {known}")]
    UnknownKey {
        /// The model.
        model: &'static str,
        /// The key.
        key: String,
        /// The keys there are.
        known: String,
    },
    /// A key is given twice.
    #[error("device {model}: key {key:?} is given twice")]
    Repeated {
        /// The model.
        model: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A value is not allowed.
    #[error("device {model}: {key}={value} is not allowed; {key} takes {allowed}")]
    BadValue {
        /// The model.
        model: &'static str,
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// Every model, in the order of a list for people.
#[must_use]
pub const fn models() -> &'static [ModelInfo] {
    const MODELS: &[ModelInfo] = &[
        E1000Spec::INFO,
        NcdmaSpec::INFO,
        NcdmaPlatformSpec::INFO,
        NvmeSpec::INFO,
        VirtioBlkSpec::INFO,
        VirtioConsoleSpec::INFO,
        VirtioNetSpec::INFO,
        VirtioRngSpec::INFO,
    ];
    MODELS
}

/// Why a device cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no disk to put into it.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It belongs elsewhere: the caller did not ask [`DeviceSpec::is_platform`].
    #[error("device {device} is {there}")]
    Seat {
        /// The model.
        device: &'static str,
        /// Where it belongs.
        there: &'static str,
    },
}

/// Builds the PCI function `spec` names on what `context` gives it.
///
/// # Errors
/// Something the specification names on this machine cannot be had, or it is a platform device.
pub fn build<M: GuestMemory + Send + 'static>(spec: &DeviceSpec, context: DeviceContext<M>) -> Result<Box<dyn PciFunction>, BuildError> {
    Ok(match spec {
        DeviceSpec::E1000(E1000Spec) => Box::new(e1000::new(context)),
        DeviceSpec::Ncdma(spec) => Box::new(ncdma::new(context, spec)),
        DeviceSpec::NcdmaPlatform(_) => return Err(BuildError::Seat { device: spec.name(), there: "a platform device" }),
        DeviceSpec::Nvme(spec) => Box::new(nvme::new(context, spec)?),
        DeviceSpec::VirtioBlk(spec) => Box::new(virtio_blk::new(context, spec)?),
        DeviceSpec::VirtioConsole(spec) => Box::new(virtio_console::new(context, spec)),
        DeviceSpec::VirtioNet(spec) => Box::new(virtio_net::new(context, spec)),
        DeviceSpec::VirtioRng(spec) => Box::new(virtio_rng::new(context, spec)),
    })
}

/// Builds the platform device `spec` names on what `context` gives it.
///
/// # Errors
/// It is a PCI function.
pub fn build_platform<M: GuestMemory + Send + 'static>(
    spec: &DeviceSpec,
    context: PlatformContext<M>,
) -> Result<Box<dyn PlatformDevice>, BuildError> {
    match spec {
        DeviceSpec::NcdmaPlatform(spec) => Ok(Box::new(ncdma::new_platform(context, spec))),
        _ => Err(BuildError::Seat { device: spec.name(), there: "a PCI function" }),
    }
}

impl DeviceSpec {
    /// Name, summary and keys of the model.
    #[must_use]
    pub const fn info(&self) -> &'static ModelInfo {
        match self {
            Self::E1000(_) => &E1000Spec::INFO,
            Self::Ncdma(_) => &NcdmaSpec::INFO,
            Self::NcdmaPlatform(_) => &NcdmaPlatformSpec::INFO,
            Self::Nvme(_) => &NvmeSpec::INFO,
            Self::VirtioBlk(_) => &VirtioBlkSpec::INFO,
            Self::VirtioConsole(_) => &VirtioConsoleSpec::INFO,
            Self::VirtioNet(_) => &VirtioNetSpec::INFO,
            Self::VirtioRng(_) => &VirtioRngSpec::INFO,
        }
    }

    /// Its disk, if it has one.
    #[must_use]
    pub const fn disk(&self) -> Option<&DiskSpec> {
        match self {
            Self::Nvme(spec) => Some(&spec.disk),
            Self::VirtioBlk(spec) => Some(&spec.disk),
            _ => None,
        }
    }

    /// Its disk, to be changed.
    pub const fn disk_mut(&mut self) -> Option<&mut DiskSpec> {
        match self {
            Self::Nvme(spec) => Some(&mut spec.disk),
            Self::VirtioBlk(spec) => Some(&mut spec.disk),
            _ => None,
        }
    }

    /// The file of this machine that is read for it, if any.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.disk().and_then(DiskSpec::file)
    }

    /// Whether it is a platform device, else it is a PCI function.
    #[must_use]
    pub const fn is_platform(&self) -> bool {
        matches!(self, Self::NcdmaPlatform(_))
    }

    /// The model's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.info().name
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::E1000(spec) => spec.fmt(f),
            Self::Ncdma(spec) => spec.fmt(f),
            Self::NcdmaPlatform(spec) => spec.fmt(f),
            Self::Nvme(spec) => spec.fmt(f),
            Self::VirtioBlk(spec) => spec.fmt(f),
            Self::VirtioConsole(spec) => spec.fmt(f),
            Self::VirtioNet(spec) => spec.fmt(f),
            Self::VirtioRng(spec) => spec.fmt(f),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let known = || names(models().iter().map(|model| model.name));
        let (name, rest) = text.split_once(',').map_or((text, None), |(name, rest)| (name, Some(rest)));
        if name.is_empty() || name.contains('=') {
            return Err(SpecError::NoModel { spec: text.to_owned(), known: known() });
        }
        let Some(info) = models().iter().find(|info| info.name == name) else {
            return Err(SpecError::UnknownModel { name: name.to_owned(), known: known() });
        };
        let pairs = pairs(info, rest)?;
        // The name was found in the table above.
        match info.name {
            "ncdma-platform" => NcdmaPlatformSpec::from_pairs(&pairs).map(Self::NcdmaPlatform),
            "e1000" => E1000Spec::from_pairs(&pairs).map(Self::E1000),
            "nvme" => NvmeSpec::from_pairs(&pairs).map(Self::Nvme),
            "virtio-blk" => VirtioBlkSpec::from_pairs(&pairs).map(Self::VirtioBlk),
            "virtio-console" => VirtioConsoleSpec::from_pairs(&pairs).map(Self::VirtioConsole),
            "virtio-net" => VirtioNetSpec::from_pairs(&pairs).map(Self::VirtioNet),
            "virtio-rng" => VirtioRngSpec::from_pairs(&pairs).map(Self::VirtioRng),
            _ => NcdmaSpec::from_pairs(&pairs).map(Self::Ncdma),
        }
    }
}

/// A key of the model and the text given for it.
pub(crate) type Pair<'a> = (&'static KeyInfo, &'a str);

fn pairs<'a>(info: &'static ModelInfo, rest: Option<&'a str>) -> Result<Vec<Pair<'a>>, SpecError> {
    let model = info.name;
    let known = || names(info.keys.iter().map(|key| key.name));
    let mut pairs: Vec<Pair<'a>> = Vec::new();
    for (index, part) in rest.into_iter().flat_map(|rest| rest.split(',')).enumerate() {
        let Some((key, value)) = part.split_once('=') else {
            return Err(SpecError::NotKeyValue { model, part: part.to_owned(), position: index + 1, known: known() });
        };
        let Some(info) = info.keys.iter().find(|info| info.name == key) else {
            return Err(SpecError::UnknownKey { model, key: key.to_owned(), known: known() });
        };
        if pairs.iter().any(|(seen, _)| seen.name == info.name) {
            return Err(SpecError::Repeated { model, key: info.name });
        }
        pairs.push((info, value));
    }
    Ok(pairs)
}

/// A value that is not allowed.
pub(crate) fn bad_value(info: &ModelInfo, key: &KeyInfo, value: &str) -> SpecError {
    SpecError::BadValue { model: info.name, key: key.name, value: value.to_owned(), allowed: key.values }
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    let names = names.collect::<Vec<_>>();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<DeviceSpec>().unwrap_err().to_string()
    }

    #[test]
    fn a_specification_reads_back_as_written() {
        let texts = [
            "e1000",
            "ncdma",
            "ncdma,mask=32",
            "ncdma-platform",
            "ncdma-platform,mask=32",
            "nvme",
            "nvme,size=8,queues=2,hmb=0",
            "nvme,file=/a b/c,readonly=on",
            "virtio-console",
            "virtio-net",
            "virtio-net,mergeable=off",
            "virtio-rng",
            "virtio-rng,seed=7",
            "virtio-blk",
            "virtio-blk,size=8",
            "virtio-blk,size=64,file=/a b/c,readonly=on",
        ];
        for text in texts {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        assert_eq!("ncdma,mask=64".parse::<DeviceSpec>().unwrap().to_string(), "ncdma");
    }

    #[test]
    fn errors_say_what_where_and_what_is_allowed() {
        const KNOWN: &str = "e1000, ncdma, ncdma-platform, nvme, virtio-blk, virtio-console, virtio-net, virtio-rng";
        assert_eq!(error(""), format!("device specification \"\" does not begin with a model name; models: {KNOWN}"));
        assert_eq!(error("mask=3"), format!("device specification \"mask=3\" does not begin with a model name; models: {KNOWN}"));
        assert_eq!(error("e100"), format!("there is no device model \"e100\"; models: {KNOWN}"));
        assert_eq!(error("e1000,mac=1"), "device e1000 has no key \"mac\"; keys: none");
        assert_eq!(error("ncdma,"), "device ncdma: \"\" (part 1) is not KEY=VALUE; keys: mask");
        assert_eq!(error("ncdma,mask=32,fast"), "device ncdma: \"fast\" (part 2) is not KEY=VALUE; keys: mask");
        assert_eq!(error("ncdma,bits=32"), "device ncdma has no key \"bits\"; keys: mask");
        assert_eq!(error("ncdma,mask=32,mask=33"), "device ncdma: key \"mask\" is given twice");
        for value in ["23", "65", "", "-1", "0x20", "32bit", "99999999999999999999"] {
            let expected = format!("device ncdma: mask={value} is not allowed; mask takes 24 to 64");
            assert_eq!(error(&format!("ncdma,mask={value}")), expected);
            assert_eq!(error(&format!("ncdma-platform,mask={value}")), expected.replace("device ncdma:", "device ncdma-platform:"));
        }
    }

    #[test]
    fn numbers_and_switches_have_their_bounds() {
        for (key, allowed, values) in [
            ("size", "1 to 16384", ["0", "16385", "1M"]),
            ("readonly", "on or off", ["", "yes", "ON"]),
            ("queues", "1 to 63", ["0", "64", "65537"]),
            ("hmb", "0 to 64", ["65", "-1", "4294967296"]),
        ] {
            for value in values {
                let expected = format!("device nvme: {key}={value} is not allowed; {key} takes {allowed}");
                assert_eq!(error(&format!("nvme,{key}={value}")), expected);
            }
        }
    }

    #[test]
    fn defaults_in_the_help_are_allowed_values() {
        for model in models() {
            assert!(model.name.parse::<DeviceSpec>().is_ok());
            for key in model.keys {
                let text = format!("{},{}={}", model.name, key.name, key.default);
                assert_eq!(text.parse::<DeviceSpec>().unwrap(), model.name.parse().unwrap(), "{text}");
            }
        }
    }
}
