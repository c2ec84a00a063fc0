//! Fetching and decoding.

use super::mode::{self, Mode};
use super::pages::Pages;
use super::{Access, Bytes, CpuState, PAGE, Prepared, Stop, prepare, walk};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// An instruction as it stands at a vCPU's RIP.
#[derive(Clone, Copy, Debug)]
pub struct Insn {
    pub(super) insn: Instruction,
    pub(super) mode: Mode,
    pub(super) tables: Pages,
    pub(super) code: Pages,
    bytes: Bytes,
}

impl Insn {
    /// Fetches the instruction at RIP through the guest's page tables and decodes it. Sets the accessed bits of the tables.
    ///
    /// # Errors
    /// When it cannot be fetched or is not known.
    pub fn decode(cpu: &dyn CpuState, ram: &GuestMemoryMmap) -> Result<Self, Stop> {
        let mode = Mode::of(cpu);
        let (tables, code) = (Pages::default(), Pages::default());
        let mut this = Self { insn: Instruction::default(), mode, tables, code, bytes: Bytes { bytes: [0; 15], len: 0 } };
        let rip = cpu.regs().rip;
        let start = match mode.bits {
            64 => rip,
            32 => cpu.sregs().cs.base.wrapping_add(rip) & 0xffff_ffff,
            _ => cpu.sregs().cs.base.wrapping_add(rip & 0xffff) & 0xffff_ffff,
        };
        // The second page is only looked at when the instruction reaches it.
        loop {
            this.fetch(cpu, ram, start)?;
            let mut decoder = Decoder::try_with_ip(mode.bits, this.bytes.as_slice(), rip, DecoderOptions::NONE)
                .map_err(|_| Stop::Undecodable(this.bytes))?;
            decoder.decode_out(&mut this.insn);
            match decoder.last_error() {
                DecoderError::None => break,
                DecoderError::NoMoreBytes if this.bytes.len < 15 => {}
                _ => return Err(Stop::Undecodable(this.bytes)),
            }
        }
        this.bytes.len = u8::try_from(this.insn.len()).unwrap_or(15);
        Ok(this)
    }

    /// Adds the bytes up to the end of the page, at most 15 in all.
    fn fetch(&mut self, cpu: &dyn CpuState, ram: &GuestMemoryMmap, start: u64) -> Result<(), Stop> {
        let have = usize::from(self.bytes.len);
        let from = start.wrapping_add(have as u64);
        let from = if self.mode.bits == 64 { from } else { from & 0xffff_ffff };
        let access = Access { fetch: true, user: self.mode.user, ..Access::default() };
        let gpa = walk::walk(ram, cpu.sregs(), cpu.regs().rflags, from, access, &mut self.tables)?.gpa;
        let room = usize::try_from(PAGE - from % PAGE).unwrap_or(0);
        let Some(into) = self.bytes.bytes.get_mut(have..) else { return Ok(()) };
        let len = into.len().min(room);
        let slice = ram.get_slice(GuestAddress(gpa), len).map_err(|_| Stop::CodeOutside { gpa })?;
        slice.copy_to(into);
        self.code.add(gpa);
        self.bytes.len = u8::try_from(have + len).unwrap_or(15);
        Ok(())
    }

    /// Computes, translates and permission-checks all its memory operands. Sets accessed and dirty bits as the access would.
    ///
    /// # Errors
    /// When an operand would raise an exception, or its page tables lie outside RAM.
    pub fn prepare(&self, cpu: &dyn CpuState, ram: &GuestMemoryMmap) -> Result<Prepared, Stop> {
        prepare::prepare(self, cpu, ram)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.bytes
    }

    /// Guest physical addresses of the pages its bytes lie on: one or two.
    #[must_use]
    pub fn code_pages(&self) -> &[u64] {
        self.code.as_slice()
    }

    /// Guest physical addresses of the page-table pages walked to fetch it.
    #[must_use]
    pub fn tables(&self) -> &[u64] {
        self.tables.as_slice()
    }

    /// The CPU would trap after it by itself (RFLAGS.TF).
    pub(super) fn traced(cpu: &dyn CpuState) -> bool {
        cpu.regs().rflags & mode::RFLAGS_TF != 0
    }
}
