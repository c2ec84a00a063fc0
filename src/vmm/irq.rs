//! Interrupt routes of the VM: the I/O APIC's pins, fixed, and one GSI for each MSI-X vector in use.
//!
//! Lock order: a function's lock, then a function's vectors, then the route table.

use dmavet_devices::bus::{MsiMessage, MsiSink};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

use crate::end::EndCell;
use crate::intx::Pin;
use crate::layout::IO_APIC_PINS;

/// Which message each MSI GSI sends. GSIs below [`IO_APIC_PINS`] are the I/O APIC's.
#[derive(Debug, Default)]
struct Table {
    messages: BTreeMap<u32, MsiMessage>,
    next: u32,
}

impl Table {
    /// The most GSIs handed out; KVM takes 4096 routes in all.
    const MAX: u32 = 2048;

    fn allocate(&mut self) -> Option<u32> {
        let gsi = IO_APIC_PINS + self.next;
        (self.next < Self::MAX).then(|| {
            self.next += 1;
            gsi
        })
    }

    /// True when the kernel's table must be written again.
    fn set(&mut self, gsi: u32, message: MsiMessage) -> bool {
        self.messages.insert(gsi, message) != Some(message)
    }

    /// The whole table in KVM's form: pins to both 8259s and the I/O APIC, then the messages.
    fn entries(&self) -> Vec<kvm_irq_routing_entry> {
        let pin = |gsi: u32, irqchip, pin| kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            flags: 0,
            pad: 0,
            u: kvm_irq_routing_entry__bindgen_ty_1 { irqchip: kvm_irq_routing_irqchip { irqchip, pin } },
        };
        let mut entries: Vec<_> = (0..IO_APIC_PINS)
            .flat_map(|gsi| {
                let pic = match gsi {
                    0..8 => Some(pin(gsi, KVM_IRQCHIP_PIC_MASTER, gsi)),
                    8..16 => Some(pin(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8)),
                    _ => None,
                };
                pic.into_iter().chain([pin(gsi, KVM_IRQCHIP_IOAPIC, gsi)])
            })
            .collect();
        entries.extend(self.messages.iter().map(|(gsi, message)| kvm_irq_routing_entry {
            gsi: *gsi,
            type_: KVM_IRQ_ROUTING_MSI,
            flags: 0,
            pad: 0,
            u: kvm_irq_routing_entry__bindgen_ty_1 {
                msi: kvm_irq_routing_msi {
                    address_lo: low(message.address),
                    address_hi: low(message.address >> 32),
                    data: message.data,
                    ..Default::default()
                },
            },
        }));
        entries
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

/// The VM's route table.
#[derive(Debug)]
pub struct Router {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
    end: Arc<EndCell>,
}

impl Router {
    /// A table for `vm`, which keeps KVM's default routes until the first message is set. What goes wrong ends the run through
    /// `end`, because the devices that ask for a route can do nothing about it.
    pub fn new(vm: Arc<VmFd>, end: Arc<EndCell>) -> Arc<Self> {
        Arc::new(Self { vm, table: Mutex::default(), end })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self) -> Option<(u32, EventFd)> {
        let Some(gsi) = self.table().allocate() else {
            self.end.internal(format!("more than {} MSI-X vectors in use", Table::MAX));
            return None;
        };
        let fd = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
            .map_err(|error| self.end.internal(format!("eventfd for an MSI-X vector: {error}")))
            .ok()?;
        self.vm.register_irqfd(&fd, gsi).map_err(|error| self.end.internal(format!("KVM_IRQFD for GSI {gsi}: {error}"))).ok()?;
        Some((gsi, fd))
    }

    fn route(&self, gsi: u32, message: MsiMessage) {
        let mut table = self.table();
        if !table.set(gsi, message) {
            return;
        }
        let entries = table.entries();
        let count = entries.len();
        let result = KvmIrqRouting::from_entries(&entries)
            .map_err(|error| format!("{count} interrupt routes: {error:?}"))
            .and_then(|routing| self.vm.set_gsi_routing(&routing).map_err(|e| format!("KVM_SET_GSI_ROUTING of {count} routes: {e}")));
        if let Err(text) = result {
            self.end.internal(text);
        }
    }
}

/// The interrupts of one function: its pin and its MSI-X vectors. A vector gets its GSI and its irqfd when it is first unmasked.
#[derive(Debug)]
pub struct Vectors {
    router: Arc<Router>,
    pin: Pin,
    vectors: Mutex<BTreeMap<u16, (u32, EventFd)>>,
}

impl Vectors {
    /// The most vectors MSI-X allows (PCI 3.0 section 6.8.2.3).
    const MAX: u16 = 2048;

    /// Vectors routed through `router`, beside `pin`.
    pub fn new(router: Arc<Router>, pin: Pin) -> Arc<Self> {
        Arc::new(Self { router, pin, vectors: Mutex::default() })
    }

    fn vectors(&self) -> MutexGuard<'_, BTreeMap<u16, (u32, EventFd)>> {
        self.vectors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MsiSink for Vectors {
    fn set_route(&self, vector: u16, message: Option<MsiMessage>) {
        // A masked vector keeps its route: nobody triggers it, and writing KVM's table costs a grace period.
        let Some(message) = message.filter(|_| vector < Self::MAX) else { return };
        let mut vectors = self.vectors();
        let gsi = match vectors.entry(vector) {
            Entry::Occupied(attached) => attached.get().0,
            Entry::Vacant(free) => {
                let Some(attached) = self.router.attach() else { return };
                free.insert(attached).0
            }
        };
        self.router.route(gsi, message);
    }

    fn trigger(&self, vector: u16) {
        if let Some((_, fd)) = self.vectors().get(&vector) {
            // Refused only when the counter would overflow: KVM has an interrupt pending then.
            let _ = fd.write(1);
        }
    }

    fn set_pin(&self, asserted: bool) {
        self.pin.set(asserted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: u32) -> MsiMessage {
        MsiMessage { address: 0x1_fee0_1000, data }
    }

    #[test]
    fn pins_come_first_and_messages_keep_their_gsi() {
        let mut table = Table::default();
        let first = table.allocate().unwrap();
        let second = table.allocate().unwrap();
        assert_eq!((first, second), (IO_APIC_PINS, IO_APIC_PINS + 1));
        assert!(table.set(second, message(5)));
        assert!(!table.set(second, message(5)), "the same message again costs nothing");
        assert!(table.set(second, message(6)));
        assert!(table.set(first, message(7)));
        let entries = table.entries();
        assert_eq!(entries.len(), 16 + 24 + 2);
        assert!(entries[..40].iter().all(|e| e.type_ == KVM_IRQ_ROUTING_IRQCHIP && e.gsi < IO_APIC_PINS));
        let last = &entries[41];
        assert_eq!((last.gsi, last.type_), (second, KVM_IRQ_ROUTING_MSI));
        #[expect(unsafe_code, reason = "reads a C union in a test")]
        // SAFETY: `type_` says that `msi` is the live member.
        let msi = unsafe { last.u.msi };
        assert_eq!((msi.address_lo, msi.address_hi, msi.data), (0xfee0_1000, 1, 6));
    }

    #[test]
    fn gsis_run_out_without_a_panic() {
        let mut table = Table::default();
        assert_eq!((0..3000).filter_map(|_| table.allocate()).count(), 2048);
    }
}
