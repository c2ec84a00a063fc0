//! Call stacks from registers and memory, as arch/x86/kernel/unwind_orc.c walks them.

use crate::map::{CodeMap, KERNEL_SPACE};
use crate::orc::{Base, Entry, Kind};

/// The most bytes of stack looked through for return addresses when there is no table to go by.
const MAX_SCAN: u64 = 2048;
/// How far away the next frame may be when a chain of frame pointers is followed.
const MAX_FRAME: u64 = 16 << 10;

/// Offsets in struct pt_regs (arch/x86/include/asm/ptrace.h).
mod pt_regs {
    pub(super) const R13: u64 = 16;
    pub(super) const BP: u64 = 32;
    pub(super) const R10: u64 = 56;
    pub(super) const AX: u64 = 80;
    pub(super) const DX: u64 = 96;
    pub(super) const DI: u64 = 112;
    pub(super) const IP: u64 = 128;
    pub(super) const CS: u64 = 136;
    pub(super) const SP: u64 = 152;
}

/// The registers of a stopped CPU that unwinding can need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction it is about to execute.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Frame pointer, where there are any.
    pub rbp: u64,
    /// RAX.
    pub rax: u64,
    /// RDX.
    pub rdx: u64,
    /// RDI.
    pub rdi: u64,
    /// R10.
    pub r10: u64,
    /// R13.
    pub r13: u64,
}

/// One frame of a call stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Guest virtual address: of the instruction itself when `exact`, else the one behind a call.
    pub address: u64,
    /// The instruction did not run yet: the stopped CPU's own, or one that an exception came before.
    pub exact: bool,
    /// It was found by the unwind tables; otherwise it is a guess, which the kernel marks with a question mark.
    pub reliable: bool,
}

/// Reads guest memory at a virtual address; false when not all of it can be read.
pub(crate) type Reader<'a> = dyn FnMut(u64, &mut [u8]) -> bool + 'a;

/// Where the registers of an interrupted frame are.
#[derive(Clone, Copy)]
enum Saved {
    /// Still in the CPU.
    Cpu,
    /// In a struct pt_regs at this address.
    All(u64),
    /// Unknown.
    None,
}

struct Walker<'a> {
    map: &'a CodeMap,
    cpu: &'a Registers,
    read: &'a mut Reader<'a>,
    frame: Frame,
    sp: u64,
    bp: u64,
    saved: Saved,
    /// Bytes of stack that may still be looked through.
    scan: u64,
}

impl CodeMap {
    /// The call stack of a CPU stopped with `registers`, innermost frame first, at most `max` frames. The first one is always the
    /// instruction itself. Frames outside of the entry of an interrupt or
    /// exception are left out, as in what the guest tells (filter_irq_stacks() in the kernel): they belong to whatever was interrupted.
    ///
    /// `read` is called a few times for each frame, for stack and code.
    pub fn unwind(&self, registers: &Registers, read: &mut dyn FnMut(u64, &mut [u8]) -> bool, max: usize) -> Vec<Frame> {
        let frame = Frame { address: registers.rip, exact: true, reliable: true };
        let mut walker =
            Walker { map: self, cpu: registers, read, frame, sp: registers.rsp, bp: registers.rbp, saved: Saved::Cpu, scan: MAX_SCAN };
        let mut frames = Vec::new();
        while frames.len() < max {
            frames.push(walker.frame);
            if walker.frame.address < KERNEL_SPACE || self.is_interrupt_entry(walker.code()) || !walker.step() {
                break;
            }
        }
        frames
    }
}

impl Walker<'_> {
    /// An address inside of the instruction the frame is at.
    const fn code(&self) -> u64 {
        if self.frame.exact { self.frame.address } else { self.frame.address.wrapping_sub(1) }
    }

    /// Goes to the caller. False when there is none or it cannot be found.
    fn step(&mut self) -> bool {
        let before = (self.frame.address, self.sp, self.bp);
        let entry = self.map.unwind_entry(self.code()).filter(|e| e.kind != Kind::Undefined);
        if entry.is_some_and(|e| e.kind == Kind::End) {
            return false;
        }
        let state = (self.frame, self.sp, self.bp, self.saved);
        match entry.and_then(|e| self.follow(e)) {
            Some(caller) if !caller => return false,
            Some(_) if self.plausible() => return before != (self.frame.address, self.sp, self.bp),
            _ => (self.frame, self.sp, self.bp, self.saved) = state,
        }
        self.saved = Saved::None;
        // Where there are tables RBP is a register like others: what looks like a chain of frames leaves most of them out.
        let chain = if self.map.has_tables() { None } else { self.frame_pointer() };
        chain.or_else(|| self.search()).is_some()
    }

    /// Whether the frame just found can be one.
    fn plausible(&mut self) -> bool {
        let Frame { address, exact, .. } = self.frame;
        self.sp.is_multiple_of(8) && (self.map.is_text(address) || (address >= KERNEL_SPACE && !exact && self.is_behind_call(address)))
    }

    /// Applies an unwind entry. `Some(false)` when the caller is user mode, `None` when memory cannot be read.
    fn follow(&mut self, entry: Entry) -> Option<bool> {
        let offset = |base: u64, offset: i16| base.wrapping_add_signed(offset.into());
        let sp = match entry.sp {
            Base::Sp => offset(self.sp, entry.sp_offset),
            Base::Bp => offset(self.bp, entry.sp_offset),
            Base::SpIndirect => offset(self.word(self.sp)?, entry.sp_offset),
            Base::BpIndirect => self.word(offset(self.bp, entry.sp_offset))?,
            // These hold the stack pointer itself; the kernel ignores an offset.
            Base::Ax => self.register(self.cpu.rax, pt_regs::AX)?,
            Base::Dx => self.register(self.cpu.rdx, pt_regs::DX)?,
            Base::Di => self.register(self.cpu.rdi, pt_regs::DI)?,
            Base::R10 => self.register(self.cpu.r10, pt_regs::R10)?,
            Base::R13 => self.register(self.cpu.r13, pt_regs::R13)?,
            Base::Undefined | Base::PrevSp => return None,
        };
        let old_bp = self.bp;
        let at = |field: u64| sp.wrapping_add(field);
        // What the CPU saves is the end of struct pt_regs; `iret` is where RIP is.
        let iret = match entry.kind {
            Kind::Call => {
                self.frame.address = self.word(sp.wrapping_sub(8))?;
                self.sp = sp;
                self.saved = Saved::None;
                None
            }
            Kind::Regs => Some(at(pt_regs::IP)),
            Kind::RegsPartial => Some(sp),
            Kind::Undefined | Kind::End => return None,
        };
        if let Some(iret) = iret {
            if self.word(iret.wrapping_add(pt_regs::CS - pt_regs::IP))? & 3 != 0 {
                return Some(false);
            }
            self.frame.address = self.word(iret)?;
            self.sp = self.word(iret.wrapping_add(pt_regs::SP - pt_regs::IP))?;
            self.saved = match (entry.kind, self.saved) {
                (Kind::Regs, _) => Saved::All(sp),
                (_, saved) => saved,
            };
        }
        self.frame.exact = entry.signal;
        self.bp = match entry.bp {
            Base::PrevSp => self.word(offset(sp, entry.bp_offset))?,
            Base::Bp => self.word(offset(old_bp, entry.bp_offset))?,
            _ => match self.saved {
                Saved::All(regs) => self.word(regs.wrapping_add(pt_regs::BP))?,
                Saved::Cpu | Saved::None => old_bp,
            },
        };
        Some(true)
    }

    /// The caller by a frame pointer, if there is one: RBP points at the caller's RBP, above it lies a return address.
    fn frame_pointer(&mut self) -> Option<()> {
        let bp = self.bp;
        if !bp.is_multiple_of(8) || !(self.sp..self.sp.checked_add(MAX_FRAME)?).contains(&bp) {
            return None;
        }
        let next = self.word(bp)?;
        let address = self.word(bp.checked_add(8)?)?;
        (next > bp && self.is_return(address)).then_some(())?;
        self.frame = Frame { address, exact: false, reliable: false };
        (self.sp, self.bp) = (bp.checked_add(16)?, next);
        Some(())
    }

    /// The next word of the stack that may be a return address; rather one whose own caller the tables find from there, because what
    /// earlier calls left behind looks the same.
    fn search(&mut self) -> Option<()> {
        let mut sp = self.sp.checked_next_multiple_of(8)?;
        let mut first = None;
        while self.scan >= 8 && sp >= KERNEL_SPACE {
            self.scan -= 8;
            let Some(address) = self.word(sp) else { break };
            sp = sp.checked_add(8)?;
            if self.is_return(address) {
                let found = Frame { address, exact: false, reliable: false };
                (self.frame, self.sp) = (found, sp);
                if self.has_caller() {
                    return Some(());
                }
                first.get_or_insert((found, sp));
            }
        }
        (self.frame, self.sp) = first?;
        Some(())
    }

    /// Whether the tables lead from this frame to a caller, or say that there is none. Changes nothing.
    fn has_caller(&mut self) -> bool {
        let state = (self.frame, self.sp, self.bp, self.saved);
        let found = match self.map.unwind_entry(self.code()) {
            Some(entry) if entry.kind == Kind::End => true,
            Some(entry) => match self.follow(entry) {
                Some(true) => self.plausible() && (self.frame.exact || self.is_return(self.frame.address)),
                user => user.is_some(),
            },
            None => false,
        };
        (self.frame, self.sp, self.bp, self.saved) = state;
        found
    }

    /// Whether `address` is in code, right behind a call.
    fn is_return(&mut self, address: u64) -> bool {
        self.map.is_text(address.wrapping_sub(1)) && self.is_behind_call(address)
    }

    /// Whether the bytes before `address` can be a call: `e8` with a 32-bit displacement, or `ff /2` with any operand.
    fn is_behind_call(&mut self, address: u64) -> bool {
        let mut code = [0; 8];
        let Some(start) = address.checked_sub(8) else { return false };
        if !(self.read)(start, &mut code) {
            return false;
        }
        // Lengths of ff /2 with its ModRM byte: the addressing form decides how much follows (Intel SDM volume 2, table 2-2).
        let indirect = |len: usize| {
            let Some([0xff, modrm, rest @ ..]) = code.get(8 - len..) else { return false };
            let (mode, rm) = (modrm >> 6, modrm & 7);
            let sib = u8::from(mode != 3 && rm == 4);
            let base_less = rest.first().is_some_and(|sib| sib & 7 == 5);
            let displacement = match mode {
                0 if rm == 5 || (rm == 4 && base_less) => 4,
                1 => 1,
                2 => 4,
                _ => 0,
            };
            modrm >> 3 & 7 == 2 && rest.len() == usize::from(sib + displacement)
        };
        code.get(3) == Some(&0xe8) || (2..=7).any(indirect)
    }

    fn register(&mut self, cpu: u64, field: u64) -> Option<u64> {
        match self.saved {
            Saved::Cpu => Some(cpu),
            Saved::All(regs) => self.word(regs.wrapping_add(field)),
            Saved::None => None,
        }
    }

    /// The 8 bytes at `address`.
    fn word(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (address >= KERNEL_SPACE && (self.read)(address, &mut bytes)).then(|| u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests;
