//! The host's side of a run: a timer for the limits and the console, the caller's wish to cancel, and the end.

use crate::board::Activity;
use crate::end::{End, EndCell};
use crate::journal::Journal;
use crate::legacy::serial::Console;
use crate::watchdog::Watchdog;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

/// Why the supervisor could not work.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A descriptor could not be made.
    #[error("cannot make a {0} for the supervisor: {1}")]
    Descriptor(&'static str, std::io::Error),
    /// The event loop failed.
    #[error("the supervisor's event loop failed: {0:?}")]
    Loop(event_manager::Error),
}

/// What the supervisor looks after.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Where the end is decided.
    pub end: Arc<EndCell>,
    /// Signs of life.
    pub activity: Arc<Activity>,
    /// How far the guest got.
    pub journal: Arc<Journal>,
    /// The console, flushed at every tick.
    pub console: Arc<Console>,
}

struct Supervisor {
    charge: Charge,
    watchdog: Watchdog,
    timer: TimerFd,
    cancel: EventFd,
}

impl Supervisor {
    fn tick(&mut self) {
        // Only the arrival matters, not how many ticks were missed.
        let _ = self.timer.wait();
        self.charge.console.flush();
        let activity = self.charge.activity.count() + self.charge.console.bytes();
        let verdict = self.watchdog.check(self.charge.journal.elapsed(), self.charge.journal.stage(), activity);
        if let Some(end) = verdict {
            self.charge.end.set(end);
        }
    }
}

impl MutEventSubscriber for Supervisor {
    fn init(&mut self, ops: &mut EventOps) {
        let fds = [self.timer.as_raw_fd(), self.cancel.as_raw_fd(), self.charge.end.fd().as_raw_fd()];
        for fd in fds {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                self.charge.end.internal(format!("cannot watch a descriptor of the supervisor: {error:?}"));
            }
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        if events.fd() == self.timer.as_raw_fd() {
            self.tick();
        } else if events.fd() == self.cancel.as_raw_fd() {
            // Left unread: it is the caller's, and the loop ends after this.
            self.charge.end.set(End::Cancelled);
        }
    }
}

/// Waits until the run has ended, and returns why.
///
/// # Errors
/// When the event loop cannot be set up or fails.
pub fn wait(charge: Charge, watchdog: Watchdog, cancel: &EventFd) -> Result<End, SupervisorError> {
    let mut timer = TimerFd::new().map_err(|error| SupervisorError::Descriptor("timerfd", error.into()))?;
    let tick = watchdog.tick();
    timer.reset(tick, Some(tick)).map_err(|error| SupervisorError::Descriptor("timer", error.into()))?;
    let cancel = cancel.try_clone().map_err(|error| SupervisorError::Descriptor("cancel eventfd", error))?;
    let end = charge.end.clone();
    let mut manager = EventManager::new().map_err(SupervisorError::Loop)?;
    manager.add_subscriber(Supervisor { charge, watchdog, timer, cancel });
    loop {
        if let Some(end) = end.get() {
            return Ok(end);
        }
        manager.run().map_err(SupervisorError::Loop)?;
    }
}
