//! Records a run.

use crate::block;
use crate::code::{Last, Put};
use crate::error::Error;
use crate::header::Header;
use crate::record::{Patch, Record};
use crate::shadow::{Shadows, differences, split};
use dmavet_coherence::{Config, Detail, Gpa, Input, RamRegion, Tap};
use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A block is written after this time though it is not full: what a killed run leaves behind is nearly all.
const FLUSH: Duration = Duration::from_secs(1);
/// Inputs between two looks at the clock for that.
const LOOK: u64 = 64;

/// What a recording came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Inputs of the core.
    pub inputs: u64,
    /// Bytes of records before compression.
    pub contents: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes of guest RAM in it.
    pub ram: u64,
    /// Bytes the devices wrote in it.
    pub stored: u64,
}

/// The core's tap that writes a trace.
///
/// Nothing that goes wrong here disturbs the run: the recording stops, what was written is a usable trace, and
/// [`finish`](Self::finish) tells why.
pub struct Recorder {
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    /// Records of the block being filled.
    block: Vec<u8>,
    last: Last,
    number: u32,
    shadows: Shadows,
    /// How often the core turned to guest RAM, and to its gate, in the input under way.
    touches: u64,
    gates: u64,
    figures: Figures,
    flushed: Instant,
    started: bool,
    stopped: Option<String>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("figures", &self.state().figures).finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder that writes to `out`, in whole blocks. It buffers one block itself: `out` need not.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        let state = State {
            out,
            block: Vec::with_capacity(2 * block::FULL),
            last: Last::default(),
            number: 0,
            shadows: Shadows::default(),
            touches: 0,
            gates: 0,
            figures: Figures::default(),
            flushed: Instant::now(),
            started: false,
            stopped: None,
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds something for whoever reads the trace.
    pub fn note(&self, name: &str, value: &[u8]) {
        self.state().put(&Record::Note(name.into(), value.into()));
    }

    /// Ends the recording in good order. What comes afterwards is not recorded.
    ///
    /// # Errors
    /// Why the recording stopped before.
    pub fn finish(&self) -> Result<Figures, Error> {
        let mut state = self.state();
        let inputs = state.figures.inputs;
        state.put(&Record::End(inputs));
        state.flush();
        match state.stopped.replace("it has ended".into()) {
            None => Ok(state.figures),
            Some(why) => {
                state.stopped = Some(why.clone());
                Err(Error::Stopped(why))
            }
        }
    }
}

impl State {
    fn put(&mut self, record: &Record<'_>) {
        if self.stopped.is_some() {
            return;
        }
        let before = self.block.len();
        record.put(&mut Put { out: &mut self.block, last: &mut self.last });
        if self.block.len() - before > block::MAX_RECORD {
            self.block.truncate(before);
            self.stop("one input is larger than a trace can hold");
        } else if self.block.len() >= block::FULL {
            self.flush();
        }
    }

    fn stop(&mut self, why: &str) {
        self.flush();
        self.stopped.get_or_insert_with(|| why.to_owned());
        self.shadows.clear();
    }

    /// Writes the block, unless the head is still to come.
    fn flush(&mut self) {
        if self.stopped.is_some() || !self.started || self.block.is_empty() {
            return;
        }
        match block::write(&mut *self.out, self.number, &self.block) {
            Ok(written) => {
                self.figures.contents += self.block.len() as u64;
                self.figures.written += written as u64;
                self.number += 1;
                self.flushed = Instant::now();
            }
            Err(error) => self.stopped = Some(error.to_string()),
        }
        self.block.clear();
    }
}

impl Tap for Recorder {
    fn start(&self, config: &Config, ram: &[RamRegion]) {
        let header = Header { writer: concat!("dmavet ", env!("CARGO_PKG_VERSION")).into(), config: config.clone(), ram: ram.to_vec() };
        let mut state = self.state();
        state.started = true;
        match header.write(&mut *state.out) {
            Ok(written) => state.figures.written += written as u64,
            Err(error) => state.stopped = Some(error.to_string()),
        }
    }

    fn read(&self, gpa: Gpa, bytes: &mut [u8]) {
        let mut state = self.state();
        if state.stopped.is_some() {
            return;
        }
        let state = &mut *state;
        let (touches, now) = (state.touches, state.figures.inputs);
        state.touches += 1;
        let (page, start) = split(gpa.0);
        let Some(shadow) = state.shadows.page(page) else {
            state.stop("one input touches more guest RAM than a trace can hold");
            return;
        };
        let known = shadow.bytes.get_mut(start..start + bytes.len()).unwrap_or_default();
        let changed = if *known == *bytes { Vec::new() } else { differences(known, bytes) };
        known.copy_from_slice(bytes);
        let after = if shadow.input == now { touches } else { 0 };
        shadow.input = now;
        if changed.is_empty() {
            return;
        }
        let run = |&(from, to): &(usize, usize)| {
            let start = u16::try_from(start + from).unwrap_or(u16::MAX);
            (start, Cow::Borrowed(bytes.get(from..to).unwrap_or_default()))
        };
        let runs: Vec<_> = changed.iter().map(run).collect();
        state.figures.ram += changed.iter().map(|(from, to)| (to - from) as u64).sum::<u64>();
        state.put(&Record::Patch(Patch { page, after, runs }));
    }

    fn wrote(&self, gpa: Gpa, bytes: &[u8]) {
        let mut state = self.state();
        let now = state.figures.inputs;
        state.touches += 1;
        let (page, start) = split(gpa.0);
        if let Some(shadow) = state.shadows.page(page) {
            shadow.input = now;
            if let Some(known) = shadow.bytes.get_mut(start..start + bytes.len()) {
                known.copy_from_slice(bytes);
            }
        }
    }

    fn now(&self, now: u64) -> u64 {
        self.state().put(&Record::Time(now));
        now
    }

    fn detail(&self, detail: Detail<'_>) {
        let mut state = self.state();
        match detail {
            Detail::Refused(pages) => {
                let after = state.gates;
                state.gates += 1;
                if !pages.is_empty() {
                    state.put(&Record::Refused(after, pages.to_vec()));
                }
            }
            Detail::Stack(stack) => state.put(&Record::Stack(stack.to_vec())),
            Detail::InDriver(yes) => state.put(&Record::InDriver(yes)),
            Detail::Allocator(function) => state.put(&Record::Allocator(function.map(Cow::Borrowed))),
            Detail::Injected => state.put(&Record::Injected),
            Detail::Stored(offset, bytes) => {
                state.figures.stored += bytes.len() as u64;
                state.put(&Record::Stored(offset, bytes.into()));
            }
        }
    }

    fn input(&self, input: &Input<'_>) {
        let mut state = self.state();
        if state.stopped.is_some() {
            return;
        }
        state.put(&Record::Input(input.clone()));
        state.figures.inputs += 1;
        (state.touches, state.gates) = (0, 0);
        if state.shadows.full() {
            state.put(&Record::Forget);
            state.shadows.clear();
        }
        if state.figures.inputs.is_multiple_of(LOOK) && state.flushed.elapsed() > FLUSH {
            state.flush();
        }
    }
}
