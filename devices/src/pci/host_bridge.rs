//! The host bridge at 00:00.0. Linux wants one there before it trusts the configuration mechanism; it does nothing.

use super::bar::BarSpec;
use super::config::Identity;
use super::function::{Function, Model, Vectors};
use super::msix::NoInterrupts;
use std::sync::Arc;

/// A bridge without registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostBridge;

impl Model for HostBridge {
    fn identity(&self) -> Identity {
        Identity::dmavet(0x0000, 0x06_00_00)
    }
    fn bars(&self) -> Vec<BarSpec> {
        Vec::new()
    }
    fn read_bar(&mut self, _bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn write_bar(&mut self, _bar: usize, _offset: u64, _data: &[u8]) -> Vectors {
        Vectors::NONE
    }
    fn reset(&mut self) {}
}

/// The function for 00:00.0: vendor 0xDA5E, device 0, class 0x060000.
#[must_use]
pub fn host_bridge() -> Function<HostBridge> {
    Function::new(HostBridge, Arc::new(NoInterrupts))
}
