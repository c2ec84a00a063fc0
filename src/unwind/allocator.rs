//! Whether a stack shows the kernel's memory allocator at work: it touches memory that is being given back or out.

use crate::map::CodeMap;
use crate::stack::Frame;

/// What the allocator calls to fill or check memory. Anything else between it and an access means that the access is not its own:
/// an allocation may write pages back to make room.
const HELPERS: &[&str] = &[
    "memset",
    "memset_orig",
    "memset_erms",
    "__memset",
    "rep_stos_alternative",
    "memcpy",
    "memcpy_orig",
    "memcpy_erms",
    "__memcpy",
    "memchr_inv",
    "memcmp",
    "clear_page",
    "clear_page_rep",
    "clear_page_orig",
    "clear_page_erms",
    "clear_pages",
    "__clear_pages_unrolled",
    "clear_highpage_kasan_tagged",
    "clear_highpages_kasan_tagged",
    "memzero_explicit",
    "kernel_init_pages",
    "__kernel_poison_pages",
    "__kernel_unpoison_pages",
    "check_bytes_and_report",
    "slab_pad_check",
    "check_object",
    "init_object",
    "on_freelist",
    "setup_object",
    "set_track_update",
    "get_freepointer",
    "set_freepointer",
];

/// Functions of mm/slub.c, mm/slab_common.c and mm/page_alloc.c of 6.1 to 7.2 that run while memory changes hands.
const FUNCTIONS: &[&str] = &[
    "kfree",
    "kfree_sensitive",
    "kvfree",
    "kvfree_sensitive",
    "kfree_bulk",
    "kfree_nolock",
    "do_slab_free",
    "discard_slab",
    "free_slab",
    "free_large_kmalloc",
    "free_large_kmalloc_order",
    "free_the_page",
    "free_tail_pages_check",
    "free_tail_page_prepare",
    "free_one_page",
    "__free_one_page",
    "free_pcppages_bulk",
    "free_frozen_pages",
    "__free_frozen_pages",
    "free_frozen_page_commit",
    "free_contig_range",
    "free_compound_page",
    "free_large_folio",
    "page_frag_free",
    "put_page",
    "__put_page",
    "__folio_put",
    "folios_put_refs",
    "release_pages",
    "post_alloc_hook",
    "prep_new_page",
    "prep_compound_page",
    "get_page_from_freelist",
    "get_zeroed_page",
    "__get_free_pages",
    "kmalloc_trace",
    "kmalloc_node_trace",
    "kmalloc_large",
    "kmalloc_large_node",
    "___kmalloc_large_node",
    "slab_alloc_node",
    "slab_post_alloc_hook",
    "___slab_alloc",
    "new_slab",
    "allocate_slab",
    "shuffle_freelist",
    "get_partial_node",
    "get_from_partial_node",
    "get_freelist",
    "deactivate_slab",
    "alloc_single_from_new_slab",
    "alloc_from_new_slab",
    "alloc_debug_processing",
    "free_debug_processing",
    "free_to_partial_list",
    "put_cpu_partial",
    "unfreeze_partials",
    "memcg_slab_free_hook",
    "rcu_free_sheaf",
    "sheaf_flush_unused",
    "refill_sheaf",
];

/// Starts of names of families of such functions.
const FAMILIES: &[&str] = &[
    "kmem_cache_alloc",
    "__kmem_cache_alloc",
    "kmem_cache_free",
    "__kmem_cache_free",
    "__kmalloc",
    "__kvmalloc_node",
    "kvmalloc_node",
    "__do_kmalloc",
    "__slab_alloc",
    "__slab_free",
    "slab_free",
    "___cache_free",
    "__refill_objects",
    "__pcs_",
    "free_unref_",
    "free_pages",
    "__free_pages",
    "alloc_pages",
    "__alloc_pages",
    "__alloc_frozen_pages",
    "alloc_frozen_pages",
    "page_frag_alloc",
    "rmqueue",
    "__rmqueue",
];

/// Suffixes the compiler gives to variants of a function.
fn plain(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The allocator's function if a stack, innermost function first, shows it at work. Names are bare; `None` ends the part of the
/// stack that may count.
fn allocator<'a>(names: impl IntoIterator<Item = Option<&'a str>>) -> Option<&'a str> {
    for name in names {
        let name = plain(name?);
        if FUNCTIONS.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family)) {
            return Some(name);
        }
        if !HELPERS.contains(&name) {
            return None;
        }
    }
    None
}

impl CodeMap {
    /// The function of the kernel's memory allocator that is giving memory back or out, if `frames` (innermost first) show one: the
    /// innermost function of the kernel that is more than a memset, with no code of a module and no guess inside of it.
    #[must_use]
    pub fn allocator(&self, frames: &[Frame]) -> Option<String> {
        let names: Vec<Option<String>> = frames
            .iter()
            .take(8)
            .map(|frame| {
                let code = if frame.exact { frame.address } else { frame.address.wrapping_sub(1) };
                let (name, _, _, module) = self.function(code).filter(|_| frame.reliable)?;
                module.is_empty().then_some(name)
            })
            .collect();
        allocator(names.iter().map(Option::as_deref)).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::allocator;

    fn of(names: &[&str]) -> Option<String> {
        allocator(names.iter().map(|n| Some(*n).filter(|n| !n.is_empty()))).map(str::to_owned)
    }

    #[test]
    fn the_allocator_is_seen_through_its_helpers_and_compiler_suffixes() {
        assert_eq!(of(&["__slab_free.isra.0", "kfree", "ncdma_remove"]).as_deref(), Some("__slab_free"));
        assert_eq!(of(&["memset_orig", "__kmem_cache_alloc_node", "kmalloc_trace"]).as_deref(), Some("__kmem_cache_alloc_node"));
        assert_eq!(of(&["clear_page_rep", "post_alloc_hook"]).as_deref(), Some("post_alloc_hook"));
        assert_eq!(of(&["kmem_cache_alloc_noprof"]).as_deref(), Some("kmem_cache_alloc_noprof"));
    }

    #[test]
    fn work_done_for_the_allocator_is_not_its_own() {
        // Making room, and a driver's memset: both reach an allocator's name only further out.
        assert_eq!(of(&["memcpy", "shrink_folio_list", "__alloc_pages_slowpath"]), None);
        assert_eq!(of(&["memset", "", "kfree"]), None);
        assert_eq!(of(&["kfree_skb", "kfree"]), None);
        assert_eq!(of(&["memset"]), None);
        assert_eq!(of(&[]), None);
    }
}
