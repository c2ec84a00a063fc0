//! What a trapped access costs here. Run with `--release -- --ignored --nocapture` for numbers that count.

use super::machine::*;
use crate::emulate::*;
use std::hint::black_box;
use std::time::Instant;

#[test]
#[ignore = "prints times"]
fn time_of_an_access() {
    const CODE: u64 = 0xffff_ffff_8100_0000;
    const DATA: u64 = 0xffff_8880_0000_0000;
    let mut space = Space::new();
    space.map(CODE, 0x4_0000, 0);
    space.map(DATA, 0x5_0000, W);
    space.map(DATA + 0x1000, 0x5_1000, W);
    let forms: [(&str, &[u8]); 7] = [
        ("mov rax, [rdi]", &[0x48, 0x8b, 0x07]),
        ("add [rdi], eax", &[0x01, 0x07]),
        ("lock inc dword [rdi]", &[0xf0, 0xff, 0x07]),
        ("movups xmm0, [rdi]", &[0x0f, 0x10, 0x07]),
        ("push rax", &[0x50]),
        ("rep movsb, a page", &[0xf3, 0xa4]),
        ("repe cmpsb, a page", &[0xf3, 0xa6]),
    ];
    for (name, code) in forms {
        space.write(0x4_0000, code);
        const ROUNDS: u32 = 100_000;
        let mut cpu = Cpu::long(false);
        let mut spent = [0u128; 3];
        for _ in 0..ROUNDS {
            cpu.regs = kvm_regs { rip: CODE, rdi: DATA, rsi: DATA + 0x1000, rsp: DATA + 0x100, rcx: 4096, rflags: 2, ..cpu.regs };
            let start = Instant::now();
            let insn = black_box(Insn::decode(black_box(&cpu), &space.ram).unwrap());
            let decoded = Instant::now();
            let prepared = black_box(insn.prepare(&cpu, &space.ram).unwrap());
            let ready = Instant::now();
            prepared.perform(&mut cpu, &space.ram, &mut Log::default()).unwrap();
            let done = Instant::now();
            for (sum, span) in spent.iter_mut().zip([decoded - start, ready - decoded, done - ready]) {
                *sum += span.as_nanos();
            }
        }
        let per = spent.map(|sum| sum / u128::from(ROUNDS));
        println!("{name}: decode {} ns, prepare {} ns, perform {} ns", per[0], per[1], per[2]);
    }
}
