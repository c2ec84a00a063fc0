//! The tests, on a core that is recorded.

#[path = "../../../coherence/tests/adversary.rs"]
mod adversary;
#[path = "../../../coherence/tests/alias.rs"]
mod alias;
#[path = "../../../coherence/tests/bus.rs"]
mod bus;
#[path = "../../../coherence/tests/correct.rs"]
mod correct;
#[path = "../../../coherence/tests/edges.rs"]
mod edges;
#[path = "../../../coherence/tests/faults.rs"]
mod faults;
#[path = "../../../coherence/tests/fixture.rs"]
mod fixture;
#[path = "../../../coherence/tests/flights.rs"]
mod flights;
#[path = "../../../coherence/tests/idioms.rs"]
mod idioms;
#[path = "../../../coherence/tests/life.rs"]
mod life;
#[path = "../../../coherence/tests/limits.rs"]
mod limits;
#[path = "../../../coherence/tests/lines.rs"]
mod lines;
#[path = "../../../coherence/tests/maps.rs"]
mod maps;
#[expect(dead_code, unused_imports, reason = "the exhaustive histories are played on the core alone")]
#[path = "../../../coherence/tests/model/mod.rs"]
mod model;
#[path = "../../../coherence/tests/ownership.rs"]
mod ownership;
#[path = "../../../coherence/tests/profiles.rs"]
mod profiles;
#[path = "../../../coherence/tests/regressions.rs"]
mod regressions;
#[path = "../../../coherence/tests/syncs.rs"]
mod syncs;
#[path = "../../../coherence/tests/watch.rs"]
mod watch;
#[path = "../../../coherence/tests/watched.rs"]
mod watched;

use crate::{Coherence, Config};
use dmavet_trace::{End, Reader, Recorder, replay};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use vm_memory::GuestMemoryMmap;

/// Random histories the model plays by default: each is played twice here.
const CASES: u32 = 24;

/// A trace in memory.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends the recording with the test, and replays it.
struct Kept {
    core: Coherence,
    recorder: Arc<Recorder>,
    trace: Memory,
}

fn core_over(config: Config, ram: Arc<GuestMemoryMmap>) -> (Coherence, Kept) {
    let trace = Memory::default();
    let recorder = Arc::new(Recorder::new(Box::new(trace.clone())));
    let core = Coherence::with_tap(config, ram, Some(Arc::<Recorder>::clone(&recorder))).unwrap();
    (core.clone(), Kept { core, recorder, trace })
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let run = self.core.finish();
        let figures = self.recorder.finish().unwrap();
        let bytes = self.trace.0.lock().unwrap();
        seed(&bytes);
        let again = replay(Reader::new(&bytes[..]).unwrap()).unwrap();
        assert_eq!(again.divergence, None);
        assert_eq!((again.end, again.inputs, bytes.len() as u64), (End::Whole, figures.inputs, figures.written));
        assert_eq!(again.summary.findings, run.findings);
        assert_eq!(again.summary.stats, run.stats);
        assert_eq!(again.summary.devices, run.devices);
        assert!(again.summary.sites.iter().eq(run.sites.iter()));
    }
}

/// Leaves a short trace for the fuzzers in the folder `DMAVET_CORPUS` names, if it does.
fn seed(trace: &[u8]) {
    let Some(folder) = std::env::var_os("DMAVET_CORPUS") else { return };
    let folder = PathBuf::from(folder);
    let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
    // Random histories are many and alike.
    if trace.len() > 8192 || test.contains("model") {
        return;
    }
    std::fs::create_dir_all(folder.join("trace")).unwrap();
    std::fs::write(folder.join("trace").join(format!("{test}-{}", trace.len())), trace).unwrap();
}
