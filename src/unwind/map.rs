//! The kernel and the modules that are loaded, as one map of code.

use crate::kernel::KernelImage;
use crate::module::ModuleImage;
use crate::orc::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Modules kept track of; a guest can announce as many as it likes.
const MAX_LOADED: usize = 512;
/// Addresses from here on are the kernel's.
pub(crate) const KERNEL_SPACE: u64 = 0xffff_8000_0000_0000;

/// Where a module lies in the guest, as the guest told; 0 where it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// First address of its text region.
    pub text_base: u64,
    /// Bytes of that region.
    pub text_size: u64,
    /// First address of its init text, 0 once that is gone.
    pub init_base: u64,
    /// Bytes of that.
    pub init_size: u64,
    /// Functions of the module, each with its address and its `%pS` name.
    pub anchors: Vec<(u64, String)>,
}

/// A loaded module.
#[derive(Debug)]
struct Loaded {
    layout: Layout,
    /// Of each section with code of its image: where it lies.
    sections: Vec<Option<Range<u64>>>,
    /// Addresses in ascending order with the numbers of their names.
    names: Vec<(u64, usize)>,
}

impl Loaded {
    fn new(layout: Layout, image: Option<&ModuleImage>) -> Self {
        let bases = image.map(|i| i.place(&layout)).unwrap_or_default();
        let names = image.map(|i| i.names(&bases)).unwrap_or_default();
        let sizes = image.into_iter().flat_map(ModuleImage::sizes);
        let sections = bases.iter().zip(sizes).map(|(base, size)| Some((*base)?..base.as_ref()?.saturating_add(size))).collect();
        Self { layout, sections, names }
    }

    fn regions(&self) -> [Range<u64>; 2] {
        let Layout { text_base, text_size, init_base, init_size, .. } = self.layout;
        [text_base..text_base.saturating_add(text_size), init_base..init_base.saturating_add(init_size)]
    }

    /// The region, else section, `address` is in.
    fn region(&self, address: u64) -> Option<Range<u64>> {
        let in_it = |range: &Range<u64>| range.contains(&address);
        self.regions().into_iter().find(in_it).or_else(|| self.sections.iter().flatten().find(|r| in_it(r)).cloned())
    }

    fn section(&self, address: u64) -> Option<(usize, u64)> {
        let (number, range) =
            self.sections.iter().enumerate().find_map(|(i, r)| Some((i, r.as_ref().filter(|r| r.contains(&address))?)))?;
        Some((number, address - range.start))
    }
}

/// The code of a running guest.
#[derive(Debug, Default)]
pub struct CodeMap {
    pub(crate) kernel: Option<KernelImage>,
    images: HashMap<String, ModuleImage>,
    loaded: BTreeMap<String, Loaded>,
}

impl CodeMap {
    /// A map of `kernel`, and of `modules` as they are loaded. Without a kernel only modules are known, and stacks are guesses.
    #[must_use]
    pub fn new(kernel: Option<KernelImage>, modules: impl IntoIterator<Item = ModuleImage>) -> Self {
        let images = modules.into_iter().map(|m| (m.name().to_owned(), m)).collect();
        Self { kernel, images, loaded: BTreeMap::new() }
    }

    /// The kernel's own code is known from now on.
    pub fn set_kernel(&mut self, kernel: KernelImage) {
        self.kernel = Some(kernel);
    }

    /// A module was loaded, or more is known of it. Anchors told before count on while it stays where it is.
    pub fn module_loaded(&mut self, name: &str, mut layout: Layout) {
        let full = self.loaded.len() >= MAX_LOADED;
        match self.loaded.get_mut(name) {
            Some(known) if known.layout.text_base == layout.text_base => {
                let mut anchors = std::mem::take(&mut known.layout.anchors);
                anchors.retain(|old| layout.anchors.iter().all(|new| new.1 != old.1));
                // The guest tells a handful of each module; one that tells ever new ones gains nothing.
                anchors.truncate(64);
                layout.anchors.extend(anchors);
            }
            None if full => return,
            _ => {}
        }
        self.loaded.insert(name.to_owned(), Loaded::new(layout, self.images.get(name)));
    }

    /// A module's init function returned: its init code is gone.
    pub fn module_live(&mut self, name: &str) {
        if let Some(known) = self.loaded.remove(name) {
            let layout = Layout { init_base: 0, init_size: 0, ..known.layout };
            self.loaded.insert(name.to_owned(), Loaded::new(layout, self.images.get(name)));
        }
    }

    /// A module is gone.
    pub fn module_gone(&mut self, name: &str) {
        self.loaded.remove(name);
    }

    /// All modules are gone: the guest was reset.
    pub fn clear(&mut self) {
        self.loaded.clear();
    }

    fn find(&self, address: u64) -> Option<(&str, &Loaded)> {
        self.loaded.iter().find(|(_, m)| m.region(address).is_some()).map(|(name, m)| (name.as_str(), m))
    }

    /// The module whose code `address` is in.
    #[must_use]
    pub fn module_at(&self, address: u64) -> Option<&str> {
        self.find(address).map(|(name, _)| name)
    }

    /// Whether `address` lies in known code of the kernel or a module.
    #[must_use]
    pub fn is_text(&self, address: u64) -> bool {
        self.kernel.as_ref().is_some_and(|k| k.is_text(address)) || self.find(address).is_some()
    }

    /// The function `address` lies in, as the kernel's `%pS` writes it: `memcpy+0x1/0x20`, `ncdma_poll+0x10/0x80 [ncdma]`.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<String> {
        self.name_of(address, 0)
    }

    /// The name of an address behind an instruction, a call's return address: that of the function the instruction is in, like the
    /// kernel's `%pB`. A call that never returns may be the last of its function.
    #[must_use]
    pub fn name_behind(&self, address: u64) -> Option<String> {
        self.name_of(address.checked_sub(1)?, 1)
    }

    fn name_of(&self, address: u64, behind: u64) -> Option<String> {
        let (function, start, end, module) = self.function(address)?;
        let module = if module.is_empty() { String::new() } else { format!(" [{module}]") };
        Some(format!("{function}+{:#x}/{:#x}{module}", address - start + behind, end.saturating_sub(start)))
    }

    /// Name, start, end and module (empty for the kernel) of the function at `address`.
    pub(crate) fn function(&self, address: u64) -> Option<(String, u64, u64, &str)> {
        if let Some(kernel) = self.kernel.as_ref().filter(|k| k.is_text(address)) {
            let symbol = kernel.symbol(address)?;
            return Some((symbol.name, symbol.start, symbol.end, ""));
        }
        let (module, loaded) = self.find(address)?;
        let region = loaded.region(address)?;
        let behind = loaded.names.partition_point(|(start, _)| *start <= address);
        let start = loaded.names.get(behind.checked_sub(1)?)?.0;
        let first = loaded.names.partition_point(|(other, _)| *other < start);
        let end = loaded.names.get(behind).map_or(region.end, |(next, _)| (*next).min(region.end));
        if !region.contains(&start) {
            return None;
        }
        let name = self.images.get(module)?.symbol_name(loaded.names.get(first)?.1);
        Some((name.to_owned(), start, end, module))
    }

    /// How to unwind the code at `address`.
    pub(crate) fn unwind_entry(&self, address: u64) -> Option<Entry> {
        let kernel = self.kernel.as_ref()?;
        if kernel.is_text(address) {
            return kernel.unwind_entry(address);
        }
        let (name, loaded) = self.find(address)?;
        let (section, offset) = loaded.section(address)?;
        self.images.get(name)?.unwind_entry(section, offset, kernel.orc_format()?)
    }

    /// Whether the kernel was built with unwind tables, and so without frame pointers.
    pub(crate) fn has_tables(&self) -> bool {
        self.kernel.as_ref().is_some_and(|k| k.orc_format().is_some())
    }

    /// Whether an interrupt enters the kernel by the function at `address`.
    pub(crate) fn is_interrupt_entry(&self, address: u64) -> bool {
        self.kernel.as_ref().is_some_and(|k| k.is_interrupt_entry(address))
    }
}

#[cfg(test)]
mod tests;
