//! A whole trace file: whatever it holds, the reader and the replay end with a result or an error.
#![no_main]

use dmavet_trace::{Limits, Reader, replay};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(reader) = Reader::with_limits(bytes, &Limits { ram: 64 << 20 }) {
        let _ = replay(reader);
    }
});
