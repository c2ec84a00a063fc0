//! The I/O port bus.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// What a register write asks the machine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Switch off.
    Off,
    /// Reset, and by which register.
    Reset(ResetBy),
}

/// The ways a guest can reset a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetBy {
    /// The reset register of the ACPI tables.
    Acpi,
    /// The keyboard controller's pulse command.
    Keyboard,
    /// The chipset's reset control register, port 0xcf9.
    Cf9,
}

/// A device behind I/O ports. Offsets and lengths come from the guest.
pub trait PortDevice: Send {
    /// Reads one item of `data.len()` bytes at `offset` from the device's first port.
    fn read(&mut self, offset: u16, data: &mut [u8]);
    /// Writes one item.
    fn write(&mut self, offset: u16, data: &[u8]) -> Option<Power>;
}

type Shared = Mutex<Box<dyn PortDevice>>;

/// Devices by port range. What nobody decodes reads as all-ones and swallows writes, and so does an access that sticks out of a
/// device's range.
#[derive(Default)]
pub struct PortBus {
    devices: Vec<(Range<u16>, Shared)>,
}

impl std::fmt::Debug for PortBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.devices.iter().map(|(ports, _)| ports)).finish()
    }
}

impl PortBus {
    /// Adds `device` at `ports`. The first one added wins where two overlap.
    pub fn add(&mut self, ports: Range<u16>, device: Box<dyn PortDevice>) {
        self.devices.push((ports, Mutex::new(device)));
    }

    fn find(&self, port: u16, len: usize) -> Option<(u16, &Shared)> {
        let (ports, device) = self.devices.iter().find(|(ports, _)| ports.contains(&port))?;
        (usize::from(ports.end - port) >= len).then_some((port - ports.start, device))
    }

    /// Reads one item. False when no device answered (`data` is then all-ones).
    pub fn read(&self, port: u16, data: &mut [u8]) -> bool {
        data.fill(0xff);
        let Some((offset, device)) = self.find(port, data.len()) else { return false };
        device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        true
    }

    /// Writes one item. `None` when no device decodes it.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<Option<Power>> {
        let (offset, device) = self.find(port, data.len())?;
        Some(device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Latch(u8);

    impl PortDevice for Latch {
        fn read(&mut self, offset: u16, data: &mut [u8]) {
            data.fill(self.0.wrapping_add(offset.to_le_bytes()[0]));
        }
        fn write(&mut self, _offset: u16, data: &[u8]) -> Option<Power> {
            self.0 = data[0];
            (self.0 == 9).then_some(Power::Off)
        }
    }

    #[test]
    fn only_what_fits_reaches_a_device() {
        let mut bus = PortBus::default();
        bus.add(0x10..0x12, Box::new(Latch(1)));
        let mut four = [0; 4];
        assert!(!bus.read(0x11, &mut four));
        assert_eq!(four, [0xff; 4]);
        let mut one = [0; 1];
        assert!(bus.read(0x11, &mut one));
        assert_eq!(one, [2]);
        assert!(!bus.read(0x12, &mut one));
        assert_eq!(one, [0xff]);
        assert_eq!(bus.write(0x10, &[9]), Some(Some(Power::Off)));
        assert_eq!(bus.write(0x11, &[3]), Some(None));
        assert_eq!(bus.write(0xffff, &[3]), None);
    }
}
