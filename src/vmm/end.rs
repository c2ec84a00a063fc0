//! How a run ends.

use crate::ports::ResetBy;
use dmavet_coherence::Stopper;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// Which limit was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// From the start to the agent's hello.
    Boot,
    /// From the agent's hello to the workload's exit status.
    Command,
    /// From the start to the end.
    Total,
}

/// Why a run ended. The first reason wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The agent said that nothing more will come.
    Complete,
    /// The guest switched itself off.
    PowerOff,
    /// The guest reset itself.
    Reset(ResetBy),
    /// The guest kernel panicked; its message.
    Panic(String),
    /// A CPU shut down (triple fault), with its instruction pointer.
    TripleFault {
        /// Guest CPU.
        cpu: u8,
        /// RIP after the fault.
        rip: u64,
    },
    /// Nothing was printed, no agent call and no device access came in for this long.
    Silence(Duration),
    /// A limit was exceeded; its value.
    Timeout(Limit, Duration),
    /// A finding was made that the run was to end with.
    Finding,
    /// The caller cancelled.
    Cancelled,
    /// KVM or this VMM could not go on: what happened, for a bug report.
    Internal(String),
}

/// The place where the first [`End`] is kept, and an eventfd that becomes readable with it.
#[derive(Debug)]
pub struct EndCell {
    end: Mutex<Option<End>>,
    fd: EventFd,
}

impl EndCell {
    /// A run that has not ended.
    ///
    /// # Errors
    /// When the system has no eventfd to give.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { end: Mutex::default(), fd: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)? })
    }

    /// Ends the run, unless it has ended.
    pub fn set(&self, end: End) {
        let mut slot = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(end);
            // The counter goes from 0 to 1 and nobody writes it again.
            let _ = self.fd.write(1);
        }
    }

    /// Ends the run with [`End::Internal`].
    pub fn internal(&self, text: String) {
        self.set(End::Internal(text));
    }

    /// The reason, once there is one.
    pub fn get(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Readable once the run has ended.
    pub fn fd(&self) -> &EventFd {
        &self.fd
    }
}

impl Stopper for EndCell {
    fn stop(&self) {
        self.set(End::Finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_wins() {
        let cell = EndCell::new().unwrap();
        assert!(cell.fd().read().is_err());
        cell.set(End::PowerOff);
        cell.internal("later".into());
        assert_eq!(cell.get(), Some(End::PowerOff));
        assert_eq!(cell.fd().read().unwrap(), 1);
    }
}
