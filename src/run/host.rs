//! Where guests run.

use crate::exit::Failure;
use dmavet_vmm::{VmmError, probe};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// The choice of `--host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Host {
    /// This machine's KVM if it can run Linux, else the lab
    Auto,
    /// This machine's KVM
    Kvm,
    /// KVM inside a software-emulated machine
    Lab,
}

/// Where a run goes after probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine's KVM.
    Here,
    /// In the lab.
    Lab,
}

/// Decides where guests run.
///
/// # Errors
/// When `--host kvm` was asked for and KVM here cannot run Linux.
pub fn choose(host: Host) -> Result<Place, Failure> {
    match host {
        Host::Lab => Ok(Place::Lab),
        Host::Kvm => describe().map(|_| Place::Here).map_err(Failure::cannot_run),
        Host::Auto => Ok(if describe().is_ok() { Place::Here } else { Place::Lab }),
    }
}

/// What KVM on this machine can do: `Ok` if it can run Linux.
pub fn describe() -> Result<String, String> {
    probe().require().map(|()| "/dev/kvm works".into()).map_err(|e| explain(&e).message)
}

/// The failure of a machine that could not be run.
pub fn explain(error: &VmmError) -> Failure {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    match error {
        VmmError::Boot(_)
        | VmmError::Cpus { .. }
        | VmmError::Devices { .. }
        | VmmError::PlatformDevices { .. }
        | VmmError::Device { .. } => Failure::usage(message),
        _ => Failure::cannot_run(message),
    }
}

/// Set once the user interrupts the program (SIGINT, SIGTERM).
#[derive(Debug)]
pub struct Cancel {
    /// Readable from then on.
    pub fd: EventFd,
    /// True from then on.
    pub flag: AtomicBool,
}

/// Watches for interruptions from the first call on.
///
/// # Errors
/// When the system gives no descriptor or no handler.
pub fn cancel_on_signals() -> Result<&'static Cancel, Failure> {
    static CANCEL: OnceLock<Cancel> = OnceLock::new();
    if let Some(cancel) = CANCEL.get() {
        return Ok(cancel);
    }
    let failed = |e: std::io::Error| Failure::internal(format!("cannot watch for signals: {e}"));
    let fresh = Cancel { fd: EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).map_err(failed)?, flag: AtomicBool::new(false) };
    let cancel = CANCEL.get_or_init(|| fresh);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                cancel.flag.store(true, Ordering::SeqCst);
                let _ = cancel.fd.write(1);
            }
        })
        .map_err(failed)?;
    Ok(cancel)
}
