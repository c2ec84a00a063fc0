//! Identifiers and small value types shared by every part of dmavet.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A bus address handed to a driver by a map or alloc call (`dma_addr_t`), in a device's I/O virtual address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Iova(pub u64);

/// A guest physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gpa(pub u64);

/// PCI bus, device and function in the usual 8:5:3 packing (PCI Local Bus 3.0, section 3.2.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bdf(pub u16);

impl Bdf {
    /// Packs `bus`, `device` (0 to 31) and `function` (0 to 7); excess bits are dropped.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self(((bus as u16) << 8) | (((device & 0x1f) as u16) << 3) | (function & 7) as u16)
    }
    /// Bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }
    /// Device (slot) number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        ((self.0 >> 3) & 0x1f) as u8
    }
    /// Function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        (self.0 & 7) as u8
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0000:{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

/// Who does DMA: the unit that owns handles, masks and mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requester {
    /// A PCI function of segment 0.
    Pci(Bdf),
    /// A platform (ACPI or OF) node, numbered by the VMM.
    Platform(u16),
}

impl Requester {
    /// The 32-bit form used on the wire: a PCI function is its BDF, a platform node has bit 31 set.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::Pci(bdf) => bdf.0 as u32,
            Self::Platform(n) => 0x8000_0000 | n as u32,
        }
    }
    /// Reads the wire form back; `None` for anything that is neither form.
    #[must_use]
    pub const fn from_wire(raw: u32) -> Option<Self> {
        match raw & 0xffff_0000 {
            0 => Some(Self::Pci(Bdf((raw & 0xffff) as u16))),
            0x8000_0000 => Some(Self::Platform((raw & 0xffff) as u16)),
            _ => None,
        }
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(bdf) => bdf.fmt(f),
            Self::Platform(n) => write!(f, "platform:{n}"),
        }
    }
}

/// `enum dma_data_direction` of the Linux DMA API (include/linux/dma-direction.h), same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Direction {
    /// Either side may write.
    #[serde(rename = "DMA_BIDIRECTIONAL")]
    Bidirectional = 0,
    /// The CPU writes, the device reads.
    #[serde(rename = "DMA_TO_DEVICE")]
    ToDevice = 1,
    /// The device writes, the CPU reads.
    #[serde(rename = "DMA_FROM_DEVICE")]
    FromDevice = 2,
    /// No transfer is allowed.
    #[serde(rename = "DMA_NONE")]
    None = 3,
}

impl Direction {
    /// The direction with that number in the kernel's enum.
    #[must_use]
    pub const fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Bidirectional),
            1 => Some(Self::ToDevice),
            2 => Some(Self::FromDevice),
            3 => Some(Self::None),
            _ => None,
        }
    }
    /// The kernel's name of the direction.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bidirectional => "DMA_BIDIRECTIONAL",
            Self::ToDevice => "DMA_TO_DEVICE",
            Self::FromDevice => "DMA_FROM_DEVICE",
            Self::None => "DMA_NONE",
        }
    }
}

/// The allocation or mapping family of a mapping, as far as the ops show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Family {
    /// `dma_map_single` / `dma_map_page`.
    Single = 1,
    /// `dma_map_sg`.
    Sg = 2,
    /// `dma_map_resource`.
    Resource = 3,
    /// `dma_alloc_coherent` / `dma_alloc_attrs`.
    Coherent = 4,
    /// `dma_alloc_pages` / `dma_alloc_noncoherent` / `dma_alloc_noncontiguous`.
    Pages = 5,
}

impl Family {
    /// The family with that number on the wire.
    #[must_use]
    pub const fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Single),
            2 => Some(Self::Sg),
            3 => Some(Self::Resource),
            4 => Some(Self::Coherent),
            5 => Some(Self::Pages),
            _ => None,
        }
    }
}

/// What kind of page a streaming mapping covers, as the agent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum PageKind {
    /// A page the driver (or somebody in the kernel) allocated for itself.
    #[default]
    Other = 0,
    /// A slab object.
    Slab = 1,
    /// A page of a page_pool.
    PagePool = 2,
    /// Page cache or anonymous memory: user mode may touch it at any time.
    Foreign = 3,
}

impl PageKind {
    /// The kind with that number on the wire; unknown numbers are `Other`.
    #[must_use]
    pub const fn from_wire(raw: u8) -> Self {
        match raw {
            1 => Self::Slab,
            2 => Self::PagePool,
            3 => Self::Foreign,
            _ => Self::Other,
        }
    }
}

bitflags::bitflags! {
    /// DMA attributes (include/linux/dma-mapping.h of 6.1 to 7.2), same bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Attrs: u64 {
        /// `DMA_ATTR_WEAK_ORDERING`.
        const WEAK_ORDERING = 1 << 1;
        /// `DMA_ATTR_WRITE_COMBINE`.
        const WRITE_COMBINE = 1 << 2;
        /// `DMA_ATTR_NO_KERNEL_MAPPING`.
        const NO_KERNEL_MAPPING = 1 << 4;
        /// `DMA_ATTR_SKIP_CPU_SYNC`.
        const SKIP_CPU_SYNC = 1 << 5;
        /// `DMA_ATTR_FORCE_CONTIGUOUS`.
        const FORCE_CONTIGUOUS = 1 << 6;
        /// `DMA_ATTR_ALLOC_SINGLE_PAGES`.
        const ALLOC_SINGLE_PAGES = 1 << 7;
        /// `DMA_ATTR_NO_WARN`.
        const NO_WARN = 1 << 8;
        /// `DMA_ATTR_PRIVILEGED`.
        const PRIVILEGED = 1 << 9;
        /// `DMA_ATTR_MMIO` (7.x).
        const MMIO = 1 << 10;
        /// `DMA_ATTR_DEBUGGING_IGNORE_CACHELINES` (7.x).
        const DEBUGGING_IGNORE_CACHELINES = 1 << 11;
        /// `DMA_ATTR_REQUIRE_COHERENT` (7.x).
        const REQUIRE_COHERENT = 1 << 12;
        /// `DMA_ATTR_CC_SHARED` (7.x).
        const CC_SHARED = 1 << 13;
        const _ = !0;
    }
}

/// Index of an interned call stack in the run's [`SiteTable`](crate::site::SiteTable); 0 means "not known".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteId(pub u32);
