//! One boot of the outer machine, from QEMU's start to the last job's end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::channel::{self, Message, Stream};
use super::qemu::Qemu;
use super::{Console, LabError, LabEvent, LabJob, LabOptions, LabResult};

/// How often the cancel flag and QEMU itself are looked at, at least.
const TICK: Duration = Duration::from_millis(50);

/// The outer machine says `alive` every two seconds; a machine busy with an inner guest on a loaded host may take much longer.
const SILENCE: Duration = Duration::from_secs(120);

/// Lines of the console kept for error messages.
const TAIL: usize = 25;

/// Lines about a crash kept beside them.
const TROUBLE: usize = 5;

/// After QEMU's end or a "bye", messages already on their way are still taken for so long.
const GRACE: Duration = Duration::from_millis(300);

/// What is still to come for the running job before it counts as ended.
#[derive(Debug, Default)]
struct Pending {
    started: Option<Instant>,
    ended: Option<(i32, Duration)>,
    stdout: bool,
    stderr: bool,
    traced: bool,
    brought: bool,
}

/// State of one boot.
#[derive(Debug)]
pub(super) struct Session<'a> {
    machine: Qemu,
    messages: Receiver<Message>,
    options: &'a LabOptions<'a>,
    jobs: usize,
    started: Instant,
    heard: Instant,
    up: bool,
    job: Pending,
    results: Vec<LabResult>,
    tail: VecDeque<String>,
    trouble: Vec<String>,
    panicked: bool,
    log: Option<File>,
}

impl<'a> Session<'a> {
    pub(super) fn new(mut machine: Qemu, jobs: &[LabJob], options: &'a LabOptions<'a>, marker: &str) -> Result<Self, LabError> {
        let (to, messages) = mpsc::sync_channel(64);
        let started = Instant::now();
        let io = LabError::Channel;
        if let Some([control, stdout, stderr, files, traces]) = machine.ports.take() {
            channel::control(control, to.clone()).map_err(io)?;
            channel::output(stdout, Stream::Stdout, marker, to.clone()).map_err(io)?;
            channel::output(stderr, Stream::Stderr, marker, to.clone()).map_err(io)?;
            channel::traces(traces, marker, jobs.iter().map(|j| j.trace.clone()).collect(), to.clone()).map_err(io)?;
            channel::files(files, jobs.iter().map(|j| j.run_dir.clone()).collect(), to.clone()).map_err(io)?;
        }
        if let Some(console) = machine.console.take() {
            channel::console(console, to.clone()).map_err(io)?;
        }
        if let Some(stderr) = machine.stderr.take() {
            channel::console(stderr, to).map_err(io)?;
        }
        let log = options.console_log.as_ref().and_then(|path| File::create(path).ok());
        Ok(Self {
            machine,
            messages,
            options,
            jobs: jobs.len(),
            started,
            heard: started,
            up: false,
            job: Pending::default(),
            results: Vec::new(),
            tail: VecDeque::new(),
            trouble: Vec::new(),
            panicked: false,
            log,
        })
    }

    /// Takes messages until every job has ended or something is wrong.
    pub(super) fn run(&mut self, observer: &mut dyn FnMut(LabEvent)) -> Result<Vec<LabResult>, LabError> {
        while self.results.len() < self.jobs || !self.up {
            match self.messages.recv_timeout(TICK) {
                Ok(message) => self.take(message, observer)?,
                Err(RecvTimeoutError::Timeout) => {}
                // Every reader has ended: QEMU closed everything.
                Err(RecvTimeoutError::Disconnected) => return Err(self.died(observer)),
            }
            self.check(observer)?;
        }
        Ok(std::mem::take(&mut self.results))
    }

    fn check(&mut self, observer: &mut dyn FnMut(LabEvent)) -> Result<(), LabError> {
        if self.options.cancel.load(Ordering::Relaxed) {
            return Err(LabError::Cancelled);
        }
        if self.machine.ended().is_some() {
            return match self.drain(observer) {
                Ok(()) if self.results.len() == self.jobs && self.up => Ok(()),
                Ok(()) => Err(self.died(observer)),
                Err(e) => Err(e),
            };
        }
        if !self.up && self.started.elapsed() > self.options.boot_limit {
            return Err(LabError::NoBoot { limit: self.options.boot_limit, console: self.console() });
        }
        if let (Some(limit), Some(started)) = (self.options.job_limit, self.job.started)
            && self.job.ended.is_none()
            && started.elapsed() > limit
        {
            return Err(LabError::JobTimeout { job: self.results.len(), limit, console: self.console() });
        }
        if self.up && self.heard.elapsed() > SILENCE {
            return Err(LabError::Stuck { silence: SILENCE, job: self.running(), console: self.console() });
        }
        Ok(())
    }

    fn take(&mut self, message: Message, observer: &mut dyn FnMut(LabEvent)) -> Result<(), LabError> {
        if !matches!(message, Message::Console(_)) {
            self.heard = Instant::now();
        }
        let current = self.results.len();
        match message {
            Message::Up => {
                self.up = true;
                observer(LabEvent::Booted(self.started.elapsed()));
            }
            Message::Start(job) => {
                self.job.started = Some(Instant::now());
                observer(LabEvent::JobStarted(job));
            }
            Message::End(job, code, wall) if job == current => self.job.ended = Some((code, wall)),
            Message::Output(stream, bytes) if !bytes.is_empty() => observer(LabEvent::Output { job: current, stream, bytes }),
            Message::Drained(Stream::Stdout, job) => self.job.stdout |= job == current,
            Message::Drained(Stream::Stderr, job) => self.job.stderr |= job == current,
            Message::Traced(job) => self.job.traced |= job == current,
            Message::Brought(job) => self.job.brought |= job == current,
            Message::NotBrought(path, detail) => return Err(LabError::BringBack { path, detail }),
            Message::Fail(message) => return Err(LabError::Guest { message, console: self.console() }),
            Message::Console(line) => self.console_line(line),
            Message::Alive | Message::Bye | Message::Closed | Message::End(..) | Message::Output(..) => {}
        }
        self.finish_job(observer);
        Ok(())
    }

    /// A job has ended when its code is known, both streams are read to their marks and its directory is here.
    fn finish_job(&mut self, observer: &mut dyn FnMut(LabEvent)) {
        let Pending { ended: Some((code, wall)), stdout: true, stderr: true, traced: true, brought: true, .. } = self.job else { return };
        let (exit_code, signal) = if code > 128 { (None, Some(code - 128)) } else { (Some(code), None) };
        let result = LabResult { exit_code, signal, wall };
        observer(LabEvent::JobEnded(self.results.len(), result));
        self.results.push(result);
        self.job = Pending::default();
    }

    fn console_line(&mut self, line: String) {
        if let Some(log) = &mut self.log {
            // The log is a help for people; a full disk must not end the run.
            let _ = writeln!(log, "{line}");
        }
        self.panicked |= line.contains("Kernel panic - not syncing");
        // A trace is longer than the tail: the lines that say what happened are kept apart.
        if self.trouble.len() < TROUBLE && ["Kernel panic", "BUG:", "Oops", "sysrq:"].iter().any(|mark| line.contains(mark)) {
            self.trouble.push(line.clone());
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn console(&self) -> Console {
        let cut = self.trouble.iter().filter(|l| !self.tail.contains(l));
        Console(cut.chain(&self.tail).cloned().collect())
    }

    fn running(&self) -> Option<usize> {
        self.job.started.map(|_| self.results.len())
    }

    /// Messages that were on their way when QEMU ended.
    fn drain(&mut self, observer: &mut dyn FnMut(LabEvent)) -> Result<(), LabError> {
        while let Ok(message) = self.messages.recv_timeout(GRACE) {
            self.take(message, observer)?;
        }
        Ok(())
    }

    fn died(&mut self, observer: &mut dyn FnMut(LabEvent)) -> LabError {
        if let Err(error) = self.drain(observer) {
            return error;
        }
        let said = self.tail.iter().find_map(|l| l.strip_prefix("dmavet-lab: ")).map(str::to_owned);
        let (job, console) = (self.running(), self.console());
        if let Some(message) = said {
            return LabError::Guest { message, console };
        }
        if self.panicked {
            return LabError::Panic { job, console };
        }
        let status = self.machine.ended().map_or_else(|| "its channels closed".to_owned(), |s| s.to_string());
        LabError::Died { status, job, console }
    }
}
