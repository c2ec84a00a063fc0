//! What is found out about operands, what is refused, and what no comparison with the CPU can show.

use super::machine::*;
use crate::emulate::*;

const CODE: u64 = 0xffff_ffff_8100_0000;
const DATA: u64 = 0xffff_8880_0000_0000;
const USER: u64 = 0x7f00_0000_0000;
const CODE_GPA: u64 = 0x4_0000;
const DATA_GPA: u64 = 0x5_0000;

/// A kernel with two pages of data (and a hole behind them), a page of device memory and a page of user memory.
struct Guest {
    space: Space,
    cpu: Cpu,
}

impl Guest {
    fn new(code: &[u8]) -> Self {
        let mut space = Space::new();
        space.map(CODE, CODE_GPA, 0);
        space.map(CODE + 0x1000, CODE_GPA + 0x3000, 0);
        space.map(DATA, DATA_GPA, W);
        space.map(DATA + 0x1000, DATA_GPA + 0x7000, W);
        space.map(DATA + 0x10_0000, 0xfee0_0000, W);
        space.map(USER, DATA_GPA + 0x2000, W | U);
        let mut cpu = Cpu::long(false);
        cpu.regs.rip = CODE;
        space.write(CODE_GPA, code);
        Self { space, cpu }
    }

    fn prepare(&self) -> Result<Prepared, Stop> {
        Insn::decode(&self.cpu, &self.space.ram)?.prepare(&self.cpu, &self.space.ram)
    }

    fn run(&mut self) -> Log {
        let prepared = self.prepare().unwrap();
        assert!(prepared.can_emulate(), "{}", prepared.form());
        let mut bus = Log::default();
        prepared.perform(&mut self.cpu, &self.space.ram, &mut bus).unwrap();
        bus
    }
}

fn piece(gva: u64, gpa: u64, len: u32, access: &str) -> Piece {
    Piece { gva, gpa, len, read: access.contains('r'), write: access.contains('w'), ram: !access.contains('d') }
}

#[test]
fn an_operand_on_two_pages_is_two_pieces() {
    let mut guest = Guest::new(&[0x48, 0x01, 0x07]); // add [rdi], rax
    guest.cpu.regs.rdi = DATA + 0xffd;
    let prepared = guest.prepare().unwrap();
    let pieces = [piece(DATA + 0xffd, DATA_GPA + 0xffd, 3, "rw"), piece(DATA + 0x1000, DATA_GPA + 0x7000, 5, "rw")];
    assert_eq!(prepared.pieces(), pieces);
    assert_eq!((prepared.form().as_str(), prepared.length(), prepared.next_ip()), ("add m64, r64", 3, CODE + 3));
    assert!(prepared.complete() && prepared.can_emulate() && !prepared.touches_mmio() && !prepared.user());
    assert_eq!(prepared.code_pages(), [CODE_GPA]);
    assert_eq!(prepared.tables()[0], ROOT);
    // Four for the code, three more for the data.
    assert_eq!(prepared.tables().len(), 7);
}

#[test]
fn forms_have_names_and_keys() {
    let forms: [(&[u8], &str); 12] = [
        (&[0xf0, 0xff, 0x07], "lock inc m32"),
        (&[0xf3, 0xa4], "rep movsb m8, m8"),
        (&[0xf2, 0xae], "repne scasb r8, m8"),
        (&[0x48, 0x8b, 0x07], "mov r64, m64"),
        (&[0x88, 0x07], "mov m8, r8"),
        (&[0x81, 0x07, 1, 0, 0, 0], "add m32, imm"),
        (&[0xff, 0x17], "call m64"),
        (&[0xe8, 0, 0, 0, 0], "call rel"),
        (&[0xc3], "ret"),
        (&[0x55], "push r64"),
        (&[0x66, 0x0f, 0x6f, 0x07], "movdqa xmm, m128"),
        (&[0xc5, 0xfe, 0x7f, 0x07], "vmovdqu m256, ymm"),
    ];
    let mut keys = std::collections::BTreeSet::new();
    for (code, name) in forms {
        let mut guest = Guest::new(code);
        guest.cpu.regs = kvm_regs { rdi: DATA, rsi: DATA, rsp: DATA + 0x100, rcx: 1, ..guest.cpu.regs };
        let prepared = guest.prepare().unwrap();
        assert_eq!(prepared.form(), name);
        assert!(prepared.can_emulate(), "{name}");
        keys.insert(prepared.form_key());
    }
    assert_eq!(keys.len(), forms.len());
}

#[test]
fn an_instruction_on_two_pages_is_fetched_from_both() {
    let mut guest = Guest::new(&[]);
    guest.space.write(CODE_GPA + 0xfff, &[0x48]);
    guest.space.write(CODE_GPA + 0x3000, &[0x8b, 0x07]);
    guest.cpu.regs.rip = CODE + 0xfff;
    guest.cpu.regs.rdi = DATA;
    guest.space.write(DATA_GPA, &7u64.to_le_bytes());
    let insn = Insn::decode(&guest.cpu, &guest.space.ram).unwrap();
    assert_eq!(insn.code_pages(), [CODE_GPA, CODE_GPA + 0x3000]);
    assert_eq!(insn.bytes().to_string(), "48 8b 07");
    guest.run();
    assert_eq!((guest.cpu.regs.rax, guest.cpu.regs.rip), (7, CODE + 0x1002));
    // One that ends with the page does not look at the next, which may be missing.
    guest.space.write(CODE_GPA + 0x3ffd, &[0x48, 0x8b, 0x07]);
    guest.cpu.regs.rip = CODE + 0x1ffd;
    assert_eq!(Insn::decode(&guest.cpu, &guest.space.ram).unwrap().code_pages(), [CODE_GPA + 0x3000]);
    guest.cpu.regs.rip = CODE + 0x1ffe;
    let fault = PageFault { address: CODE + 0x2000, code: 0x10 };
    guest.space.write(CODE_GPA + 0x3ffe, &[0x48, 0x8b]);
    assert_eq!(Insn::decode(&guest.cpu, &guest.space.ram).unwrap_err(), Stop::Fault(fault));
    guest.space.write(CODE_GPA, &[0x06]);
    guest.cpu.regs.rip = CODE;
    assert!(matches!(Insn::decode(&guest.cpu, &guest.space.ram), Err(Stop::Undecodable(_))));
}

#[test]
fn exceptions_are_told() {
    let mut guest = Guest::new(&[0x48, 0x89, 0x07]); // mov [rdi], rax
    guest.cpu.regs.rdi = DATA + 0x1ffc;
    let fault = |address, code| Err(Stop::Fault(PageFault { address, code }));
    assert_eq!(guest.prepare().map(|_| ()), fault(DATA + 0x2000, 2));
    guest.cpu.regs.rdi = 0x8000_0000_0000;
    assert_eq!(guest.prepare().map(|_| ()), Err(Stop::General));
    guest.cpu.regs.rdi = 0x7fff_ffff_fffc;
    assert_eq!(guest.prepare().map(|_| ()), Err(Stop::General));
    // SMAP, and copy_to_user() with it lifted.
    guest.cpu.regs.rdi = USER;
    assert_eq!(guest.prepare().map(|_| ()), fault(USER, 3));
    guest.cpu.regs.rflags |= mode::RFLAGS_AC;
    assert!(guest.prepare().unwrap().can_emulate());
    let mut guest = Guest::new(&[0x50]); // push rax
    guest.cpu.regs.rsp = 0x8000_0000_0008;
    assert_eq!(guest.prepare().map(|_| ()), Err(Stop::Stack));
    let mut guest = Guest::new(&[0x0f, 0x28, 0x07]); // movaps xmm0, [rdi]
    guest.cpu.regs.rdi = DATA + 8;
    assert_eq!(guest.prepare().map(|_| ()), Err(Stop::General));
}

#[test]
fn user_code_is_user_code() {
    let mut guest = Guest::new(&[0x8b, 0x07]); // mov eax, [rdi]
    guest.cpu = Cpu { regs: guest.cpu.regs, ..Cpu::long(true) };
    guest.space.map(USER + 0x1000, CODE_GPA, U);
    guest.cpu.regs.rip = USER + 0x1000;
    guest.cpu.regs.rdi = USER;
    assert!(guest.prepare().unwrap().user());
    // Alignment checks are the CPU's.
    guest.cpu.regs.rflags |= mode::RFLAGS_AC;
    assert!(!guest.prepare().unwrap().can_emulate());
    guest.cpu.regs.rflags = 2;
    guest.cpu.regs.rdi = DATA;
    assert_eq!(guest.prepare().map(|_| ()), Err(Stop::Fault(PageFault { address: DATA, code: 5 })));
}

#[test]
fn what_must_be_left_to_the_cpu() {
    let refused = |code: &[u8], change: fn(&mut Cpu)| {
        let mut guest = Guest::new(code);
        guest.cpu.regs = kvm_regs { rdi: DATA + 0x40, rsp: DATA + 0x100, ..guest.cpu.regs };
        change(&mut guest.cpu);
        let prepared = guest.prepare().unwrap();
        let before = guest.cpu.regs;
        assert!(!prepared.can_emulate(), "{}", prepared.form());
        assert!(prepared.perform(&mut guest.cpu, &guest.space.ram, &mut Log::default()).is_err());
        assert_eq!(before, guest.cpu.regs);
    };
    refused(&[0x8b, 0x07], |cpu| cpu.regs.rflags |= mode::RFLAGS_TF);
    // Locked: misaligned, over two pages, on device memory.
    refused(&[0xf0, 0xff, 0x07], |cpu| cpu.regs.rdi += 1);
    refused(&[0xf0, 0xff, 0x07], |cpu| cpu.regs.rdi = DATA + 0xffe);
    refused(&[0x87, 0x07], |cpu| cpu.regs.rdi += 2);
    refused(&[0xf0, 0xff, 0x07], |cpu| cpu.regs.rdi = DATA + 0x10_0000);
    // Shadow stacks.
    refused(&[0xe8, 0, 0, 0, 0], |cpu| cpu.sregs.cr4 |= mode::CR4_CET);
    // Vector state that is switched off.
    refused(&[0x0f, 0x10, 0x07], |cpu| cpu.sregs.cr0 |= mode::CR0_TS);
    refused(&[0xc5, 0xf8, 0x10, 0x07], |cpu| cpu.sregs.cr4 &= !mode::CR4_OSXSAVE);
    refused(&[0x0f, 0x54, 0x07], |cpu| cpu.regs.rdi += 4);
    // Not known, or undefined.
    refused(&[0x48, 0xf7, 0x37], |_| ());
    refused(&[0x9d], |_| ());
    refused(&[0xf2, 0xa4], |cpu| cpu.regs = kvm_regs { rcx: 4, rsi: DATA, ..cpu.regs });
    refused(&[0x66, 0x90], |cpu| cpu.regs.rflags |= mode::RFLAGS_TF);
    // Compatibility mode.
    refused(&[0x8b, 0x03], |cpu| {
        cpu.sregs.efer = 0;
        cpu.sregs.cr0 &= !mode::CR0_PG;
        cpu.sregs.cs.l = 0;
        cpu.sregs.cs.db = 1;
        cpu.regs.rip = CODE_GPA;
        cpu.regs.rbx = DATA_GPA;
    });
}

#[test]
fn without_its_registers_a_vector_move_changes_nothing() {
    for code in [&[0x0f, 0x10, 0x07], &[0x0f, 0x11, 0x07]] {
        let mut guest = Guest::new(code);
        guest.cpu.regs.rdi = DATA + 0x10_0000;
        guest.cpu.no_vectors = true;
        let (before, mut bus) = (guest.cpu.regs, Log::default());
        let prepared = guest.prepare().unwrap();
        assert!(prepared.can_emulate());
        assert_eq!(prepared.perform(&mut guest.cpu, &guest.space.ram, &mut bus), Err(Unsupported));
        assert_eq!((guest.cpu.regs, bus), (before, Log::default()));
    }
}

#[test]
fn branches_that_fault_are_left_to_the_cpu() {
    let mut guest = Guest::new(&[0xc3]);
    guest.cpu.regs.rsp = DATA;
    guest.space.write(DATA_GPA, &(1u64 << 62).to_le_bytes());
    let prepared = guest.prepare().unwrap();
    let before = guest.cpu.regs;
    assert_eq!(prepared.perform(&mut guest.cpu, &guest.space.ram, &mut Log::default()), Err(Unsupported));
    assert_eq!(guest.cpu.regs, before);
    guest.space.write(DATA_GPA, &(CODE + 0x777).to_le_bytes());
    guest.run();
    assert_eq!((guest.cpu.regs.rip, guest.cpu.regs.rsp), (CODE + 0x777, DATA + 8));
}

#[test]
fn segment_bases_count() {
    let mut guest = Guest::new(&[0x65, 0x48, 0x8b, 0x04, 0x25, 8, 0, 0, 0]); // mov rax, gs:[8]
    guest.cpu.sregs.gs.base = DATA + 0x18;
    guest.space.write(DATA_GPA + 0x20, &0x1122u64.to_le_bytes());
    guest.run();
    assert_eq!(guest.cpu.regs.rax, 0x1122);
    // cmpxchg16b on per-CPU data, and movs from FS; ES has no base.
    let mut guest = Guest::new(&[0x64, 0xa4]);
    guest.cpu.sregs.fs.base = DATA;
    guest.cpu.sregs.es.base = 0x1000;
    guest.cpu.regs = kvm_regs { rsi: 3, rdi: DATA + 0x1000, ..guest.cpu.regs };
    let pieces = [piece(DATA + 3, DATA_GPA + 3, 1, "r"), piece(DATA + 0x1000, DATA_GPA + 0x7000, 1, "w")];
    assert_eq!(guest.prepare().unwrap().pieces(), pieces);
}

#[test]
fn resume_flag_is_cleared_only_when_finished() {
    let mut guest = Guest::new(&[0x8b, 0x07]);
    guest.cpu.regs.rdi = DATA;
    guest.cpu.regs.rflags |= mode::RFLAGS_RF;
    guest.run();
    assert_eq!(guest.cpu.regs.rflags, 0x202);
    let mut guest = Guest::new(&[0xf3, 0xaa]); // rep stosb
    guest.cpu.regs = kvm_regs { rdi: DATA + 0xffe, rcx: 5, rax: 0x77, ..guest.cpu.regs };
    guest.cpu.regs.rflags |= mode::RFLAGS_RF;
    guest.run();
    assert_eq!((guest.cpu.regs.rip, guest.cpu.regs.rcx, guest.cpu.regs.rflags), (CODE, 3, 0x1_0202));
    guest.run();
    assert_eq!((guest.cpu.regs.rip, guest.cpu.regs.rcx, guest.cpu.regs.rflags), (CODE + 2, 0, 0x202));
    assert_eq!(guest.space.read(DATA_GPA + 0x7000, 4), [0x77, 0x77, 0x77, 0]);
}

#[test]
fn a_run_ends_with_the_nearest_page() {
    let mut guest = Guest::new(&[0xf3, 0x48, 0xa5]); // rep movsq
    guest.cpu.regs = kvm_regs { rsi: DATA + 0x800, rdi: DATA + 0x1f00, rcx: 100, ..guest.cpu.regs };
    let pieces = [piece(DATA + 0x800, DATA_GPA + 0x800, 0x100, "r"), piece(DATA + 0x1f00, DATA_GPA + 0x7f00, 0x100, "w")];
    assert_eq!(guest.prepare().unwrap().pieces(), pieces);
    // Downwards, to the start of the page.
    guest.cpu.regs.rflags |= mode::RFLAGS_DF;
    guest.cpu.regs.rdi = DATA + 0x1008;
    let pieces = [piece(DATA + 0x7f8, DATA_GPA + 0x7f8, 16, "r"), piece(DATA + 0x1000, DATA_GPA + 0x7000, 16, "w")];
    assert_eq!(guest.prepare().unwrap().pieces(), pieces);
    guest.run();
    assert_eq!((guest.cpu.regs.rsi, guest.cpu.regs.rdi, guest.cpu.regs.rcx), (DATA + 0x7f0, DATA + 0xff8, 98));
    // Nothing left: no access at all.
    guest.cpu.regs.rcx = 0;
    assert!(guest.prepare().unwrap().pieces().is_empty());
}

#[test]
fn a_comparison_reads_no_further_than_its_end() {
    let mut guest = Guest::new(&[0xf3, 0xa6]); // repe cmpsb
    guest.cpu.regs = kvm_regs { rsi: DATA, rdi: DATA + 0x1000, rcx: 4096, ..guest.cpu.regs };
    guest.space.write(DATA_GPA + 9, &[1]);
    let pieces = [piece(DATA, DATA_GPA, 10, "r"), piece(DATA + 0x1000, DATA_GPA + 0x7000, 10, "r")];
    let prepared = guest.prepare().unwrap();
    assert_eq!(prepared.pieces(), pieces);
    // Another CPU makes them equal meanwhile: the instruction goes on from there.
    guest.space.write(DATA_GPA + 9, &[0]);
    prepared.perform(&mut guest.cpu, &guest.space.ram, &mut Log::default()).unwrap();
    assert_eq!((guest.cpu.regs.rip, guest.cpu.regs.rcx), (CODE, 4086));
}

#[test]
fn device_memory_goes_over_the_bus() {
    const DEVICE: u64 = DATA + 0x10_0000;
    let mut guest = Guest::new(&[0x8b, 0x07]); // mov eax, [rdi]
    guest.cpu.regs.rdi = DEVICE + 4;
    assert!(guest.prepare().unwrap().touches_mmio());
    assert_eq!(guest.run().0, [('r', 0xfee0_0004, vec![0x5a; 4])]);
    assert_eq!(guest.cpu.regs.rax, 0x5a5a_5a5a);
    // From RAM to the device, two at a time.
    let mut guest = Guest::new(&[0xf3, 0x66, 0xa5]);
    guest.cpu.regs = kvm_regs { rsi: DATA, rdi: DEVICE, rcx: 2, ..guest.cpu.regs };
    guest.space.write(DATA_GPA, &[1, 2, 3, 4]);
    assert_eq!(guest.prepare().unwrap().pieces()[1], piece(DEVICE, 0xfee0_0000, 4, "wd"));
    assert_eq!(guest.run().0, [('w', 0xfee0_0000, vec![1, 2]), ('w', 0xfee0_0002, vec![3, 4])]);
    // A vector goes in units the bus knows.
    let mut guest = Guest::new(&[0x0f, 0x11, 0x07]);
    guest.cpu.regs.rdi = DEVICE;
    let log = guest.run();
    assert_eq!(log.0.iter().map(|(_, gpa, data)| (*gpa, data.len())).collect::<Vec<_>>(), [(0xfee0_0000, 8), (0xfee0_0008, 8)]);
}

#[test]
fn operands_of_what_is_not_emulated_are_known() {
    let pieces = |code: &[u8]| {
        let mut guest = Guest::new(code);
        guest.cpu.regs = kvm_regs { rdi: DATA + 0x40, rsp: DATA + 0x100, rbp: DATA + 0x200, ..guest.cpu.regs };
        let prepared = guest.prepare().unwrap();
        assert!(!prepared.can_emulate());
        (prepared.pieces().to_vec(), prepared.complete())
    };
    let data = |len, access| vec![piece(DATA + 0x40, DATA_GPA + 0x40, len, access)];
    assert_eq!(pieces(&[0x48, 0xf7, 0x37]), (data(8, "r"), true), "div qword");
    assert_eq!(pieces(&[0x0f, 0xae, 0x07]).0, data(512, "w"), "fxsave");
    assert_eq!(
        pieces(&[0x66, 0x0f, 0xef, 0x07, 0x90][..0].iter().chain(&[0x0f, 0x58, 0x07]).copied().collect::<Vec<_>>()).0,
        data(16, "r")
    );
    assert_eq!(pieces(&[0x9d]), (vec![piece(DATA + 0x100, DATA_GPA + 0x100, 8, "r")], true), "popf");
    assert!(!pieces(&[0x48, 0xcf]).1, "iret reads descriptors");
    assert!(!pieces(&[0x0f, 0xc7, 0x27]).1, "the size of an XSAVE area is not known");
    assert!(!pieces(&[0x8e, 0x1f]).1, "a segment load reads a descriptor");
    let (lea, complete) = pieces(&[0x48, 0x8d, 0x07]);
    assert!(lea.is_empty() && complete);
}

#[test]
fn locked_updates_of_two_threads_are_all_kept() {
    const ROUNDS: u32 = 20_000;
    let forms: [&[u8]; 4] = [&[0xf0, 0xff, 0x07], &[0xf0, 0x0f, 0xc1, 0x07], &[0xf0, 0x83, 0x07, 1], &[0xf0, 0x48, 0xff, 0x07]];
    for code in forms {
        let guest = Guest::new(code);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut cpu = guest.cpu.clone();
                    for _ in 0..ROUNDS {
                        cpu.regs = kvm_regs { rip: CODE, rdi: DATA, rax: 1, ..cpu.regs };
                        let prepared = Insn::decode(&cpu, &guest.space.ram).unwrap().prepare(&cpu, &guest.space.ram).unwrap();
                        prepared.perform(&mut cpu, &guest.space.ram, &mut Log::default()).unwrap();
                    }
                });
            }
        });
        assert_eq!(guest.space.read(DATA_GPA, 4), (2 * ROUNDS).to_le_bytes());
    }
}
