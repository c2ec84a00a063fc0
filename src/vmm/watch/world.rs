//! Which CPUs are in the guest, and stopping all but one of them.
//!
//! ```text
//! CPU:      enter: inside := true; stop? -> inside := false, wait      KVM_RUN      leave: inside := false, tell the stopper
//! stopper:  stop := true; kick every CPU that is inside; wait until none is          ...          stop := false, wake all
//! ```
//! Each side writes its own flag before it reads the other's, so one of them sees the other.
//!
//! A stopper waits only for CPUs *inside* `KVM_RUN`, which come out by themselves when kicked. A CPU in an exit (in a doorbell, say,
//! waiting for a lock) is not inside and is not waited for; it just does not get back in.
//!
//! Lock order: [`World::stop`] is called with no lock held that a CPU could want before it leaves `KVM_RUN` (none: a CPU holds
//! nothing across `KVM_RUN`), and with none that another stopper could want before it is done (a stopper wants the
//! [gate](super::gate)'s only).

use super::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, lock, wait};
use std::fmt;
use std::sync::Arc;

/// Makes a CPU come out of `KVM_RUN`.
pub trait Kick: Send + Sync + fmt::Debug {
    /// Kicks CPU `cpu`. A kick that comes just before `KVM_RUN` makes that return at once.
    fn kick(&self, cpu: usize);
}

/// All CPUs of the guest.
#[derive(Debug)]
pub struct World {
    inside: Vec<AtomicBool>,
    stop: AtomicBool,
    /// Held by whoever has stopped the world, or is about to.
    stopper: Mutex<()>,
    /// Guards nothing but the waiting.
    gate: Mutex<()>,
    /// A CPU left the guest.
    left: Condvar,
    /// The world goes on.
    go: Condvar,
    kick: Arc<dyn Kick>,
}

impl World {
    /// A world of `cpus` CPUs, all outside.
    #[must_use]
    pub fn new(cpus: usize, kick: Arc<dyn Kick>) -> Self {
        Self {
            inside: (0..cpus).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            stopper: Mutex::new(()),
            gate: Mutex::new(()),
            left: Condvar::new(),
            go: Condvar::new(),
            kick,
        }
    }

    /// CPU `cpu` is about to call `KVM_RUN`: waits while the world is stopped.
    pub fn enter(&self, cpu: usize) {
        let Some(inside) = self.inside.get(cpu) else { return };
        loop {
            inside.store(true, Ordering::SeqCst);
            if !self.stop.load(Ordering::SeqCst) {
                return;
            }
            self.leave(cpu);
            let mut gate = lock(&self.gate);
            while self.stop.load(Ordering::SeqCst) {
                gate = wait(&self.go, gate);
            }
        }
    }

    /// CPU `cpu` is back from `KVM_RUN`.
    pub fn leave(&self, cpu: usize) {
        if let Some(inside) = self.inside.get(cpu) {
            inside.store(false, Ordering::SeqCst);
        }
        if self.stop.load(Ordering::SeqCst) {
            drop(lock(&self.gate));
            self.left.notify_all();
        }
    }

    /// Kicks CPU `cpu` if it is in the guest.
    pub fn kick(&self, cpu: usize) {
        self.kick.kick(cpu);
    }

    /// Stops every CPU but `but`, which must be outside, and keeps them out until the result is dropped.
    pub fn stop(&self, but: usize) -> Stopped<'_> {
        let stopper = lock(&self.stopper);
        self.stop.store(true, Ordering::SeqCst);
        let others = || self.inside.iter().enumerate().filter(move |(cpu, _)| *cpu != but);
        for (cpu, inside) in others() {
            if inside.load(Ordering::SeqCst) {
                self.kick.kick(cpu);
            }
        }
        let mut gate = lock(&self.gate);
        while others().any(|(_, inside)| inside.load(Ordering::SeqCst)) {
            gate = wait(&self.left, gate);
        }
        drop(gate);
        Stopped { world: self, _stopper: stopper }
    }
}

/// While this lives, no other CPU is in the guest.
#[derive(Debug)]
#[must_use]
pub struct Stopped<'a> {
    world: &'a World,
    _stopper: MutexGuard<'a, ()>,
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let gate = lock(&self.world.gate);
        self.world.stop.store(false, Ordering::SeqCst);
        drop(gate);
        self.world.go.notify_all();
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    /// CPUs of this test come out by themselves.
    #[derive(Debug)]
    struct NoKick;

    impl Kick for NoKick {
        fn kick(&self, _cpu: usize) {}
    }

    #[test]
    fn a_stopper_is_alone() {
        let world = Arc::new(World::new(3, Arc::new(NoKick)));
        let count = Arc::new(AtomicU64::new(0));
        let cpus: Vec<_> = (0..2)
            .map(|cpu| {
                let (world, count) = (world.clone(), count.clone());
                thread::spawn(move || {
                    for _ in 0..2000 {
                        world.enter(cpu);
                        count.fetch_add(1, Ordering::Relaxed);
                        world.leave(cpu);
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            let stopped = world.stop(2);
            let before = count.load(Ordering::Relaxed);
            thread::yield_now();
            assert_eq!(count.load(Ordering::Relaxed), before);
            drop(stopped);
        }
        cpus.into_iter().for_each(|cpu| cpu.join().unwrap());
        assert_eq!(count.load(Ordering::Relaxed), 4000);
    }
}
