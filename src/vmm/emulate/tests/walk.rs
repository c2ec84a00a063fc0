use super::machine::*;
use crate::emulate::*;
use vm_memory::{Bytes as _, GuestAddress};

const GVA: u64 = 0x7f12_3456_7000;
const HIGH: u64 = 0xffff_8880_1234_5000;

fn read() -> Access {
    Access::default()
}

fn write() -> Access {
    Access { write: true, ..read() }
}

fn user(access: Access) -> Access {
    Access { user: true, ..access }
}

fn fetch() -> Access {
    Access { fetch: true, ..read() }
}

fn code(result: Result<Translation, Stop>) -> u32 {
    match result {
        Err(Stop::Fault(fault)) => fault.code,
        other => panic!("{other:x?}"),
    }
}

fn at(cpu: &Cpu, space: &Space, gva: u64, access: Access) -> Result<Translation, Stop> {
    translate(&space.ram, &cpu.sregs, cpu.regs.rflags, gva, access)
}

#[test]
fn pages_of_all_sizes_in_four_and_five_levels() {
    for levels in [4, 5] {
        let mut space = Space::new();
        let mut cpu = Cpu::long(false);
        if levels == 5 {
            cpu.sregs.cr4 |= mode::CR4_LA57;
        }
        space.map_level(HIGH, 0x8_1000, W, 1, levels);
        space.map_level(0xffff_8881_0000_0000, 0x20_0000, W, 2, levels);
        space.map_level(0xffff_8890_4000_0000, 0x4000_0000, W, 3, levels);
        assert_eq!(at(&cpu, &space, HIGH + 0x123, write()).unwrap(), Translation { gpa: 0x8_1123, page_size: 4096 });
        let large = at(&cpu, &space, 0xffff_8881_0012_3456, write()).unwrap();
        assert_eq!(large, Translation { gpa: 0x32_3456, page_size: 2 << 20 });
        let huge = at(&cpu, &space, 0xffff_8890_5234_5678, write()).unwrap();
        assert_eq!(huge, Translation { gpa: 0x5234_5678, page_size: 1 << 30 });
        assert_eq!(lookup(&space.ram, &cpu.sregs, HIGH + 0x123), Some(0x8_1123));
        assert_eq!(lookup(&space.ram, &cpu.sregs, HIGH + 0x1000), None);
    }
}

#[test]
fn an_address_that_is_not_canonical_is_no_page_fault() {
    let space = Space::new();
    let mut cpu = Cpu::long(false);
    let address = 0x0100_0000_0000_0000 >> 4;
    assert_eq!(at(&cpu, &space, 0x8000_0000_0000, read()), Err(Stop::General));
    assert_eq!(at(&cpu, &space, address, read()), Err(Stop::General));
    cpu.sregs.cr4 |= mode::CR4_LA57;
    assert_eq!(code(at(&cpu, &space, 0x8000_0000_0000, read())), 0);
}

#[test]
fn accessed_and_dirty_bits_are_set_as_by_the_cpu() {
    let mut space = Space::new();
    let cpu = Cpu::long(true);
    let path = space.map(GVA, 0x8_0000, W | U);
    lookup(&space.ram, &cpu.sregs, GVA).unwrap();
    assert!(path.iter().all(|entry| space.entry(*entry) & (A | D) == 0), "a look changed the tables");
    at(&cpu, &space, GVA, user(read())).unwrap();
    assert!(path.iter().all(|entry| space.entry(*entry) & (A | D) == A));
    at(&cpu, &space, GVA, user(write())).unwrap();
    assert!(path[..3].iter().all(|entry| space.entry(*entry) & (A | D) == A));
    assert_eq!(space.entry(path[3]), 0x8_0000 | P | W | U | A | D);
    // A refused access leaves no dirty bit.
    space.map(GVA, 0x8_0000, U);
    assert_eq!(code(at(&cpu, &space, GVA, user(write()))), 7);
    assert_eq!(space.entry(path[3]), 0x8_0000 | P | U);
}

#[test]
fn rights_are_those_of_all_levels() {
    let mut space = Space::new();
    let cpu = Cpu::long(true);
    let path = space.map(GVA, 0x8_0000, W | U);
    for entry in &path {
        let whole = space.entry(*entry);
        space.set_entry(*entry, whole & !W);
        assert_eq!(code(at(&cpu, &space, GVA, user(write()))), 7);
        assert!(at(&cpu, &space, GVA, user(read())).is_ok());
        space.set_entry(*entry, whole & !U);
        assert_eq!(code(at(&cpu, &space, GVA, user(read()))), 5);
        space.set_entry(*entry, whole | NX);
        assert_eq!(code(at(&cpu, &space, GVA, user(fetch()))), 0x15);
        assert!(at(&cpu, &space, GVA, user(write())).is_ok());
        space.set_entry(*entry, whole & !P);
        assert_eq!(code(at(&cpu, &space, GVA, user(write()))), 6);
        assert_eq!(code(at(&cpu, &space, GVA, read())), 0);
        space.set_entry(*entry, whole);
    }
    assert!(at(&cpu, &space, GVA, user(write())).is_ok());
}

#[test]
fn the_supervisor_obeys_write_protection_smep_and_smap() {
    let mut space = Space::new();
    let mut cpu = Cpu::long(false);
    space.map(GVA, 0x8_0000, W | U);
    space.map(HIGH, 0x8_0000, 0);
    assert_eq!(code(at(&cpu, &space, HIGH, write())), 3);
    cpu.sregs.cr0 &= !mode::CR0_WP;
    assert!(at(&cpu, &space, HIGH, write()).is_ok());
    cpu.sregs.cr0 |= mode::CR0_WP;
    assert!(at(&cpu, &space, HIGH, fetch()).is_ok());
    assert_eq!(code(at(&cpu, &space, GVA, fetch())), 0x11);
    assert_eq!(code(at(&cpu, &space, GVA, read())), 1);
    // copy_to_user() sets AC; the CPU's own accesses do not profit from it.
    cpu.regs.rflags |= mode::RFLAGS_AC;
    assert!(at(&cpu, &space, GVA, write()).is_ok());
    let implicit = Access { implicit: true, user: true, ..read() };
    assert_eq!(code(at(&cpu, &space, GVA, implicit)), 1);
    assert!(at(&cpu, &space, HIGH, implicit).is_ok(), "an implicit access is the supervisor's");
    cpu.sregs.cr4 &= !(mode::CR4_SMAP | mode::CR4_SMEP);
    cpu.regs.rflags = 2;
    assert!(at(&cpu, &space, GVA, fetch()).is_ok());
    assert!(at(&cpu, &space, GVA, write()).is_ok());
}

#[test]
fn reserved_bits_fault() {
    let mut space = Space::new();
    let mut cpu = Cpu::long(false);
    let path = space.map(HIGH, 0x8_0000, W);
    let top = space.entry(path[0]);
    space.set_entry(path[0], top | PS);
    assert_eq!(code(at(&cpu, &space, HIGH, read())), 9);
    space.set_entry(path[0], top);
    let middle = space.entry(path[2]);
    space.set_entry(path[2], 0x20_2000 | P | W | PS);
    assert_eq!(code(at(&cpu, &space, HIGH, write())), 0xb);
    space.set_entry(path[2], middle);
    space.set_entry(path[3], 0x8_0000 | P | NX);
    assert!(at(&cpu, &space, HIGH, read()).is_ok());
    cpu.sregs.efer &= !mode::EFER_NXE;
    assert_eq!(code(at(&cpu, &space, HIGH, read())), 9);
}

#[test]
fn tables_outside_ram_are_told() {
    let mut space = Space::new();
    let cpu = Cpu::long(false);
    let path = space.map(HIGH, 0x8_0000, W);
    space.set_entry(path[1], 0xfee0_0000 | P | W);
    assert!(matches!(at(&cpu, &space, HIGH, read()), Err(Stop::TableOutside { gpa }) if gpa >> 12 == 0xfee00));
    assert_eq!(lookup(&space.ram, &cpu.sregs, HIGH), None);
}

#[test]
fn older_paging_modes() {
    let space = Space::new();
    let mut cpu = Cpu::long(false);
    cpu.sregs.efer = 0;
    // Off.
    cpu.sregs.cr0 = mode::CR0_PE;
    assert_eq!(at(&cpu, &space, 0x1_0012_3456, write()).unwrap().gpa, 0x12_3456);
    // 32-bit: directory at 0x1000, table at 0x2000, a 4 MiB page with address bits above 32.
    cpu.sregs.cr0 = mode::CR0_PE | mode::CR0_PG | mode::CR0_WP;
    cpu.sregs.cr4 = mode::CR4_PSE;
    let put = |gpa: u64, value: u32| space.ram.write_obj(value, GuestAddress(gpa)).unwrap();
    put(0x1000 + 4 * 0x300, 0x2000 | 3);
    put(0x2000 + 4 * 5, 0x8_0000 | 3);
    put(0x1000 + 4 * 0x301, 0x0040_0000 | 1 << 13 | 0x83);
    assert_eq!(at(&cpu, &space, 0xc000_5abc, write()).unwrap(), Translation { gpa: 0x8_0abc, page_size: 4096 });
    assert_eq!(at(&cpu, &space, 0xc041_2345, write()).unwrap(), Translation { gpa: 0x1_0041_2345, page_size: 4 << 20 });
    assert_eq!(space.ram.read_obj::<u32>(GuestAddress(0x2000 + 20)).unwrap(), 0x8_0000 | 0x63);
    assert_eq!(code(at(&cpu, &space, 0xc000_6000, write())), 2);
    // PAE: four entries at CR3, which is aligned to 32 bytes only.
    cpu.sregs.cr4 = mode::CR4_PAE;
    cpu.sregs.cr3 = 0x3020;
    space.set_entry(0x3020 + 8 * 3, 0x4000 | 1);
    space.set_entry(0x4000, 0x5000 | 3);
    space.set_entry(0x4008, 0x60_0000 | 0x83);
    space.set_entry(0x5000 + 8, 0x9_0000 | 3);
    assert_eq!(at(&cpu, &space, 0xc000_1fff, write()).unwrap(), Translation { gpa: 0x9_0fff, page_size: 4096 });
    assert_eq!(at(&cpu, &space, 0xc021_2345, write()).unwrap(), Translation { gpa: 0x61_2345, page_size: 2 << 20 });
    assert_eq!(space.entry(0x3020 + 8 * 3), 0x4001, "the top entries have no accessed bit");
}

#[test]
fn tagged_addresses_lose_their_tag() {
    let mut space = Space::new();
    let mut cpu = Cpu::long(true);
    cpu.sregs.cr3 |= mode::CR3_LAM_U57;
    space.map(GVA, 0x8_0000, W | U);
    let at = mode::linear(&cpu, mode::Mode::of(&cpu), iced_x86::Register::DS, GVA | 0x1e << 57, 8, true);
    assert_eq!(at, Ok(GVA));
    assert_eq!(at.and_then(|gva| translate(&space.ram, &cpu.sregs, 2, gva, user(write()))).unwrap().gpa, 0x8_0000);
    cpu.sregs.cr3 = ROOT;
    assert!(mode::linear(&cpu, mode::Mode::of(&cpu), iced_x86::Register::DS, GVA | 0x1e << 57, 8, true).is_err());
}
