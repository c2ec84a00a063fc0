//! The kernel's ELF image.

use crate::bytes::Store;
use crate::kallsyms::{Kallsyms, Rodata, Symbol};
use crate::orc::{Entry, Format, Place, Table};
use object::{Object as _, ObjectSection as _, ReadCache, ReadRef, SectionFlags, elf};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why an image tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no ELF file of the kind expected.
    #[error("not an ELF image of a kernel or module: {0}")]
    Elf(#[from] object::read::Error),
    /// A section is missing.
    #[error("the image has no section {0}")]
    Section(&'static str),
    /// The symbol table was not found.
    #[error("no kallsyms tables of a known layout in .rodata")]
    Symbols,
}

/// Symbols that bound the code an interrupt or exception enters by (include/asm-generic/sections.h).
const ENTRY_TEXT: [(&str, &str); 2] =
    [("__irqentry_text_start", "__irqentry_text_end"), ("__softirqentry_text_start", "__softirqentry_text_end")];

/// What the host knows of the kernel's own code. Read-only; a few hundred kilobytes in memory, the tables stay in the file.
///
/// Addresses are those of the image plus a slide, 0 for a kernel entered where it was linked (PVH and ELF entry).
#[derive(Debug)]
pub struct KernelImage {
    store: Store,
    symbols: Kallsyms,
    orc: Option<Table>,
    text: Vec<Range<u64>>,
    interrupt_entries: Vec<Range<u64>>,
    slide: u64,
}

impl KernelImage {
    /// Reads the ELF kernel (vmlinux, stripped or not) at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no kernel, or carries no symbol table. Without unwind tables it opens nevertheless.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let wrap = |source| ImageError::Read { path: path.into(), source };
        let file = File::open(path).map_err(wrap)?;
        let sections = sections(&ReadCache::new(file.try_clone().map_err(wrap)?))?;
        Self::new(Store::file(file).map_err(wrap)?, &sections)
    }

    /// Reads an ELF kernel that is in memory.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ImageError> {
        let sections = sections(bytes.as_slice())?;
        Self::new(Store::Memory(bytes), &sections)
    }

    fn new(store: Store, sections: &HashMap<String, Section>) -> Result<Self, ImageError> {
        let section = |name| sections.get(name).ok_or(ImageError::Section(name));
        let text: Vec<_> = sections.iter().filter(|(name, s)| s.code && name.ends_with(".text")).map(|(_, s)| s.place.range()).collect();
        let rodata = section(".rodata")?.place;
        let bytes = rodata.read(&store).ok_or(ImageError::Section(".rodata"))?;
        let wanted: Vec<&str> = ["_text", "_stext"].into_iter().chain(ENTRY_TEXT.iter().flat_map(|(a, b)| [*a, *b])).collect();
        let rodata = Rodata { bytes: &bytes, address: rodata.address, offset: rodata.offset };
        let (symbols, known) = Kallsyms::find(&rodata, &section(".text")?.place.range(), &wanted).ok_or(ImageError::Symbols)?;
        let interrupt_entries = ENTRY_TEXT.iter().filter_map(|(start, end)| Some(*known.get(start)?..*known.get(end)?)).collect();
        let orc = match (sections.get(".orc_unwind_ip"), sections.get(".orc_unwind")) {
            (Some(ips), Some(entries)) => Table::open(&store, ips.place, entries.place),
            _ => None,
        };
        Ok(Self { store, symbols, orc, text, interrupt_entries, slide: 0 })
    }

    /// Places the kernel `slide` bytes (wrapping) above the address it was linked at.
    pub const fn set_slide(&mut self, slide: u64) {
        self.slide = slide;
    }

    /// Number of symbols.
    #[must_use]
    pub const fn symbols(&self) -> u32 {
        self.symbols.count()
    }

    /// Number of unwind entries, 0 when the kernel was built without or with a layout this does not know.
    #[must_use]
    pub fn unwind_entries(&self) -> usize {
        self.orc.as_ref().map_or(0, Table::count)
    }

    /// Address of the first symbol called `name`. Goes through all of them: for tests and set-up, not for every access.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<u64> {
        Some(self.symbols.address_of(&self.store, name)?.wrapping_add(self.slide))
    }

    /// Whether `address` lies in the kernel's own code.
    #[must_use]
    pub fn is_text(&self, address: u64) -> bool {
        let address = address.wrapping_sub(self.slide);
        self.text.iter().any(|range| range.contains(&address))
    }

    /// Whether an interrupt, hard or soft, comes in by the code at `address`: what is outside of it was interrupted.
    pub(crate) fn is_interrupt_entry(&self, address: u64) -> bool {
        let address = address.wrapping_sub(self.slide);
        self.interrupt_entries.iter().any(|range| range.contains(&address))
    }

    /// The function `address` lies in.
    pub(crate) fn symbol(&self, address: u64) -> Option<Symbol> {
        let mut symbol = self.symbols.lookup(&self.store, address.wrapping_sub(self.slide))?;
        symbol.start = symbol.start.wrapping_add(self.slide);
        symbol.end = symbol.end.wrapping_add(self.slide);
        Some(symbol)
    }

    /// How to unwind the code at `address`.
    pub(crate) fn unwind_entry(&self, address: u64) -> Option<Entry> {
        let address = address.wrapping_sub(self.slide);
        self.orc.as_ref()?.lookup(&self.store, address)
    }

    /// The layout of this kernel's unwind entries, also of its modules'.
    pub(crate) fn orc_format(&self) -> Option<Format> {
        self.orc.as_ref().map(Table::format)
    }
}

struct Section {
    place: Place,
    code: bool,
}

fn sections<'data, R: ReadRef<'data>>(data: R) -> Result<HashMap<String, Section>, ImageError> {
    let file = object::File::parse(data)?;
    let mut found = HashMap::new();
    for section in file.sections() {
        let (Ok(name), Some((offset, size))) = (section.name(), section.file_range()) else { continue };
        let code = matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & elf::SHF_EXECINSTR.0 != 0);
        found.insert(name.to_owned(), Section { place: Place { address: section.address(), offset, size }, code });
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests;
