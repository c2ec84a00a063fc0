//! What the guest may do with each page, and making it so.
//!
//! Two parties want guards: the core and the [stress mode](super::stress). A page gets the stricter of the two. A third party may have a
//! page open in spite of that for a moment:
//!
//! - A *step* ([`PageGate::begin_step`]): one instruction runs on the CPU while all others stand still. It was judged by the core under the
//!   guards of that moment, so nobody may tighten them until it is done: [`Gate::apply`] waits for it.
//! - A *loan* ([`PageGate::lend`]): the guest runs on with the page open until its CPU's next exit or a deadline. What it does there is
//!   not seen (and counted). `apply` does not wait for it, it ends it.
//!
//! After either, the page gets the guard that is wanted *then*.
//!
//! Lock order: core -> gate -> (the kernel's) address space. Nothing here calls the core. `begin_step` is called under the core's
//! lock and never waits; `apply` waits under the core's lock for steps of *other* threads only, and a stepping thread wants neither the
//! core nor the gate's pages of anybody else, so it comes to its end (or its [watchdog](super::keeper) does).

use super::frames::{Frames, Page};
use super::protect::Protect;
use super::stats::WatchStats;
use super::sync::{Condvar, Mutex, MutexGuard, ThreadId, lock, thread, wait};
use dmavet_coherence::{Gate, Gpa, Guard};
use std::ops::Range;
use std::time::Instant;

/// Who wants a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The coherence core.
    Core,
    /// The stress mode.
    Stress,
}

/// A page's guards in one byte: what the core wants, what the stress mode wants, what is applied (two bits each), and a bit for pages
/// that are never guarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell(u8);

impl Cell {
    const NEVER: u8 = 1 << 6;
    const APPLIED: u8 = 4;

    const fn get(self, shift: u8) -> Guard {
        match self.0 >> shift & 3 {
            0 => Guard::Open,
            1 => Guard::ReadOnly,
            _ => Guard::Closed,
        }
    }

    const fn set(&mut self, shift: u8, guard: Guard) {
        self.0 = self.0 & !(3 << shift) | (guard as u8) << shift;
    }

    const fn shift(party: Party) -> u8 {
        match party {
            Party::Core => 0,
            Party::Stress => 2,
        }
    }

    const fn applied(self) -> Guard {
        self.get(Self::APPLIED)
    }

    fn wanted(self) -> Guard {
        if self.0 & Self::NEVER != 0 { Guard::Open } else { self.get(0).max(self.get(2)) }
    }
}

/// A page open for somebody.
#[derive(Clone, Copy, Debug)]
struct Loan {
    page: Page,
    cpu: usize,
    until: Instant,
}

/// A page of an instruction that is about to be stepped.
#[derive(Clone, Copy, Debug)]
struct Mark {
    page: Page,
    by: ThreadId,
    /// It is being stepped: the page is open. Several threads may have marked a page, but only one steps at a time, and between two
    /// of them the page is closed.
    open: bool,
}

#[derive(Debug, Default)]
struct Table {
    cells: Vec<u8>,
    /// Pages of instructions that are about to be stepped or are.
    steps: Vec<Mark>,
    loans: Vec<Loan>,
    stats: WatchStats,
    /// Scratch: pages to change.
    changes: Vec<(Page, Guard)>,
}

impl Table {
    fn cell(&self, page: Page) -> Cell {
        Cell(self.cells.get(page.index()).copied().unwrap_or(Cell::NEVER))
    }

    fn put(&mut self, page: Page, cell: Cell) {
        if let Some(slot) = self.cells.get_mut(page.index()) {
            *slot = cell.0;
        }
    }

    fn held_open(&self, page: Page) -> bool {
        self.steps.iter().any(|mark| mark.open && mark.page == page) || self.loans.iter().any(|loan| loan.page == page)
    }
}

/// The guards of all pages of guest RAM.
#[derive(Debug)]
pub struct PageGate {
    frames: Frames,
    protect: Box<dyn Protect>,
    table: Mutex<Table>,
    step_over: Condvar,
}

impl PageGate {
    /// All pages open.
    #[must_use]
    pub fn new(frames: Frames, protect: Box<dyn Protect>) -> Self {
        let cells = vec![0; frames.count() as usize];
        Self { frames, protect, table: Mutex::new(Table { cells, ..Table::default() }), step_over: Condvar::new() }
    }

    /// The pages' numbers.
    #[must_use]
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// What is on the mapping now.
    #[must_use]
    pub fn applied(&self, page: Page) -> Guard {
        lock(&self.table).cell(page).applied()
    }

    /// Those of `pages` with a guard on.
    #[must_use]
    pub fn guarded(&self, pages: impl IntoIterator<Item = Page>) -> Vec<Page> {
        let table = lock(&self.table);
        let mut found: Vec<_> = pages.into_iter().filter(|page| table.cell(*page).applied() != Guard::Open).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A page that was not guarded could not be reached: see [`Protect::heal`].
    pub fn heal(&self, page: Page) -> bool {
        let table = lock(&self.table);
        table.cell(page).applied() == Guard::Open && self.protect.heal(page.0)
    }

    /// Everything in memory now may be reached. Before the guest starts.
    ///
    /// # Errors
    /// What the system said.
    pub fn populate(&self) -> std::io::Result<()> {
        let table = lock(&self.table);
        self.protect.populate()?;
        // That opened what was guarded already.
        let guarded =
            (0..self.frames.count()).map(|page| (page, table.cell(Page(page)).applied())).filter(|(_, guard)| *guard != Guard::Open);
        guarded.into_iter().try_for_each(|(page, guard)| self.protect.protect(page..page + 1, guard))
    }

    /// Sets what `party` wants of these pages (no page twice) and makes it so, as [`Gate::apply`] says.
    pub fn want(&self, party: Party, changes: &[(Page, Guard)], mut refused: impl FnMut(Page)) {
        let me = thread::current().id();
        let mut table = lock(&self.table);
        // Opening harms nobody's step, and the stress mode relies on nothing.
        let tightens = |mark: &Mark| mark.by != me && changes.iter().any(|(page, guard)| *page == mark.page && *guard != Guard::Open);
        while party == Party::Core && table.steps.iter().any(tightens) {
            table = wait(&self.step_over, table);
        }
        let mut work = std::mem::take(&mut table.changes);
        work.clear();
        for (page, guard) in changes {
            let mut cell = table.cell(*page);
            if cell.0 & Cell::NEVER != 0 {
                if *guard != Guard::Open {
                    refused(*page);
                }
                continue;
            }
            cell.set(Cell::shift(party), *guard);
            table.put(*page, cell);
            if *guard != Guard::Open {
                table.loans.retain(|loan| loan.page != *page);
            }
            if !table.held_open(*page) {
                work.push((*page, cell.wanted()));
            }
        }
        self.make_so(&mut table, &mut work, |table, page| {
            let mut cell = table.cell(page);
            cell.set(Cell::shift(Party::Core), Guard::Open);
            cell.set(Cell::shift(Party::Stress), Guard::Open);
            table.put(page, cell);
            refused(page);
        });
        table.changes = work;
    }

    /// These pages are never guarded from now on, and open.
    pub fn never(&self, pages: &[Page]) {
        let mut table = lock(&self.table);
        let mut work = Vec::new();
        for page in pages {
            let mut cell = table.cell(*page);
            cell.0 |= Cell::NEVER;
            table.put(*page, cell);
            work.push((*page, Guard::Open));
        }
        self.make_so(&mut table, &mut work, |_, _| {});
    }

    /// Marks the pages of an instruction that is about to be stepped by this thread: until the result is dropped nobody tightens
    /// their guards. Called when the core has judged the instruction and still holds its lock. Does not open anything yet.
    pub fn begin_step(&self, pages: &[Page]) -> Step<'_> {
        let me = thread::current().id();
        lock(&self.table).steps.extend(pages.iter().map(|page| Mark { page: *page, by: me, open: false }));
        Step { gate: self, pages: pages.to_vec() }
    }

    /// Opens pages for CPU `cpu` until [`take_back`](Self::take_back) or the deadline.
    pub fn lend(&self, pages: &[Page], cpu: usize, until: Instant) {
        let mut table = lock(&self.table);
        table.loans.extend(pages.iter().map(|page| Loan { page: *page, cpu, until }));
        table.stats.opened += 1;
        self.open(&mut table, pages);
    }

    /// Ends the loans of CPU `cpu`.
    pub fn take_back(&self, cpu: usize) {
        self.end_loans(|loan| loan.cpu == cpu);
    }

    /// Ends the loans that are due, and says when the next one will be.
    pub fn take_back_due(&self, now: Instant) -> Option<Instant> {
        self.end_loans(|loan| loan.until <= now);
        lock(&self.table).loans.iter().map(|loan| loan.until).min()
    }

    fn end_loans(&self, which: impl Fn(&Loan) -> bool) {
        let mut table = lock(&self.table);
        let (over, go_on): (Vec<_>, Vec<_>) = std::mem::take(&mut table.loans).into_iter().partition(which);
        table.loans = go_on;
        self.close_again(&mut table, over.into_iter().map(|loan| loan.page));
    }

    /// Figures: flips, guarded pages, loans, refusals.
    #[must_use]
    pub fn stats(&self) -> WatchStats {
        lock(&self.table).stats.clone()
    }

    fn open(&self, table: &mut MutexGuard<'_, Table>, pages: &[Page]) {
        let mut work: Vec<_> = pages.iter().map(|page| (*page, Guard::Open)).collect();
        self.make_so(table, &mut work, |_, _| {});
    }

    /// Puts the guard on that is wanted now, where nobody else holds the page open.
    fn close_again(&self, table: &mut MutexGuard<'_, Table>, pages: impl Iterator<Item = Page>) {
        let mut work: Vec<_> = pages.filter(|page| !table.held_open(*page)).map(|page| (page, table.cell(page).wanted())).collect();
        // What was guarded a moment ago can be guarded again: no new part of the mapping is needed. Should it fail all the same, the
        // page stays open and the next change finds that out.
        self.make_so(table, &mut work, |_, _| {});
    }

    /// Changes the protection where it is not what it should be, adjacent pages in one call.
    fn make_so(&self, table: &mut Table, work: &mut Vec<(Page, Guard)>, mut failed: impl FnMut(&mut Table, Page)) {
        work.retain(|(page, guard)| table.cell(*page).applied() != *guard);
        work.sort_unstable_by_key(|(page, _)| *page);
        work.dedup_by_key(|(page, _)| *page);
        for run in work.chunk_by(|a, b| a.0.0 + 1 == b.0.0 && a.1 == b.1) {
            let (Some((first, guard)), Some((last, _))) = (run.first(), run.last()) else { continue };
            if self.flip(table, first.0..last.0 + 1, *guard) {
                continue;
            }
            // In part or not at all: one by one.
            for (page, guard) in run {
                if run.len() == 1 || !self.flip(table, page.0..page.0 + 1, *guard) {
                    if *guard > table.cell(*page).applied() {
                        table.stats.refused += 1;
                    }
                    failed(table, *page);
                }
            }
        }
    }

    fn flip(&self, table: &mut Table, pages: Range<u32>, guard: Guard) -> bool {
        table.stats.flip_calls += 1;
        if self.protect.protect(pages.clone(), guard).is_err() {
            return false;
        }
        for page in pages {
            let mut cell = table.cell(Page(page));
            match (cell.applied(), guard) {
                (Guard::Open, Guard::ReadOnly | Guard::Closed) => table.stats.guarded += 1,
                (Guard::ReadOnly | Guard::Closed, Guard::Open) => table.stats.guarded = table.stats.guarded.saturating_sub(1),
                _ => {}
            }
            cell.set(Cell::APPLIED, guard);
            table.put(Page(page), cell);
            table.stats.flips += 1;
        }
        table.stats.guarded_peak = table.stats.guarded_peak.max(table.stats.guarded);
        true
    }
}

impl Gate for PageGate {
    fn apply(&self, changes: &[(Gpa, Guard)], refused: &mut Vec<Gpa>) {
        let mut known = Vec::with_capacity(changes.len());
        for (gpa, guard) in changes {
            match self.frames.page(gpa.0) {
                Some(page) => known.push((page, *guard)),
                None if *guard != Guard::Open => refused.push(*gpa),
                None => {}
            }
        }
        self.want(Party::Core, &known, |page| refused.push(Gpa(self.frames.gpa(page))));
    }
}

/// Pages marked for a step of this thread.
#[derive(Debug)]
#[must_use]
pub struct Step<'a> {
    gate: &'a PageGate,
    pages: Vec<Page>,
}

impl Step<'_> {
    /// Opens the pages. Only while the world is [stopped](super::world::World::stop).
    pub fn open(&self) {
        let me = thread::current().id();
        let mut table = lock(&self.gate.table);
        for mark in table.steps.iter_mut().filter(|mark| mark.by == me && self.pages.contains(&mark.page)) {
            mark.open = true;
        }
        self.gate.open(&mut table, &self.pages);
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let me = thread::current().id();
        let mut table = lock(&self.gate.table);
        for page in &self.pages {
            if let Some(at) = table.steps.iter().position(|mark| mark.page == *page && mark.by == me) {
                table.steps.swap_remove(at);
            }
        }
        self.gate.close_again(&mut table, self.pages.iter().copied());
        drop(table);
        self.gate.step_over.notify_all();
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
