//! Several CPUs at one guarded page with `lock inc`: no increment may be lost and none may go unseen.

use super::layout::{A, CODE, MAILBOX};
use super::pass::{Bench, describe};
use super::report::HammerReport;
use crate::boot::BootError;
use crate::end::End;
use crate::error::VmmError;
use crate::layout::POWER_PORTS;
use crate::legacy::power;
use crate::vcpu::state::Entry;
use crate::watch::{TierChoice, WatchConfig};
use dmavet_coherence::{
    Answer, ApiCall, Attrs, Bdf, Caller, Coherence, Direction, Extent, Family, Gpa, Limits, MapCall, PageKind, Requester, SiteId,
};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, al, dx, eax, ecx, qword_ptr, rax, rbx, rdi, rsi};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// The counter, in the page under test.
const COUNTER: u64 = A.gpa + 0x80;
/// CPUs that are ready, and CPUs that are done.
const READY: u64 = MAILBOX;
const DONE: u64 = MAILBOX + 64;
/// Not 0: the CPUs are to stop.
const STOP: u64 = MAILBOX + 128;
/// Increments that each CPU made.
const MADE: u64 = MAILBOX + 192;
/// Where the page changes all the time: how often it is closed, ...
const ROUNDS: u32 = 60;
/// ... for so many traps or so long, ...
const TRAPS: u64 = 20;
const PATIENCE: Duration = Duration::from_millis(20);
/// ... and how long it is open in between.
const OPEN: Duration = Duration::from_micros(200);

/// One way to hammer.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// CPUs of the guest.
    pub cpus: u8,
    /// Increments of each; without meaning where the page changes.
    pub each: u32,
    /// Always stepped.
    pub step: bool,
    /// The page is opened and closed all the time, instead of being owned by a device for good.
    pub changing: bool,
}

impl Plan {
    /// In words.
    pub fn name(&self) -> String {
        let how = if self.step { "stepped" } else { "emulated" };
        let page = if self.changing { ", the page opened and closed meanwhile" } else { "" };
        format!("{} CPUs, lock inc, {how}{page}", self.cpus)
    }
}

/// Runs it.
///
/// # Errors
/// When KVM cannot be used at all.
pub fn run(plan: Plan, config: WatchConfig, emulator: bool) -> Result<HammerReport, VmmError> {
    let tier = if plan.step { TierChoice::StepOnly } else { TierChoice::Auto };
    let bench = Bench::new(plan.cpus, WatchConfig { tier, ..config })?;
    let code = program(plan).map_err(|error| VmmError::SelfCheck(error.to_string()))?;
    bench.ram.write_slice(&code, GuestAddress(CODE)).map_err(|_| BootError::Write { what: "the hammer", gpa: CODE })?;
    bench.machine.set_entry_of_all(Entry::Linux64 { rip: CODE }, MAILBOX)?;
    let mut failure = None;
    if !plan.changing && !give_to_device(&bench.core) {
        failure = Some("the core did not map the page".to_owned());
    }
    let (ram, core, watch) = (bench.ram.clone(), bench.core.clone(), bench.watch.clone());
    let over = Arc::new(AtomicBool::new(false));
    let changer = match (&watch, plan.changing) {
        (Some(watch), true) => {
            let (watch, over) = (watch.clone(), over.clone());
            let ram = ram.clone();
            let body = move || {
                for _ in 0..ROUNDS {
                    let (before, start) = (watch.ways().total(), Instant::now());
                    watch.hold(&[A.gpa], true);
                    while watch.ways().total() < before + TRAPS && start.elapsed() < PATIENCE && !over.load(Ordering::Relaxed) {
                        thread::sleep(OPEN);
                    }
                    watch.hold(&[A.gpa], false);
                    thread::sleep(OPEN);
                }
                // A machine that ended early is told by its end.
                let _ = ram.write_obj(1u64, GuestAddress(STOP));
            };
            Some(thread::Builder::new().name("changer".into()).spawn(body).map_err(VmmError::Thread)?)
        }
        _ => None,
    };
    let end = bench.run();
    over.store(true, Ordering::Relaxed);
    if let Some(changer) = changer {
        let _ = changer.join();
    }
    let end = end?;
    let made = (0..u64::from(plan.cpus)).map(|cpu| ram.read_obj::<u64>(GuestAddress(MADE + cpu * 8)).unwrap_or(0)).sum();
    let counted = ram.read_obj::<u64>(GuestAddress(COUNTER)).unwrap_or(0);
    let told = core.stats().cpu_accesses;
    let ways = watch.map(|watch| watch.ways()).unwrap_or_default();
    let carried_out = ways.emulated + ways.stepped;
    if end != End::PowerOff {
        failure = Some(describe(&end));
    } else if ways.overrun != 0 {
        failure = Some(format!("{} single steps did not end after their instruction", ways.overrun));
    } else if made == 0 || (plan.changing && carried_out == 0) {
        failure = Some(format!("{made} increments were made, {carried_out} of them stopped"));
    } else if counted != made {
        failure = Some(format!("{made} increments were made, memory says {counted}"));
    } else if !plan.changing && carried_out != made {
        failure = Some(format!("{made} increments were made, {carried_out} were seen"));
    } else if !plan.changing && (told < made || told != made + ways.repeated && !emulator) {
        // KVM's own emulator reads before it finds out that it cannot write: the core hears of that read, too.
        failure = Some(format!("{made} increments were made, the core was told of {told}"));
    }
    let host_cpus = thread::available_parallelism().map_or(1, usize::from);
    Ok(HammerReport { what: plan.name(), cpus: plan.cpus, host_cpus, made, counted, told, ways: ways.into(), failure })
}

/// Maps the page for a device, which owns it from then on.
fn give_to_device(core: &Coherence) -> bool {
    let requester = Requester::Pci(Bdf::new(0, 2, 0));
    core.add_device(requester, "hammer");
    let call = MapCall {
        family: Family::Single,
        extents: vec![Extent { gpa: Gpa(A.gpa), len: super::layout::PAGE }],
        direction: Direction::Bidirectional,
        attrs: Attrs::empty(),
        limits: Limits::default(),
        kind: PageKind::Other,
        object: (0, 0),
        cpu_addr: 0,
    };
    let caller = Caller { requester, site: SiteId::default(), cpu: 0 };
    matches!(core.call(caller, &ApiCall::Map(call)), Answer::Handles(_))
}

/// RDI is the CPU's number.
fn program(plan: Plan) -> Result<Vec<u8>, IcedError> {
    let cpus = i32::from(plan.cpus);
    let mut a = CodeAssembler::new(64)?;
    let (mut ready, mut increment, mut done, mut halt) = (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(rbx, COUNTER)?;
    a.mov(rsi, READY)?;
    a.lock().inc(qword_ptr(rsi))?;
    a.set_label(&mut ready)?;
    a.pause()?;
    a.cmp(qword_ptr(rsi), cpus)?;
    a.jb(ready)?;
    a.mov(ecx, plan.each)?;
    a.xor(eax, eax)?;
    a.set_label(&mut increment)?;
    a.lock().inc(qword_ptr(rbx))?;
    a.inc(rax)?;
    if plan.changing {
        a.cmp(qword_ptr(rsi + i32::try_from(STOP - READY).unwrap_or(0)), 0)?;
        a.je(increment)?;
    } else {
        a.dec(ecx)?;
        a.jne(increment)?;
    }
    a.mov(qword_ptr(rsi + rdi * 8 + i32::try_from(MADE - READY).unwrap_or(0)), rax)?;
    a.mov(rsi, DONE)?;
    a.lock().inc(qword_ptr(rsi))?;
    a.test(rdi, rdi)?;
    a.jne(halt)?;
    a.set_label(&mut done)?;
    a.pause()?;
    a.cmp(qword_ptr(rsi), cpus)?;
    a.jb(done)?;
    a.mov(dx, u32::from(POWER_PORTS))?;
    a.mov(al, u32::from(power::S5_TYPE << 2 | 1 << 5))?;
    a.out(dx, al)?;
    a.set_label(&mut halt)?;
    a.pause()?;
    a.jmp(halt)?;
    a.assemble(CODE)
}
