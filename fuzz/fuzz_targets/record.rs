//! One record: what can be read is written back as something that reads the same.
#![no_main]

use dmavet_trace::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = Record::from_bytes(bytes) {
        let again = record.to_bytes();
        assert_eq!(Record::from_bytes(&again).as_ref(), Some(&record));
    }
});
