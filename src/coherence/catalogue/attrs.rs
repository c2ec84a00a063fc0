//! 4xx: attributes and aliases.

use super::{ATTRS, Code, Rule};
use crate::finding::Severity::{Error, Warning};

pub(super) const RULES: &[Rule] = &[
    Rule {
        code: Code::DV401,
        slug: "skip-sync-at-map",
        severity: Error,
        except: "",
        rule: "DMA_ATTR_SKIP_CPU_SYNC at map is only for bytes that were handed over already.",
        source: ATTRS,
        example: "dma = dma_map_page_attrs(dev, page, 0, len, DMA_TO_DEVICE, DMA_ATTR_SKIP_CPU_SYNC);\nstart_tx(dma);\t/* the device reads what was there before */",
        fix: "Call dma_sync_single_for_device() before the device uses the bytes, or map without the attribute.",
        checked: true,
    },
    Rule {
        code: Code::DV402,
        slug: "skip-sync-at-unmap",
        severity: Warning,
        except: "an error when the driver's own code reads",
        rule: "After an unmap with DMA_ATTR_SKIP_CPU_SYNC the CPU does not use the bytes before a sync.",
        source: ATTRS,
        example: "dma_unmap_page_attrs(dev, dma, len, DMA_FROM_DEVICE, DMA_ATTR_SKIP_CPU_SYNC);\nmemcpy(dst, page_address(page), len);",
        fix: "Call dma_sync_single_for_cpu() before the unmap, or unmap without the attribute.",
        checked: true,
    },
    Rule {
        code: Code::DV403,
        slug: "alias-ownership",
        severity: Error,
        except: "seen as a stale read or a discarded write between mappings of which one was made with DMA_ATTR_SKIP_CPU_SYNC",
        rule: "A buffer that is mapped for several devices has one owner, and a hand-over through one mapping holds for the others.",
        source: ATTRS,
        example: "dma_sync_sgtable_for_cpu(a, sgt_a, DMA_BIDIRECTIONAL);\nmemset(vaddr, 0, size);\t/* device b still owns it */\nstart(b);",
        fix: "Sync every device's mapping of the buffer around an access of the CPU.",
        checked: true,
    },
    Rule {
        code: Code::DV404,
        slug: "require-coherent",
        severity: Error,
        except: "",
        rule: "A mapping with DMA_ATTR_REQUIRE_COHERENT fails on a device that is not coherent, and the driver copes.",
        source: ATTRS,
        example: "dma = dma_map_phys(dev, phys, len, dir, DMA_ATTR_REQUIRE_COHERENT);\t/* result not checked */",
        fix: "Check the result and fall back to a mapping with syncs.",
        checked: true,
    },
    Rule {
        code: Code::DV405,
        slug: "no-kernel-mapping",
        severity: Error,
        except: "",
        rule: "Memory allocated with DMA_ATTR_NO_KERNEL_MAPPING is not touched by the CPU.",
        source: ATTRS,
        example: "cookie = dma_alloc_attrs(dev, size, &dma, GFP_KERNEL, DMA_ATTR_NO_KERNEL_MAPPING);\nmemset(cookie, 0, size);",
        fix: "Drop the attribute, or leave the memory to the device.",
        checked: true,
    },
];
