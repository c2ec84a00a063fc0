//! Guests of a few instructions, on whatever KVM there is.

use super::*;
use crate::config::Timeouts;
use crate::end::Limit;
use crate::observer::testing::Recorder;
use crate::pci::Watcher;
use crate::ports::ResetBy;
use dmavet_coherence::Bdf;
use dmavet_devices::pci::{BarSpec, Function, Identity, Model, NoInterrupts, Vectors, host_bridge};
use state::Entry;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

const CODE: u64 = 0x1_0000;

/// What a guest left.
struct Ran {
    remains: Remains,
    text: String,
}

/// A machine to run `code` on.
fn machine(pci: PciRoot, code: &[u8], entry: Entry) -> (Machine, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let journal = Arc::new(Journal::new(recorder.clone()));
    let chassis = Chassis::new(GuestRam::MIN, 1, Pages::Any, journal).unwrap_or_else(|error| panic!("this test needs a KVM: {error}"));
    let memory = chassis.memory();
    boot::write_long_mode(&memory).unwrap();
    memory.write_slice(code, GuestAddress(CODE)).unwrap();
    let machine = chassis.assemble(pci, PlatformBus::default(), None, recorder.clone()).unwrap();
    machine.set_entry(entry).unwrap();
    (machine, recorder)
}

fn never() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK).unwrap()
}

fn limit(seconds: u64) -> Timeouts {
    Timeouts { total: Some(Duration::from_secs(seconds)), ..Timeouts::NONE }
}

fn run_with(pci: PciRoot, code: &[u8], entry: Entry, timeouts: Timeouts, cancel: &EventFd) -> Ran {
    let (machine, recorder) = machine(pci, code, entry);
    let remains = machine.run(Watchdog::new(timeouts), cancel).unwrap();
    Ran { remains, text: recorder.text() }
}

/// Runs 16-bit code at 0x10000.
fn real(code: &[u8]) -> Ran {
    run_with(PciRoot::default(), code, Entry::Real { rip: 0 }, limit(30), &never())
}

/// `mov dx, port; mov al, value; out dx, al` in 16-bit code.
fn out16(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0xba, low, high, 0xb0, value, 0xee]
}

const POWER_OFF: u8 = power::S5_TYPE << 2 | 1 << 5;
const SPIN: [u8; 2] = [0xeb, 0xfe];

#[test]
fn a_guest_prints_and_switches_itself_off() {
    let mut code: Vec<u8> = b"hi\n".iter().flat_map(|byte| out16(COM1, *byte)).collect();
    code.extend(out16(POWER_PORTS, POWER_OFF));
    code.extend(SPIN);
    let ran = real(&code);
    assert_eq!(ran.remains.end, End::PowerOff);
    assert_eq!(ran.text, "hi\n");
    assert_eq!(ran.remains.console_bytes, 3);
    assert_eq!(ran.remains.exits.port_out, 4);
}

#[test]
fn a_string_instruction_is_as_many_items_as_it_counts() {
    // mov si, text; mov cx, 5; mov dx, COM1; cs rep outsb; power off
    let mut code = vec![0xbe, 0x40, 0x00, 0xb9, 0x05, 0x00, 0xba, 0xf8, 0x03, 0x2e, 0xf3, 0x6e];
    code.extend(out16(POWER_PORTS, POWER_OFF));
    code.extend(SPIN);
    code.resize(0x40, 0);
    code.extend(b"rep!\n");
    let ran = real(&code);
    assert_eq!((ran.remains.end, ran.text.as_str()), (End::PowerOff, "rep!\n"));
}

#[test]
fn each_way_to_reset_has_its_name() {
    for (port, value, by) in
        [(POWER_PORTS + power::RESET, power::RESET_VALUE, ResetBy::Acpi), (0x64, 0xfe, ResetBy::Keyboard), (0xcf9, 6, ResetBy::Cf9)]
    {
        let mut code = out16(port, value);
        code.extend(SPIN);
        let ran = real(&code);
        assert_eq!(ran.remains.end, End::Reset(by));
    }
}

#[test]
fn a_jump_to_the_reset_vector_resets() {
    // jmp ffff:0000, where `load` would have put the code
    let code = [0xea, 0x00, 0x00, 0xff, 0xff];
    let (machine, _) = machine(PciRoot::default(), &code, Entry::Real { rip: 0 });
    boot::write_reset_vector(&machine.ram.host()).unwrap();
    let remains = machine.run(Watchdog::new(limit(30)), &never()).unwrap();
    assert_eq!(remains.end, End::Reset(ResetBy::Acpi));
}

#[test]
fn a_triple_fault_is_told_from_a_reset() {
    // ud2, with an interrupt table of nothing but zeros
    let code = [0x0f, 0x0b, 0xeb, 0xfe];
    let ran = run_with(PciRoot::default(), &code, Entry::Linux64 { rip: CODE }, limit(5), &never());
    assert!(matches!(ran.remains.end, End::TripleFault { cpu: 0, .. }), "{:?}", ran.remains.end);
}

#[test]
fn a_guest_that_spins_is_stopped_by_each_limit_and_by_cancelling() {
    let short = Duration::from_millis(120);
    let spin = |timeouts, cancel: &EventFd| run_with(PciRoot::default(), &SPIN, Entry::Real { rip: 0 }, timeouts, cancel);
    let cases = [
        (Timeouts { silence: Some(short), ..Timeouts::NONE }, End::Silence(short)),
        (Timeouts { boot: Some(short), ..Timeouts::NONE }, End::Timeout(Limit::Boot, short)),
        (Timeouts { total: Some(short), ..Timeouts::NONE }, End::Timeout(Limit::Total, short)),
    ];
    for (timeouts, end) in cases {
        let start = Instant::now();
        let ran = spin(timeouts, &never());
        assert_eq!(ran.remains.end, end);
        assert!(start.elapsed() >= short);
    }
    let cancel = never();
    cancel.write(1).unwrap();
    let ran = spin(limit(30), &cancel);
    assert_eq!(ran.remains.end, End::Cancelled);
    assert_eq!(cancel.read().unwrap(), 1, "the caller's eventfd is left as it was");
}

/// Records what reaches a BAR.
struct Recording(Arc<Mutex<Vec<String>>>);

impl Model for Recording {
    fn identity(&self) -> Identity {
        Identity::dmavet(0x7777, 0x08_80_00)
    }
    fn bars(&self) -> Vec<BarSpec> {
        vec![BarSpec::memory32(0, 0x1000)]
    }
    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        self.0.lock().unwrap().push(format!("read {offset:#x} {}", data.len()));
        data.fill(b'm');
    }
    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) -> Vectors {
        self.0.lock().unwrap().push(format!("write {offset:#x} {data:x?}"));
        Vectors::NONE
    }
    fn reset(&mut self) {}
}

impl Watcher for Recording {
    fn bus_master(&self, _on: bool) {}
    fn reset(&self) {}
    fn observed(&self) {}
    fn doorbell(&self, rip: u64) {
        self.0.lock().unwrap().push(format!("doorbell {:#x}", rip - CODE));
    }
}

#[test]
fn device_memory_is_reached_through_ecam_and_bars() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut pci = PciRoot::default();
    pci.add(Bdf::new(0, 0, 0), Box::new(host_bridge()), None, None);
    let device = Function::new(Recording(log.clone()), Arc::new(NoInterrupts));
    pci.add(Bdf::new(0, 2, 0), Box::new(device), None, Some(Arc::new(Recording(log.clone()))));
    let code = [
        0xbb, 0x00, 0x00, 0x01, 0xe0, // mov ebx, ECAM + 00:02.0
        0xc7, 0x43, 0x10, 0x00, 0x00, 0x00, 0xd0, // mov dword [rbx + 0x10], 0xd0000000: BAR 0
        0x66, 0xc7, 0x43, 0x04, 0x02, 0x00, // mov word [rbx + 4], 2: decode memory
        0xb9, 0x00, 0x00, 0x00, 0xd0, // mov ecx, BAR 0
        0xc7, 0x41, 0x24, 0x04, 0x03, 0x02, 0x01, // mov dword [rcx + 0x24], 0x01020304
        0x8a, 0x41, 0x08, // mov al, [rcx + 8]
        0x66, 0xba, 0xf8, 0x03, // mov dx, COM1
        0xee, // out dx, al
        0x8b, 0x03, // mov eax, [rbx]
        0xc1, 0xe8, 0x10, // shr eax, 16
        0xee, // out dx, al: low byte of the device id
        0x66, 0xba, 0x00, 0x06, // mov dx, power
        0xb0, POWER_OFF, // mov al, S5
        0xee,      // out dx, al
        0xeb, 0xfe, // jmp $
    ];
    let ran = run_with(pci, &code, Entry::Linux64 { rip: CODE }, limit(30), &never());
    assert_eq!(ran.remains.end, End::PowerOff);
    assert_eq!(ran.text, "mw");
    let log = log.lock().unwrap();
    assert_eq!(*log, ["doorbell 0x1e", "write 0x24 [4, 3, 2, 1]", "read 0x8 1"], "the address is that behind the instruction");
    assert_eq!((ran.remains.exits.mmio_write, ran.remains.exits.mmio_read), (3, 2));
}

#[test]
fn two_cpus_stop_together() {
    let recorder = Arc::new(Recorder::default());
    let journal = Arc::new(Journal::new(recorder.clone()));
    let chassis = Chassis::new(GuestRam::MIN, 2, Pages::Any, journal).unwrap_or_else(|error| panic!("this test needs a KVM: {error}"));
    chassis.memory().write_slice(&SPIN, GuestAddress(CODE)).unwrap();
    let machine = chassis.assemble(PciRoot::default(), PlatformBus::default(), None, recorder).unwrap();
    machine.set_entry(Entry::Real { rip: 0 }).unwrap();
    let cancel = never();
    let other = cancel.try_clone().unwrap();
    let canceller = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        other.write(1).unwrap();
    });
    // The second CPU waits for a start-up interrupt that never comes, the first one spins; both must be got out of KVM.
    let remains = machine.run(Watchdog::new(limit(30)), &cancel).unwrap();
    assert_eq!(remains.end, End::Cancelled);
    canceller.join().unwrap();
}
