//! Runs single instructions on the CPU of this machine.

#![expect(unsafe_code, reason = "runs generated code")]

use std::mem::offset_of;

/// Bytes in the area: code, state and the arena.
const AREA: usize = 0x10000;
const STATE: usize = 0x1000;
const SLOT: usize = 0x800;
const ARENA: usize = 0x4000;
/// Bytes the instructions may work on.
pub const ARENA_LEN: usize = 0x4000;

/// Registers before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct State {
    pub vectors: [[u8; 32]; 16],
    pub gprs: [u64; 16],
    pub rflags: u64,
    host_rsp: u64,
}

impl State {
    pub fn new(gprs: [u64; 16], rflags: u64, vectors: [[u8; 32]; 16]) -> Self {
        Self { vectors, gprs, rflags, host_rsp: 0 }
    }
}

/// Memory below 4 GiB, so that 32-bit addresses work too, with room for code and data.
pub struct Native {
    base: *mut u8,
}

impl Native {
    pub fn new() -> Self {
        assert!(is_x86_feature_detected!("avx"), "this test compares vector registers and needs a CPU with AVX");
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), AREA, protection, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "no memory below 4 GiB that can be run: {}", std::io::Error::last_os_error());
        Self { base: base.cast() }
    }

    /// Address of the instruction.
    pub fn slot(&self) -> u64 {
        self.base as u64 + SLOT as u64
    }

    /// Address of the data.
    pub fn arena(&self) -> u64 {
        self.base as u64 + ARENA as u64
    }

    /// Runs `code`, whose last instruction must end or branch to its end, on `state` and `arena`. Returns both as they are after.
    pub fn run(&mut self, code: &[u8], state: &State, arena: &[u8]) -> (State, Vec<u8>) {
        assert!(arena.len() == ARENA_LEN && code.len() < 256);
        let program = self.program(code);
        // SAFETY: the area is large enough for all three parts and nothing else uses it. The program keeps what the calling convention
        // asks for, and touches only the area.
        unsafe {
            self.base.copy_from_nonoverlapping(program.as_ptr(), program.len());
            self.base.add(STATE).cast::<State>().write(*state);
            self.base.add(ARENA).copy_from_nonoverlapping(arena.as_ptr(), ARENA_LEN);
            let entry: extern "C" fn() = std::mem::transmute(self.base);
            entry();
            let after = self.base.add(STATE).cast::<State>().read();
            let arena = std::slice::from_raw_parts(self.base.add(ARENA), ARENA_LEN).to_vec();
            (State { host_rsp: 0, ..after }, arena)
        }
    }

    fn program(&self, code: &[u8]) -> Vec<u8> {
        let mut p = Program(Vec::with_capacity(SLOT + 512));
        p.bytes(&[0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57]); // push rbx, rbp, r12 to r15
        p.gpr(0x89, 4, offset_of!(State, host_rsp));
        for i in 0..16 {
            p.ymm(0x6f, i);
        }
        p.rip(&[0xff, 0x35], offset_of!(State, rflags)); // push
        p.bytes(&[0x9d]); // popfq
        for i in 0..16 {
            p.gpr(0x8b, i, offset_of!(State, gprs) + 8 * usize::from(i));
        }
        assert!(p.0.len() <= SLOT);
        p.0.resize(SLOT, 0x90);
        p.bytes(code);
        for i in 0..16 {
            p.gpr(0x89, i, offset_of!(State, gprs) + 8 * usize::from(i));
        }
        p.gpr(0x8b, 4, offset_of!(State, host_rsp));
        p.bytes(&[0x9c]); // pushfq
        p.rip(&[0x8f, 0x05], offset_of!(State, rflags)); // pop
        p.bytes(&[0xfc]); // cld
        for i in 0..16 {
            p.ymm(0x7f, i);
        }
        p.bytes(&[0xc5, 0xf8, 0x77]); // vzeroupper
        p.bytes(&[0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]); // the pops, and ret
        p.0
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing points into any more.
        unsafe { libc::munmap(self.base.cast(), AREA) };
    }
}

struct Program(Vec<u8>);

impl Program {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// An instruction that ends with a RIP-relative displacement.
    fn rip(&mut self, opcode: &[u8], offset: usize) {
        self.bytes(opcode);
        let end = self.0.len() + 4;
        self.bytes(&u32::try_from(STATE + offset - end).unwrap().to_le_bytes());
    }

    fn gpr(&mut self, opcode: u8, register: u8, offset: usize) {
        let rex = if register < 8 { 0x48 } else { 0x4c };
        self.rip(&[rex, opcode, 0x05 | (register & 7) << 3], offset);
    }

    fn ymm(&mut self, opcode: u8, register: u8) {
        let second = if register < 8 { 0xfe } else { 0x7e };
        let offset = offset_of!(State, vectors) + 32 * usize::from(register);
        self.rip(&[0xc5, second, opcode, 0x05 | (register & 7) << 3], offset);
    }
}
