//! Hand-overs, steps, emulated accesses and stopping the world, in thousands of interleavings.
//!
//! `cargo test -p dmavet-vmm --features shuttle watch::model`
//!
//! The gate and the world are the real ones. What is modelled: the hardware is one page with a protection and a counter, a CPU
//! increments the counter or traps, the core is a mutex with a tally. Checked in every interleaving: nothing deadlocks; no access
//! happens unseen while the device owns the page; nor does one that was judged before the device got the page (the other way round, an
//! access and a give-back that race, is the program's own race, and reported as one); no increment is lost; what the core was told and what was allowed to go unseen adds up.

use super::frames::{Frames, Page};
use super::gate::PageGate;
use super::protect::Protect;
use super::sync::{Mutex, lock, thread};
use super::world::{Kick, World};
use dmavet_coherence::{Gate, Gpa, Guard};
use std::ops::Range;
use std::sync::Arc;

const PAGE: Page = Page(0);

#[derive(Debug, Default)]
struct Hardware {
    guard: Guard,
    value: u64,
    /// The device owns the page, as the program sees it: from the end of one hand-over to the start of the next.
    owned: bool,
}

#[derive(Debug, Clone)]
struct Wires(Arc<Mutex<Hardware>>);

impl Protect for Wires {
    fn protect(&self, _pages: Range<u32>, guard: Guard) -> std::io::Result<()> {
        lock(&self.0).guard = guard;
        Ok(())
    }
}

/// The model's CPUs come out of the guest by themselves.
#[derive(Debug)]
struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _cpu: usize) {}
}

#[derive(Debug)]
struct Machine {
    hardware: Arc<Mutex<Hardware>>,
    /// The core: accesses it was told of.
    core: Mutex<u64>,
    gate: PageGate,
    world: World,
}

#[derive(Clone, Copy)]
enum Tier {
    Emulate,
    Step,
}

impl Machine {
    fn new(cpus: usize) -> Arc<Self> {
        let hardware = Arc::new(Mutex::new(Hardware::default()));
        let gate = PageGate::new(Frames::new(&[(0, 4096)]), Box::new(Wires(hardware.clone())));
        Arc::new(Self { hardware, core: Mutex::new(0), gate, world: World::new(cpus, Arc::new(NoKick)) })
    }

    /// One increment by `cpu`; true when it went unseen.
    fn increment(&self, cpu: usize, tier: Tier) -> bool {
        loop {
            self.world.enter(cpu);
            let through = {
                let mut hardware = lock(&self.hardware);
                let through = hardware.guard == Guard::Open;
                if through {
                    assert!(!hardware.owned, "an access to the device's page went unseen");
                    hardware.value += 1;
                }
                through
            };
            self.world.leave(cpu);
            if through {
                return true;
            }
            if self.gate.guarded([PAGE]).is_empty() {
                continue;
            }
            match tier {
                Tier::Emulate => {
                    let mut core = lock(&self.core);
                    *core += 1;
                    lock(&self.hardware).value += 1;
                }
                Tier::Step => self.step(cpu),
            }
            return false;
        }
    }

    fn step(&self, cpu: usize) {
        let (step, judged) = {
            let mut core = lock(&self.core);
            *core += 1;
            (self.gate.begin_step(&[PAGE]), lock(&self.hardware).owned)
        };
        let stopped = self.world.stop(cpu);
        step.open();
        {
            let mut hardware = lock(&self.hardware);
            assert_eq!(hardware.guard, Guard::Open, "the page was closed under a step");
            assert!(judged || !hardware.owned, "the page became the device's between judgement and access");
            hardware.value += 1;
        }
        drop(step);
        drop(stopped);
    }

    /// A hand-over to the device and back, in a doorbell exit of `cpu`.
    fn hand_over(&self, cpu: usize) {
        for guard in [Guard::Closed, Guard::Open] {
            self.world.enter(cpu);
            self.world.leave(cpu);
            let core = lock(&self.core);
            if guard == Guard::Open {
                lock(&self.hardware).owned = false;
            }
            let mut refused = Vec::new();
            self.gate.apply(&[(Gpa(0), guard)], &mut refused);
            assert!(refused.is_empty());
            if guard == Guard::Closed {
                lock(&self.hardware).owned = true;
            }
            drop(core);
        }
    }
}

/// CPUs with these tiers increment, two times each, while one more hands the page over.
fn scenario(tiers: &'static [Tier]) {
    let machine = Machine::new(tiers.len() + 1);
    let cpus: Vec<_> = tiers
        .iter()
        .enumerate()
        .map(|(cpu, tier)| {
            let machine = machine.clone();
            thread::spawn(move || (0..2).filter(|_| machine.increment(cpu, *tier)).count() as u64)
        })
        .collect();
    for _ in 0..2 {
        machine.hand_over(tiers.len());
    }
    let unseen: u64 = cpus.into_iter().map(|cpu| cpu.join().unwrap()).sum();
    let hardware = lock(&machine.hardware);
    assert_eq!(hardware.value, 2 * tiers.len() as u64, "an increment was lost");
    assert_eq!(*lock(&machine.core) + unseen, hardware.value);
    assert_eq!(hardware.guard, Guard::Open);
}

fn check(tiers: &'static [Tier]) {
    shuttle::check_random(move || scenario(tiers), 5000);
    shuttle::check_pct(move || scenario(tiers), 5000, 4);
}

#[test]
fn a_step_and_a_hand_over_exclude_each_other() {
    check(&[Tier::Step]);
}

#[test]
fn two_steps_and_a_hand_over() {
    check(&[Tier::Step, Tier::Step]);
}

#[test]
fn a_step_an_emulation_and_a_hand_over() {
    check(&[Tier::Step, Tier::Emulate]);
}

#[test]
fn two_emulations_and_a_hand_over() {
    check(&[Tier::Emulate, Tier::Emulate]);
}
