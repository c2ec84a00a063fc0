//! What only kernels do.

use super::super::form::Form;
use super::super::form::reg::RAX;
use iced_x86::code_asm::{byte_ptr, ds, eax, es, ptr, qword_ptr, rax, rbx, ss, word_ptr};

pub fn forms() -> Vec<Form> {
    vec![
        Form::new("sgdt", |a| a.sgdt(ptr(rbx))),
        Form::new("sidt", |a| a.sidt(ptr(rbx))),
        Form::new("smsw m16", |a| a.smsw(word_ptr(rbx))),
        Form::new("sldt m16", |a| a.sldt(word_ptr(rbx))),
        Form::new("str m16", |a| a.str(word_ptr(rbx))),
        Form::new("mov m16, ds", |a| a.mov(word_ptr(rbx), ds)).with(RAX, 0),
        Form::new("mov es, m16", |a| a.mov(es, word_ptr(rbx))).poke(0x100, &[0x18, 0]),
        Form::new("lgdt", |a| {
            a.sgdt(ptr(rbx))?;
            a.lgdt(ptr(rbx))
        }),
        Form::new("verw m16", |a| a.verw(word_ptr(rbx))).poke(0x100, &[0x18, 0]),
        Form::new("lar r32, m16", |a| a.lar(eax, word_ptr(rbx))).poke(0x100, &[0x18, 0]),
        Form::new("prefetcht0", |a| a.prefetcht0(byte_ptr(rbx))).quiet(),
        Form::new("nop m", |a| a.nop_1(word_ptr(rbx))).quiet(),
        Form::new("invlpg", |a| {
            a.invlpg(byte_ptr(rbx))?;
            a.mov(rax, qword_ptr(rbx))
        }),
        Form::new("clflush", |a| {
            a.clflush(byte_ptr(rbx))?;
            a.mov(rax, qword_ptr(rbx))
        }),
        Form::new("mov r64, m64 behind mov ss", |a| {
            a.mov(eax, 0x18)?;
            a.mov(ss, eax)?;
            a.mov(rax, qword_ptr(rbx))
        }),
        Form::new("mov r64, m64 behind sti", |a| {
            a.sti()?;
            a.mov(rax, qword_ptr(rbx))?;
            a.cli()
        }),
    ]
}
