//! ncdma on PCI: registers in BAR 0, a message for each source of interrupts (section 2 of `docs/ncdma.md`).

use super::Ncdma;
use super::spec::{BARS, IDENTITY, MSIX, REGISTER_BAR};
use crate::pci::{BarSpec, Identity, Model, MsixSpec, Vectors};
use vm_memory::GuestMemory;

impl<M: GuestMemory + Send> Model for Ncdma<M> {
    fn identity(&self) -> Identity {
        IDENTITY
    }

    fn bars(&self) -> Vec<BarSpec> {
        BARS.to_vec()
    }

    fn msix(&self) -> Option<MsixSpec> {
        Some(MSIX)
    }

    fn power_management(&self) -> bool {
        true
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        if bar == REGISTER_BAR {
            self.read_registers(offset, data);
        } else {
            data.fill(0xff);
        }
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Vectors {
        if bar != REGISTER_BAR {
            return Vectors::NONE;
        }
        let messages = self.write_registers(offset, data);
        (0..MSIX.vectors).filter(|vector| messages >> vector & 1 != 0).fold(Vectors::NONE, Vectors::with)
    }

    fn reset(&mut self) {
        self.power_on();
    }
}
