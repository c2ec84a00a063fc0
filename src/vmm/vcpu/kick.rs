//! Getting a vCPU thread out of `KVM_RUN`.
//!
//! The signal's handler sets `immediate_exit` in the `kvm_run` page of the thread it runs on. A signal that comes just before
//! `KVM_RUN` is therefore not lost: the call returns at once.

#![expect(unsafe_code, reason = "a signal handler writes to the kvm_run page of its own thread")]

use crate::kvm::KvmError;
use kvm_ioctls::VcpuFd;
use std::cell::Cell;
use std::sync::Once;
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
