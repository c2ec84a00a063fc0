//! [`dmavet_fuzz::view`] for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dmavet_fuzz::view(bytes));
