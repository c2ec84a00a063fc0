//! A kernel module's object file.
//!
//! All sections of a module start at address 0. Where the kernel puts those with code follows from the file: in its order, each at
//! its alignment, init sections apart (kernel/module/main.c, layout_sections()). Addresses of named functions confirm or correct
//! that.

use crate::kernel::ImageError;
use crate::map::Layout;
use crate::orc::{ENTRY, Entry, Format};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionFlags, elf};
use std::collections::HashMap;

/// A section with code.
#[derive(Clone, Debug)]
struct Code {
    align: u64,
    size: u64,
    /// Its memory is freed when the module's init function has returned.
    init: bool,
}

/// A name for a place in a section with code.
#[derive(Clone, Debug)]
struct Symbol {
    section: usize,
    offset: u64,
    name: String,
}

/// One unwind entry.
#[derive(Clone, Copy, Debug)]
struct Unwind {
    section: usize,
    offset: u64,
    entry: [u8; ENTRY],
}

/// What the host knows of a module's code.
#[derive(Clone, Debug)]
pub struct ModuleImage {
    name: String,
    code: Vec<Code>,
    /// In the order of the file's symbol table.
    symbols: Vec<Symbol>,
    /// In the order of places.
    orc: Vec<Unwind>,
}

impl ModuleImage {
    /// Reads the module called `name` (as the kernel writes it, with underscores) from the bytes of its uncompressed `.ko` file.
    ///
    /// # Errors
    /// When they are no ELF object.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let file = object::File::parse(bytes)?;
        let mut numbers = HashMap::new();
        let mut code = Vec::new();
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
            let wanted = elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0;
            if sh_flags.0 & wanted == wanted {
                numbers.insert(section.index().0, code.len());
                let init = section.name().is_ok_and(|n| n.starts_with(".init"));
                code.push(Code { align: section.align().max(1), size: section.size(), init });
            }
        }
        let place = |symbol: &object::Symbol<'_, '_>| Some(*numbers.get(&symbol.section_index()?.0)?);
        let mut symbols = Vec::new();
        for symbol in file.symbols() {
            if let (Some(section), Ok(name)) = (place(&symbol), symbol.name())
                && !name.is_empty()
            {
                symbols.push(Symbol { section, offset: symbol.address(), name: name.to_owned() });
            }
        }
        let entries = file.section_by_name(".orc_unwind").and_then(|s| s.data().ok()).unwrap_or_default();
        let mut orc = Vec::new();
        for (at, relocation) in file.section_by_name(".orc_unwind_ip").iter().flat_map(object::Section::relocations) {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let Ok(symbol) = file.symbol_by_index(index) else { continue };
            let entry = usize::try_from(at / 4).ok().and_then(|i| entries.as_chunks::<ENTRY>().0.get(i).copied());
            if let (Some(section), Some(entry)) = (place(&symbol), entry) {
                orc.push(Unwind { section, offset: symbol.address().wrapping_add_signed(relocation.addend()), entry });
            }
        }
        // Of two entries for one address the one that knows something counts (orc_sort_cmp() in the kernel).
        orc.sort_by_key(|o| (o.section, o.offset, o.entry.get(4).is_some_and(|registers| registers & 0xf != 0)));
        Ok(Self { name: name.to_owned(), code, symbols, orc })
    }

    /// The module's name in the kernel.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the kernel put each section with code, as far as `layout` tells.
    pub(crate) fn place(&self, layout: &Layout) -> Vec<Option<u64>> {
        let mut text = layout.text_base;
        let mut init = layout.init_base;
        let mut bases: Vec<Option<u64>> = Vec::with_capacity(self.code.len());
        for code in &self.code {
            let at = if code.init { &mut init } else { &mut text };
            let base = at.checked_next_multiple_of(code.align).filter(|_| *at != 0);
            *at = base.and_then(|base| base.checked_add(code.size)).unwrap_or(0);
            bases.push(base);
        }
        let anchored = self.anchored(layout);
        // A kernel that lays modules out otherwise than thought: nothing but what it named itself is known.
        if bases.iter().zip(&anchored).any(|(base, anchor)| base.is_some() && anchor.is_some() && base != anchor) {
            return anchored;
        }
        bases.iter().zip(anchored).map(|(base, anchor)| base.or(anchor)).collect()
    }

    /// The bases of sections that hold a function the guest named.
    fn anchored(&self, layout: &Layout) -> Vec<Option<u64>> {
        let mut bases = vec![None; self.code.len()];
        for (address, name) in &layout.anchors {
            let Some((function, offset)) = split(name) else { continue };
            let mut same = self.symbols.iter().filter(|s| s.name == function);
            let (Some(symbol), None) = (same.next(), same.next()) else { continue };
            // After init nothing of it is there any more, whatever pointers are still around.
            if self.code.get(symbol.section).is_some_and(|c| c.init && layout.text_base != 0 && layout.init_base == 0) {
                continue;
            }
            if let Some(base) = bases.get_mut(symbol.section) {
                *base = Some(address.wrapping_sub(offset).wrapping_sub(symbol.offset));
            }
        }
        bases
    }

    /// Sizes of the sections with code.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.code.iter().map(|c| c.size)
    }

    /// Addresses and names for sections at `bases`, names of one address in the order of the symbol table.
    pub(crate) fn names(&self, bases: &[Option<u64>]) -> Vec<(u64, usize)> {
        let address = |s: &Symbol| Some((*bases.get(s.section)?)?.wrapping_add(s.offset));
        let mut names: Vec<_> = self.symbols.iter().zip(0..).filter_map(|(s, i)| Some((address(s)?, i))).collect();
        names.sort_unstable();
        names
    }

    /// The name with the number [`Self::names`] gave.
    pub(crate) fn symbol_name(&self, number: usize) -> &str {
        self.symbols.get(number).map_or("", |s| s.name.as_str())
    }

    /// How to unwind the code at `offset` of a section.
    pub(crate) fn unwind_entry(&self, section: usize, offset: u64, format: Format) -> Option<Entry> {
        let at = self.orc.partition_point(|o| (o.section, o.offset) <= (section, offset)).checked_sub(1)?;
        let found = self.orc.get(at).filter(|o| o.section == section)?;
        Some(format.decode(found.entry))
    }
}

/// Function and offset of a name as `%pS` writes it: `func+0x1a/0x80 [module]`.
fn split(name: &str) -> Option<(&str, u64)> {
    let (location, _) = name.split_once(" [").unwrap_or((name, ""));
    let (function, rest) = location.rsplit_once("+0x")?;
    let (offset, _) = rest.split_once('/')?;
    Some((function, u64::from_str_radix(offset, 16).ok()?))
}

#[cfg(test)]
pub(crate) mod tests;
