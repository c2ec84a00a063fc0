//! [`dmavet_fuzz::devices`] for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dmavet_fuzz::devices(bytes));
