//! The DSDT: the PCI host bridge, the area of its ECAM, the serial port, platform devices, and S5.

use super::{LAST_BUS, OEM, OEM_REVISION, OEM_TABLE, path};
use crate::layout::{COM1, COM1_GSI, ECAM, PORT_WINDOW, POWER_PORTS, WINDOW32, intx_gsi};
use crate::legacy::power;
use crate::platform::Node;
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Package, PackageBuilder,
    ResourceTemplate, Return, Scope, Uuid, ZERO,
};
use acpi_tables::sdt::Sdt;
use std::ops::Range;

/// Length of a table header.
const HEADER: u32 = 36;
/// Revision 2: integers are 64 bits wide.
const REVISION: u8 = 2;
/// Slots of the bus.
const SLOTS: u32 = 32;

/// The whole table.
pub fn build(window64: &Range<u64>, nodes: &[Node]) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    let off = power::S5_TYPE;
    Name::new(path("_S5_"), &Package::new(vec![&off, &off, &ZERO, &ZERO])).to_aml_bytes(&mut dsdt);
    let (bridge, board, serial) = (HostBridge(window64.clone()), Board, Com1);
    let nodes: Vec<_> = nodes.iter().map(Platform).collect();
    let mut devices: Vec<&dyn Aml> = vec![&bridge, &board, &serial];
    devices.extend(nodes.iter().map(|node| node as &dyn Aml));
    Scope::new(path("_SB_"), devices).to_aml_bytes(&mut dsdt);
    dsdt.update_checksum();
    dsdt
}

/// `\_SB.PCI0`: a PCI Express host bridge (PNP0A08, compatible PNP0A03) of segment 0, bus 0.
struct HostBridge(Range<u64>);

impl Aml for HostBridge {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let buses = AddressSpace::new_bus_number(0, u16::from(LAST_BUS));
        let config_ports = IO::new(0xcf8, 0xcf8, 1, 8);
        let ports = AddressSpace::new_io(PORT_WINDOW.start, PORT_WINDOW.end, None);
        let memory32 =
            AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, low(WINDOW32.start), low(WINDOW32.end - 1), None);
        let memory64 = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, self.0.start, self.0.end - 1, None);
        let resources = ResourceTemplate::new(vec![&buses, &config_ports, &ports, &memory32, &memory64]);
        let arg3 = Arg(3);
        Device::new(
            path("PCI0"),
            vec![
                &Name::new(path("_HID"), &EISAName::new("PNP0A08")),
                &Name::new(path("_CID"), &EISAName::new("PNP0A03")),
                &Name::new(path("_UID"), &ZERO),
                &Name::new(path("_SEG"), &ZERO),
                &Name::new(path("_BBN"), &ZERO),
                &Name::new(path("_CRS"), &resources),
                &Name::new(path("_PRT"), &interrupt_routes()),
                // Grants the operating system whatever it asks for: there are no root ports, nothing else wants to control them.
                &Method::new(path("_OSC"), 4, false, vec![&Return::new(&arg3)]),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// `_PRT`: INTA to INTD of each slot on four I/O APIC pins.
fn interrupt_routes() -> PackageBuilder {
    let mut routes = PackageBuilder::new();
    for slot in 0..SLOTS {
        for pin in 0..4u8 {
            let address = slot << 16 | 0xffff;
            let gsi = intx_gsi(slot, u32::from(pin));
            routes.add_element(&Package::new(vec![&address, &pin, &ZERO, &gsi]));
        }
    }
    routes
}

/// `\_SB.MBRD` (PNP0C02): addresses that are taken but belong to no device; Linux accepts the MCFG table only with this.
struct Board;

impl Aml for Board {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let ecam = Memory32Fixed::new(true, low(ECAM.start), low(ECAM.end - ECAM.start));
        let power = IO::new(POWER_PORTS, POWER_PORTS, 1, power::LEN.to_le_bytes()[0]);
        let resources = ResourceTemplate::new(vec![&ecam, &power]);
        Device::new(
            path("MBRD"),
            vec![
                &Name::new(path("_HID"), &EISAName::new("PNP0C02")),
                &Name::new(path("_UID"), &ZERO),
                &Name::new(path("_CRS"), &resources),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// `\_SB.COM1` (PNP0501): a 16550.
struct Com1;

impl Aml for Com1 {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let ports = IO::new(COM1, COM1, 1, 8);
        let line = Interrupt::new(true, true, false, false, COM1_GSI);
        let resources = ResourceTemplate::new(vec![&ports, &line]);
        Device::new(
            path("COM1"),
            vec![
                &Name::new(path("_HID"), &EISAName::new("PNP0501")),
                &Name::new(path("_UID"), &ZERO),
                &Name::new(path("_DDN"), &"COM1"),
                &Name::new(path("_CRS"), &resources),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// `\_SB.NDnn` (PRP0001): a device whose driver matches a devicetree string (Linux: Documentation/firmware-guide/acpi/enumeration.rst).
struct Platform<'a>(&'a Node);

/// Device properties (ACPI `_DSD` Implementation Guide, section 3).
const PROPERTIES: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";

impl Aml for Platform<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let Node { number, compatible, window, gsi } = self.0;
        let registers = Memory32Fixed::new(true, low(window.start), low(window.end - window.start));
        // Level-triggered, high, nobody else's.
        let line = Interrupt::new(true, false, false, false, *gsi);
        let resources = ResourceTemplate::new(vec![&registers, &line]);
        let (compatible_key, number_key) = ("compatible", "dmavet,node");
        let compatible = Package::new(vec![&compatible_key, compatible]);
        let node = Package::new(vec![&number_key, number]);
        let properties = Package::new(vec![&compatible, &node]);
        Device::new(
            path(&format!("ND{number:02}")),
            vec![
                &Name::new(path("_HID"), &"PRP0001"),
                &Name::new(path("_UID"), number),
                // Its DMA does not see the CPU's caches (ACPI 6.5 section 6.2.17).
                &Name::new(path("_CCA"), &ZERO),
                &Name::new(path("_CRS"), &resources),
                &Name::new(path("_DSD"), &Package::new(vec![&Uuid::new(PROPERTIES), &properties])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
