//! What a kernel's configuration must have for a guest of dmavet, and what it is better with.

use std::collections::BTreeMap;
use std::fmt;

/// A kernel configuration (`.config`).
#[derive(Clone, Debug, Default)]
pub struct KernelConfig(BTreeMap<String, String>);

/// What is wanted of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// At least one of several is `y`.
    On(&'static [&'static str]),
    /// Not set.
    Off(&'static str),
}

/// Without these a guest does not boot, the agent does not load, or nothing can be said about its devices.
const NEEDED: [(Want, &str); 15] = [
    (Want::On(&["X86_64"]), "dmavet boots x86-64 kernels"),
    (Want::On(&["MODULES"]), "the agent is a module"),
    (Want::On(&["MODULE_UNLOAD"]), "modules are unloaded to find what they leak"),
    (Want::On(&["BLK_DEV_INITRD"]), "the guest's files are an initramfs"),
    (Want::On(&["BINFMT_ELF"]), "the guest's busybox is an ELF program"),
    (Want::On(&["BINFMT_SCRIPT"]), "the guest's init is a script"),
    (Want::On(&["PROC_FS"]), "the guest's init looks into /proc"),
    (Want::On(&["SYSFS"]), "the guest's init looks into /sys"),
    (Want::On(&["ACPI"]), "devices are described by ACPI"),
    (Want::On(&["PCI"]), "the agent and the devices are on PCI"),
    (Want::On(&["PCI_MSI"]), "devices interrupt by MSI"),
    (Want::On(&["DMA_OPS", "ARCH_HAS_DMA_OPS"]), "the agent takes DMA calls as dma_map_ops; CONFIG_GART_IOMMU=y selects it"),
    (Want::On(&["SERIAL_8250_CONSOLE"]), "the guest's console is a serial port"),
    (Want::On(&["STACKTRACE"]), "the agent takes call stacks"),
    (Want::Off("MODULE_SIG_FORCE"), "the agent and your modules are not signed"),
];

/// Without these something is missing from what a run says.
const BETTER: [(Want, &str); 4] = [
    (Want::On(&["KALLSYMS"]), "functions of the kernel have no names"),
    (Want::On(&["UNWINDER_ORC"]), "call stacks of stopped CPUs are guesses"),
    (Want::On(&["DEBUG_INFO"]), "the tree's modules have no source lines"),
    (Want::On(&["DEVTMPFS"]), "device nodes are made once, when the guest starts"),
];

/// The options behind the kernel's own drivers, by module name.
const DRIVERS: [(&str, &str); 9] = [
    ("virtio_ring", "VIRTIO"),
    ("virtio_pci", "VIRTIO_PCI"),
    ("virtio_blk", "VIRTIO_BLK"),
    ("virtio_net", "VIRTIO_NET"),
    ("virtio_console", "VIRTIO_CONSOLE"),
    ("virtio_rng", "HW_RANDOM_VIRTIO"),
    ("nvme_core", "NVME_CORE"),
    ("nvme", "BLK_DEV_NVME"),
    ("e1000", "E1000"),
];

/// An option that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// `CONFIG_PCI_MSI is not set`.
    pub what: String,
    /// Why that matters.
    pub why: &'static str,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl KernelConfig {
    /// Reads the text of a `.config`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let options = text.lines().filter_map(|line| line.trim().strip_prefix("CONFIG_")?.split_once('='));
        Self(options.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect())
    }

    /// The value of an option, named without `CONFIG_`; nothing when it is not set.
    #[must_use]
    pub fn value(&self, option: &str) -> Option<&str> {
        self.0.get(option).map(String::as_str)
    }

    /// The options without which no guest can run.
    #[must_use]
    pub fn lacks(&self) -> Vec<Lack> {
        self.not_met(&NEEDED)
    }

    /// The options a run tells less without.
    #[must_use]
    pub fn loses(&self) -> Vec<Lack> {
        self.not_met(&BETTER)
    }

    fn not_met(&self, wants: &[(Want, &'static str)]) -> Vec<Lack> {
        let lack = |&(want, why): &(Want, &'static str)| {
            let what = match want {
                Want::On(options) if options.iter().any(|option| self.value(option) == Some("y")) => return None,
                Want::On([option]) if self.value(option) == Some("m") => format!("CONFIG_{option} is =m and must be =y"),
                Want::On(options) => {
                    let names: Vec<String> = options.iter().map(|option| format!("CONFIG_{option}")).collect();
                    format!("{} is not set", names.join(" or "))
                }
                Want::Off(option) if self.value(option) == Some("y") => format!("CONFIG_{option} is set"),
                Want::Off(_) => return None,
            };
            Some(Lack { what, why })
        };
        wants.iter().filter_map(lack).collect()
    }

    /// What stands in the way of one of the kernel's own drivers (by module name) that has no module file and is not listed as built in.
    /// Nothing for a driver that is built in after all, or that is not known here.
    #[must_use]
    pub fn driver_lacks(&self, driver: &str) -> Option<String> {
        let (_, option) = DRIVERS.into_iter().find(|(name, _)| *name == driver)?;
        match self.value(option) {
            Some("y") => None,
            Some(_) => Some(format!("CONFIG_{option}=m, but {driver}.ko is not built: make modules")),
            None => Some(format!("CONFIG_{option} is not set")),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration that has all that is needed.
    pub(crate) fn whole() -> String {
        let on = |(want, _): &(Want, &str)| match want {
            Want::On(options) => options.last().map(|option| format!("CONFIG_{option}=y\n")),
            Want::Off(option) => Some(format!("# CONFIG_{option} is not set\n")),
        };
        NEEDED.iter().chain(&BETTER).filter_map(on).collect()
    }

    #[test]
    fn every_missing_option_is_named_with_its_reason() {
        assert_eq!(KernelConfig::parse(&whole()).lacks(), []);
        assert_eq!(KernelConfig::parse("").lacks().len(), NEEDED.len() - 1, "what must be off is off");
        let text = whole().replace("CONFIG_PCI_MSI=y", "# CONFIG_PCI_MSI is not set").replace("8250_CONSOLE=y", "8250_CONSOLE=m")
            + "CONFIG_MODULE_SIG_FORCE=y\n";
        let lacks: Vec<String> = KernelConfig::parse(&text).lacks().iter().map(Lack::to_string).collect();
        assert_eq!(
            lacks,
            [
                "CONFIG_PCI_MSI is not set: devices interrupt by MSI",
                "CONFIG_SERIAL_8250_CONSOLE is =m and must be =y: the guest's console is a serial port",
                "CONFIG_MODULE_SIG_FORCE is set: the agent and your modules are not signed",
            ]
        );
        let old = whole().replace("CONFIG_ARCH_HAS_DMA_OPS=y", "CONFIG_DMA_OPS=y");
        assert_eq!(KernelConfig::parse(&old).lacks(), []);
        let none = whole().replace("CONFIG_ARCH_HAS_DMA_OPS=y\n", "");
        assert!(KernelConfig::parse(&none).lacks()[0].what.contains("CONFIG_DMA_OPS or CONFIG_ARCH_HAS_DMA_OPS is not set"));
    }

    #[test]
    fn what_only_makes_a_run_poorer_is_no_obstacle() {
        let config = KernelConfig::parse(&whole().replace("CONFIG_KALLSYMS=y\n", ""));
        assert_eq!(config.lacks(), []);
        assert_eq!(config.loses()[0].what, "CONFIG_KALLSYMS is not set");
    }

    #[test]
    fn a_driver_that_is_not_there_is_told_by_its_option() {
        let config = KernelConfig::parse("CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=m\n");
        assert_eq!(config.driver_lacks("virtio_pci"), None);
        assert_eq!(config.driver_lacks("virtio_blk").as_deref(), Some("CONFIG_VIRTIO_BLK=m, but virtio_blk.ko is not built: make modules"));
        assert_eq!(config.driver_lacks("e1000").as_deref(), Some("CONFIG_E1000 is not set"));
        assert_eq!(config.driver_lacks("mydrv"), None);
    }
}
