//! A machine whose CPU is kept from the pages the core closes.

use super::fixture::*;
use crate::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Remembers the guards; refuses what it is told to.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) guards: Mutex<HashMap<u64, Guard>>,
    pub(super) refuse: Mutex<Vec<u64>>,
    pub(super) calls: Mutex<u64>,
}

impl Gate for Desk {
    fn apply(&self, changes: &[(Gpa, Guard)], refused: &mut Vec<Gpa>) {
        *self.calls.lock().unwrap() += 1;
        for (page, guard) in changes {
            if *guard != Guard::Open && self.refuse.lock().unwrap().contains(&page.0) {
                refused.push(*page);
            } else {
                self.guards.lock().unwrap().insert(page.0, *guard);
            }
        }
    }
}

/// Where an access comes from.
pub(super) struct Place {
    pub(super) symbol: &'static str,
    pub(super) driver: bool,
    pub(super) allocator: bool,
}

pub(super) const DRIVER: Place = Place { symbol: "poll+0x10/0x20 [testdrv]", driver: true, allocator: false };
pub(super) const KERNEL: Place = Place { symbol: "copy_page+0x5/0x10", driver: false, allocator: false };
pub(super) const KFREE: Place = Place { symbol: "kfree+0x33/0x100", driver: true, allocator: true };

pub(super) struct At<'a>(pub(super) &'a Place, pub(super) u64);

impl Witness for At<'_> {
    fn stack(&mut self) -> Vec<Frame> {
        vec![Frame::new(self.1, self.0.symbol.into()), Frame::new(7, "probe+0x1/0x2 [testdrv]".into())]
    }
    fn in_driver(&mut self, driver: &str) -> bool {
        self.0.driver && driver == "testdrv"
    }
    fn allocator(&mut self) -> Option<String> {
        self.0.allocator.then(|| "kfree".to_owned())
    }
}

pub(super) struct Watched {
    pub(super) w: World,
    pub(super) desk: Arc<Desk>,
}

impl std::ops::Deref for Watched {
    type Target = World;
    fn deref(&self) -> &World {
        &self.w
    }
}

impl Watched {
    pub(super) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let w = World::with(|config| {
            config.watch = WatchPolicy::All;
            change(config);
        });
        let desk = Arc::new(Desk::default());
        w.core.set_gate(desk.clone());
        Self { w, desk }
    }

    pub(super) fn guard(&self, gpa: u64) -> Guard {
        self.desk.guards.lock().unwrap().get(&(gpa & !0xfff)).copied().unwrap_or_default()
    }

    /// An access as the machine makes it: seen if the guard says so.
    pub(super) fn access(&self, gpa: u64, len: usize, data: Option<&[u8]>, place: &Place, rip: u64, user: bool) -> (Vec<u8>, bool) {
        let mut read = vec![0; len];
        let seen = if data.is_some() { self.guard(gpa) != Guard::Open } else { self.guard(gpa) == Guard::Closed };
        let mut perform = || match data {
            Some(data) => self.cpu_write(gpa, data),
            None => read.copy_from_slice(&self.cpu_read(gpa, len)),
        };
        if !seen {
            perform();
            return (read, false);
        }
        let access = CpuAccess { gpa: Gpa(gpa), len: len.try_into().unwrap(), read: data.is_none(), write: data.is_some() };
        let op = CpuOp { accesses: &[access], cpu: 0, user, rip };
        self.core.cpu_access(&op, &mut At(place, rip), &mut perform);
        (read, true)
    }

    pub(super) fn load(&self, gpa: u64, len: usize) -> Vec<u8> {
        self.access(gpa, len, None, &DRIVER, 0x1000, false).0
    }

    pub(super) fn store(&self, gpa: u64, data: &[u8]) {
        self.access(gpa, data.len(), Some(data), &DRIVER, 0x2000, false);
    }

    /// The device writes and says so with an interrupt.
    pub(super) fn transfer(&self, iova: Iova, data: &[u8]) {
        self.write(iova, data);
        self.core.signalled(self.device);
    }
}
