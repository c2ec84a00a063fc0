//! What a kernel module says about itself in its `.modinfo` section.

use object::{Object, ObjectSection};
use thiserror::Error;

/// Why a module could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModInfoError {
    /// Not an ELF file.
    #[error("not a kernel module: {0}")]
    NotElf(String),
    /// No `.modinfo` section.
    #[error("not a kernel module: it has no .modinfo section")]
    NoModInfo,
    /// `.modinfo` lacks a key.
    #[error("the module's .modinfo has no {0}=")]
    NoKey(&'static str),
    /// Built for another kernel.
    #[error(
        "module {module} was built for kernel {built_for}, the guest runs {running}: build it against the guest's headers or choose the matching --kernel"
    )]
    WrongKernel {
        /// Module name.
        module: String,
        /// Release in its vermagic.
        built_for: String,
        /// Release of the guest's kernel.
        running: String,
    },
}

/// Keys and values of `.modinfo`.
#[derive(Clone, Debug, Default)]
pub struct ModInfo {
    entries: Vec<(String, String)>,
}

impl ModInfo {
    /// Reads a module (not compressed).
    ///
    /// # Errors
    /// Not an ELF file, or no `.modinfo` in it.
    pub fn parse(module: &[u8]) -> Result<Self, ModInfoError> {
        let file = object::File::parse(module).map_err(|e| ModInfoError::NotElf(e.to_string()))?;
        let section = file.section_by_name(".modinfo").ok_or(ModInfoError::NoModInfo)?;
        let data = section.data().map_err(|e| ModInfoError::NotElf(e.to_string()))?;
        let entries = data
            .split(|b| *b == 0)
            .filter_map(|entry| {
                let text = String::from_utf8_lossy(entry);
                text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
            })
            .collect();
        Ok(Self { entries })
    }

    /// First value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Names of the modules this one needs, `-` written as `_`.
    #[must_use]
    pub fn depends(&self) -> Vec<String> {
        self.get("depends").unwrap_or_default().split(',').filter(|n| !n.is_empty()).map(normal).collect()
    }

    /// Refuses a module built for another release, before a guest is booted for nothing.
    ///
    /// # Errors
    /// The vermagic's first word is not `release`, or there is none.
    pub fn check_release(&self, module: &str, release: &str) -> Result<(), ModInfoError> {
        let magic = self.get("vermagic").ok_or(ModInfoError::NoKey("vermagic"))?;
        let built_for = magic.split_whitespace().next().unwrap_or_default();
        if built_for == release {
            return Ok(());
        }
        Err(ModInfoError::WrongKernel { module: module.into(), built_for: built_for.into(), running: release.into() })
    }
}

/// The vermagic string of a module, e.g. `6.1.0-56-cloud-amd64 SMP preempt mod_unload modversions`.
///
/// # Errors
/// Not a module, or one without a vermagic.
pub fn vermagic(module: &[u8]) -> Result<String, ModInfoError> {
    ModInfo::parse(module)?.get("vermagic").map(str::to_owned).ok_or(ModInfoError::NoKey("vermagic"))
}

/// Module names are compared with `-` written as `_`, as the kernel does.
#[must_use]
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest ELF relocatable with a `.modinfo`, built by hand.
    pub(crate) fn module(entries: &[&str]) -> Vec<u8> {
        let data: Vec<u8> = entries.iter().flat_map(|e| e.bytes().chain([0])).collect();
        let names = b"\0.modinfo\0.shstrtab\0";
        let (data_at, names_at) = (64_u64, 64 + data.len() as u64);
        let headers_at = (names_at + names.len() as u64).next_multiple_of(8);
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        elf.extend(1_u16.to_le_bytes()); // ET_REL
        elf.extend(62_u16.to_le_bytes()); // EM_X86_64
        elf.extend(1_u32.to_le_bytes());
        elf.extend([0; 16]); // entry, program headers
        elf.extend(headers_at.to_le_bytes());
        elf.extend(0_u32.to_le_bytes());
        for half in [64_u16, 0, 0, 64, 3, 2] {
            elf.extend(half.to_le_bytes());
        }
        elf.extend(&data);
        elf.extend(names);
        elf.resize(usize::try_from(headers_at).unwrap(), 0);
        elf.extend([0; 64]);
        for (name, kind, at, length) in [(1_u32, 1_u32, data_at, data.len() as u64), (10, 3, names_at, names.len() as u64)] {
            elf.extend(name.to_le_bytes());
            elf.extend(kind.to_le_bytes());
            for word in [0, 0, at, length] {
                elf.extend(word.to_le_bytes());
            }
            elf.extend([0; 8]);
            elf.extend(1_u64.to_le_bytes());
            elf.extend(0_u64.to_le_bytes());
        }
        elf
    }

    #[test]
    fn vermagic_and_dependencies() {
        let ko = module(&["depends=virtio,virtio-ring", "vermagic=6.1.0-x SMP mod_unload ", "name=t"]);
        assert_eq!(vermagic(&ko).unwrap(), "6.1.0-x SMP mod_unload ");
        let info = ModInfo::parse(&ko).unwrap();
        assert_eq!(info.depends(), ["virtio", "virtio_ring"]);
        info.check_release("t", "6.1.0-x").unwrap();
        let error = info.check_release("t", "6.12.0-y").unwrap_err().to_string();
        assert!(error.contains("6.1.0-x") && error.contains("6.12.0-y"), "{error}");
    }

    #[test]
    fn what_is_not_a_module_is_refused() {
        assert!(matches!(vermagic(b"hello"), Err(ModInfoError::NotElf(_))));
        assert!(matches!(vermagic(&module(&["name=t"])), Err(ModInfoError::NoKey("vermagic"))));
        let plain = module(&[]);
        assert!(vermagic(&plain).is_err());
        for n in 0..plain.len() {
            let _ = vermagic(&plain[..n]);
        }
    }
}
