//! The primitives that [`gate`](super::gate) and [`world`](super::world) are made of: the standard library's, or with the feature
//! `shuttle` those of a model checker that tries many interleavings.

#[cfg(feature = "shuttle")]
pub use shuttle::{
    sync::atomic::{AtomicBool, Ordering},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, ThreadId},
};
#[cfg(not(feature = "shuttle"))]
pub use std::{
    sync::atomic::{AtomicBool, Ordering},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, ThreadId},
};

use std::sync::PoisonError;

/// Locks; a panic elsewhere must not leave pages as they are.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `condvar`.
pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
