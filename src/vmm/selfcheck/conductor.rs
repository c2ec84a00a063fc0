//! The host's side of the guest's driver: hands out forms, guards the pages, takes the results.

use super::form::{Assembled, Form, FormError, Needs};
use super::layout::{MAILBOX, PAGE, PLACES, Place, mailbox as m, port};
use super::outcome::State;
use crate::end::End;
use crate::ports::{PortDevice, Power};
use crate::watch::{Watch, Ways};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// How one form came out.
#[derive(Clone, Debug)]
pub enum Came {
    /// It ran.
    Ran(Box<State>, Ways),
    /// The guest's CPU has no such instruction.
    NotThere,
    /// The machine ended in the middle of it.
    Broke(String),
}

/// What conductor and pass share.
#[derive(Debug)]
pub struct Progress {
    /// Results by form.
    pub came: Vec<Option<Came>>,
    /// The form being run.
    current: Option<usize>,
    before: Ways,
}

impl Progress {
    /// For so many forms, of which those are left out that broke a machine before.
    pub fn new(forms: usize, earlier: &[Came]) -> Self {
        let broken = |index| earlier.get(index).filter(|came| matches!(came, Came::Broke(_))).cloned();
        Self { came: (0..forms).map(broken).collect(), current: None, before: Ways::default() }
    }

    /// Every form has a result.
    pub fn complete(&self) -> bool {
        self.came.iter().all(Option::is_some)
    }

    /// A machine ended: the form it was at is broken, which is said; if it did not even get to one, so are all that are left.
    pub fn ended(&mut self, end: &End, forms: &[Form]) -> Option<String> {
        let how = super::pass::describe(end);
        let Some(index) = self.current.take() else {
            self.rest(&how);
            return None;
        };
        if let Some(slot) = self.came.get_mut(index) {
            *slot = Some(Came::Broke(how.clone()));
        }
        Some(format!("{}: {how}", forms.get(index).map_or("?", |form| form.name)))
    }

    /// No more machines.
    pub fn give_up(&mut self) {
        self.rest("not tried: too many machines broke before");
    }

    fn rest(&mut self, how: &str) {
        self.came.iter_mut().filter(|came| came.is_none()).for_each(|came| *came = Some(Came::Broke(how.into())));
    }
}

/// Locks the progress.
pub fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The forms, ready to run.
#[derive(Debug)]
pub struct Program {
    /// What they are.
    pub forms: Vec<Form>,
    /// Their code.
    pub code: Vec<Assembled>,
    /// Where a form ends up.
    pub save: u64,
}

impl Program {
    /// Assembles them.
    ///
    /// # Errors
    /// When one is wrong.
    pub fn new(forms: Vec<Form>, save: u64) -> Result<Self, FormError> {
        let code = forms.iter().enumerate().map(|(index, form)| form.assemble(index)).collect::<Result<_, _>>()?;
        Ok(Self { forms, code, save })
    }
}

/// The device behind the guest's ports.
pub struct Conductor {
    ram: Arc<GuestMemoryMmap>,
    program: Arc<Program>,
    watch: Option<Arc<Watch>>,
    progress: Arc<Mutex<Progress>>,
    inserted: u8,
}

impl Conductor {
    /// Runs what `progress` has no result for.
    pub fn new(ram: Arc<GuestMemoryMmap>, program: Arc<Program>, watch: Option<Arc<Watch>>, progress: Arc<Mutex<Progress>>) -> Self {
        Self { ram, program, watch, progress, inserted: 0 }
    }

    fn guard(&self, form: &Form, on: bool) {
        if let Some(watch) = &self.watch {
            let table = super::layout::GUARDED_TABLE;
            let pages: Vec<u64> =
                PLACES.iter().filter(|p| p.guarded).map(|p| p.gpa).chain([table]).chain(form.also.iter().copied()).collect();
            watch.hold(&pages, on);
        }
    }

    fn ways(&self) -> Ways {
        self.watch.as_ref().map(|watch| watch.ways()).unwrap_or_default()
    }

    /// Prepares the next form, or says that there is none.
    fn next(&mut self) -> Option<Power> {
        // A form that came round without its end.
        let lost = lock(&self.progress).current.take();
        if let Some(index) = lost {
            self.put(index, Came::Broke("it did not come to its end".into()));
        }
        loop {
            let Some(index) = lock(&self.progress).came.iter().position(Option::is_none) else { return Some(Power::Off) };
            let (Some(form), Some(code)) = (self.program.forms.get(index), self.program.code.get(index)) else { return Some(Power::Off) };
            if !has(&self.ram, form.needs) {
                self.put(index, Came::NotThere);
                continue;
            }
            if self.prepare(form, code).is_err() {
                self.put(index, Came::Broke("guest memory cannot be written".into()));
                continue;
            }
            self.inserted = 0;
            self.guard(form, true);
            let mut progress = lock(&self.progress);
            progress.current = Some(index);
            progress.before = self.ways();
            return None;
        }
    }

    fn put(&self, index: usize, came: Came) {
        if let Some(slot) = lock(&self.progress).came.get_mut(index) {
            *slot = Some(came);
        }
    }

    fn prepare(&self, form: &Form, code: &Assembled) -> Result<(), vm_memory::GuestMemoryError> {
        for place in PLACES {
            self.ram.write_slice(&pattern(place), GuestAddress(place.gpa))?;
        }
        for (place, offset, bytes) in &form.pokes {
            self.ram.write_slice(bytes, GuestAddress(place.gpa + offset))?;
        }
        self.ram.write_slice(&code.code, GuestAddress(code.gpa))?;
        let put = |offset: u64, value: u64| self.ram.write_slice(&value.to_le_bytes(), GuestAddress(MAILBOX + offset));
        for (index, value) in (0u64..).zip(form.registers) {
            put(m::IN + index * 8, value)?;
        }
        put(m::IN_FLAGS, form.flags)?;
        put(m::FORM, code.gva)?;
        put(m::MODE, u64::from(form.mode))?;
        put(m::SAVE, self.program.save)?;
        put(m::OUT_VECTOR, 0)?;
        self.ram.write_slice(&fx_image(), GuestAddress(MAILBOX + m::IN_FX))?;
        let ymm: Vec<u8> = (0u16..512).map(|n| (n * 29 + 7).to_le_bytes()[0]).collect();
        self.ram.write_slice(&ymm, GuestAddress(MAILBOX + m::IN_YMM))
    }

    fn done(&self) {
        let mut progress = lock(&self.progress);
        let Some(index) = progress.current.take() else { return };
        let Some(form) = self.program.forms.get(index) else { return };
        self.guard(form, false);
        let mode = form.mode;
        let ways = self.ways().since(&progress.before);
        let came = match State::read(&self.ram, mode) {
            Some(state) => Came::Ran(Box::new(state), ways),
            None => Came::Broke("guest memory cannot be read".into()),
        };
        if let Some(slot) = progress.came.get_mut(index) {
            *slot = Some(came);
        }
    }
}

impl PortDevice for Conductor {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        for byte in data {
            *byte = self.inserted;
            self.inserted = self.inserted.wrapping_add(3);
        }
    }

    fn write(&mut self, offset: u16, _data: &[u8]) -> Option<Power> {
        match offset {
            port::NEXT => self.next(),
            port::DONE => {
                self.done();
                None
            }
            _ => None,
        }
    }
}

/// Content of a page at the start of a form. Never the same twice in a row.
fn pattern(place: Place) -> Vec<u8> {
    let seed = place.slot.wrapping_mul(0x9e37_79b9) | 1;
    (0..PAGE).map(|n| ((n * n + n / 7).wrapping_mul(seed) >> 3).to_le_bytes()[0] ^ n.to_le_bytes()[0]).collect()
}

/// An FXSAVE image with two values on the x87 stack and all XMM registers different (SDM volume 1, table 10-2).
fn fx_image() -> Vec<u8> {
    let mut image = vec![0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(slot) = image.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
    };
    put(0, &0x037fu16.to_le_bytes());
    // TOP is 6: registers 6 and 7 are in use.
    put(2, &(6u16 << 11).to_le_bytes());
    put(4, &[0xc0]);
    put(24, &0x1f80u32.to_le_bytes());
    // 1.5 and -40 in extended precision.
    put(32, &[0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0x3f]);
    put(48, &[0, 0, 0, 0, 0, 0, 0, 0xa0, 0x04, 0xc0]);
    put(160, &3.25f64.to_le_bytes());
    for index in 8..256usize {
        put(160 + index, &[(index * 37 + 11).to_le_bytes()[0]]);
    }
    image
}

/// Whether the guest's CPU has it, by what the guest found out.
fn has(ram: &GuestMemoryMmap, needs: Needs) -> bool {
    let word = |offset: u64| ram.read_obj::<u32>(GuestAddress(MAILBOX + m::CPUID + offset)).unwrap_or(0);
    let avx = word(0) & (1 << 26 | 1 << 28) == (1 << 26 | 1 << 28);
    match needs {
        Needs::Nothing => true,
        Needs::Leaf1(bit) => word(0) >> bit & 1 != 0,
        Needs::Avx => avx,
        Needs::Avx2 => avx && word(4) >> 5 & 1 != 0,
        Needs::HugePages => word(8) >> 26 & 1 != 0,
    }
}
