//! Trace files.

use dmavet_trace::{Limits, Reader, Record, sealed};

/// What a trace may ask for.
const LIMITS: Limits = Limits { ram: 64 << 20 };

/// A whole trace file: whatever it holds, the reader and the replay end with a result or an error.
pub fn trace(bytes: &[u8]) {
    if let Ok(reader) = Reader::with_limits(bytes, &LIMITS) {
        let _ = dmavet_trace::replay(reader);
    }
}

/// One record: what can be read is written back as something that reads the same.
///
/// # Panics
/// When it is not.
pub fn record(bytes: &[u8]) {
    if let Some(record) = Record::from_bytes(bytes) {
        let again = record.to_bytes();
        assert_eq!(Record::from_bytes(&again).as_ref(), Some(&record));
    }
}

/// Records in any order, with checksums that match: the replay ends with a result or an error.
pub fn replay(contents: &[u8]) {
    if let Ok(reader) = Reader::with_limits(&sealed(contents)[..], &LIMITS) {
        let _ = dmavet_trace::replay(reader);
    }
}
