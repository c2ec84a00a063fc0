//! 5xx: the bus; 9xx: the checker itself.

use super::{Code, Rule};
use crate::finding::Severity::{Error, Note, Warning};

pub(super) const BLIND_SPOT: Rule = Rule {
    code: Code::DV901,
    slug: "blind-spot",
    severity: Warning,
    except: "",
    rule: "Every event was seen: nothing was lost to a full table, a malformed call or missing memory.",
    source: "dmavet",
    example: "a guest that keeps four million mappings alive",
    fix: "What is named was not checked from then on: make the run smaller or raise the limit, and run again.",
    checked: true,
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        code: Code::DV501,
        slug: "no-bus-master",
        severity: Error,
        except: "",
        rule: "A function does no DMA before pci_set_master() nor after bus mastering is switched off (Command register bit 2).",
        source: "PCI Local Bus 3.0, section 6.2.2",
        example: "pci_enable_device(pdev);\nwritel(START, regs + CTRL);\t/* pci_set_master() comes later or never */",
        fix: "Call pci_set_master() before the device is started, and stop the device before pci_clear_master() or pci_disable_device().",
        checked: true,
    },
    Rule {
        code: Code::DV502,
        slug: "dma-after-reset",
        severity: Error,
        except: "a device model's mistake, never the driver's: those that come with dmavet are tested for it",
        rule: "A device does no DMA after a reset of its function until a register of it is written or bus mastering is switched on again.",
        source: "PCI Express Base 5.0, section 6.6",
        example: "an out-of-process device model that goes on writing completions after FLR",
        fix: "Stop every transfer and forget every address at reset.",
        checked: true,
    },
    Rule {
        code: Code::DV503,
        slug: "double-fetch",
        severity: Note,
        except: "",
        rule: "Bytes in coherent memory that the device may write are not fetched again after they were checked.",
        source: "SADA: static analysis of unsafe DMA accesses (USENIX Security 2021)",
        example: "if (le32_to_cpu(desc->len) > MAX)\n\treturn -EIO;\nmemcpy(dst, src, le32_to_cpu(desc->len));",
        fix: "Read the value once with READ_ONCE() into a local, check the local, use the local.",
        checked: true,
    },
    BLIND_SPOT,
];
