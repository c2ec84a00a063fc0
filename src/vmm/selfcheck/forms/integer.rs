//! Moves, arithmetic and bit operations on general registers.

use crate::selfcheck::form::reg::{R8, RAX, RBX, RCX, RDX};
use crate::selfcheck::form::{CF, CX16, Form, MOVBE, Needs, POPCNT, SSE42, ZF};
use crate::selfcheck::layout::{A, DATA, HUGE, LARGE};
use iced_x86::code_asm::{
    ah, al, ax, bl, byte_ptr, ch, cl, cx, dl, dword_ptr, dx, eax, ebx, ecx, edx, qword_ptr, r8, r8b, r8d, r8w, r12, r14, rax, rbp, rbx,
    rcx, rdx, word_ptr, xmmword_ptr,
};

/// Offset of RBX's target in A.
const AT: u64 = 0x100;

fn le(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

/// Plain moves of all widths, alignments and ways to address, and exchanges.
pub fn moves() -> Vec<Form> {
    let large = LARGE + (A.gpa - DATA) + AT;
    let huge = HUGE + A.gpa + AT;
    vec![
        Form::new("mov r8, m8", |a| a.mov(al, byte_ptr(rbx))),
        Form::new("mov ah, m8", |a| a.mov(ah, byte_ptr(rbx + 1))),
        Form::new("mov r16, m16", |a| a.mov(ax, word_ptr(rbx))),
        Form::new("mov r32, m32 zeroes the upper half", |a| a.mov(eax, dword_ptr(rbx))),
        Form::new("mov r64, m64", |a| a.mov(rax, qword_ptr(rbx))),
        Form::new("mov r64, m64 misaligned", |a| a.mov(rax, qword_ptr(rbp))),
        Form::new("mov r64, m64 across pages", |a| a.mov(rax, qword_ptr(r12))),
        Form::new("mov r16, m16 across pages", |a| a.mov(ax, word_ptr(r12 + 3))),
        Form::new("mov r64, [base + index * 8 + disp]", |a| a.mov(r8, qword_ptr(rbx + rcx * 8 + 0x18))),
        Form::new("mov r64, [base - disp]", |a| a.mov(r8, qword_ptr(rbx - 0x40))),
        Form::new("mov r64, [ebx]", |a| a.mov(rax, qword_ptr(ebx))).with(RBX, 0xffff_ffff_0000_0000 | (A.gpa + AT)),
        Form::new("mov r64, gs:[disp]", |a| a.mov(rax, qword_ptr(rcx).gs())).with(RCX, 0x1100),
        Form::new("mov r64, m64 in a large page", |a| a.mov(rax, qword_ptr(rbx))).with(RBX, large),
        Form::new("mov m64, r64 in a large page", |a| a.mov(qword_ptr(rbx), rax)).with(RBX, large),
        Form::new("mov r64, m64 in a huge page", |a| a.mov(rax, qword_ptr(rbx))).with(RBX, huge).needs(Needs::HugePages),
        Form::new("mov m64, r64 in a huge page", |a| a.mov(qword_ptr(rbx), rax)).with(RBX, huge).needs(Needs::HugePages),
        Form::new("mov m8, r8", |a| a.mov(byte_ptr(rbx), cl)),
        Form::new("mov m8, ch", |a| a.mov(byte_ptr(rbx), ch)).with(RCX, 0x1234),
        Form::new("mov m16, r16", |a| a.mov(word_ptr(rbx), dx)),
        Form::new("mov m32, r32", |a| a.mov(dword_ptr(rbx), edx)),
        Form::new("mov m64, r64", |a| a.mov(qword_ptr(rbx), rdx)),
        Form::new("mov m64, r64 misaligned", |a| a.mov(qword_ptr(rbp), rdx)),
        Form::new("mov m64, r64 across pages", |a| a.mov(qword_ptr(r12), rdx)),
        Form::new("mov m32, r32 across pages", |a| a.mov(dword_ptr(r12 + 2), edx)),
        Form::new("mov m8, imm8", |a| a.mov(byte_ptr(rbx), 0x5a)),
        Form::new("mov m16, imm16", |a| a.mov(word_ptr(rbx), 0x5a5a)),
        Form::new("mov m32, imm32", |a| a.mov(dword_ptr(rbx), 0x1234_5678)),
        Form::new("mov m64, imm32 sign-extended", |a| a.mov(qword_ptr(rbx), -2)),
        Form::new("movzx r32, m8", |a| a.movzx(eax, byte_ptr(rbx))),
        Form::new("movzx r64, m16", |a| a.movzx(rax, word_ptr(rbx))),
        Form::new("movzx r16, m8", |a| a.movzx(ax, byte_ptr(rbx))),
        Form::new("movsx r32, m8", |a| a.movsx(eax, byte_ptr(rbx))).poke(AT, &[0x80]),
        Form::new("movsx r64, m16", |a| a.movsx(rax, word_ptr(rbx))).poke(AT, &[1, 0x90]),
        Form::new("movsxd r64, m32", |a| a.movsxd(rax, dword_ptr(rbx))).poke(AT, &[1, 2, 3, 0xf0]),
        Form::new("movbe r64, m64", |a| a.movbe(rax, qword_ptr(rbx))).needs(MOVBE),
        Form::new("movbe m32, r32", |a| a.movbe(dword_ptr(rbx), edx)).needs(MOVBE),
        Form::new("movnti m64, r64", |a| a.movnti(qword_ptr(rbx), rdx)),
        Form::new("xchg m8, r8", |a| a.xchg(byte_ptr(rbx), al)),
        Form::new("xchg m16, r16", |a| a.xchg(word_ptr(rbx), ax)),
        Form::new("xchg m32, r32", |a| a.xchg(dword_ptr(rbx), eax)),
        Form::new("xchg m64, r64", |a| a.xchg(qword_ptr(rbx), rax)),
        Form::new("xchg m64, r64 misaligned", |a| a.xchg(qword_ptr(rbp), rax)),
        Form::new("xadd m8, r8", |a| a.xadd(byte_ptr(rbx), al)),
        Form::new("lock xadd m32, r32", |a| a.lock().xadd(dword_ptr(rbx), eax)),
        Form::new("lock xadd m64, r64", |a| a.lock().xadd(qword_ptr(rbx), rax)),
        Form::new("cmpxchg m32, r32 unequal", |a| a.cmpxchg(dword_ptr(rbx), edx)),
        Form::new("cmpxchg m64, r64 equal", |a| a.cmpxchg(qword_ptr(rbx), rdx)).poke(AT, &le(7)).with(RAX, 7),
        Form::new("cmpxchg m8, r8 equal", |a| a.cmpxchg(byte_ptr(rbx), dl)).poke(AT, &[9]).with(RAX, 0x109),
        Form::new("lock cmpxchg m64, r64 equal", |a| a.lock().cmpxchg(qword_ptr(rbx), rdx)).poke(AT, &le(7)).with(RAX, 7),
        Form::new("lock cmpxchg m64, r64 unequal", |a| a.lock().cmpxchg(qword_ptr(rbx), rdx)),
        Form::new("lock cmpxchg m32, r32 equal, upper half of rax", |a| a.lock().cmpxchg(dword_ptr(rbx), edx))
            .poke(AT, &le(7))
            .with(RAX, 0xffff_ffff_0000_0007),
        Form::new("lock cmpxchg m64, r64 misaligned", |a| a.lock().cmpxchg(qword_ptr(rbp), rdx)).loose_flags(),
        Form::new("lock cmpxchg8b equal", |a| a.lock().cmpxchg8b(qword_ptr(rbx)))
            .poke(AT, &le(0x0000_0002_0000_0001))
            .with(RAX, 1)
            .with(RDX, 2),
        Form::new("lock cmpxchg8b unequal", |a| a.lock().cmpxchg8b(qword_ptr(rbx))),
        Form::new("lock cmpxchg16b equal", |a| a.lock().cmpxchg16b(xmmword_ptr(rbx)))
            .poke(AT, &[le(1), le(2)].concat())
            .with(RAX, 1)
            .with(RDX, 2)
            .needs(CX16),
        Form::new("lock cmpxchg16b unequal", |a| a.lock().cmpxchg16b(xmmword_ptr(rbx))).needs(CX16),
        Form::new("cmove r64, m64 taken", |a| a.cmove(rax, qword_ptr(rbx))).flags(ZF),
        Form::new("cmove r32, m32 not taken", |a| a.cmove(eax, dword_ptr(rbx))),
        Form::new("sete m8", |a| a.sete(byte_ptr(rbx))).flags(ZF),
        Form::new("setb m8", |a| a.setb(byte_ptr(rbx))),
    ]
}

/// Arithmetic and logic.
pub fn arithmetic() -> Vec<Form> {
    vec![
        Form::new("add m64, r64", |a| a.add(qword_ptr(rbx), rdx)),
        Form::new("add r32, m32", |a| a.add(eax, dword_ptr(rbx))),
        Form::new("add m8, imm8 overflows", |a| a.add(byte_ptr(rbx), 1)).poke(AT, &[0x7f]),
        Form::new("add m64, r64 across pages", |a| a.add(qword_ptr(r12), rdx)),
        Form::new("lock add m32, imm8", |a| a.lock().add(dword_ptr(rbx), 5)),
        Form::new("lock add m64, r64 misaligned", |a| a.lock().add(qword_ptr(rbp), rdx)).loose_flags(),
        Form::new("adc m64, r64 with carry", |a| a.adc(qword_ptr(rbx), rdx)).flags(CF),
        Form::new("adc r16, m16", |a| a.adc(ax, word_ptr(rbx))).flags(CF),
        Form::new("lock adc m32, r32", |a| a.lock().adc(dword_ptr(rbx), eax)).flags(CF),
        Form::new("sbb m32, imm8", |a| a.sbb(dword_ptr(rbx), 3)).flags(CF),
        Form::new("sbb r64, m64", |a| a.sbb(rax, qword_ptr(rbx))).flags(CF),
        Form::new("sub m16, r16", |a| a.sub(word_ptr(rbx), dx)),
        Form::new("sub r64, m64", |a| a.sub(rax, qword_ptr(rbx))),
        Form::new("lock sub m64, imm32", |a| a.lock().sub(qword_ptr(rbx), 0x1000)),
        Form::new("and r64, m64", |a| a.and(rax, qword_ptr(rbx))),
        Form::new("and m32, imm32", |a| a.and(dword_ptr(rbx), 0x00ff_00ff)),
        Form::new("lock and m8, imm8", |a| a.lock().and(byte_ptr(rbx), 0x7f)),
        Form::new("or m64, r64", |a| a.or(qword_ptr(rbx), rdx)),
        Form::new("lock or m8, imm8", |a| a.lock().or(byte_ptr(rbx), 1)),
        Form::new("or r16, m16", |a| a.or(ax, word_ptr(rbx))),
        Form::new("xor m8, r8", |a| a.xor(byte_ptr(rbx), al)),
        Form::new("xor r32, m32", |a| a.xor(eax, dword_ptr(rbx))),
        Form::new("cmp m64, r64", |a| a.cmp(qword_ptr(rbx), rdx)),
        Form::new("cmp r8, m8", |a| a.cmp(r8b, byte_ptr(rbx))),
        Form::new("cmp m32, imm8", |a| a.cmp(dword_ptr(rbx), -1)),
        Form::new("cmp m16, imm16", |a| a.cmp(word_ptr(rbx), 0x1234)),
        Form::new("test m64, r64", |a| a.test(qword_ptr(rbx), rdx)),
        Form::new("test m8, imm8", |a| a.test(byte_ptr(rbx), 0x81)),
        Form::new("test m32, imm32", |a| a.test(dword_ptr(rbx), 0x8000_0001u32)),
        Form::new("inc m32 keeps carry", |a| a.inc(dword_ptr(rbx))).flags(CF),
        Form::new("lock inc m64", |a| a.lock().inc(qword_ptr(rbx))),
        Form::new("lock dec m32 to zero", |a| a.lock().dec(dword_ptr(rbx))).poke(AT, &[1, 0, 0, 0]),
        Form::new("dec m8", |a| a.dec(byte_ptr(rbx))),
        Form::new("neg m64", |a| a.neg(qword_ptr(rbx))),
        Form::new("lock neg m16", |a| a.lock().neg(word_ptr(rbx))),
        Form::new("not m64", |a| a.not(qword_ptr(rbx))),
        Form::new("lock not m8", |a| a.lock().not(byte_ptr(rbx))),
        Form::new("imul r64, m64", |a| a.imul_2(rax, qword_ptr(rbx))),
        Form::new("imul r32, m32, imm", |a| a.imul_3(eax, dword_ptr(rbx), 77)),
        Form::new("mul m64", |a| a.mul(qword_ptr(rbx))),
        Form::new("imul m32", |a| a.imul(dword_ptr(rbx))),
        Form::new("div m64", |a| a.div(qword_ptr(rbx))).with(RDX, 1),
        Form::new("idiv m32", |a| a.idiv(dword_ptr(rbx))).with(RDX, 0).with(RAX, 1 << 20).poke(AT, &[17, 0, 0, 0]),
        Form::new("div m8", |a| a.div(byte_ptr(rbx))).with(RAX, 0x20).poke(AT, &[3]),
    ]
}

/// Shifts and bits.
pub fn bits() -> Vec<Form> {
    vec![
        Form::new("shl m64, imm", |a| a.shl(qword_ptr(rbx), 7)),
        Form::new("shl m32, 1", |a| a.shl(dword_ptr(rbx), 1)),
        Form::new("shr m8, cl", |a| a.shr(byte_ptr(rbx), cl)),
        Form::new("shr m64, cl by nothing", |a| a.shr(qword_ptr(rbx), cl)).with(RCX, 64).flags(CF | ZF),
        Form::new("sar m16, imm", |a| a.sar(word_ptr(rbx), 3)),
        Form::new("rol m64, imm", |a| a.rol(qword_ptr(rbx), 13)),
        Form::new("ror m32, cl", |a| a.ror(dword_ptr(rbx), cl)),
        Form::new("rcl m32, 1", |a| a.rcl(dword_ptr(rbx), 1)).flags(CF),
        Form::new("rcr m64, cl", |a| a.rcr(qword_ptr(rbx), cl)).flags(CF),
        Form::new("shld m64, r64, imm", |a| a.shld(qword_ptr(rbx), rdx, 11)),
        Form::new("shrd m32, r32, cl", |a| a.shrd(dword_ptr(rbx), edx, cl)),
        Form::new("bt m32, imm", |a| a.bt(dword_ptr(rbx), 5)),
        Form::new("bt m64, r64 far away", |a| a.bt(qword_ptr(rbx), rcx)).with(RCX, 0x800),
        Form::new("bts m64, r64 negative", |a| a.bts(qword_ptr(rbx), r8)).with(R8, 0u64.wrapping_sub(100)),
        Form::new("bts m32, imm", |a| a.bts(dword_ptr(rbx), 31)),
        Form::new("lock bts m64, r64", |a| a.lock().bts(qword_ptr(rbx), rcx)),
        Form::new("lock btr m64, imm", |a| a.lock().btr(qword_ptr(rbx), 3)),
        Form::new("btr m16, r16", |a| a.btr(word_ptr(rbx), cx)),
        Form::new("btc m32, r32", |a| a.btc(dword_ptr(rbx), ecx)),
        Form::new("lock btc m32, imm", |a| a.lock().btc(dword_ptr(rbx), 9)),
        Form::new("bsf r64, m64", |a| a.bsf(rax, qword_ptr(rbx))),
        Form::new("bsr r32, m32", |a| a.bsr(eax, dword_ptr(rbx))),
        Form::new("popcnt r64, m64", |a| a.popcnt(rax, qword_ptr(rbx))).needs(POPCNT),
        Form::new("crc32 r32, m8", |a| a.crc32(eax, byte_ptr(rbx))).needs(SSE42),
        Form::new("lea r64, m", |a| a.lea(rax, qword_ptr(rbx + 0x18))).quiet(),
        Form::new("xlatb", |a| a.xlatb()).with(RAX, 0x21),
        Form::new("mov r64, m64 at the end of a page", |a| a.mov(r8, qword_ptr(r14))),
        Form::new("mov, add and mov in a row", |a| {
            a.mov(r8w, word_ptr(rbx))?;
            a.add(r8d, dword_ptr(rbx + 4))?;
            a.mov(byte_ptr(rbx + 9), bl)
        }),
    ]
}
