//! The first serial port: the guest's console.

use crate::observer::Observer;
use crate::ports::{PortDevice, Power};
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// Collects what the guest prints and hands it on by the line.
///
/// The observer is called on the vCPU's thread at a newline or a full buffer, and by [`Console::flush`] for what is left.
pub struct Console {
    pending: Mutex<Vec<u8>>,
    observer: Arc<dyn Observer>,
    bytes: AtomicU64,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Console {
    const FULL: usize = 512;

    /// A console that reports to `observer`.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self { pending: Mutex::default(), observer, bytes: AtomicU64::new(0) }
    }

    /// Bytes printed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Hands on what is pending.
    pub fn flush(&self) {
        // The lock is held during the call, so that two threads cannot swap the order of two pieces.
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if !pending.is_empty() {
            self.observer.console(&pending);
            pending.clear();
        }
    }

    fn push(&self, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.extend_from_slice(bytes);
        if bytes.contains(&b'\n') || pending.len() >= Self::FULL {
            self.observer.console(&pending);
            pending.clear();
        }
    }
}

struct Sink(Arc<Console>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }
    // The UART model flushes after every byte; lines are what we want.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Line(EventFd);

impl Trigger for Line {
    type E = Infallible;
    fn trigger(&self) -> Result<(), Infallible> {
        // An eventfd refuses only when its counter is about to overflow; the interrupt is pending then anyway.
        let _ = self.0.write(1);
        Ok(())
    }
}

/// A 16550 at COM1.
pub struct Uart(Serial<Line, NoEvents, Sink>);

impl std::fmt::Debug for Uart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Uart")
    }
}

impl Uart {
    /// A port that prints to `console` and interrupts through `line`.
    pub fn new(console: Arc<Console>, line: EventFd) -> Self {
        Self(Serial::new(Line(line), Sink(console)))
    }
}

impl PortDevice for Uart {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        for (byte, register) in data.iter_mut().zip(registers(offset)) {
            *byte = self.0.read(register);
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Option<Power> {
        for (byte, register) in data.iter().zip(registers(offset)) {
            // Neither the sink nor the line can fail; a full loopback FIFO drops the byte like the chip does.
            let _ = self.0.write(register, *byte);
        }
        None
    }
}

/// A wide access is one of neighbouring byte registers.
fn registers(offset: u16) -> impl Iterator<Item = u8> {
    (offset..8).filter_map(|register| u8::try_from(register).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::testing::Recorder;

    #[test]
    fn output_arrives_by_the_line_and_the_rest_on_flush() {
        let recorder = Arc::new(Recorder::default());
        let console = Arc::new(Console::new(recorder.clone()));
        let mut uart = Uart::new(console.clone(), EventFd::new(libc::EFD_NONBLOCK).unwrap());
        for byte in b"ab\ncd" {
            assert_eq!(uart.write(0, &[*byte]), None);
        }
        assert_eq!(recorder.text(), "ab\n");
        console.flush();
        assert_eq!(recorder.text(), "ab\ncd");
        assert_eq!(console.bytes(), 5);
    }

    #[test]
    fn the_transmitter_is_always_ready_and_interrupts() {
        let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let console = Arc::new(Console::new(Arc::new(Recorder::default())));
        let mut uart = Uart::new(console, line.try_clone().unwrap());
        let mut lsr = [0];
        uart.read(5, &mut lsr);
        assert_eq!(lsr[0] & 0x60, 0x60);
        uart.write(1, &[2]);
        assert_eq!(line.read().unwrap(), 1);
        let mut wide = [0; 4];
        uart.read(6, &mut wide);
        assert_eq!(wide[2..], [0, 0], "registers past the last are not there");
    }
}
