//! The rate of this machine's time stamp counter, for an outer machine with several CPUs.
//!
//! QEMU's software emulation passes the counter on. Left alone, the outer kernel measures its rate against an emulated timer; with
//! several CPUs and on a busy host that has come out at a twentieth, and every time limit in the lab with it.

#![expect(unsafe_code, reason = "_rdtsc is an intrinsic")]

use std::arch::x86_64::_rdtsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long is measured: what preemption does to either end is little beside it.
const SPAN: Duration = Duration::from_millis(50);
/// Of so many readings of both clocks the one that took least counts.
const READINGS: usize = 16;

/// The counter's rate, kHz.
pub(super) fn tsc_khz() -> u64 {
    let (ticks, time) = both();
    thread::sleep(SPAN);
    let (later_ticks, later_time) = both();
    let nanoseconds = later_time.duration_since(time).as_nanos().max(1);
    let khz = u128::from(later_ticks.saturating_sub(ticks)) * 1_000_000 / nanoseconds;
    u64::try_from(khz).unwrap_or(u64::MAX)
}

/// Both clocks at one time.
fn both() -> (u64, Instant) {
    let reading = |_| {
        let before = ticks();
        let time = Instant::now();
        let width = ticks().saturating_sub(before);
        (width, before.saturating_add(width / 2), time)
    };
    let (_, ticks, time) = (0..READINGS).map(reading).min_by_key(|(width, ..)| *width).unwrap_or_else(|| reading(0));
    (ticks, time)
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and Linux allows it unless a process forbids it to itself.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_measured_alike_again_and_again() {
        let first = tsc_khz();
        assert!(first > 100_000, "{first} kHz");
        for _ in 0..4 {
            let again = tsc_khz();
            assert!(first.abs_diff(again) * 100 < first, "{first} kHz, then {again} kHz: Linux believes only what is right to 1 %");
        }
    }
}
