//! Every form that is emulated, by all the opcodes the decoder knows, against the CPU.

use super::differential::{Bench, Verdict};
use super::machine::Rng;
use super::native::{ARENA_LEN, State};
use crate::emulate::flags::{AF, CF, OF, PF, SF, STATUS, ZF};
use crate::emulate::mode::RFLAGS_DF;
use crate::emulate::op::{Combine, Op, Vector};
use iced_x86::{Code, CpuidFeature, Encoder, Instruction, OpCodeOperandKind as Kind, OpKind, Register, RflagsBits};
use std::arch::x86_64::__cpuid_count;
use std::collections::{BTreeMap, BTreeSet};

/// Inputs per opcode.
const INPUTS: usize = 40;

const R64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

fn offset(base: Register, by: usize) -> Register {
    base + u32::try_from(by).unwrap()
}

fn gpr(rng: &mut Rng, bytes: usize) -> Register {
    let base = match bytes {
        1 => return offset(Register::AL, rng.below(20) as usize),
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    offset(base, rng.below(16) as usize)
}

/// A case: the instruction, and the state that makes its operands lie in the arena.
struct Case {
    insn: Instruction,
    bytes: Vec<u8>,
    state: State,
    arena: Vec<u8>,
}

struct Maker {
    rng: Rng,
    slot: u64,
    arena: u64,
}

impl Maker {
    /// Sets the operands; `None` for kinds that no emulated form has.
    fn operands(&mut self, insn: &mut Instruction) -> Option<()> {
        let op_code = insn.op_code();
        for i in 0..op_code.op_count() {
            let rng = &mut self.rng;
            let register = match op_code.op_kind(i) {
                Kind::mem
                | Kind::r8_or_mem
                | Kind::r16_or_mem
                | Kind::r32_or_mem
                | Kind::r64_or_mem
                | Kind::xmm_or_mem
                | Kind::ymm_or_mem => {
                    insn.set_op_kind(i, OpKind::Memory);
                    continue;
                }
                Kind::mem_offs => {
                    insn.set_op_kind(i, OpKind::Memory);
                    insn.set_memory_displ_size(8);
                    continue;
                }
                Kind::r8_reg => gpr(rng, 1),
                Kind::r16_reg => gpr(rng, 2),
                Kind::r32_reg => gpr(rng, 4),
                Kind::r64_reg => gpr(rng, 8),
                Kind::r16_opcode => gpr(rng, 2),
                Kind::r64_opcode => gpr(rng, 8),
                Kind::xmm_reg | Kind::xmm_vvvv => offset(Register::XMM0, rng.below(16) as usize),
                Kind::ymm_reg | Kind::ymm_vvvv => offset(Register::YMM0, rng.below(16) as usize),
                Kind::al => Register::AL,
                Kind::ax => Register::AX,
                Kind::eax => Register::EAX,
                Kind::rax => Register::RAX,
                Kind::cl => Register::CL,
                Kind::seg_rSI => {
                    insn.set_op_kind(i, OpKind::MemorySegRSI);
                    continue;
                }
                Kind::es_rDI => {
                    insn.set_op_kind(i, OpKind::MemoryESRDI);
                    continue;
                }
                Kind::br64_4 => {
                    insn.set_op_kind(i, OpKind::NearBranch64);
                    insn.set_near_branch64(self.slot + 5);
                    continue;
                }
                kind => {
                    let value = rng.value();
                    let (kind, value) = match kind {
                        Kind::imm8 => (OpKind::Immediate8, value & 0xff),
                        Kind::imm8_const_1 => (OpKind::Immediate8, 1),
                        Kind::imm8sex16 => (OpKind::Immediate8to16, value as i8 as u64),
                        Kind::imm8sex32 => (OpKind::Immediate8to32, value as i8 as u64),
                        Kind::imm8sex64 => (OpKind::Immediate8to64, value as i8 as u64),
                        Kind::imm16 if insn.code() == Code::Retnq_imm16 => (OpKind::Immediate16, value & 0x3ff),
                        Kind::imm16 => (OpKind::Immediate16, value & 0xffff),
                        Kind::imm32 => (OpKind::Immediate32, value & 0xffff_ffff),
                        Kind::imm32sex64 => (OpKind::Immediate32to64, value as i32 as u64),
                        _ => return None,
                    };
                    insn.set_op_kind(i, kind);
                    insn.try_set_immediate_u64(i, value).ok()?;
                    continue;
                }
            };
            insn.set_op_kind(i, OpKind::Register);
            insn.set_op_register(i, register);
        }
        Some(())
    }

    /// A random case for an opcode; `None` when this attempt led nowhere.
    fn make(&mut self, code: Code) -> Option<Case> {
        let mut insn = Instruction::default();
        insn.set_code(code);
        self.operands(&mut insn)?;
        // Which operation it is shows only on complete operands.
        insn.set_memory_base(Register::RAX);
        let op = Op::of(&insn)?;
        let rng = &mut self.rng;
        if code.op_code().can_use_lock_prefix() && insn.op0_kind() == OpKind::Memory {
            insn.set_has_lock_prefix(rng.chance(50));
        }
        let text = matches!(op, Op::Text(_));
        if text {
            insn.set_has_rep_prefix(rng.chance(60));
            if code.op_code().can_use_repne_prefix() && !insn.has_rep_prefix() {
                insn.set_has_repne_prefix(rng.chance(60));
            }
        }

        let mut gprs: [u64; 16] = std::array::from_fn(|_| rng.value());
        let vectors = std::array::from_fn(|_| std::array::from_fn(|_| rng.next() as u8));
        let mut arena: Vec<u8> = (0..ARENA_LEN / 8).flat_map(|_| rng.next().to_le_bytes()).collect();
        if rng.chance(if text { 60 } else { 10 }) {
            // Long equal runs with an odd one here and there.
            arena.fill(rng.pick(&[0, 0xff, 0x41]));
            arena[rng.below(ARENA_LEN as u64) as usize] ^= 1;
            gprs[0] = u64::from_le_bytes([arena[0]; 8]);
        }

        // The explicit operand, in the middle of the arena.
        let size = insn.memory_size().size().max(1) as u64;
        let align = match op {
            Op::Vector(Vector::Whole { aligned: true } | Vector::Combine(_)) => 32,
            Op::CompareExchangePair => 16,
            _ if insn.has_lock_prefix() || op == Op::Exchange => size,
            _ if rng.chance(40) => size.next_power_of_two(),
            _ => 1,
        };
        let mut target = self.arena + 0x1800 + rng.below(0x1000);
        if rng.chance(25) {
            // Over the end of a page, or close to it.
            target = self.arena + 0x2000 - rng.below(2 * size + 1);
        }
        target -= target % align;
        self.place(&mut insn, op, target, &mut gprs)?;
        self.stack(&insn, op, &mut gprs);
        let rng = &mut self.rng;
        if text {
            let start = self.arena + 0x1000;
            let bytes = size;
            gprs[6] = start + rng.below(0x2000);
            gprs[7] =
                if rng.chance(30) { gprs[6].wrapping_add_signed(rng.below(40) as i64 - 20).max(start) } else { start + rng.below(0x2000) };
            if rng.chance(30) {
                gprs[6] &= !7;
                gprs[7] &= !7;
            }
            gprs[1] = 1 + if rng.chance(50) { rng.below(8) } else { rng.below(0xfff / bytes - 8) };
            if rng.chance(25) {
                narrow_string(&mut insn);
                // The upper halves do not count.
                gprs[1] |= rng.next() << 32;
                gprs[6] |= rng.next() << 32;
                gprs[7] |= rng.next() << 32;
            }
        }
        let at = usize::try_from(target - self.arena).ok()?;
        if matches!(op, Op::CompareExchange | Op::CompareExchangePair) && rng.chance(60) {
            let quad = |at: usize| u64::from_le_bytes(arena[at..at + 8].try_into().unwrap());
            let uses =
                |register: Register| insn.memory_base().full_register() == register || insn.memory_index().full_register() == register;
            if !uses(Register::RAX) {
                gprs[0] = quad(at);
            }
            if op == Op::CompareExchangePair && !uses(Register::RDX) {
                gprs[2] = quad(at + size as usize / 2);
            }
        }
        if matches!(op, Op::Scan(_)) && rng.chance(20) {
            arena[at..at + 8].fill(0);
        }
        if matches!(op, Op::Vector(Vector::Combine(Combine::Equal(_)))) {
            // Some elements equal.
            let number = insn.op_register(if insn.op_count() == 3 { 1 } else { 0 }).number();
            let register: &[[u8; 32]; 16] = &vectors;
            for i in (0..size as usize).filter(|i| i % 8 < 5) {
                arena[at + i] = register[number][i];
            }
        }

        let mut rflags = 0x202 | (rng.next() & STATUS);
        if rng.chance(40) {
            rflags |= RFLAGS_DF;
        }
        let mut encoder = Encoder::new(64);
        encoder.encode(&insn, self.slot).ok()?;
        let bytes = encoder.take_buffer();
        let state = State::new(gprs, rflags, vectors);
        let mut case = Case { insn, bytes, state, arena };
        self.branch(op, &mut case);
        Some(case)
    }

    /// Makes the explicit operand lie at `target`.
    fn place(&mut self, insn: &mut Instruction, op: Op, target: u64, gprs: &mut [u64; 16]) -> Option<()> {
        let Some(memory) = (0..insn.op_count()).find(|i| insn.op_kind(*i) == OpKind::Memory) else {
            insn.set_memory_base(Register::None);
            return Some(());
        };
        if matches!(op, Op::Bit(_)) && insn.op1_kind() == OpKind::Register {
            let bit = (self.rng.below(0x2000) as i64 - 0x1000).cast_unsigned();
            let register = insn.op1_register();
            gprs[register.full_register().number()] = match register.size() {
                2 => bit & 0xffff | self.rng.next() << 16,
                4 => bit & 0xffff_ffff | self.rng.next() << 32,
                _ => bit,
            };
        }
        let rng = &mut self.rng;
        insn.set_memory_base(Register::None);
        if insn.op_code().op_kind(memory) == Kind::mem_offs {
            insn.set_memory_displacement64(target);
            return Some(());
        }
        if rng.chance(8) {
            // Absolute, or relative to RIP.
            insn.set_memory_displ_size(8);
            insn.set_memory_displacement64(target);
            insn.set_memory_base(if rng.chance(50) { Register::RIP } else { Register::None });
            return Some(());
        }
        let narrow = rng.chance(15);
        let name = |full: Register| if narrow { offset(Register::EAX, full.number()) } else { full };
        let base = rng.pick(&R64);
        let index = rng.pick(&R64);
        let scale = rng.pick(&[1u32, 2, 4, 8]);
        let displacement = match rng.below(3) {
            0 => 0,
            1 => i64::from(rng.next() as i8),
            _ => i64::from(rng.next() as i32 >> 4),
        };
        let mut rest = target.wrapping_sub(displacement.cast_unsigned());
        insn.set_memory_displ_size(if displacement == 0 { 0 } else { 1 });
        if displacement != 0 {
            insn.set_memory_displacement64(displacement.cast_unsigned() & if narrow { 0xffff_ffff } else { u64::MAX });
        }
        if index != Register::RSP && index != base && rng.chance(60) {
            insn.set_memory_index(name(index));
            insn.set_memory_index_scale(scale);
            rest = rest.wrapping_sub(gprs[index.number()].wrapping_mul(scale.into()));
        }
        insn.set_memory_base(name(base));
        if matches!(op, Op::Bit(_)) && insn.op1_kind() == OpKind::Register && insn.op1_register().full_register() == base {
            return None;
        }
        gprs[base.number()] = if narrow { (rest & 0xffff_ffff) | rng.next() << 32 } else { rest };
        Some(())
    }

    /// Gives stack instructions a stack in the arena.
    fn stack(&mut self, insn: &Instruction, op: Op, gprs: &mut [u64; 16]) {
        let uses = |register: Register| insn.memory_base().full_register() == register || insn.memory_index().full_register() == register;
        let mut place = self.arena + 0x1000 + self.rng.below(0x2000);
        if self.rng.chance(20) {
            // Over the end of a page, or close to it.
            place = self.arena + 0x2000 + self.rng.below(17) - 8;
        }
        match op {
            // `pop` computes its address with the new stack pointer; that is still in the arena.
            Op::Push | Op::PushFlags | Op::Pop | Op::Call | Op::Return if !uses(Register::RSP) => gprs[4] = place,
            // With RSP in the address the stack is wherever that leads. What is not in the arena is not run.
            Op::Leave => gprs[5] = place,
            _ => {}
        }
    }

    /// Makes branches end after the instruction, where the CPU is caught.
    fn branch(&mut self, op: Op, case: &mut Case) {
        let end = (self.slot + case.bytes.len() as u64).to_le_bytes();
        let mut put = |address: u64| {
            if let Some(at) = address.checked_sub(self.arena).and_then(|at| usize::try_from(at).ok())
                && let Some(to) = case.arena.get_mut(at..at + 8)
            {
                to.copy_from_slice(&end);
            }
        };
        match op {
            Op::Return => put(case.state.gprs[4]),
            Op::Call | Op::Jump if case.insn.op0_kind() == OpKind::Memory => {
                let gprs = case.state.gprs;
                let address = case.insn.virtual_address(0, 0, |register, _, _| {
                    Some(if register.is_segment_register() {
                        0
                    } else {
                        gprs[register.full_register().number()] & if register.size() == 4 { 0xffff_ffff } else { u64::MAX }
                    })
                });
                put(address.unwrap_or(0));
            }
            Op::Call if case.insn.op0_kind() == OpKind::Register => {
                let register = case.insn.op0_register().number();
                case.state.gprs[register] = u64::from_le_bytes(end);
            }
            _ => {}
        }
    }
}

/// Uses 32-bit addresses.
fn narrow_string(insn: &mut Instruction) {
    for i in 0..insn.op_count() {
        match insn.op_kind(i) {
            OpKind::MemorySegRSI => insn.set_op_kind(i, OpKind::MemorySegESI),
            OpKind::MemoryESRDI => insn.set_op_kind(i, OpKind::MemoryESEDI),
            _ => {}
        }
    }
}

fn is_direct(kind: OpKind) -> bool {
    !matches!(
        kind,
        OpKind::Memory | OpKind::MemorySegRSI | OpKind::MemorySegESI | OpKind::MemoryESRDI | OpKind::MemoryESEDI | OpKind::NearBranch64
    )
}

fn undefined(insn: &Instruction) -> u64 {
    let bits = insn.rflags_undefined();
    [(RflagsBits::OF, OF), (RflagsBits::SF, SF), (RflagsBits::ZF, ZF), (RflagsBits::AF, AF), (RflagsBits::CF, CF), (RflagsBits::PF, PF)]
        .into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .fold(0, |flags, (_, flag)| flags | flag)
}

fn host_has(feature: CpuidFeature) -> bool {
    match feature {
        CpuidFeature::MOVBE => is_x86_feature_detected!("movbe"),
        CpuidFeature::POPCNT => is_x86_feature_detected!("popcnt"),
        CpuidFeature::LZCNT => is_x86_feature_detected!("lzcnt"),
        CpuidFeature::BMI1 => is_x86_feature_detected!("bmi1"),
        CpuidFeature::AVX2 => is_x86_feature_detected!("avx2"),
        CpuidFeature::SSE3 => is_x86_feature_detected!("sse3"),
        CpuidFeature::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        CpuidFeature::CMPXCHG16B => is_x86_feature_detected!("cmpxchg16b"),
        // Not known to the standard library.
        CpuidFeature::CLFLUSHOPT => __cpuid_count(7, 0).ebx & 1 << 23 != 0,
        CpuidFeature::CLWB => __cpuid_count(7, 0).ebx & 1 << 24 != 0,
        CpuidFeature::PREFETCHW | CpuidFeature::D3NOW => __cpuid_count(0x8000_0001, 0).ecx & 1 << 8 != 0,
        CpuidFeature::PREFETCHWT1 => __cpuid_count(7, 0).ecx & 1 != 0,
        _ => true,
    }
}

#[test]
fn every_form_does_what_the_cpu_does() {
    let mut bench = Bench::new();
    let mut maker = Maker { rng: Rng(0x1234_5678_9abc_def1), slot: bench.native.slot(), arena: bench.native.arena() };
    let mut tried: BTreeMap<String, [u32; 3]> = BTreeMap::new();
    let mut lacking = BTreeSet::new();
    for code in Code::values().filter(|code| code.op_code().mode64()) {
        let name = format!("{code:?}");
        let mut done = 0;
        for _ in 0..INPUTS * 8 {
            let Some(case) = maker.make(code) else { continue };
            // The stack of an operand relative to RSP may have been led astray.
            let Some(op) = Op::of(&case.insn) else { continue };
            let stack = matches!(op, Op::Push | Op::Pop | Op::Call | Op::Return | Op::PushFlags);
            if stack && !(maker.arena + 64..maker.arena + 0x3fc0).contains(&case.state.gprs[4]) {
                continue;
            }
            if let Some(feature) = code.cpuid_features().iter().find(|feature| !host_has(**feature)) {
                lacking.insert(format!("{name} needs {feature:?}"));
                break;
            }
            let touches = stack || op == Op::Leave || op == Op::Nothing || case.insn.op_kinds().any(|kind| !is_direct(kind));
            let verdict = bench.compare(&name, &case.bytes, &case.state, &case.arena, undefined(&case.insn));
            if !touches {
                // Forms on registers alone never stop at a page; `xchg rax, rax` is a NOP.
                assert!(verdict == Verdict::Refused || case.bytes.ends_with(&[0x90]), "{name}: nothing to emulate");
                break;
            }
            assert_ne!(verdict, Verdict::Refused, "{name}: refused");
            tried.entry(name.clone()).or_default()[verdict as usize] += 1;
            done += 1;
            if done == INPUTS {
                break;
            }
        }
    }
    for (name, counts) in &tried {
        println!("{name}: same {}, refused {}, late {}", counts[0], counts[1], counts[2]);
    }
    println!("{} opcodes compared; not on this CPU: {lacking:?}; rounds up to {}", tried.len(), bench.rounds);
    let unproven: Vec<_> = tried.iter().filter(|(_, counts)| counts[Verdict::Same as usize] < 10).collect();
    assert!(unproven.is_empty(), "not compared often enough: {unproven:?}");
    let late: Vec<_> = tried.iter().filter(|(name, counts)| counts[Verdict::Late as usize] != 0 && !name.starts_with("Bs")).collect();
    assert!(late.is_empty(), "refused only when performed: {late:?}");
    assert!(tried.len() >= 300, "only {} opcodes compared", tried.len());
    assert!(bench.rounds >= 3, "no string instruction was cut at the ends of pages");
}
