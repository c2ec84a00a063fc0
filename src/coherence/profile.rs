//! The machines: what each operation of the DMA API does to the CPU's cache lines, with the kernel source that says so.
//!
//! `docs/profiles.md` says in words what follows from each cell.

use crate::ids::Direction;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A kind of machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// for_device cleans whatever the direction, for_cpu invalidates.
    #[default]
    Arm64,
    /// The same operations; lines covered in part are invalidated without being cleaned.
    Riscv,
    /// Version 7: for_device of a receive buffer invalidates.
    Arm,
    /// Invalidates before the transfer only: for_cpu does nothing.
    Mips,
    /// for_cpu of a bidirectional buffer writes dirty lines back.
    Parisc,
    /// No lines: every mapping has a bounce buffer.
    Swiotlb,
    /// The losses of all machines with caches at once.
    Worst,
}

/// What an operation does to the lines of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Nothing.
    Nothing,
    /// Dirty lines are written to memory.
    Clean,
    /// The lines are dropped: what was dirty is lost, the next load fetches from memory.
    Invalidate,
    /// Dirty lines are written to memory, then all are dropped.
    CleanInvalidate,
    /// The bytes are copied into the bounce buffer.
    CopyIn,
    /// The bytes are copied out of the bounce buffer.
    CopyOut,
}

/// What becomes of a dirty line that an invalidation covers in part (`--edges line`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It is written to memory first: it survives, and the device's bytes in it are lost.
    WrittenBack,
    /// It is dropped: the CPU's bytes in it are lost.
    Dropped,
}

/// One cell of the table: what is done, and the function of the kernel that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What is done.
    pub op: Op,
    /// `file: function()` in the kernel's tree.
    pub source: &'static str,
}

/// An operation of the API in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// `DMA_TO_DEVICE`
    pub to_device: Cell,
    /// `DMA_FROM_DEVICE`
    pub from_device: Cell,
    /// `DMA_BIDIRECTIONAL`
    pub bidirectional: Cell,
}

impl Row {
    /// All three from one function.
    const fn of(source: &'static str, to_device: Op, from_device: Op, bidirectional: Op) -> Self {
        Self {
            to_device: Cell { op: to_device, source },
            from_device: Cell { op: from_device, source },
            bidirectional: Cell { op: bidirectional, source },
        }
    }

    /// The cell of a direction; `DMA_NONE` is treated as `DMA_TO_DEVICE`, where nothing comes back.
    #[must_use]
    pub const fn cell(&self, direction: Direction) -> &Cell {
        match direction {
            Direction::FromDevice => &self.from_device,
            Direction::Bidirectional => &self.bidirectional,
            Direction::ToDevice | Direction::None => &self.to_device,
        }
    }
}

/// A machine's row of the table. dma-direct maps with the same operation as for_device and unmaps with that of for_cpu
/// (`kernel/dma/direct.h`); a bounce buffer does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The word `--profile` takes.
    pub name: &'static str,
    /// What sets it apart, in a few words.
    pub summary: &'static str,
    /// `dma_map_*`
    pub map: Row,
    /// `dma_sync_*_for_device`
    pub for_device: Row,
    /// `dma_sync_*_for_cpu`
    pub for_cpu: Row,
    /// `dma_unmap_*`
    pub unmap: Row,
    /// What an invalidation does to a dirty line it covers in part, and where that is written; `None` where there are no lines.
    pub edge: Option<(Edge, &'static str)>,
    /// A line the CPU was given stays in the cache until it is invalidated: what the device writes meanwhile is not seen.
    pub keeps_lines: bool,
    /// Bytes of a whole line that neither side wrote since they were mapped for `DMA_FROM_DEVICE` come back as poison.
    pub poisons: bool,
}

use Op::{Clean, CleanInvalidate, CopyIn, CopyOut, Invalidate, Nothing};

const ARM64_DEV: &str = "arch/arm64/mm/dma-mapping.c: arch_sync_dma_for_device()";
const ARM64_CPU: &str = "arch/arm64/mm/dma-mapping.c: arch_sync_dma_for_cpu()";
const RISCV_DEV: &str = "arch/riscv/mm/dma-noncoherent.c: arch_sync_dma_for_device()";
const RISCV_CPU: &str = "arch/riscv/mm/dma-noncoherent.c: arch_sync_dma_for_cpu()";
const ARM_DEV: &str = "arch/arm/mm/dma-mapping.c: arch_sync_dma_for_device(); arch/arm/mm/cache-v7.S: v7_dma_map_area()";
const ARM_CPU: &str = "arch/arm/mm/dma-mapping.c: arch_sync_dma_for_cpu(); arch/arm/mm/cache-v7.S: v7_dma_unmap_area()";
const MIPS_DEV: &str = "arch/mips/mm/dma-noncoherent.c: arch_sync_dma_for_device()";
const MIPS_CPU: &str = "arch/mips/mm/dma-noncoherent.c: arch_sync_dma_for_cpu(), cpu_needs_post_dma_flush()";
const PARISC_DEV: &str = "arch/parisc/kernel/pci-dma.c: arch_sync_dma_for_device()";
const PARISC_CPU: &str = "arch/parisc/kernel/pci-dma.c: arch_sync_dma_for_cpu()";
const SWIOTLB_MAP: &str = "kernel/dma/swiotlb.c: swiotlb_tbl_map_single()";
const SWIOTLB_DEV: &str = "kernel/dma/swiotlb.c: swiotlb_sync_single_for_device()";
const SWIOTLB_CPU: &str = "kernel/dma/swiotlb.c: swiotlb_sync_single_for_cpu()";
const SWIOTLB_UNMAP: &str = "kernel/dma/swiotlb.c: swiotlb_tbl_unmap_single()";
const WORST: &str = "the rows of the machines with caches";

/// A machine of dma-direct: map is for_device, unmap is for_cpu.
const fn direct(name: &'static str, summary: &'static str, for_device: Row, for_cpu: Row, edge: (Edge, &'static str)) -> Machine {
    Machine { name, summary, map: for_device, for_device, for_cpu, unmap: for_cpu, edge: Some(edge), keeps_lines: false, poisons: false }
}

static ARM64: Machine = direct(
    "arm64",
    "for_device cleans, for_cpu invalidates",
    Row::of(ARM64_DEV, Clean, Clean, Clean),
    Row::of(ARM64_CPU, Nothing, Invalidate, Invalidate),
    (Edge::WrittenBack, "arch/arm64/mm/cache.S: dcache_inval_poc()"),
);
static RISCV: Machine = direct(
    "riscv",
    "as arm64, but lines covered in part are dropped",
    Row::of(RISCV_DEV, Clean, Clean, Clean),
    Row::of(RISCV_CPU, Nothing, Invalidate, Invalidate),
    (Edge::Dropped, "arch/riscv/mm/dma-noncoherent.c: arch_dma_cache_inv()"),
);
static ARM: Machine = direct(
    "arm",
    "version 7: for_device of a FROM_DEVICE buffer invalidates it",
    Row::of(ARM_DEV, Clean, Invalidate, Clean),
    Row::of(ARM_CPU, Nothing, Invalidate, Invalidate),
    (Edge::WrittenBack, "arch/arm/mm/cache-v7.S: v7_dma_inv_range()"),
);
static MIPS: Machine = Machine {
    keeps_lines: true,
    ..direct(
        "mips",
        "invalidates before the transfer only: for_cpu does nothing",
        Row::of(MIPS_DEV, Clean, Invalidate, CleanInvalidate),
        Row::of(MIPS_CPU, Nothing, Nothing, Nothing),
        (Edge::Dropped, "arch/mips/mm/c-r4k.c: r4k_dma_cache_inv()"),
    )
};
static PARISC: Machine = direct(
    "parisc",
    "for_cpu of a BIDIRECTIONAL buffer writes dirty lines over the device's bytes",
    Row::of(PARISC_DEV, CleanInvalidate, CleanInvalidate, CleanInvalidate),
    Row::of(PARISC_CPU, CleanInvalidate, Invalidate, CleanInvalidate),
    (Edge::Dropped, "arch/parisc/kernel/pacache.S: purge_kernel_dcache_range_asm()"),
);
static SWIOTLB: Machine = Machine {
    name: "swiotlb",
    summary: "no cache: every mapping has a bounce buffer, byte exact",
    map: Row::of(SWIOTLB_MAP, CopyIn, CopyIn, CopyIn),
    for_device: Row::of(SWIOTLB_DEV, CopyIn, Nothing, CopyIn),
    for_cpu: Row::of(SWIOTLB_CPU, Nothing, CopyOut, CopyOut),
    unmap: Row::of(SWIOTLB_UNMAP, Nothing, CopyOut, CopyOut),
    edge: None,
    keeps_lines: false,
    poisons: false,
};
static WORST_OF_ALL: Machine = Machine {
    keeps_lines: true,
    poisons: true,
    ..direct(
        "worst",
        "what any machine with caches loses is lost here",
        Row::of(WORST, Clean, Invalidate, CleanInvalidate),
        Row::of(WORST, Nothing, Invalidate, Invalidate),
        (Edge::Dropped, WORST),
    )
};

impl Profile {
    /// All of them, the default first.
    pub const ALL: [Self; 7] = [Self::Arm64, Self::Riscv, Self::Arm, Self::Mips, Self::Parisc, Self::Swiotlb, Self::Worst];

    /// What the machine does.
    #[must_use]
    pub fn machine(self) -> &'static Machine {
        match self {
            Self::Arm64 => &ARM64,
            Self::Riscv => &RISCV,
            Self::Arm => &ARM,
            Self::Mips => &MIPS,
            Self::Parisc => &PARISC,
            Self::Swiotlb => &SWIOTLB,
            Self::Worst => &WORST_OF_ALL,
        }
    }

    /// The word `--profile` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.machine().name
    }

    /// Whether the machine has bounce buffers instead of cache lines.
    #[must_use]
    pub fn bounces(self) -> bool {
        self.machine().edge.is_none()
    }
}

/// What happens to cache lines a mapping or sync covers in part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edges {
    /// Only the covered bytes take part: nothing outside the mapping is ever written.
    #[default]
    Isolate,
    /// The whole line takes part, as the machine has it: neighbours' bytes are written, too. For guests and modules built with a
    /// real `ARCH_DMA_MINALIGN`.
    Line,
}

/// What the cache does on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Nothing.
    #[default]
    Quiet,
    /// A dirty line is written back at the worst moment: after the device wrote it.
    Evict,
    /// A line is fetched again while the device works on it.
    Prefetch,
    /// Either, or nothing, as the seed has it.
    Random,
}

/// A word that is none of those an option takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is none of {known}")]
pub struct UnknownWord {
    word: String,
    known: String,
}

macro_rules! words {
    ($type:ty, $all:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                let known = || $all.map(Self::name).join(", ");
                $all.into_iter().find(|one| one.name() == word).ok_or_else(|| UnknownWord { word: word.to_owned(), known: known() })
            }
        }
    };
}

impl Edges {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Isolate, Self::Line];

    /// The word `--edges` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isolate => "isolate",
            Self::Line => "line",
        }
    }
}

impl Cache {
    /// All of them, the default first.
    pub const ALL: [Self; 4] = [Self::Quiet, Self::Evict, Self::Prefetch, Self::Random];

    /// The word `--cache` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Evict => "evict",
            Self::Prefetch => "prefetch",
            Self::Random => "random",
        }
    }
}

words!(Profile, Profile::ALL);
words!(Edges, Edges::ALL);
words!(Cache, Cache::ALL);
