//! The DMA API as its callers write it, and which functions of a driver stand for it.

use super::scan::{Call, Function, Source};
use std::collections::BTreeMap;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Map,
    Unmap,
    SyncCpu,
    SyncDevice,
    Alloc,
    Free,
    /// Whether a map call failed.
    Check,
    /// A buffer is given to a queue whose owner maps it (`virtqueue_add_*`).
    HandOver,
    /// Buffers a queue never used are taken back, which unmaps them (`virtqueue_detach_unused_buf`).
    TakeBack,
}

impl Kind {
    /// The word a driver's own function of this kind has in its name.
    const fn word(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Unmap => "unmap",
            Self::SyncCpu | Self::SyncDevice => "sync",
            Self::Alloc => "alloc",
            Self::Free => "free",
            Self::Check => "error",
            Self::HandOver => "add",
            Self::TakeBack => "detach",
        }
    }
}

/// A function that is called, with the places of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    pub kind: Kind,
    pub size: Option<usize>,
    pub direction: Option<usize>,
    /// How to undo a map call at once, `$N` being its arguments and `$r` its result.
    pub undo: Option<&'static str>,
    /// The first byte of the buffer, to be written; `$N` as above.
    pub byte: Option<&'static str>,
    /// `false` for a driver's own function.
    pub kernel: bool,
}

const fn api(kind: Kind, size: Option<usize>, direction: Option<usize>) -> Api {
    Api { kind, size, direction, undo: None, byte: None, kernel: true }
}

const fn map(size: Option<usize>, direction: usize, undo: &'static str, byte: &'static str) -> Api {
    Api { kind: Kind::Map, size, direction: Some(direction), undo: Some(undo), byte: Some(byte), kernel: true }
}

const fn add(byte: &'static str) -> Api {
    Api { kind: Kind::HandOver, size: None, direction: None, undo: None, byte: Some(byte), kernel: true }
}

/// The kernel's functions (include/linux/dma-mapping.h, linux/skbuff.h, linux/virtio.h; 6.1 to 7.2) as far as the agent sees what
/// they do. `dma_pool_*` hands out parts of one allocation, which no op hears of.
#[rustfmt::skip]
const KERNEL: &[(&str, Api)] = &[
    ("dma_map_single", map(Some(2), 3, "if (!dma_mapping_error($0, $r)) dma_unmap_single($0, $r, $2, $3);", "$1")),
    ("dma_map_single_attrs", map(Some(2), 3, "if (!dma_mapping_error($0, $r)) dma_unmap_single($0, $r, $2, $3);", "$1")),
    ("dma_map_page", map(Some(3), 4, "if (!dma_mapping_error($0, $r)) dma_unmap_page($0, $r, $3, $4);", "page_address($1) + ($2)")),
    ("dma_map_page_attrs", map(Some(3), 4, "if (!dma_mapping_error($0, $r)) dma_unmap_page($0, $r, $3, $4);", "page_address($1) + ($2)")),
    ("skb_frag_dma_map", map(Some(3), 4, "if (!dma_mapping_error($0, $r)) dma_unmap_page($0, $r, $3, $4);", "skb_frag_address($1) + ($2)")),
    ("dma_map_bvec", map(None, 2, "if (!dma_mapping_error($0, $r)) dma_unmap_page($0, $r, ($1)->bv_len, $2);",
        "page_address(($1)->bv_page) + ($1)->bv_offset")),
    ("dma_map_sg", map(Some(2), 3, "if ($r > 0) dma_unmap_sg($0, $1, $2, $3);", "sg_virt($1)")),
    ("dma_map_sg_attrs", map(Some(2), 3, "if ($r > 0) dma_unmap_sg($0, $1, $2, $3);", "sg_virt($1)")),
    ("dma_map_sgtable", map(None, 2, "if (!$r) dma_unmap_sgtable($0, $1, $2, $3);", "sg_virt(($1)->sgl)")),
    ("dma_unmap_single", api(Kind::Unmap, Some(2), Some(3))),
    ("dma_unmap_single_attrs", api(Kind::Unmap, Some(2), Some(3))),
    ("dma_unmap_page", api(Kind::Unmap, Some(2), Some(3))),
    ("dma_unmap_page_attrs", api(Kind::Unmap, Some(2), Some(3))),
    ("dma_unmap_sg", api(Kind::Unmap, Some(2), Some(3))),
    ("dma_unmap_sg_attrs", api(Kind::Unmap, Some(2), Some(3))),
    ("dma_unmap_sgtable", api(Kind::Unmap, None, Some(2))),
    ("dma_unmap_resource", api(Kind::Unmap, Some(2), Some(3))),
    ("dma_sync_single_for_cpu", api(Kind::SyncCpu, Some(2), Some(3))),
    ("dma_sync_single_for_device", api(Kind::SyncDevice, Some(2), Some(3))),
    ("dma_sync_single_range_for_cpu", api(Kind::SyncCpu, Some(3), Some(4))),
    ("dma_sync_single_range_for_device", api(Kind::SyncDevice, Some(3), Some(4))),
    ("dma_sync_sg_for_cpu", api(Kind::SyncCpu, Some(2), Some(3))),
    ("dma_sync_sg_for_device", api(Kind::SyncDevice, Some(2), Some(3))),
    ("dma_sync_sgtable_for_cpu", api(Kind::SyncCpu, None, Some(2))),
    ("dma_sync_sgtable_for_device", api(Kind::SyncDevice, None, Some(2))),
    ("dma_alloc_coherent", api(Kind::Alloc, Some(1), None)),
    ("dma_alloc_attrs", api(Kind::Alloc, Some(1), None)),
    ("dma_alloc_noncoherent", api(Kind::Alloc, Some(1), Some(3))),
    ("dma_alloc_pages", api(Kind::Alloc, Some(1), Some(3))),
    ("dma_free_coherent", api(Kind::Free, Some(1), None)),
    ("dma_free_attrs", api(Kind::Free, Some(1), None)),
    ("dma_free_noncoherent", api(Kind::Free, Some(1), Some(4))),
    ("dma_free_pages", api(Kind::Free, Some(1), Some(4))),
    ("dma_mapping_error", api(Kind::Check, None, None)),
    ("virtqueue_add_outbuf", add("sg_virt($1)")),
    ("virtqueue_add_inbuf", add("sg_virt($1)")),
    ("virtqueue_add_inbuf_ctx", add("sg_virt($1)")),
    ("virtqueue_add_sgs", add("sg_virt(($1)[0])")),
    ("virtqueue_detach_unused_buf", api(Kind::TakeBack, None, None)),
];

/// The functions of the API and those of the driver that stand for one of them, by name.
pub type Table = BTreeMap<String, Api>;

/// The kernel's functions, and the driver's that do nothing else: without a loop, all their calls of the API of one kind (an error
/// check may be with a map), and the kind's word in the name. Found again and again, for functions that call such functions.
pub fn table(sources: &[(String, Source)]) -> Table {
    let mut table: Table = KERNEL.iter().map(|(name, api)| ((*name).to_owned(), *api)).collect();
    loop {
        let before = table.len();
        for (_, source) in sources {
            for function in &source.functions {
                if !table.contains_key(&function.name)
                    && let Some(api) = own(source, function, &table)
                {
                    table.insert(function.name.clone(), api);
                }
            }
        }
        if table.len() == before {
            return table;
        }
    }
}

fn own(source: &Source, function: &Function, table: &Table) -> Option<Api> {
    let calls = source.calls(function);
    let mut kinds: Vec<Kind> = calls.iter().filter_map(|call| table.get(&call.name)).map(|api| api.kind).collect();
    kinds.sort();
    kinds.dedup();
    if kinds.contains(&Kind::Map) {
        kinds.retain(|kind| *kind != Kind::Check);
    }
    let [kind] = kinds.as_slice() else { return None };
    let name = &function.name;
    let named = name.contains(kind.word()) && (*kind != Kind::Map || !name.contains("unmap"));
    if !named || source.loops(function) || matches!(kind, Kind::HandOver | Kind::TakeBack) {
        return None;
    }
    let place = |wanted: &dyn Fn(&str) -> bool| function.parameters.iter().position(|p| wanted(p));
    let size = place(&|p| ["size", "len", "nents"].contains(&p.rsplit([' ', '*']).next().unwrap_or_default()));
    Some(Api { kind: *kind, size, direction: place(&|p| p.contains("enum dma_data_direction")), undo: None, byte: None, kernel: false })
}

/// A call of the API or of a function that stands for it.
#[derive(Clone, Debug)]
pub struct Site {
    pub function: Function,
    pub call: Call,
    pub api: Api,
}

/// Every such call of a file.
pub fn sites(source: &Source, table: &Table) -> Vec<Site> {
    let in_function = |function: &Function| {
        let sites = source.calls(function).into_iter().filter_map(|call| {
            let api = *table.get(&call.name)?;
            Some(Site { function: function.clone(), call, api })
        });
        sites.collect::<Vec<_>>()
    };
    source.functions.iter().flat_map(in_function).collect()
}
