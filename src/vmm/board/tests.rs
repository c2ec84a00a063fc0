use super::*;
use crate::layout::{COM1, ECAM, POWER_PORTS};
use crate::legacy::power::{self, AcpiPower, KeyboardReset};
use crate::legacy::serial::{Console, Uart};
use crate::observer::Silent;
use crate::pci::config_port::{self, ConfigPort};
use crate::ports::ResetBy;
use dmavet_coherence::Bdf;
use dmavet_devices::pci::host_bridge;
use vmm_sys_util::eventfd::EventFd;

const RAM: usize = 1 << 20;

/// A board with everything but devices under test.
fn board() -> Board {
    let mut pci = PciRoot::default();
    pci.add(Bdf::new(0, 0, 0), Box::new(host_bridge()), None, None);
    let pci = Arc::new(pci);
    let mut ports = PortBus::default();
    let console = Arc::new(Console::new(Arc::new(Silent)));
    let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    ports.add(COM1..COM1 + 8, Box::new(Uart::new(console, line)));
    ports.add(config_port::PORT..config_port::PORT + config_port::LEN, Box::new(ConfigPort::new(pci.clone())));
    ports.add(POWER_PORTS..POWER_PORTS + power::LEN, Box::new(AcpiPower));
    ports.add(0x64..0x65, Box::new(KeyboardReset));
    let ram = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap());
    Board { ports, pci, platform: PlatformBus::default(), ram, activity: Arc::default(), end: Arc::new(EndCell::new().unwrap()) }
}

#[test]
fn the_same_register_is_seen_by_port_and_by_memory() {
    let board = board();
    board.write_port(0xcf8, &0x8000_0008u32.to_le_bytes());
    let (mut by_port, mut by_memory) = ([0; 4], [0; 4]);
    board.read_port(0xcfc, &mut by_port);
    board.read_mmio(ECAM.start + 8, &mut by_memory);
    assert_eq!(by_port, by_memory);
    assert_eq!(by_port[1..], [0, 0, 6], "class of a host bridge");
}

#[test]
fn what_nobody_decodes_is_all_ones() {
    let board = board();
    for address in [0xc000_0000, 0xdfff_fffc, 0x40_0000_0000, u64::MAX - 3, RAM as u64] {
        let mut data = [0; 4];
        board.write_mmio(address, &[0; 4], 0);
        board.read_mmio(address, &mut data);
        assert_eq!(data, [0xff; 4], "{address:#x}");
    }
    for port in [0x70, 0x80, 0x3f7, 0x400, 0xffff] {
        let mut data = [0; 2];
        board.write_port(port, &[0, 0]);
        board.read_port(port, &mut data);
        assert_eq!(data, [0xff; 2], "{port:#x}");
    }
    assert_eq!(board.end.get(), None);
}

#[test]
fn ram_that_kvm_hands_out_as_mmio_is_still_ram() {
    let board = board();
    board.write_mmio(0x5000, &[1, 2, 3, 4, 5, 6, 7, 8], 0);
    let mut data = [0; 4];
    board.read_mmio(0x5002, &mut data);
    assert_eq!(data, [3, 4, 5, 6]);
    board.read_mmio(RAM as u64 - 2, &mut data);
    assert_eq!(data, [0xff; 4], "half in RAM is not RAM");
}

#[test]
fn power_registers_end_the_run_and_writes_are_signs_of_life() {
    let board = board();
    let before = board.activity.count();
    board.write_port(POWER_PORTS + power::RESET, &[power::RESET_VALUE]);
    assert_eq!(board.end.get(), Some(End::Reset(ResetBy::Acpi)));
    assert!(board.activity.count() > before);
}

#[test]
fn random_accesses_do_no_harm() {
    let board = board();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..100_000 {
        let (kind, address, value) = (random(), random(), random());
        let mut data = value.to_le_bytes()[..usize::try_from(kind >> 8 & 7).unwrap() + 1].to_vec();
        let port = u16::try_from(address & 0xffff).unwrap();
        let near = [0xcf8, 0x3f8, 0x600, 0x60][usize::try_from(address >> 16 & 3).unwrap()] + port % 8;
        let gpa = [ECAM.start + address % (1 << 28), address % (RAM as u64 * 2), address][usize::try_from(kind >> 16 & 0xff).unwrap() % 3];
        match kind & 7 {
            0 => board.read_port(port, &mut data),
            1 => board.write_port(port, &data),
            2 => board.read_port(near, &mut data),
            3 => board.write_port(near, &data),
            4 | 5 => board.read_mmio(gpa, &mut data),
            _ => board.write_mmio(gpa, &data, value),
        }
    }
}
