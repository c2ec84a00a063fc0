//! What a machine's cache operations do, as far as it changes what is judged.

/// Properties of a machine. The operations themselves are those of arm64 (design, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Profile {
    /// `dma_sync_*_for_cpu` and the unmap invalidate what the device may have written. Where they do nothing (most MIPS CPUs,
    /// `arch/mips/mm/dma-noncoherent.c`), a buffer that goes back to the device without a for_device breaks the next transfer (DV222).
    pub for_cpu_invalidates: bool,
}

impl Profile {
    /// arm64: `arch/arm64/mm/dma-mapping.c`, `arch_sync_dma_for_cpu()` invalidates unless the direction is `DMA_TO_DEVICE`.
    pub const ARM64: Self = Self { for_cpu_invalidates: true };
}

impl Default for Profile {
    fn default() -> Self {
        Self::ARM64
    }
}
