//! What a tap hears: every input once, with what the core read and wrote meanwhile.

use super::fixture::*;
use super::watched::{At, DRIVER};
use crate::*;
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Writes everything down in words.
#[derive(Debug, Default)]
struct Ear(Mutex<Vec<String>>);

impl Ear {
    fn say(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
    /// What was heard since the last time.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Tap for Ear {
    fn start(&self, config: &Config, ram: &[RamRegion]) {
        let ram: Vec<_> = ram.iter().map(|r| (r.base, r.len, r.shared)).collect();
        self.say(format!("start {} {ram:?}", config.line_size));
    }
    fn read(&self, gpa: Gpa, bytes: &mut [u8]) {
        self.say(format!("read {} at {:#x}", bytes.len(), gpa.0));
    }
    fn wrote(&self, gpa: Gpa, bytes: &[u8]) {
        self.say(format!("wrote {bytes:?} at {:#x}", gpa.0));
    }
    fn now(&self, now: u64) -> u64 {
        now
    }
    fn detail(&self, detail: Detail<'_>) {
        self.say(match detail {
            Detail::Stack(stack) => format!("stack of {}", stack.len()),
            other => format!("{other:?}"),
        });
    }
    fn input(&self, input: &Input<'_>) {
        let text = format!("{input:?}");
        self.say(text.split([' ', '{', '(']).next().unwrap_or_default().to_owned());
    }
}

/// Closes what it is told to, but refuses one page.
#[derive(Debug)]
struct Refuses(u64);

impl Gate for Refuses {
    fn apply(&self, changes: &[(Gpa, Guard)], refused: &mut Vec<Gpa>) {
        refused.extend(changes.iter().map(|(page, _)| *page).filter(|page| page.0 == self.0));
    }
}

/// Every second map fails.
#[derive(Debug, Default)]
struct Second(u32);

impl FaultPlan for Second {
    fn fails(&mut self, _: &Caller, _: &MapCall) -> bool {
        self.0 += 1;
        self.0.is_multiple_of(2)
    }
}

fn heard() -> (Arc<Ear>, Coherence, DmaView, Arc<GuestMemoryMmap>) {
    let ram = new_ram(RAM);
    let ear = Arc::new(Ear::default());
    let config = Config { watch: WatchPolicy::All, ..Config::for_ram(RAM) };
    let core = Coherence::with_tap(config, Arc::clone(&ram), Some(ear.clone())).unwrap();
    core.add_device(DEVICE, "test");
    core.set_bus_master(DEVICE, true);
    let view = core.view(DEVICE);
    (ear, core, view, ram)
}

fn map(core: &Coherence, gpa: u64, len: u64, direction: Direction) -> Option<Iova> {
    match core.call(Caller { requester: DEVICE, site: SiteId(0), cpu: 0 }, &ApiCall::Map(single(gpa, len, direction))) {
        Answer::Handles(handles) => Some(handles[0].0),
        _ => None,
    }
}

#[test]
fn inputs_are_heard_with_their_details() {
    let (ear, core, view, ram) = heard();
    assert_eq!(ear.heard(), [format!("start 64 [(0, {RAM}, true)]"), "AddDevice".into(), "BusMaster".into(), "View".into()]);
    let dma = map(&core, BUF + 16, 64, Bidirectional).unwrap();
    let said = ear.heard();
    assert_eq!(said.last().map(String::as_str), Some("Call"));
    assert!(said.contains(&format!("read 64 at {:#x}", BUF + 16)), "{said:?}");
    view.write_slice(&[7, 8, 9], GuestAddress(dma.0 + 4)).unwrap();
    assert_eq!(ear.heard(), ["Stored(0, [7, 8, 9])", "Access"]);
    let call = SyncCall { for_cpu: true, sg: false, ranges: vec![(dma, 64)], direction: Bidirectional };
    core.call(Caller { requester: DEVICE, site: SiteId(0), cpu: 0 }, &ApiCall::Sync(call));
    let said = ear.heard();
    assert!(said.contains(&format!("wrote [7, 8, 9] at {:#x}", BUF + 20)), "{said:?}");
    let mut bytes = [0; 3];
    ram.read_slice(&mut bytes, GuestAddress(BUF + 20)).unwrap();
    assert_eq!(bytes, [7, 8, 9]);
    let stack = || vec![Frame::new(1, "f+0x1".into())];
    assert_eq!(core.intern_site(stack()), core.intern_site(stack()));
    assert_eq!(core.intern_site(Vec::new()), SiteId(0));
    assert_eq!(ear.heard(), ["Site"], "a stack that is known is no news");
    let mut out = [0];
    assert!(view.read_slice(&mut out, GuestAddress(5)).is_err());
    assert_eq!(ear.heard(), ["Access"], "what is refused is heard, too");
}

#[test]
fn gates_witnesses_and_plans_are_heard() {
    let (ear, core, _, _) = heard();
    core.set_gate(Arc::new(Refuses(BUF)));
    core.set_fault_plan(Box::new(Second::default()));
    ear.heard();
    map(&core, BUF, 64, FromDevice).unwrap();
    let said = ear.heard();
    assert!(said.contains(&format!("{:?}", Detail::Refused(&[Gpa(BUF)]))), "{said:?}");
    assert!(map(&core, BUF + PAGE, 64, FromDevice).is_none());
    assert!(ear.heard().contains(&"Injected".to_owned()));
    map(&core, BUF + PAGE, 64, FromDevice).unwrap();
    ear.heard();
    let access = CpuAccess { gpa: Gpa(BUF + PAGE), len: 8, read: true, write: false };
    let op = CpuOp { accesses: &[access], cpu: 0, user: false, rip: 9 };
    core.cpu_access(&op, &mut At(&DRIVER, 9), &mut || ());
    let said = ear.heard();
    assert!(said.contains(&"stack of 2".to_owned()) && said.ends_with(&["CpuAccess".to_owned()]), "{said:?}");
    core.abandon_page(Gpa(BUF + PAGE), "given up");
    assert!(ear.heard().ends_with(&["AbandonPage".to_owned()]));
    core.blind_spot("dark".into());
    assert_eq!(ear.heard(), ["BlindSpot"]);
    let _ = core.finish();
    assert!(ear.heard().ends_with(&["Finish".to_owned()]));
}

#[test]
fn questions_to_the_witness_are_heard_with_their_answers() {
    let (ear, core, _, _) = heard();
    core.set_gate(Arc::new(Refuses(u64::MAX)));
    core.call(Caller { requester: DEVICE, site: SiteId(0), cpu: 0 }, &ApiCall::Bound { driver: "testdrv".into() });
    let call = ApiCall::Map(MapCall { kind: PageKind::Foreign, ..single(BUF, 4096, FromDevice) });
    core.call(Caller { requester: DEVICE, site: SiteId(0), cpu: 0 }, &call);
    ear.heard();
    let show = |write: bool, place: &super::watched::Place| {
        let access = CpuAccess { gpa: Gpa(BUF), len: 8, read: !write, write };
        let op = CpuOp { accesses: &[access], cpu: 0, user: false, rip: 9 };
        core.cpu_access(&op, &mut At(place, 9), &mut || ());
        ear.heard()
    };
    assert!(show(false, &DRIVER).contains(&"InDriver(true)".to_owned()));
    assert!(show(false, &super::watched::KERNEL).contains(&"InDriver(false)".to_owned()));
    assert!(show(true, &DRIVER).contains(&"Allocator(None)".to_owned()));
    assert!(show(true, &super::watched::KFREE).contains(&"Allocator(Some(\"kfree\"))".to_owned()));
}
