//! ncdma without a bus: the registers in a window, one interrupt line (section 2 of `docs/ncdma.md`).

use super::Ncdma;
use super::spec::{COMPATIBLE, REGISTER_BYTES};
use crate::platform::{Description, Model};
use vm_memory::GuestMemory;

impl<M: GuestMemory + Send> Model for Ncdma<M> {
    fn description(&self) -> Description {
        Description { compatible: COMPATIBLE, size: REGISTER_BYTES }
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.read_registers(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // Messages are for those who have them; the line shows what waits.
        let _messages = self.write_registers(offset, data);
    }

    fn line(&self) -> bool {
        self.interrupting() != 0
    }

    fn reset(&mut self) {
        self.power_on();
    }
}
