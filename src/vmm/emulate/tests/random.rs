//! A guest may put anything anywhere.

use super::machine::*;
use crate::emulate::*;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

const SIZE: usize = 0x1_0000;

fn entry(rng: &mut Rng) -> u64 {
    let page = if rng.chance(92) { rng.below(8) } else { rng.below(18) };
    let mut value = page << 12 | rng.next() & 0x7f | P;
    if rng.chance(95) {
        value |= W | U;
    }
    value &= !PS;
    if rng.chance(4) {
        value |= PS;
        value &= !0x3fff_e000;
    }
    if rng.chance(1) {
        value = rng.next();
    }
    if rng.chance(1) { value | NX } else { value }
}

fn cpu(rng: &mut Rng) -> Cpu {
    let mut cpu = Cpu::long(rng.chance(50));
    let address = |rng: &mut Rng| match rng.below(4) {
        0 => rng.value(),
        1 => rng.below(1 << 47),
        // Close to the end of a page.
        _ => (rng.below(1 << 36) << 12).wrapping_sub(rng.below(40)),
    };
    let gprs = std::array::from_fn(|_| address(rng));
    cpu.set_gprs(&gprs);
    cpu.regs.rcx = if rng.chance(50) { rng.below(600) } else { cpu.regs.rcx };
    cpu.regs.rip = address(rng) & 0x7fff_ffff_ffff;
    cpu.regs.rflags = 2 | (rng.next() & 0xed5) & !mode::RFLAGS_TF;
    cpu.sregs.cr3 = rng.below(9) << 12;
    cpu.sregs.fs.base = address(rng);
    cpu.sregs.gs.base = address(rng);
    cpu.no_vectors = rng.chance(10);
    if rng.chance(70) {
        cpu.sregs.cr4 &= !(mode::CR4_SMAP | mode::CR4_SMEP);
    }
    if rng.chance(15) {
        let bits = |rng: &mut Rng| rng.next() & rng.next();
        cpu.sregs.cr0 ^= bits(rng);
        cpu.sregs.cr4 ^= bits(rng);
        cpu.sregs.efer ^= bits(rng);
        cpu.regs.rflags ^= bits(rng);
        for segment in [&mut cpu.sregs.cs, &mut cpu.sregs.ds, &mut cpu.sregs.ss, &mut cpu.sregs.es] {
            segment.l ^= rng.chance(30) as u8;
            segment.db ^= rng.chance(30) as u8;
            segment.type_ = rng.below(16) as u8;
            segment.limit = rng.next() as u32;
            segment.base = if rng.chance(50) { rng.next() } else { 0 };
            segment.dpl = rng.below(4) as u8;
        }
    }
    cpu
}

#[test]
fn nothing_a_guest_does_panics_or_writes_elsewhere() {
    let seed = 0x9e37_79b9_7f4a_7c15;
    let mut rng = Rng(seed);
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), SIZE)]).unwrap();
    let mut memory = vec![0; SIZE];
    let (mut stopped, mut prepared_count, mut performed, mut refused) = (0, 0, 0, 0);
    for round in 0..60_000u32 {
        if round % 64 == 0 {
            let mut bytes: Vec<u8> = (0..SIZE / 8).flat_map(|_| entry(&mut rng).to_le_bytes()).collect();
            for byte in bytes.iter_mut().skip(SIZE / 2) {
                *byte = rng.next() as u8;
            }
            ram.write_slice(&bytes, GuestAddress(0)).unwrap();
        }
        let mut cpu = cpu(&mut rng);
        if let Some(gpa) = lookup(&ram, &cpu.sregs, cpu.regs.rip) {
            // More of what is emulated than chance gives.
            let start: &[u8] = rng.pick(&[
                &[][..],
                &[0x48],
                &[0xf0],
                &[0x66],
                &[0xf3],
                &[0xf2, 0x48],
                &[0x0f],
                &[0x48, 0x0f],
                &[0xf0, 0x48, 0x0f],
                &[0xf3, 0xa4],
                &[0xf3, 0x48, 0xab],
                &[0xf3, 0xa6],
                &[0xf2, 0xae],
                &[0x67, 0xf3, 0xa5],
                &[0xc5, 0xf8],
                &[0xc5, 0xfd, 0x6f],
                &[0x66, 0x0f, 0x6f],
                &[0x0f, 0xc7],
                &[0x48, 0x0f, 0xc7],
                &[0x65, 0x48],
            ]);
            let rest = rng.next().to_le_bytes();
            let _ = ram.write_slice(&[start, &rest].concat(), GuestAddress(gpa));
        }
        let insn = match Insn::decode(&cpu, &ram) {
            Ok(insn) => insn,
            Err(stop) => {
                stopped += 1;
                let _ = stop.to_string();
                continue;
            }
        };
        let Ok(prepared) = insn.prepare(&cpu, &ram) else {
            stopped += 1;
            continue;
        };
        prepared_count += 1;
        let _ = (prepared.form(), prepared.form_key(), prepared.tables().len());
        for piece in prepared.pieces() {
            assert!(piece.len >= 1 && piece.gpa % PAGE + u64::from(piece.len) <= PAGE, "round {round}: {piece:x?}");
            assert!(piece.read || piece.write);
        }
        ram.read_slice(&mut memory, GuestAddress(0)).unwrap();
        let (before, mut bus) = (cpu.clone(), Log::default());
        let result = prepared.perform(&mut cpu, &ram, &mut bus);
        let mut after = vec![0; SIZE];
        ram.read_slice(&mut after, GuestAddress(0)).unwrap();
        let may = |gpa: u64| prepared.pieces().iter().any(|p| p.write && (p.gpa..p.gpa + u64::from(p.len)).contains(&gpa));
        if memory != after {
            for (gpa, _) in memory.iter().zip(&after).enumerate().filter(|(_, (a, b))| a != b) {
                assert!(may(gpa as u64) && result.is_ok(), "round {round}: {} wrote at {gpa:#x}", prepared.form());
            }
        }
        if result.is_ok() {
            assert!(prepared.can_emulate());
            performed += 1;
        } else {
            assert_eq!(before.regs, cpu.regs, "round {round}");
            assert!(before.vectors == cpu.vectors);
            refused += 1;
        }
    }
    println!("{stopped} stopped, {prepared_count} prepared, {performed} performed, {refused} refused");
    assert!(performed > 2000 && refused > 500, "the random state is too wild: {performed} performed, {refused} refused");
}
