//! Tests of the format.

mod damage;
mod kinds;
mod moved;

use crate::{Record, Recorder};
use dmavet_coherence::{Config, RamRegion, Tap as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// A file in memory that may be full.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl Memory {
    pub(crate) fn with_room(room: usize) -> Self {
        Self { bytes: Arc::default(), room }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.bytes.lock().unwrap();
        let take = bytes.len().min(self.room - all.len());
        all.extend_from_slice(&bytes[..take]);
        if take == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(take) }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A recorder of a machine with 1 MiB of RAM, and where it writes to.
pub(crate) fn recorder(room: usize) -> (Recorder, Memory) {
    let memory = Memory::with_room(room);
    let recorder = Recorder::new(Box::new(memory.clone()));
    recorder.start(&Config::for_ram(1 << 20), &[RamRegion { base: 0, len: 1 << 20, shared: true }]);
    (recorder, memory)
}

/// A record that owns what it holds.
pub(crate) fn owned(record: &Record<'_>) -> Record<'static> {
    let bytes: &'static [u8] = record.to_bytes().leak();
    Record::from_bytes(bytes).expect("what was written can be read")
}
