//! The self-check's guest: page tables, descriptor tables and the driver that runs one form after another.

use super::layout::{
    CODE, DATA, GDT, GUARDED_TABLE, IDT, IST, MAILBOX, P, PAGE, PLACES, STACK, TABLES, TSS, WINDOW, WINDOW_SLOT, mailbox as m, port,
    selector, vector,
};
use crate::layout::boot;
use iced_x86::code_asm::{
    AsmRegister64, AsmRegisterYmm, CodeAssembler, CodeLabel, al, byte_ptr, cr0, cr2, cr4, dword_ptr, eax, ebx, ecx, edx, ptr, qword_ptr,
    r8, r9, r10, r11, r12, r13, r14, r15, rax, rbp, rbx, rcx, rdi, rdx, rsi, rsp, ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8,
    ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15, ymmword_ptr,
};
use iced_x86::{BlockEncoderOptions, IcedError};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Vectors with a descriptor.
const VECTORS: u64 = 0x32;
/// Exceptions that push an error code (SDM volume 3, table 6-1): 8, 10 to 14, 17, 21.
const WITH_CODE: u64 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;

const MSR_GS_BASE: u32 = 0xc000_0101;

const CR0_MP_NE_WP: i32 = 1 << 1 | 1 << 5 | 1 << 16;
const CR0_EM_TS: i32 = 1 << 2 | 1 << 3;
const CR4_FX: i32 = 1 << 9 | 1 << 10;
const CR4_OSXSAVE: i32 = 1 << 18;
/// CPUID leaf 1 ECX: XSAVE and AVX.
const CPUID_XSAVE_AVX: i32 = 1 << 26 | 1 << 28;

const GPRS: [AsmRegister64; 16] = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
const YMMS: [AsmRegisterYmm; 16] = [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15];
const R15: usize = 15;
const RSP: usize = 4;

/// The driver, assembled.
#[derive(Debug)]
pub struct Driver {
    code: Vec<u8>,
    /// Where a form ends up.
    pub save: u64,
    stubs: Vec<u64>,
}

fn field(offset: u64) -> iced_x86::code_asm::AsmMemoryOperand {
    r15 + i32::try_from(offset).unwrap_or(0)
}

fn slot(base: u64, index: usize, size: u64) -> u64 {
    base + index as u64 * size
}

impl Driver {
    /// Assembles it.
    ///
    /// # Errors
    /// Never: the program does not change.
    pub fn new() -> Result<Self, IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let (mut next, mut save, mut saved, mut caught) = (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        start(&mut a)?;
        a.set_label(&mut next)?;
        load(&mut a)?;
        a.set_label(&mut save)?;
        for (index, register) in GPRS.iter().enumerate().filter(|(index, _)| *index != R15) {
            a.mov(qword_ptr(field(slot(m::OUT, index, 8))), *register)?;
        }
        a.mov(rsp, STACK)?;
        a.pushfq()?;
        a.pop(qword_ptr(field(m::OUT_FLAGS)))?;
        a.set_label(&mut saved)?;
        finish(&mut a, next)?;
        let mut stubs = Vec::new();
        for number in 0..VECTORS {
            let mut stub = a.create_label();
            a.set_label(&mut stub)?;
            if number >= 32 || WITH_CODE >> number & 1 == 0 {
                a.push(0)?;
            }
            a.push(i32::try_from(number).unwrap_or(0))?;
            a.jmp(caught)?;
            stubs.push(stub);
        }
        a.set_label(&mut caught)?;
        catch(&mut a, saved)?;
        let result = a.assemble_options(CODE, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let stubs = stubs.iter().map(|stub| result.label_ip(stub)).collect::<Result<_, _>>()?;
        Ok(Self { save: result.label_ip(&save)?, stubs, code: result.inner.code_buffer })
    }

    /// Writes the driver and all tables into guest RAM.
    ///
    /// # Errors
    /// When it is too small.
    pub fn write(&self, ram: &GuestMemoryMmap) -> Result<(), vm_memory::GuestMemoryError> {
        ram.write_slice(&self.code, GuestAddress(CODE))?;
        let quads = |at: u64, values: &[u64]| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            ram.write_slice(&bytes, GuestAddress(at))
        };
        // Null, unused, code, data, user data, user code.
        quads(GDT, &[0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff])?;
        ram.write_slice(&IST.to_le_bytes(), GuestAddress(TSS + 4))?;
        ram.write_slice(&IST.to_le_bytes(), GuestAddress(TSS + 36))?;
        for (number, stub) in (0u64..).zip(&self.stubs) {
            quads(IDT + number * 16, &gate(number, *stub))?;
        }
        quads(boot::PAGE_TABLES + WINDOW_SLOT * 8, &[TABLES | 7])?;
        let table = |n: u64| TABLES + n * PAGE;
        quads(table(0), &[table(1) | 7, 0x83])?;
        quads(table(1), &[table(2) | 7, DATA | 0x83, GUARDED_TABLE | 7])?;
        for place in PLACES {
            quads(table(2) + place.slot * 8, &[place.gpa | place.flags])?;
        }
        quads(GUARDED_TABLE, &[P.gpa | 3])?;
        Ok(())
    }
}

/// An interrupt gate. Exceptions get a good stack, the software interrupts the one they find (or TSS.RSP0).
fn gate(number: u64, handler: u64) -> [u64; 2] {
    let ist = u64::from(number < 32);
    let dpl = if number == vector::USER_DONE { 3 } else { 0 };
    let low = (handler & 0xffff) | selector::CODE << 16 | ist << 32 | 0xe << 40 | dpl << 45 | 1 << 47 | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

/// Tables, control registers, what the CPU has.
fn start(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let limit = |bytes: u64| i32::try_from(bytes - 1).unwrap_or(0);
    a.mov(r15, MAILBOX)?;
    a.mov(rsp, STACK)?;
    // Descriptor table pointers are built on the stack: 2 bytes of limit, 8 of base.
    for (base, bytes, global) in [(GDT, 6 * 8, true), (IDT, VECTORS * 16, false)] {
        a.mov(rax, base)?;
        a.mov(qword_ptr(rsp - 14), rax)?;
        a.mov(dword_ptr(rsp - 16), limit(bytes) | (i32::try_from(base & 0xffff).unwrap_or(0) << 16))?;
        if global {
            a.lgdt(ptr(rsp - 16))?;
        } else {
            a.lidt(ptr(rsp - 16))?;
        }
    }
    a.mov(rax, cr0)?;
    a.or(eax, CR0_MP_NE_WP)?;
    a.and(eax, !CR0_EM_TS)?;
    a.mov(cr0, rax)?;
    a.mov(rax, cr4)?;
    a.or(eax, CR4_FX)?;
    a.mov(cr4, rax)?;
    for (leaf, offset) in [(1u32, 0u64), (7, 4), (0x8000_0001, 8)] {
        a.mov(eax, leaf)?;
        a.xor(ecx, ecx)?;
        a.cpuid()?;
        let register = match leaf {
            1 => ecx,
            7 => ebx,
            _ => edx,
        };
        a.mov(dword_ptr(field(m::CPUID + offset)), register)?;
    }
    let mut plain = a.create_label();
    a.mov(eax, dword_ptr(field(m::CPUID)))?;
    a.and(eax, CPUID_XSAVE_AVX)?;
    a.cmp(eax, CPUID_XSAVE_AVX)?;
    a.jne(plain)?;
    a.mov(rax, cr4)?;
    a.or(eax, CR4_OSXSAVE)?;
    a.mov(cr4, rax)?;
    a.xor(ecx, ecx)?;
    a.xor(edx, edx)?;
    a.mov(eax, 7)?;
    a.xsetbv()?;
    a.set_label(&mut plain)?;
    a.nop()
}

/// Asks for a form, loads the registers, goes there.
fn load(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let out = |port: u16| i32::from(port::BASE + port);
    let (mut scalar, mut narrow, mut system) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(r15, MAILBOX)?;
    // User mode loses it on the way.
    a.mov(ecx, MSR_GS_BASE)?;
    a.mov(eax, u32::try_from(WINDOW & 0xffff_ffff).unwrap_or(0))?;
    a.mov(edx, u32::try_from(WINDOW >> 32).unwrap_or(0))?;
    a.wrmsr()?;
    a.xor(eax, eax)?;
    a.mov(cr2, rax)?;
    a.out(out(port::NEXT), al)?;
    a.test(byte_ptr(field(m::MODE)), i32::from(m::VECTORS))?;
    a.je(scalar)?;
    a.fxrstor64(ptr(field(m::IN_FX)))?;
    a.test(byte_ptr(field(m::MODE)), i32::from(m::WIDE))?;
    a.je(narrow)?;
    for (index, register) in YMMS.iter().enumerate() {
        a.vmovups(*register, ymmword_ptr(field(slot(m::IN_YMM, index, 32))))?;
    }
    a.set_label(&mut narrow)?;
    a.nop()?;
    a.set_label(&mut scalar)?;
    a.test(byte_ptr(field(m::MODE)), i32::from(m::USER_MODE))?;
    a.mov(rsp, STACK)?;
    a.je(system)?;
    // The frame of an interrupt from user mode.
    a.push(i32::try_from(selector::USER_DATA).unwrap_or(0))?;
    a.push(qword_ptr(field(slot(m::IN, RSP, 8))))?;
    a.push(qword_ptr(field(m::IN_FLAGS)))?;
    a.push(i32::try_from(selector::USER_CODE).unwrap_or(0))?;
    a.push(qword_ptr(field(m::FORM)))?;
    registers(a)?;
    a.iretq()?;
    a.set_label(&mut system)?;
    a.push(qword_ptr(field(m::IN_FLAGS)))?;
    a.popfq()?;
    registers(a)?;
    a.mov(rsp, qword_ptr(field(slot(m::IN, RSP, 8))))?;
    a.jmp(qword_ptr(field(m::FORM)))
}

fn registers(a: &mut CodeAssembler) -> Result<(), IcedError> {
    for (index, register) in GPRS.iter().enumerate().filter(|(index, _)| *index != R15 && *index != RSP) {
        a.mov(*register, qword_ptr(field(slot(m::IN, index, 8))))?;
    }
    Ok(())
}

/// Saves the vector registers and tells the host.
fn finish(a: &mut CodeAssembler, next: CodeLabel) -> Result<(), IcedError> {
    let mut scalar = a.create_label();
    a.cld()?;
    a.test(byte_ptr(field(m::MODE)), i32::from(m::VECTORS))?;
    a.je(scalar)?;
    a.fxsave64(ptr(field(m::OUT_FX)))?;
    a.test(byte_ptr(field(m::MODE)), i32::from(m::WIDE))?;
    a.je(scalar)?;
    for (index, register) in YMMS.iter().enumerate() {
        a.vmovups(ymmword_ptr(field(slot(m::OUT_YMM, index, 32))), *register)?;
    }
    a.set_label(&mut scalar)?;
    a.out(i32::from(port::BASE + port::DONE), al)?;
    a.jmp(next)
}

/// An exception: on the stack are vector, error code, RIP, CS, RFLAGS, RSP, SS.
fn catch(a: &mut CodeAssembler, saved: CodeLabel) -> Result<(), IcedError> {
    a.mov(r15, MAILBOX)?;
    for (index, register) in GPRS.iter().enumerate().filter(|(index, _)| *index != R15 && *index != RSP) {
        a.mov(qword_ptr(field(slot(m::OUT, index, 8))), *register)?;
    }
    let frame = [m::OUT_VECTOR, m::OUT_ERROR, m::OUT_RIP, m::OUT_CS, m::OUT_FLAGS, slot(m::OUT, RSP, 8)];
    for (index, to) in (0i32..).zip(frame) {
        a.mov(rax, qword_ptr(rsp + index * 8))?;
        if to == m::OUT_VECTOR {
            a.inc(rax)?;
        }
        a.mov(qword_ptr(field(to)), rax)?;
    }
    a.mov(rax, cr2)?;
    a.mov(qword_ptr(field(m::OUT_CR2)), rax)?;
    a.mov(rsp, STACK)?;
    a.jmp(saved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_assembles_below_the_forms() {
        let driver = Driver::new().unwrap();
        assert!(CODE + (driver.code.len() as u64) < super::super::layout::FORMS);
        assert_eq!(driver.stubs.len() as u64, VECTORS);
        assert!((CODE..CODE + driver.code.len() as u64).contains(&driver.save));
    }
}
