//! Which of a driver's DMA API calls a run reached.
//!
//! The call sites are read from the module's own relocations: every call of a DMA API symbol the module imports. A site was
//! reached when a call stack of the run holds its return address.

use crate::report::symbols::{self, ModuleImage, SourceFrame, SymbolError, Symbolizer};
use dmavet_coherence::site::SiteTable;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SectionKind};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

/// The entry points of the streaming and allocating DMA API that end in an op the agent sees (include/linux/dma-mapping.h,
/// 6.1 to 7.2). `dma_mapping_error` and `dma_pool_*` never reach an op and cannot be told.
const SEEN: &[&str] = &[
    "dma_alloc_attrs",
    "dma_free_attrs",
    "dma_alloc_pages",
    "dma_free_pages",
    "dma_alloc_noncontiguous",
    "dma_free_noncontiguous",
    "dmam_alloc_attrs",
    "dmam_free_coherent",
    "dma_map_page_attrs",
    "dma_unmap_page_attrs",
    "dma_map_phys",
    "dma_unmap_phys",
    "dma_map_sg_attrs",
    "dma_map_sgtable",
    "dma_unmap_sg_attrs",
    "dma_map_resource",
    "dma_unmap_resource",
    "dma_sync_single_for_cpu",
    "dma_sync_single_for_device",
    "dma_sync_sg_for_cpu",
    "dma_sync_sg_for_device",
    "__dma_sync_single_for_cpu",
    "__dma_sync_single_for_device",
    "__dma_sync_sg_for_cpu",
    "__dma_sync_sg_for_device",
];

/// Whether a run came by a call site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// The compiler made it a tail call, which leaves no return address: it cannot be told.
    TailCall,
    /// No call from here was seen.
    No,
    /// A call from here was seen.
    Yes,
}

/// One call of the DMA API in a module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallSite {
    /// The function called.
    pub api: String,
    /// Where it stands, innermost inlined function first.
    pub frames: Vec<SourceFrame>,
    /// Whether the run reached it.
    pub reached: Reached,
}

/// The call sites of one module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModuleCoverage {
    /// Module name.
    pub module: String,
    /// Its DMA call sites in the order of the code.
    pub sites: Vec<CallSite>,
}

impl ModuleCoverage {
    /// Sites reached and sites that can be told at all.
    #[must_use]
    pub fn reached(&self) -> (usize, usize) {
        let yes = self.sites.iter().filter(|s| s.reached == Reached::Yes).count();
        (yes, self.sites.iter().filter(|s| s.reached != Reached::TailCall).count())
    }
}

/// Compares the DMA call sites of the module at `path` with the call stacks of a run.
///
/// # Errors
/// When the module cannot be read.
pub fn of_module(path: &Path, symbolizer: &Symbolizer, sites: &SiteTable) -> Result<ModuleCoverage, SymbolError> {
    let name = symbols::module_name(path);
    let bytes = symbols::read_module(path)?;
    let file = object::File::parse(&*bytes).map_err(|e| SymbolError::Object { path: path.into(), reason: e.to_string() })?;
    let image = symbolizer.modules().iter().find(|m| m.name() == name);
    let seen = seen_addresses(image, &name, sites);
    let mut found = Vec::new();
    for section in file.sections().filter(|s| s.kind() == SectionKind::Text) {
        let code = section.data().unwrap_or_default();
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let Some(api) = file.symbol_by_index(index).ok().and_then(|s| s.name().ok()) else { continue };
            if !SEEN.contains(&api) {
                continue;
            }
            // `e8 rel32` is a call, `e9 rel32` a tail call; the relocation covers the rel32.
            let opcode = usize::try_from(offset).ok().and_then(|at| code.get(at.checked_sub(1)?));
            let after = offset + 4;
            let reached = match opcode {
                Some(0xe9) => Reached::TailCall,
                _ if seen.contains(&(section.index().0, after)) => Reached::Yes,
                _ => Reached::No,
            };
            let frames = image.map(|m| m.lines(SectionIndex(section.index().0), after)).unwrap_or_default();
            found.push((section.index().0, offset, CallSite { api: api.to_owned(), frames, reached }));
        }
    }
    found.sort_by_key(|(section, offset, _)| (*section, *offset));
    Ok(ModuleCoverage { module: name, sites: by_line(found.into_iter().map(|(_, _, site)| site)) })
}

/// One site for each call in the source: the compiler may have inlined its function several times, and a call was reached when
/// one of its copies was.
fn by_line(sites: impl Iterator<Item = CallSite>) -> Vec<CallSite> {
    let mut merged: Vec<CallSite> = Vec::new();
    for site in sites {
        let same = merged.iter_mut().find(|m| m.api == site.api && symbols::top(&m.frames) == symbols::top(&site.frames));
        match same {
            Some(known) => known.reached = known.reached.max(site.reached),
            None => merged.push(site),
        }
    }
    merged
}

fn seen_addresses(image: Option<&ModuleImage>, name: &str, sites: &SiteTable) -> HashSet<(usize, u64)> {
    let Some(image) = image else { return HashSet::new() };
    let tag = format!("[{name}]");
    sites
        .iter()
        .flatten()
        .filter(|f| f.symbol.ends_with(&tag))
        .filter_map(|f| image.place(f))
        .map(|(section, offset)| (section.0, offset))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(line: u32, offset: &str, reached: Reached) -> CallSite {
        let frame = SourceFrame {
            function: "f".into(),
            offset: offset.into(),
            module: "m".into(),
            file: if line == 0 { String::new() } else { "m.c".into() },
            line,
            inlined: line != 0,
        };
        CallSite { api: "dma_map_sg_attrs".into(), frames: vec![frame], reached }
    }

    #[test]
    fn inlined_copies_of_a_call_are_one_site() {
        let sites = [site(7, "", Reached::No), site(9, "", Reached::TailCall), site(7, "", Reached::Yes), site(9, "", Reached::No)];
        let merged = by_line(sites.into_iter());
        assert_eq!(merged.iter().map(|s| s.reached).collect::<Vec<_>>(), [Reached::Yes, Reached::No]);
    }

    #[test]
    fn calls_without_lines_stay_apart() {
        assert_eq!(by_line([site(0, "+0x1/0x9", Reached::No), site(0, "+0x5/0x9", Reached::Yes)].into_iter()).len(), 2);
    }
}
