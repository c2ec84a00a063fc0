//! The calls a guest makes, decoded: the core's whole input from the guest's side.
//!
//! One value of [`ApiCall`] is one call of the Linux DMA API (or of the driver core) as the agent saw it. The core answers
//! with [`Answer`]. Everything a replay needs is in these values.

use crate::ids::{Attrs, Direction, Family, Gpa, Iova, PageKind, Requester, SiteId};

/// A physically contiguous piece of memory a mapping covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Guest physical address of the first byte.
    pub gpa: Gpa,
    /// Length in bytes.
    pub len: u64,
}

/// What the device declared it can address when a call was made (`dma_mask`, `bus_dma_limit`, `dma_parms`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Highest bus address the device can drive (for a streaming call `*dev->dma_mask`, for an allocation `coherent_dma_mask`).
    pub mask: u64,
    /// `dma_get_seg_boundary()`: a segment does not cross a multiple of this value plus one.
    pub seg_boundary: u64,
    /// `dma_get_max_seg_size()`.
    pub max_seg_size: u32,
    /// `dma_get_min_align_mask()`.
    pub min_align_mask: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { mask: 0xffff_ffff, seg_boundary: 0xffff_ffff, max_seg_size: 65536, min_align_mask: 0 }
    }
}

/// A map or alloc call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapCall {
    /// Family of the call.
    pub family: Family,
    /// The memory, in order. One extent, except for [`Family::Sg`], where each is an entry of the list.
    pub extents: Vec<Extent>,
    /// Direction; [`Direction::Bidirectional`] for coherent memory.
    pub direction: Direction,
    /// Attributes.
    pub attrs: Attrs,
    /// What the device declared.
    pub limits: Limits,
    /// Kind of the first page.
    pub kind: PageKind,
    /// Bytes of the same slab object before and behind the mapping, for [`PageKind::Slab`] where the agent can tell; else 0.
    pub object: (u32, u32),
    /// For the alloc families the kernel virtual address (or struct page) given to the driver, checked again at free.
    pub cpu_addr: u64,
}

/// An unmap or free call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmapCall {
    /// Family of the call.
    pub family: Family,
    /// Handles and lengths as the driver gave them: one, or for [`Family::Sg`] the entries of the list.
    pub ranges: Vec<(Iova, u64)>,
    /// Direction given.
    pub direction: Direction,
    /// Attributes given.
    pub attrs: Attrs,
    /// For the alloc families the cpu_addr or struct page given back, else 0.
    pub cpu_addr: u64,
}

/// A sync call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncCall {
    /// True for `dma_sync_*_for_cpu`, false for `dma_sync_*_for_device`.
    pub for_cpu: bool,
    /// True for the `_sg_` forms.
    pub sg: bool,
    /// Handles and lengths: one, or the entries of the list.
    pub ranges: Vec<(Iova, u64)>,
    /// Direction given.
    pub direction: Direction,
}

bitflags::bitflags! {
    /// Flags no caller of `dma_alloc_pages`, `dma_alloc_noncoherent` and `dma_alloc_noncontiguous` may give, as the agent names them: the
    /// kernel's own bits differ between versions.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct AllocFlags: u32 {
        /// `__GFP_DMA`.
        const DMA = 1;
        /// `__GFP_DMA32`.
        const DMA32 = 1 << 1;
        /// `__GFP_HIGHMEM`.
        const HIGHMEM = 1 << 2;
        /// `__GFP_COMP`.
        const COMP = 1 << 3;
    }
}

/// What the kernel rejects by itself, before any DMA operation is called (`__dma_alloc_pages()` of kernel/dma/mapping.c,
/// `dma_map_single_attrs()` of include/linux/dma-mapping.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// An allocation of pages, for these flags.
    Flags(AllocFlags),
    /// A map of memory that vmalloc gave.
    Vmalloc,
}

/// One call, with who made it and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCall {
    /// dma_map_*, dma_alloc_*.
    Map(MapCall),
    /// The same, made to fail on purpose.
    Fail(MapCall),
    /// dma_unmap_*, dma_free_*.
    Unmap(UnmapCall),
    /// dma_sync_*.
    Sync(SyncCall),
    /// The core asked whether `mask` works (`dma_set_mask*` ends here).
    SetMask {
        /// The mask asked for.
        mask: u64,
    },
    /// A driver is about to be bound (before probe).
    Bound {
        /// Name of the driver.
        driver: String,
    },
    /// The driver was unbound (after remove and devres).
    Unbound,
    /// The kernel rejected a map or alloc call itself; the driver got its error.
    Rejected(Rejected),
}

/// Who makes a call and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The device the call is for.
    pub requester: Requester,
    /// The call stack.
    pub site: SiteId,
    /// Guest CPU.
    pub cpu: u32,
}

/// What the core answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, nothing to tell.
    Done,
    /// The handles of a map or alloc call, one for each extent (with the length it stands for).
    Handles(Vec<(Iova, u64)>),
    /// The call failed as `dma_map_*` may: the driver gets `DMA_MAPPING_ERROR`, NULL or 0.
    Failed,
    /// The mask is supported or not.
    Supported(bool),
}
