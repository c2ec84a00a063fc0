//! Configuration mechanism #1 (PCI 3.0 section 3.2.2.3.2): CONFIG_ADDRESS at port 0xcf8, CONFIG_DATA at 0xcfc.

use super::PciRoot;
use crate::ports::{PortDevice, Power, ResetBy};
use dmavet_coherence::ids::Bdf;
use std::sync::Arc;

/// First port.
pub const PORT: u16 = 0xcf8;
/// Ports used.
pub const LEN: u16 = 8;

const ENABLE: u32 = 1 << 31;
const DATA: u16 = 4;
/// The reset control register lies inside CONFIG_ADDRESS and is told apart by its width.
const RESET_CONTROL: u16 = 1;
const RESET_CPU: u8 = 1 << 2;

/// The two registers.
#[derive(Debug)]
pub struct ConfigPort {
    root: Arc<PciRoot>,
    address: u32,
}

impl ConfigPort {
    /// Registers in front of `root`.
    pub fn new(root: Arc<PciRoot>) -> Self {
        Self { root, address: 0 }
    }

    /// The function and register that `offset` in CONFIG_DATA stands for.
    fn target(&self, offset: u16, len: usize) -> Option<(Bdf, usize)> {
        let byte = usize::from(offset.checked_sub(DATA)?);
        if self.address & ENABLE == 0 || byte + len > 4 {
            return None;
        }
        let bdf = u16::try_from((self.address >> 8) & 0xffff).ok()?;
        let register = usize::try_from(self.address & 0xfc).ok()?;
        Some((Bdf(bdf), register + byte))
    }
}

impl PortDevice for ConfigPort {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        if offset == 0
            && let Ok(word) = <&mut [u8; 4]>::try_from(&mut *data)
        {
            *word = self.address.to_le_bytes();
        } else if let Some((bdf, register)) = self.target(offset, data.len()) {
            self.root.read_config(bdf, register, data);
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Option<Power> {
        match (offset, data) {
            (0, [a, b, c, d]) => self.address = u32::from_le_bytes([*a, *b, *c, *d]),
            (RESET_CONTROL, [value]) if value & RESET_CPU != 0 => return Some(Power::Reset(ResetBy::Cf9)),
            _ => {
                if let Some((bdf, register)) = self.target(offset, data.len()) {
                    self.root.write_config(bdf, register, data);
                }
            }
        }
        None
    }
}
