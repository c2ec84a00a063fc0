//! Stack and control transfers.

use super::super::form::reg::{RBP, RBX, RSP};
use super::super::form::{CF, Form, ZF};
use super::super::layout::{A, B, GDT, IDT, IST, PAGE, THROUGH_GUARDED_TABLE, selector, vector};
use iced_x86::code_asm::{ax, byte_ptr, dword_ptr, eax, es, qword_ptr, r8, r12, r13, rax, rbx, rcx, rdx, rsp, word_ptr};

const A0: u64 = A.gva();

pub fn forms() -> Vec<Form> {
    vec![
        Form::new("push r64", |a| a.push(rdx)),
        Form::new("push r16", |a| a.push(ax)),
        Form::new("push imm", |a| a.push(-3)),
        Form::new("push m64", |a| a.push(qword_ptr(rbx))),
        Form::new("push [rsp]", |a| a.push(qword_ptr(rsp))),
        Form::new("push rsp", |a| a.push(rsp)),
        Form::new("push r64 across pages", |a| a.push(rdx)).with(RSP, A0 + 0x1004),
        Form::new("push r64 down to the next page", |a| a.push(rdx)).with(RSP, B.gva()),
        Form::new("pop r64", |a| a.pop(r8)),
        Form::new("pop m64", |a| a.pop(qword_ptr(rbx))),
        Form::new("pop [rsp + 8]", |a| a.pop(qword_ptr(rsp + 8))),
        Form::new("pop rsp", |a| a.pop(rsp)).poke(0xa00, &(A0 + 0xb00).to_le_bytes()),
        Form::new("pushfq", |a| a.pushfq()).flags(CF | ZF),
        Form::new("popfq", |a| a.popfq()).poke(0xa00, &0x4c1u64.to_le_bytes()),
        Form::new("call and ret", |a| {
            let mut target = a.create_label();
            let mut behind = a.create_label();
            a.call(target)?;
            a.mov(eax, 1)?;
            a.jmp(behind)?;
            a.set_label(&mut target)?;
            a.pop(r8)?;
            a.push(r8)?;
            a.ret()?;
            a.set_label(&mut behind)?;
            a.zero_bytes()?;
            a.nop()
        }),
        Form::new("call m64", |a| {
            let mut target = a.create_label();
            a.lea(rax, qword_ptr(target))?;
            a.mov(qword_ptr(rbx), rax)?;
            a.call(qword_ptr(rbx))?;
            a.set_label(&mut target)?;
            a.nop()
        }),
        Form::new("jmp m64", |a| {
            let mut target = a.create_label();
            a.lea(rax, qword_ptr(target))?;
            a.mov(qword_ptr(rbx), rax)?;
            a.jmp(qword_ptr(rbx))?;
            a.mov(eax, 7)?;
            a.set_label(&mut target)?;
            a.nop()
        }),
        Form::new("ret imm16", |a| {
            let mut target = a.create_label();
            a.lea(rax, qword_ptr(target))?;
            a.push(rax)?;
            a.ret_1(24)?;
            a.set_label(&mut target)?;
            a.nop()
        }),
        Form::new("leave", |a| a.leave()).with(RBP, A0 + 0x300),
        Form::new("enter", |a| a.enter(0x20, 0)),
        Form::new("enter nested", |a| a.enter(0x20, 2)).with(RBP, A0 + 0x380),
        Form::new("retf", |a| {
            let mut target = a.create_label();
            a.lea(rax, qword_ptr(target))?;
            a.push(i32::try_from(selector::CODE).unwrap_or(0))?;
            a.push(rax)?;
            a.retf()?;
            a.set_label(&mut target)?;
            a.nop()
        }),
        Form::new("iretq", |a| {
            let mut target = a.create_label();
            a.mov(rdx, rsp)?;
            a.lea(rax, qword_ptr(target))?;
            a.push(0x18)?;
            a.push(rdx)?;
            a.push(0x8c3)?;
            a.push(i32::try_from(selector::CODE).unwrap_or(0))?;
            a.push(rax)?;
            a.iretq()?;
            a.set_label(&mut target)?;
            a.nop()
        }),
        Form::new("int onto a guarded stack", |a| a.int(i32::try_from(vector::SAME_STACK).unwrap_or(0))).faults(),
        Form::new("int through a guarded table", |a| a.int(i32::try_from(vector::SAME_STACK).unwrap_or(0))).faults().also(IDT),
        Form::new("#UD with a guarded stack and table", |a| a.ud2()).faults().also(IST - PAGE).also(IDT),
        Form::new("mov es, r32 with a guarded table", |a| {
            a.mov(eax, 0x18)?;
            a.mov(es, eax)
        })
        .also(GDT),
        Form::new("retf with a guarded stack and table", |a| {
            let mut target = a.create_label();
            a.lea(rax, qword_ptr(target))?;
            a.push(i32::try_from(selector::CODE).unwrap_or(0))?;
            a.push(rax)?;
            a.retf()?;
            a.set_label(&mut target)?;
            a.nop()
        })
        .also(GDT),
        Form::new("code on a guarded page", |a| {
            a.add(rax, 3)?;
            a.lea(r8, qword_ptr(rbx + 1))
        })
        .guarded_code(),
        Form::new("code and data on guarded pages", |a| {
            a.mov(rax, qword_ptr(rbx))?;
            a.lock().inc(qword_ptr(rbx))?;
            a.push(rax)
        })
        .guarded_code(),
        Form::new("mov under a guarded page table", |a| {
            a.mov(rax, qword_ptr(rbx))?;
            a.mov(dword_ptr(rbx + 0x40), eax)
        })
        .with(RBX, THROUGH_GUARDED_TABLE + 0x100),
        Form::new("mov in user mode", |a| {
            a.mov(rax, qword_ptr(r13))?;
            a.mov(qword_ptr(r13 + 8), rdx)
        })
        .user(),
        Form::new("lock cmpxchg in user mode", |a| a.lock().cmpxchg(qword_ptr(r13), rdx)).user(),
        Form::new("push in user mode", |a| {
            a.lea(rsp, qword_ptr(r13 + 0x100))?;
            a.push(rdx)?;
            a.pop(rcx)
        })
        .user(),
        Form::new("user mode may not", |a| a.mov(rax, qword_ptr(r12 - 0x20))).user().quiet().faults(),
        Form::new("three accesses in a row", |a| {
            a.movzx(eax, byte_ptr(rbx))?;
            a.add(word_ptr(rbx + 2), ax)?;
            a.inc(dword_ptr(rbx + 4))
        }),
    ]
}
