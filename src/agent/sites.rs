//! Call stacks: announced once with names, afterwards a 64-bit hash.

use dmavet_coherence::ids::SiteId;
use dmavet_coherence::site::Frame;
use std::collections::HashMap;

/// Most hashes remembered. More than the core keeps stacks: the same stack gets another hash whenever a module came or went.
const MAX_HASHES: usize = 1 << 18;

/// Name of the guest's agent module: its frames are never anybody's call site.
const AGENT_MODULE: &str = "[dmavet_agent]";

/// Starts of the names of the DMA API's own functions in the core kernel (kernel/dma/mapping.c, mm/dmapool.c), leading
/// underscores dropped. A whole word is not enough (`dma_map_page_attrs`, `dma_map_phys`, ...), all of `dma_` would be too
/// much: a built-in DMA engine driver has such names too.
const API_PREFIXES: &[&str] = &[
    "dma_map_",
    "dma_unmap_",
    "dma_alloc_",
    "dma_free_",
    "dma_sync_",
    "dma_pool_",
    "dma_mmap_",
    "dma_vmap_",
    "dma_vunmap_",
    "dma_get_",
    "dma_set_",
    "dma_supported",
    "dmam_",
];

/// Functions between the kernel's rejection of vmalloc memory and the agent that reads its warning: kernel/printk, kernel/panic.c, and
/// on x86 the exception a warning is. The last is the warning's own function in 7.x. No driver code is below one of them at the head of a
/// stack unless it raised the warning.
const WARNING: &[&str] = &[
    "printk_sprint",
    "vprintk_store",
    "vprintk_emit",
    "vprintk_default",
    "vprintk",
    "printk",
    "warn_printk",
    "warn",
    "report_bug",
    "report_bug_entry",
    "handle_bug",
    "exc_invalid_op",
    "asm_exc_invalid_op",
    "WARN_trap",
];

/// The stacks the guest has announced.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    known: HashMap<u64, SiteId>,
}

impl Sites {
    /// Remembers that `hash` stands for `id`; a hash announced again stands for the newer stack. False when the table is full.
    pub(crate) fn announce(&mut self, hash: u64, id: SiteId) -> bool {
        if self.known.len() >= MAX_HASHES && !self.known.contains_key(&hash) {
            return false;
        }
        self.known.insert(hash, id);
        true
    }

    /// What `hash` stands for; `None` when it was never announced. Hash 0 is the unknown site.
    pub(crate) fn lookup(&self, hash: u64) -> Option<SiteId> {
        if hash == 0 { Some(SiteId::default()) } else { self.known.get(&hash).copied() }
    }
}

/// Whether a frame belongs to the agent or to the DMA API itself, so that it is not the place a call comes from.
fn is_plumbing(symbol: &str) -> bool {
    if symbol.ends_with(AGENT_MODULE) {
        return true;
    }
    // Core kernel symbols carry no [module].
    let name = symbol.trim_start_matches('_');
    // gcc puts what is hardly ever run elsewhere and calls it NAME.cold.
    let function = name.split(['+', '.']).next().unwrap_or_default();
    !symbol.ends_with(']') && (API_PREFIXES.iter().any(|p| name.starts_with(p)) || WARNING.contains(&function))
}

/// Drops the agent's and the DMA API's frames at the head of a stack (innermost first). A stack of nothing else stays whole.
pub(crate) fn trim(mut stack: Vec<Frame>) -> Vec<Frame> {
    let own = stack.iter().take_while(|f| is_plumbing(&f.symbol)).count();
    if own < stack.len() {
        stack.drain(..own);
    }
    stack
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str]) -> Vec<Frame> {
        names.iter().zip(1..).map(|(n, address)| Frame::new(address, (*n).to_owned())).collect()
    }

    fn names(stack: &[Frame]) -> Vec<&str> {
        stack.iter().map(|f| f.symbol.as_str()).collect()
    }

    #[test]
    fn plumbing_at_the_head_goes_the_driver_stays() {
        let trimmed = trim(stack(&[
            "dmavet_stack_hash+0x20/0x90 [dmavet_agent]",
            "dmavet_map_page+0x1f/0x30 [dmavet_agent]",
            "dma_map_page_attrs+0x40/0x200",
            "ncdma_post_rx+0x33/0x100 [ncdma]",
            "dma_alloc_attrs+0x10/0x20",
        ]));
        assert_eq!(names(&trimmed), ["ncdma_post_rx+0x33/0x100 [ncdma]", "dma_alloc_attrs+0x10/0x20"]);
    }

    #[test]
    fn sync_helpers_with_underscores_and_managed_forms_are_plumbing() {
        let trimmed = trim(stack(&["__dma_sync_single_for_cpu+0x1/0x2", "dmam_alloc_attrs+0x1/0x2", "probe+0x1/0x2 [x]"]));
        assert_eq!(names(&trimmed), ["probe+0x1/0x2 [x]"]);
    }

    #[test]
    fn what_a_warning_goes_through_is_plumbing() {
        let trimmed = trim(stack(&[
            "seen_printed+0x1f/0x30 [dmavet_agent]",
            "printk_sprint+0x4/0x20",
            "vprintk_emit+0x1/0x2",
            "_printk+0x1/0x2",
            "__warn_printk.cold+0x1/0x2",
            "__warn_printk+0x1/0x2",
            "ncdma_probe+0x1/0x2 [ncdma]",
            "__warn+0x1/0x2",
        ]));
        assert_eq!(names(&trimmed), ["ncdma_probe+0x1/0x2 [ncdma]", "__warn+0x1/0x2"]);
        assert_eq!(trim(stack(&["warn_slow+0x1/0x2", "probe+0x1/0x2"])).len(), 2, "whole names only");
    }

    #[test]
    fn a_drivers_function_named_dma_something_stays() {
        assert_eq!(trim(stack(&["dma_map_ring+0x1/0x2 [mydrv]"])).len(), 1);
        let trimmed = trim(stack(&["dma_map_sg_attrs+0x1/0x2", "dma_async_start+0x1/0x2"]));
        assert_eq!(names(&trimmed), ["dma_async_start+0x1/0x2"]);
    }

    #[test]
    fn a_stack_of_plumbing_only_stays_whole() {
        assert_eq!(trim(stack(&["dma_map_sg_attrs+0x1/0x2"])).len(), 1);
        assert!(trim(Vec::new()).is_empty());
    }

    #[test]
    fn the_newer_announcement_counts() {
        let mut sites = Sites::default();
        assert_eq!(sites.lookup(0), Some(SiteId(0)));
        assert_eq!(sites.lookup(7), None);
        assert!(sites.announce(7, SiteId(1)));
        assert!(sites.announce(7, SiteId(2)));
        assert_eq!(sites.lookup(7), Some(SiteId(2)));
    }
}
