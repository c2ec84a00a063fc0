//! What is told of the way to a result, on standard error: on a terminal one line that moves, with finished steps and their times above
//! it; elsewhere a line for each step. The report itself never goes through here.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The moving line, while there is one.
struct Line {
    bar: ProgressBar,
    step: Option<(String, Instant)>,
    /// The beginning of a line that is relayed.
    partial: Vec<u8>,
}

static LINE: Mutex<Option<Line>> = Mutex::new(None);

fn line() -> MutexGuard<'static, Option<Line>> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn new(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message("preparing");
        Self { bar, step: None, partial: Vec::new() }
    }

    /// The step under way is over: it stays above the line, with the time it took.
    fn finish(&mut self) {
        if let Some((step, since)) = self.step.take() {
            self.bar.println(format!("  {step:<58} {:>7.1} s", since.elapsed().as_secs_f64()));
        }
    }

    fn relay(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let rest = self.partial.split_off(end + 1);
            let whole = std::mem::replace(&mut self.partial, rest);
            let text = String::from_utf8_lossy(&whole);
            match text.trim_end().strip_prefix("dmavet: ").filter(|text| is_phase(text)) {
                Some(phase) => self.step(phase),
                None => self.bar.suspend(|| _ = std::io::stderr().write_all(&whole)),
            }
        }
    }

    fn step(&mut self, text: &str) {
        self.finish();
        self.bar.reset_elapsed();
        self.bar.set_message(text.to_owned());
        self.step = Some((text.to_owned(), Instant::now()));
    }
}

/// Shows a moving line from now on, if standard error is a terminal. What else is written there meanwhile goes through [`aside`].
pub fn start() {
    if std::io::stderr().is_terminal() {
        let fresh = Line::new(ProgressDrawTarget::stderr());
        fresh.bar.enable_steady_tick(Duration::from_millis(120));
        *line() = Some(fresh);
    }
}

/// The next step begins.
pub fn step(text: &str) {
    match &mut *line() {
        Some(line) => line.step(text),
        None => eprintln!("dmavet: {text}"),
    }
}

/// Something to know that is no step.
pub fn note(text: &str) {
    aside(|| eprintln!("dmavet: {text}"));
}

/// Writes to standard output or error without the moving line in the way.
pub fn aside<T>(write: impl FnOnce() -> T) -> T {
    match &*line() {
        Some(line) => line.bar.suspend(write),
        None => write(),
    }
}

/// What a guest's runner in the lab says, in pieces of any length: its steps move the line, all else is written as it is.
pub fn relay(bytes: &[u8]) {
    match &mut *line() {
        Some(line) => line.relay(bytes),
        None => _ = std::io::stderr().write_all(bytes),
    }
}

/// How a phase of a guest is told.
pub fn phase(title: &str, name: &str, since_start: Duration) -> String {
    format!("{title}: {name} at {:.1} s", since_start.as_secs_f64())
}

fn is_phase(line: &str) -> bool {
    let time = line.strip_suffix(" s").and_then(|line| line.rsplit_once(" at "));
    time.is_some_and(|(_, time)| time.parse::<f64>().is_ok())
}

/// There is nothing more to come: the moving line goes, the last step stays.
pub fn end() {
    if let Some(mut line) = line().take() {
        line.finish();
        line.bar.finish_and_clear();
        let _ = std::io::stderr().write_all(&line.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::InMemoryTerm;

    #[test]
    fn finished_steps_stay_with_their_times() {
        let term = InMemoryTerm::new(20, 80);
        let mut line = Line::new(ProgressDrawTarget::term_like(Box::new(term.clone())));
        line.step("lab: booting");
        // As the runner's standard error arrives.
        for piece in ["dmavet: ", "ref:ncdma: workload at", " 3.2 s", "\ndmavet: ref"] {
            line.relay(piece.as_bytes());
        }
        line.bar.tick();
        let shown = term.contents();
        let (above, moving) = shown.split_once('\n').unwrap_or_else(|| panic!("{shown:?}"));
        assert!(above.starts_with("  lab: booting  ") && above.ends_with(" 0.0 s"), "{shown}");
        assert!(moving.contains("ref:ncdma: workload at 3.2 s ("), "{shown}");
        line.finish();
        line.bar.finish_and_clear();
        let shown = term.contents();
        assert_eq!(shown.lines().count(), 2, "the moving line is gone: {shown}");
        assert_eq!(line.partial, b"dmavet: ref", "until its end comes");
    }

    #[test]
    fn phases_are_told_from_other_words() {
        assert!(is_phase(&phase("ref:ncdma", "workload", Duration::from_millis(3210))));
        for other in ["the trace is not whole: x", "trace: 3 inputs in 4 bytes", "came up at last s", "warning at 3 x"] {
            assert!(!is_phase(other), "{other}");
        }
    }
}
