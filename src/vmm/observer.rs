//! What a run tells while it is going on.

use dmavet_agent::AgentEvent;
use std::time::Duration;

/// Receives what happens in a run, on whichever thread it happens. Calls must not block for long: the guest waits meanwhile.
pub trait Observer: Send + Sync {
    /// Bytes the guest printed on its console.
    fn console(&self, bytes: &[u8]);
    /// What the agent said, before the machine acts on it.
    fn agent(&self, event: &AgentEvent);
    /// A phase was reached, `since_start` after [`run`](crate::run) was called.
    fn phase(&self, name: &str, since_start: Duration);
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn console(&self, _bytes: &[u8]) {}
    fn agent(&self, _event: &AgentEvent) {}
    fn phase(&self, _name: &str, _since_start: Duration) {}
}

#[cfg(test)]
pub mod testing {
    //! An observer for tests.
    use super::*;
    use std::sync::Mutex;

    /// Keeps the console's text.
    #[derive(Debug, Default)]
    pub struct Recorder(Mutex<Vec<u8>>);

    impl Recorder {
        /// The text so far.
        pub fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
        }
    }

    impl Observer for Recorder {
        fn console(&self, bytes: &[u8]) {
            self.0.lock().unwrap().extend_from_slice(bytes);
        }
        fn agent(&self, _event: &AgentEvent) {}
        fn phase(&self, _name: &str, _since_start: Duration) {}
    }
}
