//! String instructions: a whole run at once, up to the nearest end of a page of any operand.

use super::exec::Exec;
use super::flags::{self, merge};
use super::mode::{self, RFLAGS_DF};
use super::op::Text;
use super::prepare::Slot;
use super::registers::{Gpr, mask};
use super::{CpuState, PAGE, Prepared, Stop, Unsupported};
use iced_x86::{Instruction, OpKind, Register};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const PAGE_BYTES: usize = 4096;

/// Bytes in an address, of whichever string operand there is.
fn address_bytes(insn: &Instruction) -> usize {
    let of = |kind| match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
        OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
        _ => None,
    };
    of(insn.op0_kind()).or_else(|| of(insn.op1_kind())).unwrap_or(8)
}

fn repeated(insn: &Instruction) -> bool {
    insn.has_rep_prefix() || insn.has_repne_prefix()
}

/// F2 repeats only the comparing ones.
pub fn defined(insn: &Instruction, text: Text) -> bool {
    matches!(text, Text::Compare | Text::Scan) || !insn.has_repne_prefix()
}

/// Elements from `gva` on, in the direction of DF, before one would leave the page; 1 when already the first does.
fn room(gva: u64, size: u64, down: bool) -> u64 {
    let offset = gva % PAGE;
    let whole = offset + size <= PAGE;
    match (whole, down) {
        (false, _) => 1,
        (true, false) => (PAGE - offset) / size,
        (true, true) => offset / size + 1,
    }
}

/// Computes the run and its operands.
///
/// # Errors
/// As for any operand.
pub fn prepare(prepared: &mut Prepared, text: Text, cpu: &dyn CpuState, ram: &GuestMemoryMmap) -> Result<(), Stop> {
    let insn = prepared.insn;
    let size = insn.memory_size().size();
    let address = address_bytes(&insn);
    let regs = cpu.regs();
    let down = regs.rflags & RFLAGS_DF != 0;
    let count = if repeated(&insn) { regs.rcx & mask(address) } else { 1 };
    if count == 0 {
        return Ok(());
    }
    let linear = |segment, offset: u64, write| mode::linear(cpu, prepared.mode, segment, offset & mask(address), size as u64, write);
    let source = match text {
        Text::Move | Text::Load | Text::Compare => Some(linear(insn.memory_segment(), regs.rsi, false)?),
        Text::Store | Text::Scan => None,
    };
    let writes = matches!(text, Text::Move | Text::Store);
    let other = if text == Text::Load { None } else { Some(linear(Register::ES, regs.rdi, writes)?) };

    let bytes = size as u64;
    let nearest = source.iter().chain(&other).map(|gva| room(*gva, bytes, down)).min().unwrap_or(1);
    let mut run = count.min(nearest);
    let back = |run: u64| if down { (run - 1) * bytes } else { 0 };
    if matches!(text, Text::Compare | Text::Scan) && run > 1 {
        // Once to learn where the operands are, and again with the run they end.
        let mut look = *prepared;
        look.add_run(cpu, ram, (source, other), (size, run, back(run)), writes)?;
        run = look.peek(text, cpu, ram, run).unwrap_or(1);
    }
    prepared.run = run;
    prepared.add_run(cpu, ram, (source, other), (size, run, back(run)), writes)
}

impl Prepared {
    fn add_run(
        &mut self,
        cpu: &dyn CpuState,
        ram: &GuestMemoryMmap,
        (source, other): (Option<u64>, Option<u64>),
        (size, run, back): (usize, u64, u64),
        writes: bool,
    ) -> Result<(), Stop> {
        let len = usize::try_from(run).unwrap_or(1) * size;
        if let Some(gva) = source {
            self.add(Slot::Explicit, cpu, ram, (gva.wrapping_sub(back), len), (true, false))?;
        }
        if let Some(gva) = other {
            self.add(Slot::Other, cpu, ram, (gva.wrapping_sub(back), len), (!writes, writes))?;
        }
        Ok(())
    }

    /// How many elements a comparison gets through with the bytes now in memory; `None` when they are not in RAM.
    fn peek(&self, text: Text, cpu: &dyn CpuState, ram: &GuestMemoryMmap, run: u64) -> Option<u64> {
        let mut buffers = [[0; PAGE_BYTES]; 2];
        let [one, two] = &mut buffers;
        let get = |operand: Option<super::memory::Operand>, buffer: &mut [u8; PAGE_BYTES]| {
            let (gpa, len) = operand?.range()?;
            ram.get_slice(GuestAddress(gpa), len).ok()?.copy_to(buffer.get_mut(..len)?);
            Some(())
        };
        get(self.other, two)?;
        let size = self.insn.memory_size().size();
        if text == Text::Compare {
            get(self.explicit, one)?;
        } else {
            fill(one, cpu.regs().rax, size);
        }
        let down = cpu.regs().rflags & RFLAGS_DF != 0;
        Some(compare(&self.insn, one, two, (run, size, down)).0)
    }
}

/// Repeats the low `size` bytes of `value` all over `buffer`.
fn fill(buffer: &mut [u8], value: u64, size: usize) {
    for chunk in buffer.chunks_mut(size) {
        for (to, from) in chunk.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }
}

/// How many elements of `a` and `b` a comparison gets through, the last ones compared, and whether they ended it.
fn compare(insn: &Instruction, a: &[u8], b: &[u8], (run, size, down): (u64, usize, bool)) -> (u64, u64, u64, bool) {
    let len = usize::try_from(run).unwrap_or(0) * size;
    let (a, b) = (a.get(..len).unwrap_or(a), b.get(..len).unwrap_or(b));
    // With F3 a difference ends it, with F2 equality, without a prefix the only element is the last.
    let until_equal = insn.has_repne_prefix();
    let found = if !repeated(insn) {
        None
    } else {
        match size {
            1 => find::<1>(a, b, until_equal, down),
            2 => find::<2>(a, b, until_equal, down),
            4 => find::<4>(a, b, until_equal, down),
            _ => find::<8>(a, b, until_equal, down),
        }
    };
    let done = found.map_or(run, |index| index as u64 + 1);
    let element = |buffer: &[u8]| {
        let start = element_offset(done.saturating_sub(1), run, size, down);
        let mut value = [0; 8];
        for (to, from) in value.iter_mut().zip(buffer.iter().skip(start).take(size)) {
            *to = *from;
        }
        u64::from_le_bytes(value)
    };
    (done, element(a), element(b), found.is_some())
}

/// The first pair of elements, in the order of the accesses, whose equality is `equal`.
fn find<const N: usize>(a: &[u8], b: &[u8], equal: bool, down: bool) -> Option<usize> {
    let mut pairs = a.as_chunks::<N>().0.iter().zip(b.as_chunks::<N>().0);
    let is_it = |(a, b): (&[u8; N], &[u8; N])| (a == b) == equal;
    if down { pairs.rev().position(is_it) } else { pairs.position(is_it) }
}

/// Carries out the run.
///
/// # Errors
/// When it must be left to the CPU.
pub fn perform(exec: &mut Exec<'_>, text: Text) -> Result<(), Unsupported> {
    let insn = exec.prepared.insn;
    let size = insn.memory_size().size();
    let regs = *exec.cpu.regs();
    let down = regs.rflags & RFLAGS_DF != 0;
    let run = exec.prepared.run;
    let (mut done, mut ended) = (run, false);
    match text {
        Text::Move => transfer(exec, size, run, down)?,
        Text::Store => store(exec, size, run, down)?,
        Text::Load => {
            let value = load(exec, size, run, down)?;
            exec.set(Gpr::RAX.low(size), value);
        }
        Text::Compare | Text::Scan => {
            let mut buffers = [[0; PAGE_BYTES]; 2];
            let [one, two] = &mut buffers;
            let operand = exec.prepared.other.ok_or(Unsupported)?;
            if text == Text::Compare {
                let source = exec.explicit()?;
                exec.memory.load_bytes(&source, one.get_mut(..source.len()).ok_or(Unsupported)?)?;
            } else {
                fill(one.get_mut(..operand.len()).ok_or(Unsupported)?, regs.rax, size);
            }
            exec.memory.load_bytes(&operand, two.get_mut(..operand.len()).ok_or(Unsupported)?)?;
            let (compared, a, b, end) = compare(&insn, one, two, (run, size, down));
            (done, ended) = (compared, end);
            let (_, new) = flags::sub(a, b, false, size);
            let old = exec.cpu.regs().rflags;
            exec.cpu.regs_mut().rflags = merge(old, flags::STATUS, new);
        }
    }
    advance(exec, text, (size, done, down), ended);
    Ok(())
}

/// Moves the registers on, and RIP when the instruction is finished.
fn advance(exec: &mut Exec<'_>, text: Text, (size, done, down): (usize, u64, bool), ended: bool) {
    let insn = exec.prepared.insn;
    let width = address_bytes(&insn);
    let regs = exec.cpu.regs_mut();
    let step = done.wrapping_mul(size as u64);
    let move_on = |regs: &mut kvm_bindings::kvm_regs, gpr: Gpr| {
        let gpr = gpr.low(width);
        let value = gpr.get(regs);
        gpr.set(regs, if down { value.wrapping_sub(step) } else { value.wrapping_add(step) });
    };
    if matches!(text, Text::Move | Text::Load | Text::Compare) {
        move_on(regs, Gpr::RSI);
    }
    if text != Text::Load {
        move_on(regs, Gpr::RDI);
    }
    let mut finished = true;
    if repeated(&insn) {
        let counter = Gpr::RCX.low(width);
        let left = counter.get(regs).wrapping_sub(done);
        counter.set(regs, left);
        finished = ended || left == 0;
    }
    exec.finished = finished;
}

/// Where the element accessed after `index` others is in the run.
fn element_offset(index: u64, run: u64, size: usize, down: bool) -> usize {
    let index = if down { run.saturating_sub(index + 1) } else { index };
    usize::try_from(index).unwrap_or(0) * size
}

fn transfer(exec: &mut Exec<'_>, size: usize, run: u64, down: bool) -> Result<(), Unsupported> {
    let (from, to) = (exec.explicit()?, exec.prepared.other.ok_or(Unsupported)?);
    if run == 1 {
        let value = exec.memory.load(&from)?;
        return exec.memory.store(&to, value);
    }
    if let (Some((source, len)), Some((target, _))) = (from.range(), to.range())
        && source.abs_diff(target) >= len as u64
    {
        exec.memory.slice(&from)?.copy_to_volatile_slice(exec.memory.slice(&to)?);
        return Ok(());
    }
    // Device memory, or overlapping: one after the other.
    for index in 0..run {
        let offset = element_offset(index, run, size, down);
        let value = exec.memory.load(&from.element(offset, size))?;
        exec.memory.store(&to.element(offset, size), value)?;
    }
    Ok(())
}

fn store(exec: &mut Exec<'_>, size: usize, run: u64, down: bool) -> Result<(), Unsupported> {
    let to = exec.prepared.other.ok_or(Unsupported)?;
    let value = exec.cpu.regs().rax & mask(size);
    if run == 1 {
        return exec.memory.store(&to, value);
    }
    if to.range().is_some() {
        let mut buffer = [0; PAGE_BYTES];
        let bytes = buffer.get_mut(..to.len()).ok_or(Unsupported)?;
        fill(bytes, value, size);
        return exec.memory.store_bytes(&to, bytes);
    }
    for index in 0..run {
        exec.memory.store(&to.element(element_offset(index, run, size, down), size), value)?;
    }
    Ok(())
}

fn load(exec: &mut Exec<'_>, size: usize, run: u64, down: bool) -> Result<u64, Unsupported> {
    let from = exec.explicit()?;
    if run == 1 {
        return exec.memory.load(&from);
    }
    let mut value = 0;
    // Device memory wants to see every read.
    let first = if from.ram() { run - 1 } else { 0 };
    for index in first..run {
        value = exec.memory.load(&from.element(element_offset(index, run, size, down), size))?;
    }
    Ok(value)
}
