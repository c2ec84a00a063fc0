//! Records in any order, with checksums that match: the replay ends with a result or an error.
#![no_main]

use dmavet_trace::{Limits, Reader, replay, sealed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|contents: &[u8]| {
    if let Ok(reader) = Reader::with_limits(&sealed(contents)[..], &Limits { ram: 64 << 20 }) {
        let _ = replay(reader);
    }
});
