use super::config_port::ConfigPort;
use super::*;
use crate::ports::{PortDevice, Power, ResetBy};
use dmavet_devices::pci::{BarSpec, Function, Identity, Model, NoInterrupts, Vectors, host_bridge};

const BRIDGE: Bdf = Bdf::new(0, 0, 0);
const DEVICE: Bdf = Bdf::new(0, 2, 0);
const COMMAND: usize = 4;
const BAR0: usize = 0x10;

/// A scratch memory behind a 64-bit BAR and one behind an I/O BAR.
struct Scratch(Vec<u8>);

impl Model for Scratch {
    fn identity(&self) -> Identity {
        Identity::dmavet(0x7777, 0x08_80_00)
    }
    fn bars(&self) -> Vec<BarSpec> {
        vec![BarSpec::memory64(0, 0x1000), BarSpec::io(2, 0x20)]
    }
    fn power_management(&self) -> bool {
        true
    }
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        let start = bar * 0x1000 + usize::try_from(offset).unwrap();
        data.copy_from_slice(&self.0[start..start + data.len()]);
    }
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Vectors {
        let start = bar * 0x1000 + usize::try_from(offset).unwrap();
        self.0[start..start + data.len()].copy_from_slice(data);
        Vectors::NONE
    }
    fn reset(&mut self) {
        self.0.fill(0);
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
    fn add(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl Watcher for Log {
    fn bus_master(&self, on: bool) {
        self.add(format!("master {on}"));
    }
    fn reset(&self) {
        self.add("reset".into());
    }
    fn observed(&self) {}
    fn doorbell(&self, rip: u64) {
        self.add(format!("doorbell {rip:#x}"));
    }
}

fn root() -> (Arc<PciRoot>, Arc<Curtain>, Arc<Log>) {
    let (curtain, log) = (Arc::new(Curtain::default()), Arc::new(Log::default()));
    let mut root = PciRoot::default();
    root.add(BRIDGE, Box::new(host_bridge()), None, None);
    let device = Function::new(Scratch(vec![0; 0x4000]), Arc::new(NoInterrupts));
    root.add(DEVICE, Box::new(device), Some(curtain.clone()), Some(log.clone()));
    (Arc::new(root), curtain, log)
}

fn config32(root: &PciRoot, bdf: Bdf, offset: usize) -> u32 {
    let mut data = [0; 4];
    root.read_config(bdf, offset, &mut data);
    u32::from_le_bytes(data)
}

fn set32(root: &PciRoot, offset: usize, value: u32) {
    root.write_config(DEVICE, offset, &value.to_le_bytes());
}

#[test]
fn absent_and_hidden_functions_read_as_all_ones() {
    let (root, curtain, log) = root();
    assert_eq!(config32(&root, BRIDGE, 0), 0x0000_da5e);
    for bdf in [DEVICE, Bdf::new(0, 3, 0), Bdf::new(0, 2, 1), Bdf::new(7, 2, 0)] {
        assert_eq!(config32(&root, bdf, 0), u32::MAX);
    }
    set32(&root, BAR0, 0xd000_0000);
    root.write_config(DEVICE, COMMAND, &[7, 0]);
    assert!(log.take().is_empty());
    curtain.raise();
    assert_eq!(config32(&root, DEVICE, 0), 0x7777_da5e);
    assert_eq!(config32(&root, DEVICE, COMMAND) & 0xffff, 0, "writes before that went nowhere");
    for offset in [4093, 4096, usize::MAX] {
        assert_eq!(config32(&root, DEVICE, offset), u32::MAX);
        set32(&root, offset, 0);
    }
}

#[test]
fn a_64_bit_bar_is_written_in_halves_and_decodes_only_when_enabled() {
    let (root, curtain, log) = root();
    curtain.raise();
    let base = 0x40_1234_5000u64;
    set32(&root, BAR0, u32::MAX);
    set32(&root, BAR0 + 4, u32::MAX);
    assert_eq!(config32(&root, DEVICE, BAR0), 0xffff_f00c, "sizing: 4 KiB, 64-bit, prefetchable");
    assert_eq!(config32(&root, DEVICE, BAR0 + 4), u32::MAX);
    set32(&root, BAR0, 0x1234_5000);
    let mut data = [0; 4];
    assert!(!root.read_bar(BarSpace::Memory, base, &mut data));
    set32(&root, BAR0 + 4, 0x40);
    assert!(!root.read_bar(BarSpace::Memory, base, &mut data), "decoding is off");
    root.write_config(DEVICE, COMMAND, &[2, 0]);
    assert!(root.write_bar(BarSpace::Memory, base + 8, &[1, 2, 3, 4], 0xffff_ffff_8100_0000));
    assert!(root.read_bar(BarSpace::Memory, base + 8, &mut data));
    assert_eq!(data, [1, 2, 3, 4]);
    assert_eq!(log.take(), ["doorbell 0xffffffff81000000"]);
    // Past the end, across the end, before the start, and the address between the two halves.
    for address in [base + 0x1000, base + 0xffe, base - 4, 0x1234_5000] {
        assert!(!root.read_bar(BarSpace::Memory, address, &mut data), "{address:#x}");
        assert_eq!(data, [0xff; 4]);
    }
    assert!(!root.read_bar(BarSpace::Io, base, &mut data), "another address space");
    root.write_config(DEVICE, COMMAND, &[0, 0]);
    assert!(!root.read_bar(BarSpace::Memory, base, &mut data));
}

#[test]
fn the_watcher_hears_of_bus_mastering_and_resets() {
    let (root, curtain, log) = root();
    curtain.raise();
    root.write_config(DEVICE, COMMAND, &[6, 0]);
    assert_eq!(log.take(), ["master true"]);
    root.write_config(DEVICE, COMMAND, &[6, 0]);
    assert!(log.take().is_empty());
    root.write_config(DEVICE, COMMAND, &[2, 0]);
    assert_eq!(log.take(), ["master false"]);
    root.write_config(DEVICE, COMMAND, &[6, 0]);
    log.take();
    // To D3hot and back: a reset, after which nothing decodes and nothing masters the bus.
    let mut capability = [0];
    root.read_config(DEVICE, 0x34, &mut capability);
    let control = usize::from(capability[0]) + 4;
    root.write_config(DEVICE, control, &[3, 0]);
    root.write_config(DEVICE, control, &[0, 0]);
    let heard = log.take();
    assert!(heard.contains(&"reset".to_owned()), "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("master false"));
}

#[test]
fn both_configuration_mechanisms_show_the_same() {
    let (root, curtain, _) = root();
    curtain.raise();
    set32(&root, BAR0, 0xd000_0000);
    let mut port = ConfigPort::new(root.clone());
    for bdf in [BRIDGE, DEVICE, Bdf::new(0, 9, 0)] {
        for offset in 0..256u16 {
            for len in [1usize, 2, 4] {
                if usize::from(offset % 4) + len > 4 {
                    continue;
                }
                let address = 0x8000_0000 | u32::from(bdf.0) << 8 | u32::from(offset & 0xfc);
                port.write(0, &address.to_le_bytes());
                let (mut by_port, mut by_ecam) = (vec![0; len], vec![0; len]);
                port.read(4 + offset % 4, &mut by_port);
                root.read_ecam(u64::from(bdf.0) << 12 | u64::from(offset), &mut by_ecam);
                assert_eq!(by_port, by_ecam, "{bdf} {offset:#x} {len}");
            }
        }
    }
    let mut latch = [0; 4];
    port.read(0, &mut latch);
    assert_eq!(u32::from_le_bytes(latch) >> 31, 1);
    port.write(0, &[0; 4]);
    port.read(4, &mut latch);
    assert_eq!(latch, [0xff; 4], "CONFIG_DATA without the enable bit");
    assert_eq!(port.write(1, &[6]), Some(Power::Reset(ResetBy::Cf9)));
    assert_eq!(port.write(1, &[2]), None);
}

/// A guest without manners: any width, any offset, any value, on all three roads. Nothing may panic, and afterwards the bus still works.
#[test]
fn random_accesses_do_no_harm() {
    let (root, curtain, _) = root();
    curtain.raise();
    let mut port = ConfigPort::new(root.clone());
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200_000 {
        let (what, wide, value) = (random(), random(), random());
        let len = usize::try_from(what % 9).unwrap();
        let mut data = value.to_le_bytes()[..len.min(8)].to_vec();
        let bdf = Bdf(u16::try_from(wide & 0x1f).unwrap());
        let offset = usize::try_from(random() % 4200).unwrap();
        match what >> 32 & 7 {
            0 => root.read_config(bdf, offset, &mut data),
            1 => root.write_config(DEVICE, offset % 0x60, &data),
            2 => root.read_ecam(wide >> 30, &mut data),
            3 => root.write_ecam(wide >> 44, &data),
            4 => port.read(u16::try_from(wide & 7).unwrap(), &mut data),
            5 => drop(port.write(u16::try_from(wide & 7).unwrap(), &data)),
            6 => drop(root.read_bar(BarSpace::Memory, wide, &mut data)),
            _ => drop(root.write_bar(BarSpace::Io, wide & 0xffff, &data, value)),
        }
    }
    assert_eq!(config32(&root, DEVICE, 0), 0x7777_da5e);
}
