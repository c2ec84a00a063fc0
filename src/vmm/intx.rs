//! Interrupt pins: INTA# of every function under test, wired to the I/O APIC as `_PRT` tells the guest, and the lines of platform devices.
//!
//! A pin is a level. Functions whose pins meet on one line of the I/O APIC are wired together: the line is high while one of them is
//! asserted. KVM's I/O APIC looks at the line again at the guest's EOI, so a function that is not served interrupts again.
//!
//! Lock order: a function's lock, then the lines.

use crate::end::EndCell;
use kvm_ioctls::VmFd;
use std::sync::{Arc, Mutex, PoisonError};

/// One pin: the line it is wired to, and whether it is asserted.
#[derive(Clone, Copy, Debug)]
struct Wire {
    gsi: u32,
    asserted: bool,
}

/// All pins of the machine.
#[derive(Debug)]
pub struct Lines {
    vm: Arc<VmFd>,
    end: Arc<EndCell>,
    wires: Mutex<Vec<Wire>>,
}

impl Lines {
    /// The lines of `vm`. What goes wrong ends the run through `end`, because a device can do nothing about it.
    pub fn new(vm: Arc<VmFd>, end: Arc<EndCell>) -> Arc<Self> {
        Arc::new(Self { vm, end, wires: Mutex::default() })
    }

    /// A device's pin on the line `gsi`, an input of the I/O APIC.
    pub fn pin(self: &Arc<Self>, gsi: u32) -> Pin {
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        wires.push(Wire { gsi, asserted: false });
        Pin { lines: self.clone(), number: wires.len() - 1 }
    }

    fn set(&self, number: usize, asserted: bool) {
        // Held during the ioctl: two functions must not overtake each other on the way to the line.
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((gsi, high)) = change(&mut wires, number, asserted)
            && let Err(error) = self.vm.set_irq_line(gsi, high)
        {
            self.end.internal(format!("KVM_IRQ_LINE for GSI {gsi}: {error}"));
        }
    }
}

/// Sets a pin; its line and the level, if that changed.
fn change(wires: &mut [Wire], number: usize, asserted: bool) -> Option<(u32, bool)> {
    let gsi = wires.get(number)?.gsi;
    let level = |wires: &[Wire]| wires.iter().any(|wire| wire.gsi == gsi && wire.asserted);
    let before = level(wires);
    wires.get_mut(number)?.asserted = asserted;
    let after = level(wires);
    (before != after).then_some((gsi, after))
}

/// The interrupt pin of one device.
#[derive(Clone, Debug)]
pub struct Pin {
    lines: Arc<Lines>,
    number: usize,
}

impl Pin {
    /// Asserts it or lets go of it.
    pub fn set(&self, asserted: bool) {
        self.lines.set(self.number, asserted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm;
    use kvm_bindings::{KVM_IRQCHIP_IOAPIC, kvm_irqchip};

    #[test]
    fn a_line_is_high_while_one_of_its_pins_is_asserted() {
        let wire = |gsi| Wire { gsi, asserted: false };
        let mut wires = [wire(18), wire(19), wire(18)];
        let steps = [
            (0, true, Some((18, true))),
            (0, true, None),
            (2, true, None),
            (1, true, Some((19, true))),
            (0, false, None),
            (2, false, Some((18, false))),
            (2, false, None),
            (1, false, Some((19, false))),
            (3, true, None),
        ];
        for (number, asserted, expected) in steps {
            assert_eq!(change(&mut wires, number, asserted), expected, "pin {number}, {asserted}");
        }
    }

    /// The lines that are high at the I/O APIC, as far as it remembers: one bit each.
    fn requests(vm: &VmFd) -> u32 {
        let mut chip = kvm_irqchip { chip_id: KVM_IRQCHIP_IOAPIC, ..Default::default() };
        vm.get_irqchip(&mut chip).unwrap();
        #[expect(unsafe_code, reason = "reads a C union in a test")]
        // SAFETY: `chip_id` says that `ioapic` is the live member.
        unsafe {
            chip.chip.ioapic.irr
        }
    }

    #[test]
    fn the_level_reaches_the_io_apic() {
        let vm = Arc::new(kvm::create_vm(&kvm::open().unwrap()).unwrap());
        let lines = Lines::new(vm.clone(), Arc::new(EndCell::new().unwrap()));
        // Slots 2 and 6 share a line.
        let [first, second, other] = [2, 6, 3].map(|slot| lines.pin(crate::layout::intx_gsi(slot, 0)));
        // After reset all of its entries are edge-triggered; a kernel makes those of a PCI bus level-triggered.
        level_triggered(&vm);
        assert_eq!(requests(&vm), 0);
        first.set(true);
        second.set(true);
        other.set(true);
        assert_eq!(requests(&vm), 1 << 18 | 1 << 19);
        first.set(false);
        assert_eq!(requests(&vm), 1 << 18 | 1 << 19, "the other one still asks");
        second.set(false);
        other.set(false);
        assert_eq!(requests(&vm), 0);
    }

    /// Masked, level-triggered, every line.
    fn level_triggered(vm: &VmFd) {
        const MASKED_LEVEL: u64 = 1 << 16 | 1 << 15;
        let mut chip = kvm_irqchip { chip_id: KVM_IRQCHIP_IOAPIC, ..Default::default() };
        vm.get_irqchip(&mut chip).unwrap();
        #[expect(unsafe_code, reason = "writes a C union in a test")]
        // SAFETY: `chip_id` says that `ioapic` is the live member.
        unsafe {
            chip.chip.ioapic.redirtbl.iter_mut().for_each(|entry| entry.bits = MASKED_LEVEL);
        }
        vm.set_irqchip(&chip).unwrap();
    }
}
