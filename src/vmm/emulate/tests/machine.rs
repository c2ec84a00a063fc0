//! A CPU that is only registers, and guest RAM with page tables.

use crate::emulate::*;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

pub const P: u64 = 1;
pub const W: u64 = 1 << 1;
pub const U: u64 = 1 << 2;
pub const A: u64 = 1 << 5;
pub const D: u64 = 1 << 6;
pub const PS: u64 = 1 << 7;
pub const NX: u64 = 1 << 63;

/// Size of the RAM.
pub const RAM: u64 = 1 << 20;
/// The top table.
pub const ROOT: u64 = 0x1000;

#[derive(Clone)]
pub struct Cpu {
    pub regs: kvm_regs,
    pub sregs: kvm_sregs,
    pub vectors: [[u8; 32]; 16],
    pub no_vectors: bool,
}

impl Cpu {
    /// 64-bit mode with every protection on.
    pub fn long(user: bool) -> Self {
        let mut sregs = kvm_sregs::default();
        sregs.cr0 = 0x8005_0033;
        sregs.cr3 = ROOT;
        sregs.cr4 = 0x0034_06b0 | mode::CR4_OSXSAVE;
        sregs.efer = 0xd01;
        sregs.cs = kvm_bindings::kvm_segment { l: 1, present: 1, s: 1, type_: 11, limit: 0xffff_ffff, ..Default::default() };
        sregs.ss = kvm_bindings::kvm_segment { db: 1, present: 1, s: 1, type_: 3, limit: 0xffff_ffff, ..Default::default() };
        sregs.ds = sregs.ss;
        sregs.es = sregs.ss;
        if user {
            sregs.ss.dpl = 3;
            sregs.cs.dpl = 3;
        }
        let regs = kvm_regs { rflags: 0x202, ..Default::default() };
        Self { regs, sregs, vectors: [[0; 32]; 16], no_vectors: false }
    }

    /// General registers in the order of their encoding.
    pub fn gprs(&self) -> [u64; 16] {
        let r = &self.regs;
        [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]
    }

    pub fn set_gprs(&mut self, gprs: &[u64; 16]) {
        let r = &mut self.regs;
        [r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15] = *gprs;
    }
}

impl CpuState for Cpu {
    fn regs(&self) -> &kvm_regs {
        &self.regs
    }
    fn regs_mut(&mut self) -> &mut kvm_regs {
        &mut self.regs
    }
    fn sregs(&self) -> &kvm_sregs {
        &self.sregs
    }
    fn vector(&mut self, index: u8) -> Result<[u8; 32], Unavailable> {
        if self.no_vectors { Err(Unavailable) } else { Ok(self.vectors[usize::from(index)]) }
    }
    fn set_vector(&mut self, index: u8, value: [u8; 32], width: VectorWidth, zero_upper: bool) -> Result<(), Unavailable> {
        let register = &mut self.vectors[usize::from(index)];
        let len = if width == VectorWidth::Xmm { 16 } else { 32 };
        register[..len].copy_from_slice(&value[..len]);
        if zero_upper {
            register[len..].fill(0);
        }
        Ok(())
    }
}

/// Remembers accesses, and answers reads with a pattern.
#[derive(Default, Debug, PartialEq)]
pub struct Log(pub Vec<(char, u64, Vec<u8>)>);

impl Bus for Log {
    fn read(&mut self, gpa: u64, data: &mut [u8]) {
        data.fill(0x5a);
        self.0.push(('r', gpa, data.to_vec()));
    }
    fn write(&mut self, gpa: u64, data: &[u8]) {
        self.0.push(('w', gpa, data.to_vec()));
    }
}

/// RAM with four-level tables that grow from [`ROOT`] up.
pub struct Space {
    pub ram: GuestMemoryMmap,
    next: u64,
}

impl Space {
    pub fn new() -> Self {
        Self { ram: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap(), next: ROOT + PAGE }
    }

    pub fn entry(&self, gpa: u64) -> u64 {
        self.ram.read_obj(GuestAddress(gpa)).unwrap()
    }

    pub fn set_entry(&self, gpa: u64, value: u64) {
        self.ram.write_obj(value, GuestAddress(gpa)).unwrap();
    }

    /// Maps the page (of `level` 1, 2 or 3) at `gva`, with `bits` in the leaf and all rights above it. Returns where the entries are, from the top.
    pub fn map_level(&mut self, gva: u64, gpa: u64, bits: u64, leaf: u64, levels: u64) -> Vec<u64> {
        let mut table = ROOT;
        let mut path = Vec::new();
        for level in (leaf..=levels).rev() {
            let at = table + ((gva >> (12 + 9 * (level - 1))) & 0x1ff) * 8;
            path.push(at);
            if level == leaf {
                self.set_entry(at, gpa | bits | P | if leaf > 1 { PS } else { 0 });
            } else {
                if self.entry(at) == 0 {
                    self.set_entry(at, self.next | P | W | U);
                    self.next += PAGE;
                }
                table = self.entry(at) & 0x000f_ffff_ffff_f000;
            }
        }
        path
    }

    pub fn map(&mut self, gva: u64, gpa: u64, bits: u64) -> Vec<u64> {
        self.map_level(gva, gpa, bits, 1, 4)
    }

    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    pub fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }
}

/// A small generator of pseudo-random numbers (xorshift64*), so that a failure repeats.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A value where carries, signs and zeros happen.
    pub fn value(&mut self) -> u64 {
        match self.below(6) {
            0 => self.pick(&[0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 0x8000_0000, 0x7fff_ffff, 0x8000, 0x7fff, 0x80, 0x7f, 0xff]),
            1 => self.below(256),
            2 => self.next() & self.next() & self.next(),
            _ => self.next(),
        }
    }
}
