//! SSE, AVX and x87.

use super::super::form::reg::{RAX, RDX};
use super::super::form::{Form, Needs, SSSE3, XSAVE};
use iced_x86::code_asm::{
    dword_ptr, eax, ptr, qword_ptr, r12, rax, rbp, rbx, st0, tbyte_ptr, word_ptr, xmm0, xmm1, xmm2, xmm3, xmm9, xmmword_ptr, ymm1, ymm2,
    ymm3, ymm4, ymm12, ymmword_ptr,
};

pub fn forms() -> Vec<Form> {
    [moves(), other(), avx(), x87()].concat()
}

/// Moves between memory and registers.
fn moves() -> Vec<Form> {
    vec![
        Form::new("movaps xmm, m128", |a| a.movaps(xmm1, xmmword_ptr(rbx))).vectors(),
        Form::new("movaps m128, xmm", |a| a.movaps(xmmword_ptr(rbx), xmm2)).vectors(),
        Form::new("movups xmm, m128 misaligned", |a| a.movups(xmm9, xmmword_ptr(rbp))).vectors(),
        Form::new("movups m128, xmm across pages", |a| a.movups(xmmword_ptr(r12), xmm3)).vectors(),
        Form::new("movdqa m128, xmm", |a| a.movdqa(xmmword_ptr(rbx), xmm1)).vectors(),
        Form::new("movdqu xmm, m128 across pages", |a| a.movdqu(xmm1, xmmword_ptr(r12))).vectors(),
        Form::new("movd xmm, m32", |a| a.movd(xmm1, dword_ptr(rbx))).vectors(),
        Form::new("movq m64, xmm", |a| a.movq(qword_ptr(rbx), xmm1)).vectors(),
        Form::new("movq xmm, m64", |a| a.movq(xmm1, qword_ptr(rbx))).vectors(),
        Form::new("movss xmm, m32", |a| a.movss(xmm1, dword_ptr(rbx))).vectors(),
        Form::new("movsd m64, xmm", |a| a.movsd_2(qword_ptr(rbx), xmm1)).vectors(),
        Form::new("movhps xmm, m64", |a| a.movhps(xmm1, qword_ptr(rbx))).vectors(),
        Form::new("movlpd m64, xmm", |a| a.movlpd(qword_ptr(rbx), xmm1)).vectors(),
        Form::new("movntdq m128, xmm", |a| a.movntdq(xmmword_ptr(rbx), xmm1)).vectors(),
        Form::new("movntps m128, xmm", |a| a.movntps(xmmword_ptr(rbx), xmm2)).vectors(),
    ]
}

/// Arithmetic with a memory operand.
fn other() -> Vec<Form> {
    vec![
        Form::new("paddd xmm, m128", |a| a.paddd(xmm1, xmmword_ptr(rbx))).vectors(),
        Form::new("pxor xmm, m128", |a| a.pxor(xmm1, xmmword_ptr(rbx))).vectors(),
        Form::new("pcmpeqb xmm, m128", |a| a.pcmpeqb(xmm2, xmmword_ptr(rbx))).vectors(),
        Form::new("pshufb xmm, m128", |a| a.pshufb(xmm1, xmmword_ptr(rbx))).vectors().needs(SSSE3),
        Form::new("cvtsi2sd xmm, m64", |a| a.cvtsi2sd(xmm1, qword_ptr(rbx))).vectors(),
        Form::new("cvttsd2si r64, m64", |a| a.cvttsd2si(rax, qword_ptr(rbx))).vectors().poke(0x100, &1234.5f64.to_le_bytes()),
        Form::new("addsd xmm, m64", |a| a.addsd(xmm0, qword_ptr(rbx))).vectors().poke(0x100, &2.5f64.to_le_bytes()),
        Form::new("ucomisd xmm, m64", |a| a.ucomisd(xmm0, qword_ptr(rbx))).vectors().poke(0x100, &2.5f64.to_le_bytes()),
        Form::new("pinsrw xmm, m16, imm", |a| a.pinsrw(xmm1, word_ptr(rbx), 3)).vectors(),
        Form::new("maskmovdqu", |a| {
            a.mov(rax, rbx)?;
            a.xchg(rax, iced_x86::code_asm::rdi)?;
            a.maskmovdqu(xmm1, xmm2)
        })
        .vectors(),
    ]
}

fn avx() -> Vec<Form> {
    let wide = |name, build| Form::new(name, build).wide(Needs::Avx);
    let wider = |name, build| Form::new(name, build).wide(Needs::Avx2);
    vec![
        wide("vmovups ymm, m256", |a| a.vmovups(ymm1, ymmword_ptr(rbx))),
        wide("vmovups m256, ymm", |a| a.vmovups(ymmword_ptr(rbx), ymm2)),
        wide("vmovdqa ymm, m256", |a| a.vmovdqa(ymm12, ymmword_ptr(rbx))),
        wide("vmovdqu m256, ymm across pages", |a| a.vmovdqu(ymmword_ptr(r12), ymm3)),
        wide("vmovdqu xmm, m128 zeroes the upper half", |a| a.vmovdqu(xmm3, xmmword_ptr(rbp))),
        wide("vmovd xmm, m32 zeroes the rest", |a| a.vmovd(xmm1, dword_ptr(rbx))),
        wide("movups xmm, m128 keeps the upper half", |a| a.movups(xmm1, xmmword_ptr(rbx))),
        wide("vmovntdq m256, ymm", |a| a.vmovntdq(ymmword_ptr(rbx), ymm4)),
        wide("vbroadcastss ymm, m32", |a| a.vbroadcastss(ymm1, dword_ptr(rbx))),
        wide("vmaskmovps m256, ymm, ymm", |a| a.vmaskmovps(ymmword_ptr(rbx), ymm1, ymm2)),
        wider("vpxor ymm, ymm, m256", |a| a.vpxor(ymm1, ymm2, ymmword_ptr(rbx))),
        wider("vpgatherdd xmm", |a| {
            a.vpcmpeqd(xmm3, xmm3, xmm3)?;
            a.vpxor(xmm2, xmm2, xmm2)?;
            a.vpgatherdd_3(xmm1, dword_ptr(rbx + xmm2 * 4), xmm3)
        }),
    ]
}

fn x87() -> Vec<Form> {
    vec![
        Form::new("fld m64", |a| a.fld(qword_ptr(rbx))).vectors().poke(0x100, &0.75f64.to_le_bytes()),
        Form::new("fld m80", |a| a.fld(tbyte_ptr(rbx))).vectors().poke(0x100, &[0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0x40]),
        Form::new("fstp m64", |a| a.fstp(qword_ptr(rbx))).vectors(),
        Form::new("fst m32", |a| a.fst(dword_ptr(rbx))).vectors(),
        Form::new("fild m32", |a| a.fild(dword_ptr(rbx))).vectors(),
        Form::new("fistp m32", |a| a.fistp(dword_ptr(rbx))).vectors(),
        Form::new("fadd m64", |a| {
            a.fadd(qword_ptr(rbx))?;
            a.fst(st0)
        })
        .vectors()
        .poke(0x100, &8.0f64.to_le_bytes()),
        Form::new("fnstcw m16", |a| a.fnstcw(word_ptr(rbx))).vectors(),
        Form::new("fldcw m16", |a| a.fldcw(word_ptr(rbx))).vectors().poke(0x100, &[0x7f, 0x02]),
        Form::new("fnstsw m16", |a| a.fnstsw(word_ptr(rbx))).vectors(),
        Form::new("ldmxcsr m32", |a| a.ldmxcsr(dword_ptr(rbx))).vectors().poke(0x100, &[0x80, 0x3f, 0, 0]),
        Form::new("stmxcsr m32", |a| a.stmxcsr(dword_ptr(rbx))).vectors(),
        Form::new("fxsave64", |a| {
            a.fxsave64(ptr(rbx))?;
            // The addresses of the last x87 instruction and operand differ from CPU to CPU.
            a.xor(eax, eax)?;
            a.mov(qword_ptr(rbx + 8), rax)?;
            a.mov(qword_ptr(rbx + 16), rax)
        })
        .vectors(),
        Form::new("xsave64", |a| {
            a.xsave64(ptr(rbx))?;
            a.xor(eax, eax)?;
            a.mov(qword_ptr(rbx + 8), rax)?;
            a.mov(qword_ptr(rbx + 16), rax)
        })
        .wide(XSAVE)
        .with(RAX, 7)
        .with(RDX, 0)
        .poke(0x300, &[0; 64]),
    ]
}
