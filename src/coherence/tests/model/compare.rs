//! Plays a history on the core and on the model and compares what both sides see, the guards and the findings.

use super::super::fixture::new_ram;
use super::super::watched::Desk;
use super::super::{Kept, core_over};
use super::cache::Adversary;
use super::history::{DEVICES, Op, PAGES, Setup, Slip};
use super::judge::{Device, Found, Judge};
use super::machine::Machine;
use super::state::*;
use crate::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub(super) const RAM: u64 = 2 << 20;
const DEVICE: [Requester; DEVICES] = [Requester::Pci(Bdf::new(0, 2, 0)), Requester::Pci(Bdf::new(0, 3, 0))];
/// The second device drives 32 address lines.
pub(super) const MASK: [u64; DEVICES] = [u64::MAX, 0xffff_ffff];
/// The core keeps the last events of a mapping only: one with this many is unmapped.
const EVENTS: usize = 10;
/// Places of a driver whose events share them.
const LOOP: usize = 3;

/// What differs is no proof in a history that took longer: what the core keeps for 100 ms may be gone. It is played once more.
const SLOW: Duration = Duration::from_millis(80);
/// How often, at most.
const TRIES: usize = 20;

pub(super) fn gpa(page: usize) -> u64 {
    let base = 1 << 20;
    base + 4096 * [0, 1, 5][page]
}

fn pattern(value: u8, step: usize) -> u8 {
    value.wrapping_add(u8::try_from(step % 256).unwrap())
}

thread_local! {
    /// The RAM of one history after the other: to make it costs more than to play a history.
    static SHARED: Arc<GuestMemoryMmap> = new_ram(RAM);
}

/// The CPU is at a place of the driver.
struct At(Site);

fn frame(site: Site) -> Frame {
    Frame::new(0xffff_ffff_8100_0000 + u64::from(site) * 16, format!("s{site}+0x1"))
}

impl Witness for At {
    fn stack(&mut self) -> Vec<Frame> {
        vec![frame(self.0)]
    }
    fn in_driver(&mut self, driver: &str) -> bool {
        driver == "testdrv"
    }
    fn allocator(&mut self) -> Option<String> {
        None
    }
}

/// The core under test beside the model.
pub(crate) struct Rig {
    pub(super) setup: Setup,
    pub(super) core: Coherence,
    ram: Arc<GuestMemoryMmap>,
    desk: Arc<Desk>,
    pub(super) views: Vec<DmaView>,
    flights: Vec<(u64, InFlight)>,
    pub(crate) model: Model,
    /// Pages that were coherent: on request the core closes them, too.
    pub(super) solo: [bool; PAGES],
    pub(super) step: usize,
    /// The pages the histories play on.
    pub(super) pages: std::ops::Range<usize>,
    begun: Instant,
    /// Something differed when it had taken too long to say so.
    slow: bool,
    _kept: Kept,
}

/// Plays a history and returns the findings; the error says what differs.
pub(crate) fn play(setup: Setup, history: &[Op]) -> Result<Vec<Found>, String> {
    for _ in 0..TRIES {
        let mut rig = Rig::new(setup);
        let steps = history.iter().try_for_each(|op| rig.step(op).map_err(|e| format!("after event {} ({op:?}): {e}", rig.step)));
        let found = steps.and_then(|()| rig.end());
        if !rig.slow {
            return found;
        }
    }
    Err(format!("core and model differ, and {TRIES} times it took longer than {SLOW:?} to say so"))
}

impl Rig {
    pub(crate) fn new(setup: Setup) -> Self {
        let ram = SHARED.with(Arc::clone);
        for page in 0..PAGES {
            ram.write_slice(&[0; PAGE], GuestAddress(gpa(page))).unwrap();
        }
        let mut config = Config::for_ram(RAM);
        config.line_size = setup.line;
        config.pedantic = setup.pedantic;
        (config.profile, config.edges, config.cache, config.seed) = (setup.profile, setup.edges, setup.cache, setup.seed);
        config.sg_merge = setup.merge;
        config.watch = if setup.watch { WatchPolicy::All } else { WatchPolicy::Off };
        // A small space is set up fast.
        config.max_findings = 1 << 20;
        config.high_window.end = config.high_window.start + (1 << 30);
        let (core, kept) = core_over(config, Arc::clone(&ram));
        let desk = Arc::new(Desk::default());
        core.set_gate(desk.clone());
        let views = DEVICE.map(|device| {
            core.add_device(device, "model");
            core.set_bus_master(device, true);
            core.call(Caller { requester: device, site: SiteId(0), cpu: 0 }, &ApiCall::Bound { driver: "testdrv".into() });
            core.view(device)
        });
        let devices = (0..DEVICES).map(|_| Device { master: true, bound: true, ..Device::default() }).collect();
        let judge = Judge {
            rearm_is_error: setup.profile.machine().keeps_lines,
            devices,
            pedantic: setup.pedantic,
            watched: setup.watch,
            ..Judge::default()
        };
        let pages = vec![vec![Byte::default(); PAGE]; PAGES];
        let machine = Machine { profile: setup.profile, whole_lines: setup.edges == Edges::Line };
        let adversary = Adversary { cache: setup.cache, numbers: setup.seed };
        let model = Model { line: setup.line as usize, machine, adversary, pages, maps: Vec::new(), judge, seq: 0 };
        let begun = Instant::now();
        Self {
            setup,
            core,
            ram,
            desk,
            views: views.into(),
            flights: Vec::new(),
            model,
            solo: [false; PAGES],
            step: 0,
            pages: 0..PAGES,
            begun,
            slow: false,
            _kept: kept,
        }
    }

    /// One whose histories play on `pages` only.
    pub(super) fn over(setup: Setup, pages: std::ops::Range<usize>) -> Self {
        Self { pages, ..Self::new(setup) }
    }

    /// The place of the event that is played now; another one for each `kind`.
    pub(super) fn place(&self, kind: u32) -> Site {
        let at = if self.setup.loops { self.step % LOOP } else { self.step };
        u32::try_from(at).unwrap() * 8 + kind
    }

    pub(super) fn call(&self, device: usize, site: Site, call: &ApiCall) -> Answer {
        let site = self.core.intern_site(vec![frame(site)]);
        self.core.call(Caller { requester: DEVICE[device], site, cpu: 0 }, call)
    }

    pub(super) fn kick(&mut self, device: usize) {
        let site = self.place(5);
        self.core.kick(DEVICE[device], self.core.intern_site(vec![frame(site)]));
        self.model.judge.devices[device].kick = site;
    }

    /// Plays one event and compares.
    pub(crate) fn step(&mut self, op: &Op) -> Result<(), String> {
        self.apply(op)?;
        self.compare()
    }

    /// Plays one event.
    pub(super) fn apply(&mut self, op: &Op) -> Result<(), String> {
        self.step += 1;
        // What the core forgets is not compared: a mapping with many events ends.
        for m in self.model.live() {
            if self.model.maps[m].log.len() >= EVENTS {
                self.unmap(m, false, Slip::Nothing);
            }
        }
        self.model.seq += 1;
        let live = self.model.live();
        let pick = |which: &usize| live.get(which % live.len().max(1)).copied();
        match op {
            Op::Map { device, family, pieces, direction, skip, kind } => self.map(*device, *family, pieces, *direction, *skip, *kind)?,
            Op::Fail { device, family } => self.fail(*device, *family)?,
            Op::Unmap { which, skip, slip } => {
                let m = if *slip == Slip::Dead { self.dead(*which) } else { pick(which) };
                if let Some(m) = m {
                    self.unmap(m, *skip, *slip);
                }
            }
            Op::Sync { which, for_cpu, start, len, slip } => {
                let m = if *slip == Slip::Dead { self.dead(*which) } else { pick(which) };
                if let Some(m) = m {
                    self.sync(m, *for_cpu, *start, *len, *slip);
                }
            }
            Op::CpuRead { page, start, len } => self.cpu(*page, *start, (*len).min(PAGE - start), None),
            Op::CpuWrite { page, start, len, value, same } => {
                let len = (*len).min(PAGE - start);
                let now = &self.model.pages[*page][*start..];
                let data: Vec<u8> = (0..len).map(|i| if *same { now[i].cpu } else { pattern(*value, i / 7) }).collect();
                self.cpu(*page, *start, len, Some(&data));
            }
            Op::DeviceRead { which, start, len, intent } => {
                if let Some(m) = pick(which) {
                    let intent = [Intent::Use, Intent::Use, Intent::Use, Intent::Use, Intent::Poll, Intent::Prefetch][usize::from(*intent)];
                    self.device_read(m, *start, *len, intent)?;
                }
            }
            Op::Consume { which, start, len } => {
                if let Some(m) = pick(which) {
                    let (from, to) = self.inside(m, *start, *len);
                    self.kick(self.model.maps[m].call.device);
                    let view = &self.views[self.model.maps[m].call.device];
                    view.consume(self.handle(m, from), to - from).map_err(|e| e.to_string())?;
                    self.model.use_bytes(m, from, to);
                }
            }
            Op::DeviceWrite { which, start, len, value } => {
                if let Some(m) = pick(which) {
                    let (from, to) = self.inside(m, *start, *len);
                    let data: Vec<u8> = (0..to - from).map(|i| pattern(*value, i / 5)).collect();
                    self.device_write(m, from, &data)?;
                }
            }
            Op::Stray { which, to, len, write } => self.stray(*which, *to, (*len).min(64), *write)?,
            Op::Begin { which, start, len } => {
                if let Some(m) = pick(which) {
                    let (from, to) = self.inside(m, *start, *len);
                    let flight = self.views[self.model.maps[m].call.device].begin(self.handle(m, from), to - from);
                    self.flights.push((self.model.seq, flight));
                    self.model.judge.flights.push((self.model.seq, m, from, to));
                }
            }
            Op::End { which } if !self.flights.is_empty() => {
                let (number, flight) = self.flights.swap_remove(which % self.flights.len());
                drop(flight);
                self.model.judge.flights.retain(|f| f.0 != number);
            }
            Op::End { .. } => {}
            Op::Signal { device } => {
                self.core.signalled(DEVICE[*device]);
                self.model.judge.devices[*device].signal = self.model.seq;
            }
            Op::Master { device, on } => {
                self.core.set_bus_master(DEVICE[*device], *on);
                self.model.judge.devices[*device].master = *on;
            }
            Op::Unbind { device } => {
                self.call(*device, self.place(6), &ApiCall::Unbound);
                self.model.unbound(*device);
            }
            Op::Bind { device } => {
                self.call(*device, self.place(6), &ApiCall::Bound { driver: "testdrv".into() });
                let record = &mut self.model.judge.devices[*device];
                (record.bound, record.failed) = (true, None);
            }
        }
        Ok(())
    }

    /// A mapping that ended.
    pub(super) fn dead(&self, which: usize) -> Option<usize> {
        let dead: Vec<usize> = (0..self.model.maps.len()).filter(|m| !self.model.maps[*m].live).collect();
        dead.get(which % dead.len().max(1)).copied()
    }

    /// Bytes of one handle of a mapping.
    pub(super) fn inside(&self, m: usize, start: usize, len: usize) -> (usize, usize) {
        let mapping = &self.model.maps[m];
        let from = start % mapping.size;
        let (_, offset, size) = mapping.handles.iter().rev().find(|h| h.1 <= from).copied().unwrap();
        (from, (from + len).min(offset + size))
    }

    pub(super) fn handle(&self, m: usize, at: usize) -> Iova {
        let (iova, offset, _) = self.model.maps[m].handles.iter().rev().find(|h| h.1 <= at).copied().unwrap();
        Iova(iova + (at - offset) as u64)
    }

    /// An access of the CPU: seen where the guard says so.
    pub(super) fn cpu(&mut self, page: usize, start: usize, len: usize, data: Option<&[u8]>) {
        let site = self.place(if data.is_some() { 4 } else { 3 });
        let at = gpa(page) + start as u64;
        let guard = self.guard(page);
        let seen = if data.is_some() { guard != Guard::Open } else { guard == Guard::Closed };
        let mut perform = || {
            if let Some(data) = data {
                self.ram.write_slice(data, GuestAddress(at)).unwrap();
            }
        };
        if seen {
            let access = CpuAccess { gpa: Gpa(at), len: u32::try_from(len).unwrap(), read: data.is_none(), write: data.is_some() };
            let op = CpuOp { accesses: &[access], cpu: 0, user: false, rip: u64::from(site) };
            self.core.cpu_access(&op, &mut At(site), &mut perform);
        } else {
            perform();
        }
        match data {
            Some(data) => self.model.cpu_write(page, start, data, site, seen),
            None if seen => self.model.cpu_read(page, start, start + len, site),
            None => {}
        }
    }

    pub(super) fn guard(&self, page: usize) -> Guard {
        self.desk.guards.lock().unwrap().get(&gpa(page)).copied().unwrap_or_default()
    }

    /// Whether the device may master the bus; DV501 otherwise.
    pub(super) fn masters(&mut self, device: usize) -> bool {
        let master = self.model.judge.devices[device].master;
        if !master {
            let site = self.model.judge.devices[device].kick;
            self.model.report_by(device, Code::DV501, None, site, None);
        }
        master
    }

    pub(super) fn device_read(&mut self, m: usize, start: usize, len: usize, intent: Intent) -> Result<(), String> {
        let (from, to) = self.inside(m, start, len);
        let device = self.model.maps[m].call.device;
        self.kick(device);
        let view = match intent {
            Intent::Use => self.views[device].clone(),
            Intent::Poll => self.views[device].polling(),
            Intent::Prefetch => self.views[device].prefetching(),
        };
        let mut bytes = vec![0; to - from];
        let done = view.read_slice(&mut bytes, GuestAddress(self.handle(m, from).0)).is_ok();
        if done != self.masters(device) {
            return Err(format!("the device's read went through: {done}"));
        }
        if done {
            let expected = self.model.device_read(m, from, to, intent);
            differ("the device's copy", &bytes, &expected)?;
        }
        Ok(())
    }

    pub(super) fn device_write(&mut self, m: usize, from: usize, data: &[u8]) -> Result<(), String> {
        let device = self.model.maps[m].call.device;
        self.kick(device);
        let done = self.views[device].write_slice(data, GuestAddress(self.handle(m, from).0)).is_ok();
        if done != self.masters(device) {
            return Err(format!("the device's write went through: {done}"));
        }
        if done {
            self.model.device_write(m, from, data);
        }
        Ok(())
    }

    /// Compares what can be seen without being seen: the CPU's copy and the guards.
    pub(super) fn compare(&mut self) -> Result<(), String> {
        let mut bytes = [0; PAGE];
        for page in self.pages.clone() {
            self.ram.read_slice(&mut bytes, GuestAddress(gpa(page))).unwrap();
            // Without a branch for each byte: most of the time of a long run goes by here.
            let differs = self.model.pages[page].iter().zip(&bytes).fold(0, |any, (model, core)| any | (model.cpu ^ core));
            if differs != 0 {
                let expected: Vec<u8> = self.model.pages[page].iter().map(|b| b.cpu).collect();
                differ("the CPU's copy", &bytes, &expected).map_err(|e| format!("page {page}: {e}"))?;
            }
            // On request coherent pages are closed for another reason.
            if self.setup.watch && !(self.setup.pedantic && self.solo[page]) {
                let (core, model) = (self.guard(page), self.model.guard(page));
                if core != model {
                    self.slow |= self.begun.elapsed() > SLOW;
                    return Err(format!("the guard of page {page} is {core:?}, not {model:?}"));
                }
            }
        }
        Ok(())
    }

    /// All that the devices see.
    pub(super) fn poll_all(&mut self) -> Result<(), String> {
        for m in self.model.live() {
            for at in 0..self.model.maps[m].handles.len() {
                let (_, offset, len) = self.model.maps[m].handles[at];
                self.device_read(m, offset, len, Intent::Poll)?;
            }
        }
        Ok(())
    }

    /// The run ends: all that the devices still see, and the findings.
    pub(crate) fn end(&mut self) -> Result<Vec<Found>, String> {
        self.step += 1;
        for (device, record) in DEVICE.iter().zip(&mut self.model.judge.devices) {
            self.core.set_bus_master(*device, true);
            record.master = true;
        }
        self.poll_all()?;
        let live = self.core.stats().live_mappings;
        if live != self.model.live().len() as u64 {
            return Err(format!("{live} mappings are alive"));
        }
        self.flights.clear();
        self.model.seq += 1;
        let summary = self.core.finish();
        self.model.finish();
        let core = findings(&summary);
        let model = self.model.judge.all();
        let only = |these: &[Found], those: &[Found]| -> Vec<Found> { these.iter().filter(|f| !those.contains(f)).cloned().collect() };
        let (more, less) = (only(&core, &model), only(&model, &core));
        if more.is_empty() && less.is_empty() {
            return Ok(model);
        }
        self.slow |= self.begun.elapsed() > SLOW;
        let lines = |list: &[Found]| list.iter().map(|f| format!("  {f:?}\n")).collect::<String>();
        Err(format!("findings of the core only:\n{}of the model only:\n{}", lines(&more), lines(&less)))
    }
}

/// The core's findings as the model tells them.
pub(super) fn findings(summary: &Summary) -> Vec<Found> {
    let site = |id: SiteId| -> Site {
        let symbol = summary.sites.frames(id).first().map(|f| f.symbol.clone()).unwrap_or_default();
        symbol.trim_start_matches('s').split('+').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let as_index = |n: u64| usize::try_from(n).unwrap();
    let mut list: Vec<Found> = summary
        .findings
        .iter()
        .map(|f| Found {
            code: f.code,
            kind: f.kind,
            severity: f.severity,
            device: DEVICE.iter().position(|d| Some(*d) == f.requester).unwrap_or(usize::MAX),
            map_site: f.mapping.as_ref().map_or(0, |m| site(m.map_site)),
            site: site(f.offence.site),
            range: f.range.map(|r| (as_index(r.start), as_index(r.end))),
        })
        .collect();
    list.sort();
    list
}

fn differ(what: &str, core: &[u8], model: &[u8]) -> Result<(), String> {
    match core.iter().zip(model).position(|(a, b)| a != b) {
        Some(at) => Err(format!("{what} differs from byte {at} on: {:02x} and not {:02x}", core[at], model[at])),
        None => Ok(()),
    }
}
