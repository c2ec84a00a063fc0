//! What the host knows of the guest's code while it runs: names, modules, call stacks.

use crate::emulate;
use dmavet_agent::{AgentEvent, ModuleLayout, ModuleState};
use dmavet_coherence::{Frame, Witness};
use dmavet_unwind::{CodeMap, KernelImage, Layout, ModuleImage, Registers};
use kvm_bindings::{kvm_regs, kvm_sregs};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

/// The most frames of a call stack.
const MAX_FRAMES: usize = 24;
/// The most drivers remembered; a guest has some hundred.
const MAX_DRIVERS: usize = 4096;
/// The most names remembered.
const MAX_NAMES: usize = 4096;
/// Size of the smallest page; translations are good for that many bytes.
const PAGE: u64 = 4096;

/// Figures about the call stacks of stopped CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackStats {
    /// Stacks walked.
    pub stacks: u64,
    /// Frames found.
    pub frames: u64,
    /// Of these, frames that are guesses.
    pub guesses: u64,
    /// Why nothing is known of the kernel's own code.
    pub trouble: Option<String>,
}

/// The guest's code. Its lock is a leaf: nothing is called with it held.
#[derive(Debug)]
pub struct GuestCode {
    kernel: PathBuf,
    /// Rises whenever addresses may mean something else from now on.
    generation: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    map: CodeMap,
    /// The kernel's image was opened, or could not be.
    opened: bool,
    /// Names of addresses on stacks walked before, exact or behind.
    names: HashMap<(u64, bool), String>,
    /// Driver to module; an empty one is built in.
    drivers: HashMap<String, String>,
    stats: StackStats,
}

impl State {
    /// The name of a frame's address.
    fn name(&mut self, address: u64, exact: bool) -> String {
        if let Some(name) = self.names.get(&(address, exact)) {
            return name.clone();
        }
        let name = if exact { self.map.name(address) } else { self.map.name_behind(address) }.unwrap_or_default();
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        self.names.insert((address, exact), name.clone());
        name
    }

    /// Opens the kernel's image. Not done before a stack is wanted: most runs want none, and it takes a while.
    fn open(&mut self, kernel: &std::path::Path) {
        if !std::mem::replace(&mut self.opened, true) {
            match KernelImage::open(kernel) {
                Ok(image) => self.map.set_kernel(image),
                Err(error) => self.stats.trouble = Some(format!("call stacks are guesses without the kernel's tables: {error}")),
            }
        }
    }
}

impl GuestCode {
    /// The code of the ELF kernel in the file `kernel` and of `modules`, as the guest loads them.
    #[must_use]
    pub fn new(kernel: PathBuf, modules: Vec<ModuleImage>) -> Self {
        let map = CodeMap::new(None, modules);
        let state = State { map, opened: false, names: HashMap::new(), drivers: HashMap::new(), stats: StackStats::default() };
        Self { kernel, generation: AtomicU32::new(0), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from what the agent tells.
    pub fn agent(&self, event: &AgentEvent) {
        let mut state = self.lock();
        match event {
            // It starts from nothing, whatever there was before.
            AgentEvent::Hello { .. } => state.map.clear(),
            AgentEvent::Bound { driver, module, .. } => {
                if state.drivers.len() < MAX_DRIVERS || state.drivers.contains_key(driver) {
                    state.drivers.insert(driver.clone(), module.clone());
                }
                return;
            }
            AgentEvent::Module { name, state: ModuleState::Loaded(layout) } => state.map.module_loaded(name, of(layout)),
            AgentEvent::Module { name, state: ModuleState::Live } => state.map.module_live(name),
            AgentEvent::Module { name, state: ModuleState::Going } => state.map.module_gone(name),
            _ => return,
        }
        state.names.clear();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// A number that changes whenever code comes or goes: what was remembered about addresses is good while it stays.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// A frame for the address behind an instruction. Only modules, which come and go, are named at once: the kernel's own code is
    /// named as well when the run is over.
    #[must_use]
    pub fn frame_behind(&self, address: u64) -> Frame {
        let state = self.lock();
        let inside = address.wrapping_sub(1);
        let name = state.map.module_at(inside).and_then(|_| state.map.name_behind(address));
        Frame::new(address, name.unwrap_or_default())
    }

    /// The name of the code at an address, as `function+0x1a/0x80`; empty when nobody knows.
    #[must_use]
    pub fn name(&self, address: u64) -> String {
        let mut state = self.lock();
        state.open(&self.kernel);
        state.name(address, true)
    }

    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> StackStats {
        self.lock().stats.clone()
    }
}

fn of(layout: &ModuleLayout) -> Layout {
    let ModuleLayout { text_base, text_size, init_base, init_size, ref anchors } = *layout;
    let anchors = anchors.iter().map(|frame| (frame.address, frame.symbol.clone())).collect();
    Layout { text_base, text_size, init_base, init_size, anchors }
}

/// Guest memory by virtual address, as a stopped CPU sees it.
#[derive(Clone, Copy, Debug)]
pub struct GuestView<'a> {
    /// Its system registers.
    pub sregs: &'a kvm_sregs,
    /// Guest RAM.
    pub ram: &'a GuestMemoryMmap,
}

/// Reads through a [`GuestView`]; remembers translations, of which a stack needs few.
struct Reader<'a> {
    view: GuestView<'a>,
    pages: Vec<(u64, u64)>,
}

impl Reader<'_> {
    /// The most translations remembered.
    const MAX: usize = 16;

    fn read(&mut self, mut gva: u64, data: &mut [u8]) -> bool {
        let mut rest = data;
        while !rest.is_empty() {
            let Some(gpa) = self.translate(gva) else { return false };
            let in_page = usize::try_from(PAGE - gva % PAGE).unwrap_or(1).min(rest.len());
            let (now, later) = rest.split_at_mut(in_page);
            if self.view.ram.read_slice(now, GuestAddress(gpa)).is_err() {
                return false;
            }
            gva = gva.wrapping_add(in_page as u64);
            rest = later;
        }
        true
    }

    fn translate(&mut self, gva: u64) -> Option<u64> {
        let (page, offset) = (gva - gva % PAGE, gva % PAGE);
        if let Some((_, gpa)) = self.pages.iter().find(|(known, _)| *known == page) {
            return gpa.checked_add(offset);
        }
        let gpa = emulate::lookup(self.view.ram, self.view.sregs, page)?;
        if self.pages.len() == Self::MAX {
            self.pages.clear();
        }
        self.pages.push((page, gpa));
        gpa.checked_add(offset)
    }
}

/// A stopped CPU, asked about by the core. Costs nothing unless it is asked.
#[derive(Debug)]
pub struct CpuWitness<'a> {
    regs: kvm_regs,
    view: Option<GuestView<'a>>,
    code: &'a GuestCode,
    stack: Option<Vec<dmavet_unwind::Frame>>,
}

impl<'a> CpuWitness<'a> {
    /// The CPU with `regs`, about to execute the instruction at its RIP. Without a `view` of its memory there are no callers.
    #[must_use]
    pub const fn new(regs: kvm_regs, view: Option<GuestView<'a>>, code: &'a GuestCode) -> Self {
        Self { regs, view, code, stack: None }
    }

    /// The stack, walked the first time it is wanted, with what is known of the code in it.
    fn walked(&mut self) -> (MutexGuard<'a, State>, &[dmavet_unwind::Frame]) {
        let mut state = self.code.lock();
        state.open(&self.code.kernel);
        let stack = self.stack.get_or_insert_with(|| {
            let kvm_regs { rip, rsp, rbp, rax, rdx, rdi, r10, r13, .. } = self.regs;
            let registers = Registers { rip, rsp, rbp, rax, rdx, rdi, r10, r13 };
            let mut reader = self.view.map(|view| Reader { view, pages: Vec::new() });
            let mut read = |gva: u64, data: &mut [u8]| reader.as_mut().is_some_and(|reader| reader.read(gva, data));
            let stack = state.map.unwind(&registers, &mut read, MAX_FRAMES);
            state.stats.stacks += 1;
            state.stats.frames += stack.len() as u64;
            state.stats.guesses += stack.iter().filter(|frame| !frame.reliable).count() as u64;
            stack
        });
        (state, stack)
    }
}

impl Witness for CpuWitness<'_> {
    fn stack(&mut self) -> Vec<Frame> {
        let (mut state, stack) = self.walked();
        let frame = |frame: &dmavet_unwind::Frame| {
            let dmavet_unwind::Frame { address, exact, reliable } = *frame;
            Frame { address, symbol: state.name(address, exact), reliable, exact }
        };
        stack.iter().map(frame).collect()
    }

    fn in_driver(&mut self, driver: &str) -> bool {
        let (state, stack) = self.walked();
        // A driver that is built in has no code of its own that could be told from the kernel's.
        let Some(module) = state.drivers.get(driver).filter(|module| !module.is_empty()) else { return false };
        let code = |frame: &dmavet_unwind::Frame| if frame.exact { frame.address } else { frame.address.wrapping_sub(1) };
        stack.iter().filter(|frame| frame.reliable).any(|frame| state.map.module_at(code(frame)) == Some(module))
    }

    fn allocator(&mut self) -> Option<String> {
        let (state, stack) = self.walked();
        state.map.allocator(stack)
    }
}

#[cfg(test)]
mod tests;
