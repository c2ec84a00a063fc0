use super::*;
use dmavet_coherence::{Bdf, Requester};

const ROOT: u64 = 0x1000;
const STACK: u64 = 0xffff_c900_0001_0000;
const TEXT: u64 = 0xffff_ffff_c000_0000;

/// RAM with page tables that map two pages of stack, far apart, and one of code.
fn memory() -> (GuestMemoryMmap, kvm_sregs) {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let mut free = ROOT + 0x1000;
    for (gva, gpa) in [(STACK, 0x4_0000u64), (STACK + PAGE, 0x8_0000), (TEXT, 0xc_0000)] {
        let mut table = ROOT;
        for shift in [39, 30, 21, 12] {
            let at = GuestAddress(table + (gva >> shift & 511) * 8);
            if shift == 12 {
                ram.write_obj(gpa | 3, at).unwrap();
            } else {
                let mut next: u64 = ram.read_obj(at).unwrap();
                if next == 0 {
                    next = free | 3;
                    free += 0x1000;
                    ram.write_obj(next, at).unwrap();
                }
                table = next & !0xfff;
            }
        }
    }
    (ram, kvm_sregs { cr0: 0x8005_0033, cr3: ROOT, cr4: 0x20, efer: 0xd01, ..Default::default() })
}

fn code() -> GuestCode {
    let code = GuestCode::new("/nonexistent/vmlinux".into(), Vec::new());
    let layout = ModuleLayout { text_base: TEXT, text_size: 0x1000, ..Default::default() };
    code.agent(&AgentEvent::Module { name: "a_module".into(), state: ModuleState::Loaded(layout) });
    let bound = |driver: &str, module: &str| {
        let requester = Requester::Pci(Bdf::new(0, 2, 0));
        code.agent(&AgentEvent::Bound { requester, driver: driver.into(), module: module.into() });
    };
    bound("a driver", "a_module");
    bound("built in", "");
    code
}

#[test]
fn guest_memory_is_read_across_pages_and_only_where_there_is_some() {
    let (ram, sregs) = memory();
    ram.write_slice(b"abcd", GuestAddress(0x4_0ffc)).unwrap();
    ram.write_slice(b"efgh", GuestAddress(0x8_0000)).unwrap();
    let mut reader = Reader { view: GuestView { sregs: &sregs, ram: &ram }, pages: Vec::new() };
    let mut data = [0; 8];
    assert!(reader.read(STACK + 0xffc, &mut data));
    assert_eq!(&data, b"abcdefgh");
    assert!(reader.read(STACK + 0xffc, &mut data));
    for nowhere in [STACK - 4, STACK + 0x1ffc, 0, u64::MAX - 3] {
        assert!(!reader.read(nowhere, &mut data), "{nowhere:#x}");
    }
    for page in 0..100 {
        reader.read(page * PAGE, &mut data);
    }
    assert!(reader.pages.len() <= Reader::MAX);
}

#[test]
fn without_the_kernels_tables_callers_are_guesses_and_it_is_said() {
    let (ram, sregs) = memory();
    let code = code();
    ram.write_obj(TEXT + 0x105, GuestAddress(0x4_0010)).unwrap();
    ram.write_slice(&[0xe8, 0, 0, 0, 0], GuestAddress(0xc_0100)).unwrap();
    let regs = kvm_regs { rip: TEXT + 0x20, rsp: STACK, ..Default::default() };
    let mut witness = CpuWitness::new(regs, Some(GuestView { sregs: &sregs, ram: &ram }), &code);
    let guess = Frame { reliable: false, ..Frame::new(TEXT + 0x105, String::new()) };
    assert_eq!(witness.stack(), [Frame::at(TEXT + 0x20, String::new()), guess]);
    assert_eq!(witness.allocator(), None);
    let stats = code.stats();
    assert_eq!((stats.stacks, stats.frames, stats.guesses), (1, 2, 1));
    assert!(stats.trouble.unwrap().contains("/nonexistent/vmlinux"));
}

#[test]
fn an_access_is_a_drivers_when_its_module_is_on_the_stack_for_sure() {
    let (ram, sregs) = memory();
    let code = code();
    let view = GuestView { sregs: &sregs, ram: &ram };
    let ask =
        |rip: u64, driver: &str| CpuWitness::new(kvm_regs { rip, rsp: STACK, ..Default::default() }, Some(view), &code).in_driver(driver);
    assert!(ask(TEXT, "a driver") && ask(TEXT + 0xfff, "a driver"));
    assert!(!ask(TEXT + 0x1000, "a driver") && !ask(TEXT, "built in") && !ask(TEXT, "another") && !ask(0x40_0000, "a driver"));
    // A guess is no evidence.
    ram.write_obj(TEXT + 0x105, GuestAddress(0x4_0010)).unwrap();
    ram.write_slice(&[0xe8, 0, 0, 0, 0], GuestAddress(0xc_0100)).unwrap();
    assert!(!ask(0xffff_ffff_8100_0000, "a driver"));
    let generation = code.generation();
    code.agent(&AgentEvent::Module { name: "a_module".into(), state: ModuleState::Going });
    assert!(!ask(TEXT, "a driver"));
    assert_ne!(code.generation(), generation);
}

#[test]
fn a_cpu_without_memory_has_one_frame() {
    let code = code();
    let mut witness = CpuWitness::new(kvm_regs { rip: TEXT, rsp: STACK, ..Default::default() }, None, &code);
    assert_eq!(witness.stack(), [Frame::at(TEXT, String::new())]);
    assert_eq!(code.frame_behind(TEXT + 5), Frame::new(TEXT + 5, String::new()));
}
