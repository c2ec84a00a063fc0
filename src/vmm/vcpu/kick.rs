//! Getting a vCPU thread out of `KVM_RUN`.
//!
//! The signal's handler sets `immediate_exit` in the `kvm_run` page of the thread it runs on. A signal that comes just before
//! `KVM_RUN` is therefore not lost: the call returns at once.

#![expect(unsafe_code, reason = "a signal handler writes to the kvm_run page of its own thread; threads are signalled")]

use crate::kvm::KvmError;
use crate::watch::Kick;
use kvm_ioctls::VcpuFd;
use std::cell::Cell;
use std::sync::{Arc, Mutex, Once, PoisonError};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// `immediate_exit` of the vCPU this thread runs, or null.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

/// The signal that kicks.
pub fn signal() -> i32 {
    SIGRTMIN()
}

extern "C" fn handle(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // Const-initialised and without a destructor: reading it in a handler neither allocates nor registers anything.
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: non-null only while `Kickable` lives on this thread, which borrows the vCPU and with it the mapping.
        unsafe { flag.write_volatile(1) };
    }
}

/// Installs the handler, once for the process.
///
/// # Errors
/// When the system refuses.
pub fn install() -> Result<(), KvmError> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = register_signal_handler(signal(), handle));
    result.map_err(KvmError::ioctl("sigaction"))
}

/// The threads of all vCPUs, for kicking them by number.
#[derive(Debug)]
pub struct Threads(Vec<Mutex<Option<libc::pthread_t>>>);

impl Threads {
    /// Room for `cpus`, none running yet.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| Mutex::new(None)).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The current thread runs vCPU `cpu` until the result is dropped, on the same thread.
    pub fn enlist(self: &Arc<Self>, cpu: usize) -> Enlisted {
        // SAFETY: always succeeds and touches nothing.
        self.set(cpu, Some(unsafe { libc::pthread_self() }));
        Enlisted { threads: self.clone(), cpu }
    }

    fn set(&self, cpu: usize, thread: Option<libc::pthread_t>) {
        if let Some(slot) = self.0.get(cpu) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = thread;
        }
    }
}

impl Kick for Threads {
    fn kick(&self, cpu: usize) {
        let Some(slot) = self.0.get(cpu) else { return };
        let thread = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread {
            // SAFETY: the thread exists: it takes itself off the list, under this lock, before it ends. The signal has a handler,
            // installed before any vCPU thread starts.
            unsafe { libc::pthread_kill(thread, signal()) };
        }
    }
}

/// A thread on the list.
#[derive(Debug)]
pub struct Enlisted {
    threads: Arc<Threads>,
    cpu: usize,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.threads.set(self.cpu, None);
    }
}

/// While this lives, the current thread can be kicked out of `KVM_RUN` on `fd`.
#[derive(Debug)]
pub struct Kickable(());

impl Kickable {
    /// Points the handler at `fd`. The value must be dropped before `fd`, on the same thread.
    pub fn new(fd: &mut VcpuFd) -> Self {
        IMMEDIATE_EXIT.set(&raw mut fd.get_kvm_run().immediate_exit);
        Self(())
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(std::ptr::null_mut());
    }
}
