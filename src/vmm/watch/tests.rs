//! Tiny guests whose pages are closed, on whatever KVM there is.
//!
//! A KVM that runs the guest's kernel mode in its instruction emulator (`kvm_pvm`) takes other ways than one that lets the CPU do
//! it: plain accesses arrive as device accesses to RAM, locked ones as failed emulations. The values and the count are the same.

use super::*;
use crate::code::GuestCode;
use crate::end::End;
use crate::journal::Journal;
use crate::machine::{Chassis, Machine, Remains};
use crate::memory::{GuestRam, Pages};
use crate::observer::testing::Recorder;
use crate::pci::PciRoot;
use crate::platform::PlatformBus;
use crate::vcpu::state::Entry;
use crate::watchdog::Watchdog;
use crate::{Timeouts, boot};
use dmavet_coherence::Config;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

const CODE: u64 = 0x1_0000;
/// The page that is closed.
const DATA: u64 = 0x40_0000;
/// `mov dx, 0x600; mov al, S5 | enable; out dx, al; jmp $`
const POWER_OFF: [u8; 9] = [0x66, 0xba, 0x00, 0x06, 0xb0, 5 << 2 | 1 << 5, 0xee, 0xeb, 0xfe];

/// A machine of `cpus` CPUs in 64-bit mode at `CODE`, RSP at 0x20000 and RDI the CPU's number, whose page at `DATA` is closed.
struct Guest {
    machine: Machine,
    watch: Arc<Watch>,
    ram: Arc<GuestMemoryMmap>,
}

fn guest(cpus: u8, code: &[u8], tier: TierChoice) -> Guest {
    let recorder = Arc::new(Recorder::default());
    let journal = Arc::new(Journal::new(recorder.clone()));
    let chassis = Chassis::new(GuestRam::MIN, cpus, Pages::Small, journal).unwrap_or_else(|error| panic!("this test needs a KVM: {error}"));
    let ram = chassis.memory();
    boot::write_long_mode(&ram).unwrap();
    ram.write_slice(code, GuestAddress(CODE)).unwrap();
    let core = Coherence::new(Config::for_ram(GuestRam::MIN), ram.clone()).unwrap();
    let config = WatchConfig { policy: WatchPolicy::All, tier, ..WatchConfig::OFF };
    let code = Arc::new(GuestCode::new("/nonexistent".into(), Vec::new()));
    let watch = chassis.watch(config, &core, code).unwrap().unwrap();
    let machine = chassis.assemble(PciRoot::default(), PlatformBus::default(), Some(watch.clone()), recorder).unwrap();
    machine.set_entry_of_all(Entry::Linux64 { rip: CODE }, 0x2_0000).unwrap();
    close(&watch, &[DATA], Guard::Closed);
    Guest { machine, watch, ram }
}

fn close(watch: &Watch, gpas: &[u64], guard: Guard) {
    let changes: Vec<_> = gpas.iter().map(|gpa| (watch.gate.frames().page(*gpa).unwrap(), guard)).collect();
    watch.gate.want(Party::Stress, &changes, |page| panic!("page {page:?} was refused"));
}

impl Guest {
    fn run(self) -> (Remains, Arc<GuestMemoryMmap>) {
        let timeouts = Timeouts { total: Some(Duration::from_secs(30)), ..Timeouts::NONE };
        let never = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let remains = self.machine.run(Watchdog::new(timeouts), &never).unwrap();
        assert_eq!(remains.end, End::PowerOff);
        (remains, self.ram)
    }
}

fn with_power_off(code: &[u8]) -> Vec<u8> {
    [code, &POWER_OFF].concat()
}

#[test]
fn reads_and_writes_of_a_closed_page_are_seen_and_right() {
    let code = with_power_off(&[
        0xbb, 0x00, 0x00, 0x40, 0x00, // mov ebx, DATA
        0x48, 0x8b, 0x03, // mov rax, [rbx]
        0x48, 0x89, 0x43, 0x08, // mov [rbx + 8], rax
        0x48, 0x01, 0x43, 0x10, // add [rbx + 0x10], rax
        0x66, 0xc7, 0x43, 0x18, 0xcd, 0xab, // mov word [rbx + 0x18], 0xabcd
        0x0f, 0xb6, 0x4b, 0x19, // movzx ecx, byte [rbx + 0x19]
        0x89, 0x0c, 0x25, 0x00, 0x10, 0x40, 0x00, // mov [DATA + 0x1000], ecx
    ]);
    let guest = guest(1, &code, TierChoice::Auto);
    guest.ram.write_obj(0x1122_3344_5566_7788u64, GuestAddress(DATA)).unwrap();
    guest.ram.write_obj(1u64, GuestAddress(DATA + 0x10)).unwrap();
    let (remains, ram) = guest.run();
    let read = |offset| ram.read_obj::<u64>(GuestAddress(DATA + offset)).unwrap();
    assert_eq!((read(8), read(0x10), read(0x18)), (0x1122_3344_5566_7788, 0x1122_3344_5566_7789, 0xabcd));
    assert_eq!(ram.read_obj::<u32>(GuestAddress(DATA + 0x1000)).unwrap(), 0xab);
    // KVM's emulator needs one stop for each read and each write, the CPU one for each instruction.
    let traps = remains.watch.traps;
    assert!(traps.data == 5 || traps.emulator + traps.data >= 5, "{traps:?}");
    assert!(remains.watch.trap_ns > 0);
}

#[test]
fn a_page_that_is_given_back_costs_nothing_more() {
    let code = with_power_off(&[
        0xbb, 0x00, 0x00, 0x40, 0x00, // mov ebx, DATA
        0x48, 0xff, 0x03, // inc qword [rbx]
    ]);
    let guest = guest(1, &code, TierChoice::Auto);
    close(&guest.watch, &[DATA], Guard::Open);
    let (remains, ram) = guest.run();
    assert_eq!(ram.read_obj::<u64>(GuestAddress(DATA)).unwrap(), 1);
    assert_eq!(remains.watch.traps.total(), 0);
}

/// Each CPU adds one to a counter on the closed page some thousand times with a locked instruction and then one to the number of those
/// that are done; the last one switches off.
#[test]
fn two_cpus_lose_no_locked_increment_of_a_closed_page() {
    const ROUNDS: u32 = 2000;
    let mut code = vec![0xb9];
    code.extend(ROUNDS.to_le_bytes()); // mov ecx, ROUNDS
    code.extend([
        0xbb, 0x00, 0x00, 0x40, 0x00, // mov ebx, DATA
        0xf0, 0x48, 0xff, 0x03, // 1: lock inc qword [rbx]
        0xff, 0xc9, // dec ecx
        0x75, 0xf8, // jnz 1b
        0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1
        0xf0, 0x0f, 0xc1, 0x43, 0x40, // lock xadd [rbx + 0x40], eax
        0x83, 0xf8, 0x01, // cmp eax, 1
        0x75, 0xfe, // jne $
    ]);
    let guest = guest(2, &with_power_off(&code), TierChoice::Auto);
    let (remains, ram) = guest.run();
    let read = |offset| ram.read_obj::<u64>(GuestAddress(DATA + offset)).unwrap();
    assert_eq!((read(0), read(0x40)), (2 * u64::from(ROUNDS), 2));
    let traps = remains.watch.traps;
    assert_eq!(traps.data, 2 * u64::from(ROUNDS) + 2, "every access was seen, once: {traps:?}");
    assert_eq!(remains.watch.emulated(), traps.data);
}

/// The page is handed back and forth while both CPUs increment: what was not seen happened while it was open.
#[test]
fn hand_overs_during_locked_increments_lose_nothing() {
    const ROUNDS: u32 = 2000;
    let mut code = vec![0xb9];
    code.extend(ROUNDS.to_le_bytes()); // mov ecx, ROUNDS
    code.extend([
        0xbb, 0x00, 0x00, 0x40, 0x00, // mov ebx, DATA
        0xf0, 0x48, 0xff, 0x03, // 1: lock inc qword [rbx]
        0xff, 0xc9, // dec ecx
        0x75, 0xf8, // jnz 1b
        0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1
        0xf0, 0x0f, 0xc1, 0x43, 0x40, // lock xadd [rbx + 0x40], eax
        0x83, 0xf8, 0x01, // cmp eax, 1
        0x75, 0xfe, // jne $
    ]);
    let guest = guest(2, &with_power_off(&code), TierChoice::Auto);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flipper = {
        let (watch, stop) = (guest.watch.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut flips = 0;
            while !stop.load(Ordering::Relaxed) {
                close(&watch, &[DATA], if flips % 2 == 0 { Guard::Open } else { Guard::Closed });
                flips += 1;
                std::thread::sleep(Duration::from_micros(50));
            }
        })
    };
    let (remains, ram) = guest.run();
    stop.store(true, Ordering::Relaxed);
    flipper.join().unwrap();
    assert_eq!(ram.read_obj::<u64>(GuestAddress(DATA)).unwrap(), 2 * u64::from(ROUNDS));
    assert!(remains.watch.emulated() <= 2 * u64::from(ROUNDS) + 2);
}

/// Two CPUs count for themselves without ever leaving the guest by themselves, while two others stop them again and again: nobody counts on
/// meanwhile, and all go on afterwards.
#[test]
fn cpus_in_the_guest_stop_and_go_on() {
    const STOPS: u32 = 5000;
    let code = with_power_off(&[
        0xbb, 0x00, 0x10, 0x40, 0x00, // mov ebx, DATA + 0x1000
        0x48, 0xff, 0x44, 0xfb, 0x08, // 1: inc qword [rbx + rdi * 8 + 8]
        0x83, 0x3b, 0x00, // cmp dword [rbx], 0
        0x74, 0xf6, // jz 1b
    ]);
    let guest = guest(2, &code, TierChoice::Auto);
    let stoppers: Vec<_> = (0..2)
        .map(|_| {
            let (watch, ram) = (guest.watch.clone(), guest.ram.clone());
            std::thread::spawn(move || {
                let counters = || [8, 16].map(|at| ram.read_obj::<u64>(GuestAddress(DATA + 0x1000 + at)).unwrap());
                while counters().contains(&0) {
                    std::thread::yield_now();
                }
                for _ in 0..STOPS {
                    let stopped = watch.world.stop(usize::MAX);
                    let before = counters();
                    std::hint::spin_loop();
                    assert_eq!(counters(), before, "a stopped CPU goes on");
                    drop(stopped);
                }
            })
        })
        .collect();
    let (over, ram) = (std::thread::spawn(move || stoppers.into_iter().for_each(|s| s.join().unwrap())), guest.ram.clone());
    let ender = std::thread::spawn(move || {
        let result = over.join();
        ram.write_obj(1u32, GuestAddress(DATA + 0x1000)).unwrap();
        result.unwrap();
    });
    guest.run();
    ender.join().unwrap();
}

/// `cargo test --release -p dmavet-vmm --lib time_of_a_trap -- --ignored --nocapture`
#[test]
#[ignore = "prints times"]
fn time_of_a_trap() {
    const ROUNDS: u32 = 20_000;
    let mut code = vec![0xb9];
    code.extend(ROUNDS.to_le_bytes()); // mov ecx, ROUNDS
    code.extend([
        0xbb, 0x00, 0x00, 0x40, 0x00, // mov ebx, DATA
        0xf0, 0x48, 0xff, 0x03, // 1: lock inc qword [rbx]
        0xff, 0xc9, // dec ecx
        0x75, 0xf8, // jnz 1b
    ]);
    let guest = guest(1, &with_power_off(&code), TierChoice::Auto);
    let start = Instant::now();
    let (remains, _) = guest.run();
    let whole = start.elapsed().as_nanos() / u128::from(ROUNDS);
    println!("a trap: {} ns, {} of them in user space", whole, remains.watch.trap_ns / u64::from(ROUNDS));
}
