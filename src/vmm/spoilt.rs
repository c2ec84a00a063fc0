//! Interrupts that are lost, or come when nobody sent them.

use crate::irq::Vectors;
use dmavet_coherence::{FaultKind, Faults, Requester};
use dmavet_devices::bus::MsiSink as _;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The faults of the interrupts of all devices.
#[derive(Debug)]
pub struct SpoiltInterrupts {
    faults: Mutex<Faults>,
    /// Interrupts that come a second time.
    again: SyncSender<(Arc<Vectors>, u16)>,
}

impl SpoiltInterrupts {
    /// A second interrupt comes so much later: the first has been taken by then, else KVM would make one of the two.
    const DELAY: Duration = Duration::from_millis(2);
    /// Second interrupts that may wait; a device that asks for more gets no more.
    const WAITING: usize = 64;

    /// Interrupts that suffer from `faults`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(faults: Faults) -> std::io::Result<Arc<Self>> {
        let (again, waiting) = std::sync::mpsc::sync_channel::<(Arc<Vectors>, u16)>(Self::WAITING);
        std::thread::Builder::new().name("interrupts".into()).spawn(move || {
            for (vectors, vector) in waiting {
                std::thread::sleep(Self::DELAY);
                vectors.trigger(vector);
            }
        })?;
        Ok(Arc::new(Self { faults: Mutex::new(faults), again }))
    }

    /// Whether the interrupt that is about to be delivered is lost, and whether it comes twice.
    pub fn strike(&self, requester: Requester) -> (bool, bool) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        (faults.strikes(FaultKind::IrqLost, requester, 0), faults.strikes(FaultKind::IrqTwice, requester, 0))
    }

    /// Delivers an interrupt a second time, a little later.
    pub fn again(&self, vectors: Arc<Vectors>, vector: u16) {
        let _ = self.again.try_send((vectors, vector));
    }
}
