//! Where a rule's evidence comes from, and what the kernel's own checker makes of the same mistake.

use super::Code;
use std::fmt;

bitflags::bitflags! {
    /// The events a rule is judged by.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Events: u8 {
        /// Calls of the DMA API and the driver core.
        const API = 1;
        /// Accesses of devices.
        const DEVICE = 1 << 1;
        /// Accesses of the CPU to watched pages, or bytes that differ from those at the last hand-over.
        const CPU = 1 << 2;
        /// The bus: bus mastering, register writes, resets.
        const BUS = 1 << 3;
    }
}

impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(Self::API, "calls"), (Self::DEVICE, "device"), (Self::CPU, "CPU"), (Self::BUS, "bus")];
        let named: Vec<_> = names.iter().filter(|(event, _)| self.contains(*event)).map(|(_, name)| *name).collect();
        f.write_str(&named.join(", "))
    }
}

/// Whether `CONFIG_DMA_API_DEBUG` (kernel/dma/debug.c of 6.1 to 7.2) reports the same mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelCheck {
    /// It does.
    Yes,
    /// In some cases, or in some versions.
    Partly,
    /// It sees nothing of it.
    No,
}

impl Code {
    /// What the rule is judged by.
    #[must_use]
    pub const fn events(self) -> Events {
        self.origin().0
    }

    /// What the kernel's checker makes of it.
    #[must_use]
    pub const fn kernel_check(self) -> KernelCheck {
        self.origin().1
    }

    /// Whether it takes the CPU watch: the bytes the CPU left say nothing of it.
    #[must_use]
    pub const fn needs_watch(self) -> bool {
        matches!(
            self,
            Self::DV117 | Self::DV202 | Self::DV204 | Self::DV212 | Self::DV218 | Self::DV303 | Self::DV402 | Self::DV405 | Self::DV503
        )
    }

    const fn origin(self) -> (Events, KernelCheck) {
        use KernelCheck::{No, Partly, Yes};
        const A: Events = Events::API;
        const D: Events = Events::DEVICE;
        const C: Events = Events::CPU;
        const B: Events = Events::BUS;
        match self {
            Self::DV101 | Self::DV102 | Self::DV103 | Self::DV104 | Self::DV112 | Self::DV215 => (A, Yes),
            Self::DV105 | Self::DV106 | Self::DV110 | Self::DV113 | Self::DV116 | Self::DV216 | Self::DV302 => (A, Partly),
            Self::DV107 | Self::DV109 => (A.union(D), Partly),
            Self::DV108 => (A.union(B), Yes),
            Self::DV111 | Self::DV114 | Self::DV219 | Self::DV220 | Self::DV301 | Self::DV304 | Self::DV404 => (A, No),
            Self::DV115 | Self::DV221 | Self::DV222 | Self::DV401 | Self::DV403 => (A.union(D), No),
            Self::DV117 | Self::DV202 | Self::DV203 | Self::DV204 | Self::DV303 | Self::DV405 => (C, No),
            Self::DV201 | Self::DV205 | Self::DV206 | Self::DV207 | Self::DV208 | Self::DV209 | Self::DV210 => (D, No),
            Self::DV211 => (A.union(B.union(D)), No),
            Self::DV212 | Self::DV218 => (D.union(C), No),
            Self::DV213 | Self::DV214 | Self::DV217 => (A.union(D.union(C)), No),
            Self::DV402 => (A.union(C), No),
            Self::DV501 | Self::DV502 => (B.union(D), No),
            Self::DV503 => (C.union(D), No),
            // DV901 is about every event.
            _ => (Events::all(), No),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_but_the_blind_spot_names_its_events() {
        for code in Code::ALL {
            assert!(!code.events().is_empty());
            assert_eq!(code.events().is_all(), *code == Code::DV901, "{code}");
        }
        for code in Code::ALL.iter().filter(|code| code.needs_watch()) {
            assert!(code.events().contains(Events::CPU), "{code}");
        }
        // A stale read leaves nothing behind; a write does, so content tells of it.
        assert!(Code::DV202.needs_watch() && !Code::DV203.needs_watch());
        assert_eq!(Code::DV214.events().to_string(), "calls, device, CPU");
        assert_eq!(Code::DV101.kernel_check(), KernelCheck::Yes);
    }
}
