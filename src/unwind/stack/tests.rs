use super::*;
use crate::kernel::tests::{function, kernel, without_tables};
use proptest::prelude::*;
use std::collections::HashMap;

const STACK: u64 = 0xffff_c900_0001_0000;
const OTHER_STACK: u64 = 0xffff_c900_0009_0000;

/// Guest memory in words, and code where every address is behind a call unless it is named here.
#[derive(Default)]
struct Memory {
    words: HashMap<u64, u64>,
    no_call: Vec<u64>,
}

impl Memory {
    fn put(&mut self, at: u64, words: &[u64]) {
        self.words.extend((at..).step_by(8).zip(words.iter().copied()));
    }

    fn read(&self, at: u64, data: &mut [u8]) -> bool {
        if at >= function(0) {
            data.fill(0x90);
            if !self.no_call.contains(&at.wrapping_add(8)) {
                data[3] = 0xe8;
            }
            return true;
        }
        let Some(word) = self.words.get(&at) else { return false };
        data.copy_from_slice(&word.to_le_bytes()[..data.len()]);
        true
    }

    fn stack(&self, map: &CodeMap, registers: &Registers) -> Vec<Frame> {
        map.unwind(registers, &mut |at, data| self.read(at, data), 24)
    }
}

fn map(special: &[(u64, [u8; 6])]) -> CodeMap {
    CodeMap::new(Some(kernel(special, 1000..1010)), [])
}

const END: [u8; 6] = [0, 0, 0, 0, 0, 1];
const UNKNOWN: [u8; 6] = [0, 0, 0, 0, 0, 0];

fn sure(address: u64) -> Frame {
    Frame { address, exact: false, reliable: true }
}

fn interrupted(address: u64) -> Frame {
    Frame { address, exact: true, reliable: true }
}

fn guess(address: u64) -> Frame {
    Frame { address, exact: false, reliable: false }
}

#[test]
fn calls_relative_to_either_pointer_are_followed_to_the_end() {
    // 20 has 0x18 bytes of frame, 30 keeps its caller's stack pointer in RBP, 40 is the first of all.
    let map = map(&[(20, [0x20, 0, 0, 0, 5, 2]), (30, [16, 0, 0xf0, 0xff, 0x14, 2]), (40, END)]);
    let mut memory = Memory::default();
    memory.put(STACK, &[function(20) + 4, 1, 2, 3, function(30) + 16]);
    memory.put(STACK + 0x100, &[0xb9, function(40) + 5]);
    let registers = Registers { rip: function(10), rsp: STACK, rbp: STACK + 0x100, ..Registers::default() };
    let found = memory.stack(&map, &registers);
    assert_eq!(found, [interrupted(function(10)), sure(function(20) + 4), sure(function(30) + 16), sure(function(40) + 5)]);
    // A call at the very end of a function: named after the function it is in.
    assert_eq!(map.name_behind(found[2].address).unwrap(), "function_30+0x10/0x10");
    assert_eq!(map.name(found[2].address).unwrap(), "function_31+0x0/0x10");
}

fn pt_regs(rip: u64, rsp: u64, user: bool) -> [u64; 21] {
    let mut regs: [u64; 21] = std::array::from_fn(|i| 0xdead_0000 + i as u64);
    (regs[2], regs[4], regs[7], regs[10], regs[12], regs[14]) =
        (OTHER_STACK, STACK + 0x900, OTHER_STACK, OTHER_STACK, OTHER_STACK, OTHER_STACK);
    (regs[16], regs[17], regs[19]) = (rip, if user { 0x33 } else { 0x10 }, rsp);
    regs
}

#[test]
fn an_exception_is_crossed_with_all_registers() {
    // 20 is the exception's entry. What it interrupted keeps its stack pointer in one of the registers saved.
    for register in [2u8, 3, 6, 7] {
        let map = map(&[(20, [0, 0, 0, 0, 5, 3 | 8]), (31, [0, 0, 0, 0, register, 2]), (40, END)]);
        let mut memory = Memory::default();
        memory.put(STACK, &[function(20) + 4]);
        memory.put(STACK + 8, &pt_regs(function(31), STACK + 0x800, false));
        memory.put(OTHER_STACK - 8, &[function(40) + 5]);
        let registers = Registers { rip: function(10), rsp: STACK, ..Registers::default() };
        let expected = [interrupted(function(10)), sure(function(20) + 4), interrupted(function(31)), sure(function(40) + 5)];
        assert_eq!(memory.stack(&map, &registers), expected, "register {register}");
    }
}

#[test]
fn the_frame_pointer_comes_from_the_saved_registers() {
    let map = map(&[(20, [0, 0, 0, 0, 5, 3 | 8]), (31, [16, 0, 0xf0, 0xff, 0x14, 2]), (40, END)]);
    let mut memory = Memory::default();
    memory.put(STACK, &[function(20) + 4]);
    memory.put(STACK + 8, &pt_regs(function(31), STACK + 0x800, false));
    memory.put(STACK + 0x900, &[0, function(40) + 5]);
    let registers = Registers { rip: function(10), rsp: STACK, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers).last(), Some(&sure(function(40) + 5)));
}

#[test]
fn what_the_cpu_saves_alone_is_enough() {
    let map = map(&[(20, [0, 0, 0, 0, 5, 4 | 8]), (40, END)]);
    let mut memory = Memory::default();
    memory.put(STACK, &[function(31), 0x10, 0x202, OTHER_STACK, 0x18]);
    memory.put(OTHER_STACK, &[function(40) + 5]);
    let registers = Registers { rip: function(20), rsp: STACK, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(20)), interrupted(function(31)), sure(function(40) + 5)]);
}

#[test]
fn a_stack_ends_at_user_mode() {
    let map = map(&[(20, [0, 0, 0, 0, 5, 3 | 8])]);
    let mut memory = Memory::default();
    memory.put(STACK, &pt_regs(0x40_1000, 0x7fff_0000, true));
    let registers = Registers { rip: function(20), rsp: STACK, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(20))]);
    let user = Registers { rip: 0x40_1000, rsp: STACK, ..Registers::default() };
    assert_eq!(memory.stack(&map, &user), [interrupted(0x40_1000)]);
}

#[test]
fn stacks_are_switched_where_the_tables_say_so() {
    // An interrupt's stack has the task's stack pointer in its topmost word: SP_INDIRECT, then BP_INDIRECT.
    let map = map(&[(20, [8, 0, 0, 0, 9, 2]), (30, [0xf8, 0xff, 0, 0, 8, 2]), (40, END)]);
    let mut memory = Memory::default();
    memory.put(STACK, &[function(20) + 4, OTHER_STACK]);
    memory.put(OTHER_STACK, &[function(30) + 4]);
    memory.put(STACK + 0x1f8, &[OTHER_STACK + 0x20]);
    memory.put(OTHER_STACK + 0x18, &[function(40) + 5]);
    let registers = Registers { rip: function(10), rsp: STACK, rbp: STACK + 0x200, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers)[2..], [sure(function(30) + 4), sure(function(40) + 5)]);
}

#[test]
fn what_an_interrupt_came_into_is_left_out() {
    let map = map(&[]);
    let mut memory = Memory::default();
    memory.put(STACK, &[function(20) + 4, function(1003) + 4, function(30) + 4]);
    let registers = Registers { rip: function(10), rsp: STACK, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(10)), sure(function(20) + 4), sure(function(1003) + 4)]);
}

#[test]
fn code_without_tables_is_crossed_by_guessing() {
    let map = map(&[(10, UNKNOWN), (20, UNKNOWN), (40, END)]);
    let mut memory = Memory { no_call: vec![function(35) + 4], ..Memory::default() };
    // A chain of RBPs means nothing here, 20 leads nowhere, 35 is not behind a call.
    memory.put(STACK, &[7, STACK + 0x60, function(20) + 4, 5, function(35) + 4, function(30) + 4, function(40) + 5]);
    let registers = Registers { rip: function(10), rsp: STACK, rbp: STACK + 8, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(10)), guess(function(30) + 4), guess(function(40) + 5)]);
    // Nothing leads anywhere: then the first that may be one.
    memory.put(STACK + 0x28, &[1, 2]);
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(10)), guess(function(20) + 4)]);
}

#[test]
fn a_kernel_without_tables_has_frame_pointers() {
    let map = CodeMap::new(Some(without_tables()), []);
    let mut memory = Memory::default();
    memory.put(STACK, &[7, STACK + 0x40, function(20) + 4, function(21) + 4]);
    memory.put(STACK + 0x40, &[0, function(30) + 4, 5]);
    let registers = Registers { rip: function(10), rsp: STACK, rbp: STACK + 8, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers)[..2], [interrupted(function(10)), guess(function(20) + 4)]);
    memory.put(STACK + 0x40, &[STACK + 0x80, function(30) + 4, 5]);
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(10)), guess(function(20) + 4), guess(function(30) + 4)]);
}

#[test]
fn looking_for_return_addresses_ends() {
    let map = map(&[(10, UNKNOWN)]);
    let mut memory = Memory::default();
    memory.put(STACK, &[3; 256]);
    memory.put(STACK + MAX_SCAN, &[function(20) + 4]);
    let registers = Registers { rip: function(10), rsp: STACK, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(10))]);
    memory.put(STACK + MAX_SCAN - 8, &[function(20) + 4]);
    assert_eq!(memory.stack(&map, &registers)[1], guess(function(20) + 4));
}

#[test]
fn a_return_address_elsewhere_is_taken_when_it_is_behind_a_call() {
    // Code without tables between two functions that have them, as a BPF program is.
    let map = map(&[(40, END)]);
    let program = function(0) + (64 << 20);
    let mut memory = Memory::default();
    memory.put(STACK, &[program, 1, function(40) + 5]);
    let registers = Registers { rip: function(10), rsp: STACK, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(10)), sure(program), guess(function(40) + 5)]);
    memory.no_call.push(program);
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(10)), guess(function(40) + 5)]);
}

#[test]
fn a_stack_that_runs_in_circles_ends() {
    let map = map(&[(10, [0, 0, 0, 0, 4, 2])]);
    let mut memory = Memory::default();
    memory.put(STACK - 8, &[function(10) + 4]);
    let registers = Registers { rip: function(10), rsp: STACK, rbp: STACK, ..Registers::default() };
    assert_eq!(memory.stack(&map, &registers), [interrupted(function(10)), sure(function(10) + 4)]);
}

#[test]
fn calls_of_all_forms_are_recognised() {
    let map = CodeMap::default();
    let behind = |code: &[u8]| {
        let mut bytes = [0xcc; 8];
        bytes[8 - code.len()..].copy_from_slice(code);
        let mut read = |_, data: &mut [u8]| {
            data.copy_from_slice(&bytes[..data.len()]);
            true
        };
        let frame = interrupted(0);
        let cpu = Registers::default();
        let mut walker = Walker { map: &map, cpu: &cpu, read: &mut read, frame, sp: 0, bp: 0, saved: Saved::None, scan: 0 };
        walker.is_behind_call(0xffff_ffff_8100_0000)
    };
    for call in [
        &[0xe8, 1, 2, 3, 4][..],         // call rel32
        &[0xff, 0xd0],                   // call *%rax
        &[0x41, 0xff, 0xd3],             // call *%r11
        &[0xff, 0x10],                   // call *(%rax)
        &[0xff, 0x50, 0x28],             // call *0x28(%rax)
        &[0xff, 0x90, 1, 2, 0, 0],       // call *0x201(%rax)
        &[0xff, 0x15, 1, 2, 3, 4],       // call *x(%rip)
        &[0xff, 0x14, 0xc8],             // call *(%rax,%rcx,8)
        &[0xff, 0x14, 0xc5, 1, 2, 3, 4], // call *x(,%rax,8)
        &[0xff, 0x54, 0xc8, 8],          // call *8(%rax,%rcx,8)
    ] {
        assert!(behind(call), "{call:x?}");
    }
    for other in [&[0xe9, 1, 2, 3, 4][..], &[0xff, 0xe0], &[0xff, 0x60, 0x28], &[0x90, 0x90, 0x90], &[0xff, 0x90, 1, 2, 0]] {
        assert!(!behind(other), "{other:x?}");
    }
}

proptest! {
    #[test]
    fn hostile_memory_and_tables_neither_panic_nor_hang(
        special in proptest::collection::vec((0u64..40, any::<[u8; 6]>()), 0..40),
        words in proptest::collection::vec(prop_oneof![any::<u64>(), (0u64..40).prop_map(|n| function(n) + 4), (0u64..64).prop_map(|n| STACK + n * 8)], 64),
        registers in proptest::collection::vec(prop_oneof![any::<u64>(), (0u64..64).prop_map(|n| STACK + n * 8), Just(u64::MAX), Just(u64::MAX - 7)], 7),
        rip in prop_oneof![(0u64..40).prop_map(function), any::<u64>()],
    ) {
        let map = map(&special);
        let mut memory = Memory::default();
        memory.put(STACK, &words);
        let registers = Registers {
            rip, rsp: registers[0], rbp: registers[1], rax: registers[2], rdx: registers[3],
            rdi: registers[4], r10: registers[5], r13: registers[6],
        };
        let mut reads = 0;
        let frames = map.unwind(&registers, &mut |at, data| { reads += 1; memory.read(at, data) }, 24);
        prop_assert!(!frames.is_empty() && frames.len() <= 24);
        prop_assert!(reads < 1000, "{} reads", reads);
        for frame in &frames {
            let _ = (map.name(frame.address), map.name_behind(frame.address));
        }
        let _ = map.allocator(&frames);
        // Once a guess, all that follow are.
        prop_assert!(frames.windows(2).all(|w| w[0].reliable || !w[1].reliable));
    }
}
