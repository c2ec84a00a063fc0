//! MSI-X: the vector table, the pending bits, and when a message goes out (PCI Local Bus 3.0, section 6.8.2).

use super::config::MsixControl;
use crate::bus::{MsiMessage, MsiSink};
use crate::registers::dwords;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

const ENTRY_SIZE: u64 = 16;
const VECTOR_MASKED: u32 = 1;

/// Where a function keeps its MSI-X structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixSpec {
    /// Number of vectors, 1 to 64.
    pub vectors: u16,
    /// BAR both structures lie in.
    pub bar: u8,
    /// Offset of the table in the BAR, a multiple of 8.
    pub table_offset: u32,
    /// Offset of the pending bits in the BAR, a multiple of 8.
    pub pba_offset: u32,
}

impl MsixSpec {
    /// `vectors` vectors in a 4 KiB BAR of their own: table at 0, pending bits at 0x800.
    #[must_use]
    pub const fn own_bar(vectors: u16, bar: u8) -> Self {
        Self { vectors, bar, table_offset: 0, pba_offset: 0x800 }
    }

    /// The bytes of the BAR that are the table.
    #[must_use]
    pub fn table(&self) -> Range<u64> {
        let start = u64::from(self.table_offset);
        start..start + ENTRY_SIZE * u64::from(self.vectors)
    }

    /// The bytes of the BAR that are the pending bits.
    #[must_use]
    pub fn pba(&self) -> Range<u64> {
        let start = u64::from(self.pba_offset);
        start..start + 8 * u64::from(self.vectors).div_ceil(64)
    }
}

/// A sink for functions that have no interrupt.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoInterrupts;

impl MsiSink for NoInterrupts {
    fn set_route(&self, _vector: u16, _message: Option<MsiMessage>) {}
    fn trigger(&self, _vector: u16) {}
    fn set_pin(&self, _asserted: bool) {}
}

#[derive(Clone, Copy, Debug)]
struct Vector {
    message: MsiMessage,
    masked: bool,
    pending: bool,
    /// What the sink was told last.
    route: Option<MsiMessage>,
}

impl Vector {
    const RESET: Self = Self { message: MsiMessage { address: 0, data: 0 }, masked: true, pending: false, route: None };

    fn dword(&self, index: u64) -> u64 {
        match index {
            0 => self.message.address & 0xffff_ffff,
            1 => self.message.address >> 32,
            2 => u64::from(self.message.data),
            _ => u64::from(self.masked),
        }
    }

    fn set_dword(&mut self, index: u64, value: u32) {
        let address = self.message.address;
        match index {
            // The two low bits must be zero: messages are aligned.
            0 => self.message.address = address & !0xffff_ffff | u64::from(value & !3),
            1 => self.message.address = address & 0xffff_ffff | u64::from(value) << 32,
            2 => self.message.data = value,
            _ => self.masked = value & VECTOR_MASKED != 0,
        }
    }
}

/// The MSI-X state of one function.
///
/// A raised vector sends its message at once, or sets its pending bit while it or the function is masked; the end of the mask sends it.
/// With MSI-X off a raised vector is lost: the function has no other interrupt.
pub struct Msix {
    vectors: Vec<Vector>,
    control: MsixControl,
    sink: Arc<dyn MsiSink>,
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix").field("vectors", &self.vectors).field("control", &self.control).finish_non_exhaustive()
    }
}

impl Msix {
    /// `vectors` vectors, all masked, MSI-X off.
    #[must_use]
    pub fn new(vectors: u16, sink: Arc<dyn MsiSink>) -> Self {
        Self { vectors: vec![Vector::RESET; usize::from(vectors)], control: MsixControl::default(), sink }
    }

    /// Takes over the switches of the capability.
    pub fn set_control(&mut self, control: MsixControl) {
        if control == self.control {
            return;
        }
        self.control = control;
        if !control.enabled {
            for vector in &mut self.vectors {
                vector.pending = false;
            }
        }
        for index in 0..self.vectors.len() {
            self.refresh(index);
        }
    }

    /// Sends the message of `vector`, or remembers it; a vector there is not is ignored.
    pub fn raise(&mut self, vector: u16) {
        let Some(state) = self.vectors.get_mut(usize::from(vector)) else { return };
        if state.route.is_some() {
            self.sink.trigger(vector);
        } else if self.control.enabled {
            state.pending = true;
        }
    }

    /// Reads the table at `offset` in it; what lies beyond it is all-ones.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        for (index, piece) in dwords(offset, data.len(), self.table_dwords()) {
            if let Some(vector) = entry(index).and_then(|entry| self.vectors.get(entry)) {
                piece.put(vector.dword(index % 4), data);
            }
        }
    }

    /// Writes the table at `offset` in it; what lies beyond it is ignored.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let touched = dwords(offset, data.len(), self.table_dwords());
        for (index, piece) in touched {
            if let Some(vector) = entry(index).and_then(|entry| self.vectors.get_mut(entry)) {
                let (value, mask) = piece.take(data);
                let value = (vector.dword(index % 4) & !mask) | value;
                vector.set_dword(index % 4, u32::try_from(value & 0xffff_ffff).unwrap_or_default());
            }
        }
        // Only now: one access may carry the message and the mask.
        let entries = dwords(offset, data.len(), self.table_dwords()).filter_map(|(index, _)| entry(index));
        let mut last = None;
        for entry in entries {
            if last != Some(entry) {
                self.refresh(entry);
            }
            last = Some(entry);
        }
    }

    /// Reads the pending bits at `offset` in their array; what lies beyond it is all-ones. They cannot be written.
    pub fn read_pba(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let count = 2 * (self.vectors.len() as u64).div_ceil(64);
        for (index, piece) in dwords(offset, data.len(), count) {
            let first = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(32);
            let bits = self.vectors.iter().skip(first).take(32).rev().fold(0, |bits, vector| bits << 1 | u64::from(vector.pending));
            piece.put(bits, data);
        }
    }

    /// Back to the state after power-on; the sink's routes are taken away.
    pub fn reset(&mut self) {
        self.set_control(MsixControl::default());
        self.vectors.fill(Vector::RESET);
    }

    fn table_dwords(&self) -> u64 {
        self.vectors.len() as u64 * 4
    }

    /// Tells the sink what changed for one vector and delivers what was waiting for it.
    fn refresh(&mut self, index: usize) {
        let control = self.control;
        let (Some(vector), Ok(number)) = (self.vectors.get_mut(index), u16::try_from(index)) else { return };
        let open = control.enabled && !control.masked && !vector.masked;
        let route = open.then_some(vector.message);
        if route != vector.route {
            vector.route = route;
            self.sink.set_route(number, route);
        }
        if open && vector.pending {
            vector.pending = false;
            self.sink.trigger(number);
        }
    }
}

fn entry(dword: u64) -> Option<usize> {
    usize::try_from(dword / 4).ok()
}

#[cfg(test)]
mod tests;
