//! Bit tests, scans, counts and the checksum.

use super::Unsupported;
use super::exec::Exec;
use super::flags::{CF, STATUS, ZF, when};
use super::op::{Bit, Scan};

/// `bt`, `bts`, `btr`, `btc`. The unit of a bit string that holds the bit was found when the instruction was prepared. Only CF is
/// written: ZF must stay, the others are undefined.
///
/// # Errors
/// When it must be left to the CPU.
pub fn test(exec: &mut Exec<'_>, kind: Bit) -> Result<(), Unsupported> {
    let bits = (exec.width(0) * 8) as u64;
    let bit = 1 << (exec.value(1)? % bits);
    let old = match kind {
        Bit::Test => exec.value(0)?,
        Bit::Set => exec.update(&mut |old| old | bit)?,
        Bit::Reset => exec.update(&mut |old| old & !bit)?,
        Bit::Complement => exec.update(&mut |old| old ^ bit)?,
    };
    exec.set_flags(CF, when(old & bit != 0, CF));
    Ok(())
}

/// `bsf`, `bsr`, `tzcnt`, `lzcnt`, `popcnt`.
///
/// # Errors
/// When it must be left to the CPU.
pub fn scan(exec: &mut Exec<'_>, kind: Scan) -> Result<(), Unsupported> {
    let bits = u32::try_from(exec.width(0) * 8).unwrap_or(64);
    let value = exec.value(1)?;
    let register = exec.register(0)?;
    let leading = value.leading_zeros().saturating_sub(64 - bits);
    let trailing = value.trailing_zeros().min(bits);
    match kind {
        // The destination is undefined, and CPUs differ in what they do to its upper half.
        Scan::Forward | Scan::Reverse if value == 0 => return Err(Unsupported),
        Scan::Forward => exec.set(register, trailing.into()),
        Scan::Reverse => exec.set(register, (bits - 1 - leading).into()),
        Scan::Trailing => exec.set(register, trailing.into()),
        Scan::Leading => exec.set(register, leading.into()),
        Scan::Ones => exec.set(register, value.count_ones().into()),
    }
    match kind {
        Scan::Forward | Scan::Reverse => exec.set_flags(ZF, 0),
        Scan::Trailing => exec.set_flags(CF | ZF, when(value == 0, CF) | when(trailing == 0, ZF)),
        Scan::Leading => exec.set_flags(CF | ZF, when(value == 0, CF) | when(leading == 0, ZF)),
        Scan::Ones => exec.set_flags(STATUS, when(value == 0, ZF)),
    }
    Ok(())
}

/// `crc32`: the polynomial 11EDC6F41, here with its bits reflected. No flags.
///
/// # Errors
/// When it must be left to the CPU.
pub fn checksum(exec: &mut Exec<'_>) -> Result<(), Unsupported> {
    const POLYNOMIAL: u64 = 0x82f6_3b78;
    let width = exec.width(1);
    let source = exec.value(1)?;
    let register = exec.register(0)?;
    let mut crc = register.low(4).get(exec.cpu.regs());
    for byte in source.to_le_bytes().into_iter().take(width) {
        crc ^= u64::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 0 { 0 } else { POLYNOMIAL };
        }
    }
    exec.set(register, crc);
    Ok(())
}
