//! A CPU that was stopped at a guarded page: why, and what to do about it.
//!
//! | class | how it is known | what is done |
//! |---|---|---|
//! | event delivery | KVM holds an interrupt or exception to deliver again | the pages of stack and tables are lent |
//! | page walk | a guarded page holds a page table of this instruction | the page is given up for good |
//! | data, fetch | a guarded page holds an operand, or the instruction | the core is told; tier 1, tier 2 or a loan |
//! | raced | none of its pages is guarded (any more) | the CPU tries again |
//!
//! The core judges an access and lets it happen under one hold of its lock, so that no hand-over comes between: tier 1 happens in
//! there, tier 2 marks the pages in there ([`PageGate::begin_step`](super::gate::PageGate::begin_step)). Only an instruction that
//! touches both RAM and a device is judged first and carried out after, because the device may call the core.

use super::cpu::{StoppedCpu, TF};
use super::frames::Page;
use super::step::{self, Manner, Stepped};
use super::ways::Tally;
use super::{TierChoice, Watch, WatchStats, divide, event, inject, pv};
use crate::board::Board;
use crate::code::{CpuWitness, GuestView};
use crate::emulate::{self, Bus, CpuState, Insn, Prepared, Stop};
use crate::kvm::KvmError;
use crate::vcpu::exit::Reason;
use crate::vcpu::kick::Enlisted;
use dmavet_coherence::{CpuAccess, CpuOp, Gpa};
use kvm_bindings::{kvm_regs, kvm_vcpu_events};
use kvm_ioctls::VcpuFd;
use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a page may be lent when the CPU does not exit before.
const LOAN: Duration = Duration::from_millis(2);
/// Stops in a row at the same instruction without a page to blame, before all guarded pages are lent.
const DESPERATE: u32 = 8;
/// And before the run is given up.
const HOPELESS: u32 = 64;

/// Why the CPU came out of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `KVM_RUN` said `EFAULT`.
    Fault,
    /// KVM's instruction emulator failed.
    Emulation,
}

/// What became of a stop.
#[derive(Debug)]
pub enum After {
    /// The guest may go on.
    Enter,
    /// A step ended with another exit, to be dealt with.
    Exit(Reason),
    /// It was not the watch's doing.
    NotOurs,
    /// The run cannot go on, and why.
    Stuck(String),
}

/// One CPU's side of the watch.
#[derive(Debug)]
pub struct Trapper {
    watch: Arc<Watch>,
    cpu: usize,
    stats: WatchStats,
    /// Counts by form, with the form's name.
    tier1: HashMap<u32, (String, u64)>,
    tier2: HashMap<u32, (String, u64)>,
    /// There are loans to this CPU, for the instruction at this address.
    loan: Option<u64>,
    /// The state in which the CPU stopped last without a page to blame, and how often in a row.
    blank: Option<(Box<kvm_regs>, u32)>,
    /// The same for steps that got nowhere.
    fruitless: Option<(Box<kvm_regs>, u32)>,
    /// The instruction whose step was given up last.
    gave_up: Option<u64>,
    census: u32,
}

impl Trapper {
    /// For CPU `cpu`.
    #[must_use]
    pub fn new(watch: Arc<Watch>, cpu: usize) -> Self {
        let (tier1, tier2) = (HashMap::new(), HashMap::new());
        Self { watch, cpu, stats: WatchStats::default(), tier1, tier2, loan: None, blank: None, fruitless: None, gave_up: None, census: 0 }
    }

    /// The current thread runs this CPU until the result is dropped.
    #[must_use]
    pub fn enlist(&self) -> Enlisted {
        self.watch.threads.enlist(self.cpu)
    }

    /// Before the CPU enters the guest. Waits while the world is stopped.
    pub fn enter(&mut self, fd: &VcpuFd) {
        let census = self.watch.census.load(Ordering::Acquire);
        if census != self.census {
            self.census = census;
            self.watch.answer(self.cpu, &pv::pages(fd));
        }
        self.watch.world().enter(self.cpu);
    }

    /// The CPU left the guest for `reason`.
    pub fn left(&mut self, reason: &Reason) {
        self.watch.world().leave(self.cpu);
        if matches!(reason, Reason::Fault | Reason::Emulation(_)) {
            return;
        }
        self.blank = None;
        self.end_loan();
    }

    /// The figures.
    #[must_use]
    pub fn into_stats(mut self) -> WatchStats {
        self.end_loan();
        self.stats.tier1 = self.tier1.into_values().collect();
        self.stats.tier2 = self.tier2.into_values().collect();
        self.stats
    }

    /// KVM's emulator could not reach RAM through the guest mapping and asks for it as if it were a device's. `perform` makes the
    /// access on the host mapping.
    pub fn mmio(&mut self, gpa: u64, len: usize, write: bool, rip: u64, perform: &mut dyn FnMut()) {
        self.stats.traps.emulator += 1;
        Tally::one(&self.watch.tally.served);
        let start = Instant::now();
        let len = u32::try_from(len).unwrap_or(0);
        let access = CpuAccess { gpa: Gpa(gpa), len, read: !write, write };
        let regs = kvm_regs { rip, ..Default::default() };
        let mut witness = CpuWitness::new(regs, None, &self.watch.code);
        let op = CpuOp { accesses: &[access], cpu: number(self.cpu), user: false, rip };
        self.watch.core.cpu_access(&op, &mut witness, perform);
        if let Some(page) = self.watch.gate.frames().page(gpa) {
            self.watch.stress_hit(&[page]);
        }
        self.took(start);
    }

    /// The CPU stopped.
    ///
    /// # Errors
    /// When an ioctl fails.
    pub fn stop(&mut self, fd: &mut VcpuFd, board: &Board, cause: Cause) -> Result<After, KvmError> {
        let start = Instant::now();
        let watch = self.watch.clone();
        let mut cpu = StoppedCpu::read(fd, watch.synced)?;
        if self.loan.is_some_and(|rip| rip != cpu.regs().rip) {
            self.end_loan();
        }
        let after = self.classify(&mut cpu, board, cause);
        self.took(start);
        after
    }

    fn took(&mut self, start: Instant) {
        self.stats.trap_ns += u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }

    fn end_loan(&mut self) {
        if self.loan.take().is_some() {
            self.watch.gate.take_back(self.cpu);
        }
    }

    fn classify(&mut self, cpu: &mut StoppedCpu<'_>, board: &Board, cause: Cause) -> Result<After, KvmError> {
        let events = cpu.events();
        // After a failed emulation KVM holds the #UD it would have the guest take.
        let undefined = cause == Cause::Emulation && events.exception.nr == inject::UNDEFINED;
        if let Some(vector) = event::vector(&events).filter(|_| !undefined) {
            let touched = event::touched(&self.watch.ram, cpu.regs(), cpu.sregs(), vector);
            if let Some(after) = self.deliver(cpu, &touched, || "event delivery".into()) {
                return Ok(after);
            }
        }
        let ram = self.watch.ram.clone();
        let insn = match Insn::decode(cpu, &ram) {
            Ok(insn) => insn,
            Err(stop) => return self.no_operands(cpu, cause, stop, &[]),
        };
        let tables = self.guarded(insn.tables());
        if !tables.is_empty() {
            return Ok(self.give_up(&tables));
        }
        let prepared = match insn.prepare(cpu, &ram) {
            Ok(prepared) => prepared,
            Err(stop) => return self.no_operands(cpu, cause, stop, insn.code_pages()),
        };
        let tables = self.guarded(prepared.tables());
        if !tables.is_empty() {
            return Ok(self.give_up(&tables));
        }
        let code = self.guarded(prepared.code_pages());
        let mut pages = self.guarded(&prepared.pieces().iter().map(|piece| piece.gpa).collect::<Vec<_>>());
        if code.is_empty() && pages.is_empty() {
            return match cause {
                Cause::Emulation => self.emulation_failed(cpu, &prepared),
                Cause::Fault => Ok(self.blank(cpu, &prepared)),
            };
        }
        self.blank = None;
        if code.is_empty() {
            self.stats.traps.data += 1;
        } else {
            self.stats.traps.fetch += 1;
        }
        pages.extend(code.iter().filter(|page| !pages.contains(page)).copied().collect::<Vec<_>>());
        if !prepared.complete() {
            // It touches more than its operands: all of it must be open at the same time.
            let touched = event::surroundings(cpu.regs(), cpu.sregs());
            let tables: Vec<_> = touched.iter().flat_map(|gva| emulate::tables(&ram, cpu.sregs(), *gva)).collect();
            let tables = self.guarded(&tables);
            if !tables.is_empty() {
                return Ok(self.give_up(&tables));
            }
            let more = self.guarded(&touched.iter().filter_map(|gva| emulate::lookup(&ram, cpu.sregs(), *gva)).collect::<Vec<_>>());
            pages.extend(more.iter().filter(|page| !pages.contains(page)).copied().collect::<Vec<_>>());
        }
        self.watch.stress_hit(&pages);
        self.carry_out(cpu, board, &insn, &prepared, &pages, events)
    }

    /// Pages with a guard among those of these addresses.
    fn guarded(&self, gpas: &[u64]) -> Vec<Page> {
        self.watch.gate.guarded(gpas.iter().filter_map(|gpa| self.watch.gate.frames().page(*gpa)))
    }

    fn give_up(&mut self, tables: &[Page]) -> After {
        self.stats.traps.page_walk += 1;
        Tally::one(&self.watch.tally.opened);
        for page in tables {
            self.watch.abandon(*page, "the page holds a page table of the guest");
        }
        After::Enter
    }

    /// The CPU touches stack and tables by itself: it delivers an event, or the instruction does what `why` says. Nothing when none of
    /// the pages is guarded.
    fn deliver(&mut self, cpu: &StoppedCpu<'_>, touched: &[u64], why: impl FnOnce() -> String) -> Option<After> {
        let mut gpas: Vec<_> = touched.iter().flat_map(|gva| emulate::tables(&self.watch.ram, cpu.sregs(), *gva)).collect();
        let tables = self.guarded(&gpas);
        if !tables.is_empty() {
            return Some(self.give_up(&tables));
        }
        gpas.extend(touched.iter().filter_map(|gva| emulate::lookup(&self.watch.ram, cpu.sregs(), *gva)));
        let pages = self.guarded(&gpas);
        if pages.is_empty() {
            return self.heal(&gpas).then_some(After::Enter);
        }
        self.stats.traps.event_delivery += 1;
        self.watch.stress_hit(&pages);
        self.lend(&pages, cpu.regs().rip, why);
        Some(After::Enter)
    }

    fn lend(&mut self, pages: &[Page], rip: u64, why: impl FnOnce() -> String) {
        *self.stats.opened_for.entry(why()).or_default() += 1;
        let until = Instant::now() + LOAN;
        Tally::one(&self.watch.tally.opened);
        self.watch.gate.lend(pages, self.cpu, until);
        self.watch.keeper.watch_loan(until);
        self.loan = Some(rip);
    }

    /// The instruction or its operands could not be found out.
    fn no_operands(&mut self, cpu: &mut StoppedCpu<'_>, cause: Cause, stop: Stop, code: &[u64]) -> Result<After, KvmError> {
        if cause == Cause::Emulation {
            return Ok(After::NotOurs);
        }
        match stop {
            // What the CPU would raise had it come so far: it stopped at the page first.
            Stop::Fault(fault) => inject::page_fault(cpu.fd(), fault)?,
            Stop::General => inject::exception(cpu.fd(), inject::GENERAL, Some(0))?,
            Stop::Stack => inject::exception(cpu.fd(), inject::STACK, Some(0))?,
            Stop::Raced => {
                self.stats.traps.raced += 1;
                return Ok(After::Enter);
            }
            Stop::Undecodable(_) | Stop::TableOutside { .. } | Stop::CodeOutside { .. } => {
                let start = cpu.linear_rip();
                let mut gpas = code.to_vec();
                gpas.extend([start, start.wrapping_add(14)].iter().filter_map(|gva| emulate::lookup(&self.watch.ram, cpu.sregs(), *gva)));
                let pages = self.guarded(&gpas);
                if pages.is_empty() {
                    return Ok(self.nobody_to_blame(cpu, &gpas, || "unknown instruction".into()));
                }
                self.stats.traps.fetch += 1;
                self.watch.stress_hit(&pages);
                self.lend(&pages, cpu.regs().rip, || "unknown instruction".into());
                return Ok(After::Enter);
            }
        }
        self.stats.traps.data += 1;
        Tally::one(&self.watch.tally.injected);
        Ok(After::Enter)
    }

    /// None of the pages of the instruction is guarded.
    fn blank(&mut self, cpu: &StoppedCpu<'_>, prepared: &Prepared) -> After {
        let pieces = prepared.pieces().iter().map(|piece| &piece.gpa);
        let mut gpas: Vec<_> = pieces.chain(prepared.code_pages()).chain(prepared.tables()).copied().collect();
        if !prepared.complete() {
            let around = event::surroundings(cpu.regs(), cpu.sregs());
            if let Some(after) = self.deliver(cpu, &around, || prepared.form()) {
                return after;
            }
            gpas.extend(around.iter().filter_map(|gva| emulate::lookup(&self.watch.ram, cpu.sregs(), *gva)));
        }
        self.nobody_to_blame(cpu, &gpas, || prepared.form())
    }

    /// Makes pages reachable that the backend has not met yet. Whether there was one.
    fn heal(&self, gpas: &[u64]) -> bool {
        let frames = self.watch.gate.frames();
        gpas.iter().filter_map(|gpa| frames.page(*gpa)).filter(|page| self.watch.gate.heal(*page)).count() != 0
    }

    /// How often in a row the CPU stopped in this very state.
    fn again(&mut self, cpu: &StoppedCpu<'_>) -> u32 {
        let before = self.blank.take().filter(|(regs, _)| **regs == *cpu.regs()).map_or(0, |(_, times)| times);
        self.blank = Some((Box::new(*cpu.regs()), before + 1));
        before + 1
    }

    /// KVM's emulator failed at an instruction none of whose pages is guarded: perhaps one was a moment ago, or the backend has not met one yet.
    /// Should it fail again, it is the emulator's own doing.
    fn emulation_failed(&mut self, cpu: &mut StoppedCpu<'_>, prepared: &Prepared) -> Result<After, KvmError> {
        const ATTEMPTS: u32 = 4;
        let pieces = prepared.pieces().iter().map(|piece| &piece.gpa);
        let gpas: Vec<_> = pieces.chain(prepared.code_pages()).chain(prepared.tables()).copied().collect();
        if !self.heal(&gpas) && self.again(cpu) >= ATTEMPTS {
            return Ok(After::NotOurs);
        }
        self.stats.traps.raced += 1;
        // Writing the registers takes the #UD back that KVM holds ready.
        cpu.write_regs()?;
        Ok(After::Enter)
    }

    /// Most likely the page was given back meanwhile. If it goes on, the operands are not what they seem: first everything is opened
    /// for a moment, then the run ends.
    fn nobody_to_blame(&mut self, cpu: &StoppedCpu<'_>, gpas: &[u64], form: impl FnOnce() -> String) -> After {
        if self.heal(gpas) {
            return After::Enter;
        }
        self.stats.traps.raced += 1;
        let rip = cpu.regs().rip;
        let times = self.again(cpu);
        if times >= HOPELESS {
            return After::Stuck(format!("KVM cannot reach guest memory, and no page of the instruction is guarded: {gpas:x?}"));
        }
        if times >= DESPERATE {
            let all = self.watch.gate.guarded((0..self.watch.gate.frames().count()).map(Page));
            if !all.is_empty() {
                self.lend(&all, rip, || format!("no page to blame: {}", form()));
            }
        }
        After::Enter
    }

    /// Tells the core and has the instruction carried out.
    fn carry_out(
        &mut self,
        cpu: &mut StoppedCpu<'_>,
        board: &Board,
        insn: &Insn,
        prepared: &Prepared,
        pages: &[Page],
        events: kvm_vcpu_events,
    ) -> Result<After, KvmError> {
        let watch = self.watch.clone();
        if prepared.pieces().iter().any(|piece| piece.write) {
            board.activity.note();
        }
        let emulate = watch.config.tier == TierChoice::Auto && prepared.can_emulate();
        let bitness = cpu.bitness();
        let manner = LazyCell::new(|| Manner::of(insn.bytes().as_slice(), bitness));
        let mut accesses = accesses(prepared);
        if !emulate && *manner == Manner::Shadow {
            accesses.extend(self.next_accesses(cpu, prepared));
        }
        let regs = *cpu.regs();
        let op = CpuOp { accesses: &accesses, cpu: number(self.cpu), user: prepared.user(), rip: regs.rip };
        let sregs = *cpu.sregs();
        let mut witness = CpuWitness::new(regs, Some(GuestView { sregs: &sregs, ram: &watch.ram }), &watch.code);
        let mut bus = BoardBus { board, rip: prepared.next_ip() };
        let mut done = false;
        let mut marked = None;
        let mut finish = |cpu: &mut StoppedCpu<'_>| {
            done = emulate && prepared.perform(cpu, &watch.ram, &mut bus).is_ok();
            if !done && *manner != Manner::Never {
                marked = Some(watch.gate.begin_step(pages));
            }
        };
        if emulate && prepared.touches_mmio() {
            watch.core.cpu_access(&op, &mut witness, &mut || {});
            finish(cpu);
        } else {
            watch.core.cpu_access(&op, &mut witness, &mut || finish(cpu));
        }
        if done {
            count(&mut self.tier1, prepared);
            Tally::one(&watch.tally.emulated);
            cpu.commit()?;
            inject::end_shadow(cpu.fd(), events)?;
            inject::debug_trap(cpu.fd(), regs.rflags & TF != 0, 0)?;
            return Ok(After::Enter);
        }
        let Some(marked) = marked else {
            self.lend(pages, regs.rip, || prepared.form());
            return Ok(After::Enter);
        };
        if divide::faults(insn.bytes().as_slice(), bitness, &regs, &watch.ram, prepared.pieces()) {
            drop(marked);
            inject::exception(cpu.fd(), inject::DIVIDE, None)?;
            Tally::one(&watch.tally.injected);
            return Ok(After::Enter);
        }
        self.stats.stops += 1;
        let stepped = step::step(&watch, self.cpu, cpu, *manner, marked)?;
        let began = match stepped {
            Stepped::Done => true,
            Stepped::Other(Reason::Fault | Reason::Emulation(_) | Reason::Interrupted) => false,
            // The rest of it is the vCPU loop's.
            Stepped::Other(_) => true,
            Stepped::GaveUp => StoppedCpu::read(cpu.fd(), watch.synced)?.regs().rip != regs.rip,
        };
        if began {
            count(&mut self.tier2, prepared);
            Tally::one(&watch.tally.stepped);
        } else {
            Tally::one(&watch.tally.repeated);
        }
        Ok(match stepped {
            Stepped::Done => {
                self.gave_up = None;
                After::Enter
            }
            Stepped::Other(reason @ (Reason::Fault | Reason::Emulation(_))) => self.fruitless(&regs, reason),
            Stepped::Other(reason) => After::Exit(reason),
            Stepped::GaveUp => {
                self.stats.watchdog += 1;
                if began {
                    watch.core.blind_spot("a single step of a CPU did not end after one instruction: what it did then is not known".into());
                }
                // Should it stop here again, the next attempt is not a step.
                if self.gave_up.replace(regs.rip) == Some(regs.rip) {
                    self.lend(pages, regs.rip, || prepared.form());
                }
                After::Enter
            }
        })
    }

    /// A step ended where it began, because something else is out of reach: if that goes on, everything is opened for a moment.
    fn fruitless(&mut self, regs: &kvm_regs, reason: Reason) -> After {
        let before = self.fruitless.take().filter(|(last, _)| **last == *regs).map_or(0, |(_, times)| times);
        self.fruitless = Some((Box::new(*regs), before + 1));
        if before + 1 >= HOPELESS {
            return After::Stuck(format!("an instruction can be neither emulated nor stepped: {reason:?}"));
        }
        if before + 1 < DESPERATE {
            return After::Exit(reason);
        }
        let all = self.watch.gate.guarded((0..self.watch.gate.frames().count()).map(Page));
        self.lend(&all, regs.rip, || "fruitless steps".into());
        After::Enter
    }

    /// What the instruction after this one accesses: it is stepped together with it.
    fn next_accesses(&self, cpu: &mut StoppedCpu<'_>, prepared: &Prepared) -> Vec<CpuAccess> {
        let here = cpu.regs().rip;
        cpu.regs_mut().rip = prepared.next_ip();
        let next = Insn::decode(cpu, &self.watch.ram).and_then(|insn| insn.prepare(cpu, &self.watch.ram));
        cpu.regs_mut().rip = here;
        next.map_or_else(|_| Vec::new(), |next| accesses(&next))
    }
}

/// The accesses to RAM in the core's words.
fn accesses(prepared: &Prepared) -> Vec<CpuAccess> {
    let ram = prepared.pieces().iter().filter(|piece| piece.ram);
    ram.map(|piece| CpuAccess { gpa: Gpa(piece.gpa), len: piece.len, read: piece.read, write: piece.write }).collect()
}

fn count(forms: &mut HashMap<u32, (String, u64)>, prepared: &Prepared) {
    forms.entry(prepared.form_key()).or_insert_with(|| (prepared.form(), 0)).1 += 1;
}

fn number(cpu: usize) -> u32 {
    u32::try_from(cpu).unwrap_or(u32::MAX)
}

/// The machine's devices, for an instruction carried out in user space.
struct BoardBus<'a> {
    board: &'a Board,
    rip: u64,
}

impl Bus for BoardBus<'_> {
    fn read(&mut self, gpa: u64, data: &mut [u8]) {
        self.board.read_mmio(gpa, data);
    }

    fn write(&mut self, gpa: u64, data: &[u8]) {
        self.board.write_mmio(gpa, data, self.rip);
    }
}
