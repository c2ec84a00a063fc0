//! Instructions that end in an exception, which must come out the same, with nothing half done.

use super::super::form::Form;
use super::super::form::reg::{RAX, RBX, RCX, RDI, RDX, RSI, RSP};
use super::super::layout::{A, B, R};
use iced_x86::code_asm::{byte_ptr, qword_ptr, r14, rax, rbx, rdx, xmm0, xmmword_ptr};

const ABOVE: u64 = B.gva() + 0x1000;

pub fn forms() -> Vec<Form> {
    let read_only = Form::new("read of read-only", |a| a.mov(rax, qword_ptr(rbx))).with(RBX, R.gva() + 0x20);
    let forms = vec![
        Form::new("#PF: mov m64 into the page that is missing", |a| a.mov(qword_ptr(r14 + 4), rdx)).quiet(),
        Form::new("#PF: mov r64 from the page that is missing", |a| a.mov(rax, qword_ptr(r14 + 4))).quiet(),
        // Nothing that reads before it writes, nor a vector across the edge: under software emulation the CPU itself tells of a read, or
        // stores the first half before it faults.
        Form::new("#PF: movups to the page that is missing", |a| a.movups(xmmword_ptr(r14 + 8), xmm0)).vectors().quiet(),
        Form::new("#PF: write to read-only", |a| a.mov(byte_ptr(rbx), 1)).with(RBX, R.gva() + 0x10).quiet(),
        Form::new("#PF: cmpxchg unequal on read-only", |a| a.lock().cmpxchg(qword_ptr(rbx), rdx)).with(RBX, R.gva() + 0x10).quiet(),
        Form::new("#PF: rep movsb runs into the missing page", |a| a.rep().movsb())
            .with(RSI, A.gva() + 0x100)
            .with(RDI, ABOVE - 50)
            .with(RCX, 80),
        Form::new("#PF: rep stosq runs into the missing page", |a| a.rep().stosq()).with(RDI, ABOVE - 100).with(RCX, 20),
        Form::new("#PF: rep movsb to read-only", |a| a.rep().movsb()).with(RDI, R.gva()).with(RCX, 9),
        Form::new("#PF: push below A", |a| a.push(rdx)).with(RSP, A.gva() + 4).quiet(),
        Form::new("#PF: pop m64 to a missing page", |a| a.pop(qword_ptr(rbx))).with(RBX, ABOVE),
        Form::new("#DE: div m64 by zero", |a| a.div(qword_ptr(rbx))).poke(0x100, &[0; 8]),
        Form::new("#DE: div m64 overflows", |a| a.div(qword_ptr(rbx))).with(RDX, u64::MAX).with(RAX, 1),
        Form::new("#GP: movaps misaligned", |a| a.movaps(xmm0, xmmword_ptr(rbx + 8))).vectors().quiet(),
        Form::new("#GP: push [not canonical]", |a| a.push(qword_ptr(rbx))).with(RBX, 0x8000_0000_0000_0000).quiet(),
    ];
    forms.into_iter().map(Form::faults).chain([read_only]).collect()
}
