//! 3xx: cache lines.

use super::{API, Code, HOWTO, Rule};
use crate::finding::Severity::{Note, Warning};

pub(super) const RULES: &[Rule] = &[
    Rule {
        code: Code::DV301,
        slug: "unaligned-buffer",
        severity: Note,
        except: "",
        rule: "A buffer the device writes begins and ends on a cache line, or nothing else lives in its edge lines.",
        source: API,
        example: "dma = dma_map_single(dev, page_address(page) + 20, 100, DMA_FROM_DEVICE);",
        fix: "Align the buffer's start and size to dma_get_cache_alignment(), or give it an allocation of its own.",
        checked: true,
    },
    Rule {
        code: Code::DV302,
        slug: "shared-line-mappings",
        severity: Warning,
        except: "",
        rule: "Two live mappings the device may write share no cache line inside one object the driver laid out.",
        source: API,
        example: "a = dma_map_single(dev, block, 32, DMA_FROM_DEVICE);\nb = dma_map_single(dev, block + 32, 32, DMA_FROM_DEVICE);",
        fix: "Space the buffers by dma_get_cache_alignment(), or map the block once and sync it as a whole.",
        checked: true,
    },
    Rule {
        code: Code::DV303,
        slug: "shared-line-cpu-write",
        severity: Warning,
        except: "an error with --edges line, a warning still when the neighbour is another object",
        rule: "The CPU does not write a neighbour of a buffer in a cache line the device owns.",
        source: HOWTO,
        example: "struct cmd {\n\tu32 busy;\t/* written while buf is mapped */\n\tu8 buf[60];\n};",
        fix: "Mark the buffer ____cacheline_aligned (and what follows it), or allocate it on its own.",
        checked: true,
    },
    Rule {
        code: Code::DV304,
        slug: "unaligned-sync",
        severity: Note,
        except: "a warning with --edges line; not for buffers the device does not write",
        rule: "Offset and length of a partial sync are whole cache lines, or reach the mapping's end.",
        source: API,
        example: "dma_sync_single_for_cpu(dev, dma + 20, 10, DMA_FROM_DEVICE);",
        fix: "Round the range outwards to cache lines.",
        checked: true,
    },
];
