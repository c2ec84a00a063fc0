//! Platform devices: fixed windows of registers, found through ACPI.

use crate::layout::{PLATFORM, PLATFORM_GSI, PLATFORM_STRIDE};
use crate::pci::Watcher;
use dmavet_devices::bus::{Description, PlatformDevice};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the ACPI tables say of a platform device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number, which is also its requester's.
    pub number: u16,
    /// What its driver matches.
    pub compatible: &'static str,
    /// Guest physical addresses of its registers.
    pub window: Range<u64>,
    /// Its interrupt line.
    pub gsi: u32,
}

struct Place {
    node: Node,
    watcher: Arc<dyn Watcher>,
    device: Mutex<Box<dyn PlatformDevice>>,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Box<dyn PlatformDevice>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The platform devices of a machine.
#[derive(Default)]
pub struct PlatformBus {
    places: Vec<Place>,
}

impl std::fmt::Debug for PlatformBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.places.iter().map(|place| &place.node)).finish()
    }
}

impl PlatformBus {
    /// The interrupt line of device `number`.
    pub fn gsi(number: u16) -> u32 {
        PLATFORM_GSI + u32::from(number)
    }

    /// Adds device `number`; its window and its line follow from that.
    pub fn add(&mut self, number: u16, device: Box<dyn PlatformDevice>, watcher: Arc<dyn Watcher>) {
        let Description { compatible, size } = device.description();
        let start = PLATFORM.start + u64::from(number) * PLATFORM_STRIDE;
        let node = Node { number, compatible, window: start..start + size, gsi: Self::gsi(number) };
        self.places.push(Place { node, watcher, device: Mutex::new(device) });
    }

    /// All of them.
    pub fn nodes(&self) -> Vec<Node> {
        self.places.iter().map(|place| place.node.clone()).collect()
    }

    fn find(&self, gpa: u64) -> Option<(&Place, u64)> {
        let place = self.places.iter().find(|place| place.node.window.contains(&gpa))?;
        Some((place, gpa - place.node.window.start))
    }

    /// Reads at a guest physical address. False when nothing is there.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> bool {
        let Some((place, offset)) = self.find(gpa) else { return false };
        place.lock().read(offset, data);
        place.watcher.observed();
        true
    }

    /// Writes; `rip` as in [`Watcher::doorbell`]. False when nothing is there.
    pub fn write(&self, gpa: u64, data: &[u8], rip: u64) -> bool {
        let Some((place, offset)) = self.find(gpa) else { return false };
        let mut device = place.lock();
        place.watcher.doorbell(rip);
        device.write(offset, data);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Seen(AtomicU64);

    impl Watcher for Seen {
        fn bus_master(&self, _on: bool) {
            panic!("a platform device has no Command register");
        }
        fn reset(&self) {}
        fn doorbell(&self, rip: u64) {
            self.0.store(rip, Ordering::Relaxed);
        }
        fn observed(&self) {}
    }

    struct Echo(u8);

    impl PlatformDevice for Echo {
        fn description(&self) -> Description {
            Description { compatible: "test,echo", size: 0x1000 }
        }
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0.wrapping_add(offset.to_le_bytes()[0]));
        }
        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
        fn reset(&mut self) {}
    }

    #[test]
    fn each_device_answers_in_its_window() {
        let seen = Arc::new(Seen::default());
        let mut bus = PlatformBus::default();
        for number in 0..2u8 {
            bus.add(u16::from(number), Box::new(Echo(0x10 * number)), seen.clone());
        }
        let mut data = [0];
        assert!(bus.write(0xfd01_0000, &[0x55], 0xffff_8000));
        assert_eq!(seen.0.load(Ordering::Relaxed), 0xffff_8000);
        assert!(bus.read(0xfd01_0003, &mut data));
        assert_eq!(data, [0x58]);
        assert!(bus.read(0xfd00_0003, &mut data));
        assert_eq!(data, [3]);
        for gpa in [0xfcff_ffff, 0xfd00_1000, 0xfd01_1000, 0xfd02_0000] {
            assert!(!bus.read(gpa, &mut data) && !bus.write(gpa, &[0], 0), "{gpa:#x}");
        }
        let nodes = bus.nodes();
        assert_eq!((nodes[1].window.clone(), nodes[1].gsi, nodes[1].compatible), (0xfd01_0000..0xfd01_1000, 21, "test,echo"));
    }
}
