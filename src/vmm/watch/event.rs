//! The CPU on its way into a handler: what it touches when it delivers an interrupt or exception.

use super::frames::PAGE;
use crate::emulate;
use kvm_bindings::{kvm_regs, kvm_sregs, kvm_vcpu_events};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Size of a 64-bit task state segment (SDM 3A, 8.7).
const TSS: u64 = 0x68;
/// RSP0 and the first of the interrupt stacks in it.
const RSP0: u64 = 4;
const IST1: u64 = 0x24;
/// Most a delivery pushes: SS, RSP, RFLAGS, CS, RIP and an error code, on a stack aligned to 16 bytes.
const FRAME: u64 = 6 * 8 + 16;
const NMI: u8 = 2;

/// The vector being delivered, if any.
#[must_use]
pub fn vector(events: &kvm_vcpu_events) -> Option<u8> {
    if events.exception.injected != 0 {
        Some(events.exception.nr)
    } else if events.nmi.injected != 0 {
        Some(NMI)
    } else if events.interrupt.injected != 0 {
        Some(events.interrupt.nr)
    } else {
        None
    }
}

/// Guest virtual addresses, one in each page the delivery of `vector` may touch: descriptor tables, task state, the stack.
/// Pages of page tables are not among them.
#[must_use]
pub fn touched(ram: &GuestMemoryMmap, regs: &kvm_regs, sregs: &kvm_sregs, vector: u8) -> Vec<u64> {
    let long = sregs.efer & 1 << 10 != 0;
    let protected = sregs.cr0 & 1 != 0;
    let size: u64 = if long {
        16
    } else if protected {
        8
    } else {
        4
    };
    let gate = sregs.idt.base.wrapping_add(u64::from(vector) * size);
    let mut touched = Vec::new();
    spread(&mut touched, gate, size);
    let stack = sregs.ss.base.wrapping_add(regs.rsp);
    if !protected {
        spread(&mut touched, stack.wrapping_sub(FRAME), FRAME);
        return touched;
    }
    let mut descriptor = [0; 8];
    if read(ram, sregs, gate, &mut descriptor) {
        let [_, _, low, high, ..] = descriptor;
        let selector = u64::from(u16::from_le_bytes([low, high]));
        spread(&mut touched, sregs.gdt.base.wrapping_add(selector & !7), 8);
    }
    spread(&mut touched, sregs.tr.base, TSS);
    let mut tops = vec![stack];
    if long {
        let [_, _, _, _, ist, ..] = descriptor;
        let slot = match u64::from(ist & 7) {
            0 if sregs.ss.dpl == 3 => Some(RSP0),
            0 => None,
            ist => Some(IST1 + 8 * (ist - 1)),
        };
        let mut top = [0; 8];
        if let Some(slot) = slot
            && read(ram, sregs, sregs.tr.base.wrapping_add(slot), &mut top)
        {
            tops = vec![u64::from_le_bytes(top)];
        }
    } else {
        let mut top = [0; 4];
        if sregs.ss.dpl == 3 && read(ram, sregs, sregs.tr.base.wrapping_add(RSP0), &mut top) {
            tops = vec![u64::from(u32::from_le_bytes(top))];
        }
    }
    tops.into_iter().for_each(|top| spread(&mut touched, top.wrapping_sub(FRAME), FRAME));
    touched
}

/// Guest virtual addresses, one in each page that an instruction with operands of its own kind may touch (far transfers, `iret`, segment
/// loads): the stack on both sides of RSP, and all the tables.
#[must_use]
pub fn surroundings(regs: &kvm_regs, sregs: &kvm_sregs) -> Vec<u64> {
    let mut touched = Vec::new();
    let stack = if sregs.efer & 1 << 10 != 0 && sregs.cs.l != 0 { regs.rsp } else { sregs.ss.base.wrapping_add(regs.rsp) };
    spread(&mut touched, stack.wrapping_sub(FRAME), 2 * FRAME);
    spread(&mut touched, sregs.tr.base, TSS);
    for (base, limit) in [(sregs.gdt.base, sregs.gdt.limit), (sregs.idt.base, sregs.idt.limit)] {
        spread(&mut touched, base, u64::from(limit).min(PAGE - 1) + 1);
    }
    if sregs.ldt.unusable == 0 && sregs.ldt.selector & !3 != 0 {
        spread(&mut touched, sregs.ldt.base, u64::from(sregs.ldt.limit).min(PAGE - 1) + 1);
    }
    touched
}

/// One address for each page of `len` bytes, at most two.
fn spread(touched: &mut Vec<u64>, start: u64, len: u64) {
    let last = start.wrapping_add(len - 1);
    touched.push(start);
    if start / PAGE != last / PAGE {
        touched.push(last);
    }
}

/// Reads at a guest virtual address, over a page boundary too.
fn read(ram: &GuestMemoryMmap, sregs: &kvm_sregs, gva: u64, data: &mut [u8]) -> bool {
    data.iter_mut().zip(gva..).all(|(byte, gva)| {
        emulate::lookup(ram, sregs, gva).is_some_and(|gpa| ram.read_slice(std::slice::from_mut(byte), GuestAddress(gpa)).is_ok())
    })
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn the_vector_is_that_of_what_is_being_delivered() {
        let mut events = kvm_vcpu_events::default();
        assert_eq!(vector(&events), None);
        events.interrupt.injected = 1;
        events.interrupt.nr = 0x30;
        assert_eq!(vector(&events), Some(0x30));
        events.nmi.injected = 1;
        assert_eq!(vector(&events), Some(2));
    }

    #[test]
    fn real_mode_takes_its_table_and_its_stack() {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        let mut sregs = kvm_sregs::default();
        sregs.ss.base = 0x1000;
        let regs = kvm_regs { rsp: 0x1010, ..Default::default() };
        assert_eq!(touched(&ram, &regs, &sregs, 8), [0x20, 0x1fd0, 0x200f]);
    }
}
