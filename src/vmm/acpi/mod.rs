//! The ACPI tables: a hardware-reduced machine (ACPI 6.5 section 4.1), because everything the fixed hardware model adds (SCI, PM
//! timer, SMI hand-over, 8259, PIT, CMOS clock) would only be probed for at the cost of an exit each.

mod dsdt;

use crate::layout::{self, ECAM, POWER_PORTS, boot};
use crate::legacy::power;
use crate::platform::Node;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const OEM: [u8; 6] = *b"DMAVET";
const OEM_TABLE: [u8; 8] = *b"DMAVETVM";
const OEM_REVISION: u32 = 1;

/// IA-PC boot architecture flags of the FADT (ACPI 6.5 table 5.11): no VGA, no PCIe ASPM, no CMOS clock; neither legacy devices nor
/// an 8042 are announced.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 4 | 1 << 5;

/// The last bus announced.
const LAST_BUS: u8 = 0;

/// Why the tables could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// They are too large.
    #[error("ACPI tables of {size} bytes do not fit into {:#x}..{:#x}", boot::ACPI, boot::RESET_VECTOR)]
    TooLarge {
        /// Bytes needed.
        size: u64,
    },
    /// Guest memory is not there.
    #[error("cannot write ACPI tables at guest address {gpa:#x}")]
    Write {
        /// Guest physical address.
        gpa: u64,
    },
}

/// What the tables describe.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Number of CPUs; their APIC ids are 0 to `cpus` - 1.
    pub cpus: u8,
    /// Window for 64-bit BARs.
    pub window64: Range<u64>,
    /// Platform devices.
    pub nodes: Vec<Node>,
}

/// Writes the tables and returns the address of the RSDP.
///
/// # Errors
/// When they do not fit.
pub fn write(memory: &GuestMemoryMmap, machine: &Machine) -> Result<u64, AcpiError> {
    let (image, rsdp) = build(machine);
    let size = image.len() as u64;
    if boot::ACPI + size > boot::RESET_VECTOR {
        return Err(AcpiError::TooLarge { size });
    }
    memory.write_slice(&image, GuestAddress(boot::ACPI)).map_err(|_| AcpiError::Write { gpa: boot::ACPI })?;
    Ok(rsdp)
}

/// The tables as they lie from [`boot::ACPI`] on, and the address of the RSDP among them.
fn build(machine: &Machine) -> (Vec<u8>, u64) {
    let mut image = Image::default();
    // The RSDP comes first, where a kernel that scans the BIOS area meets it at once; its room is filled at the end.
    let rsdp = image.put(&[0; 36]);
    let dsdt = image.table(&dsdt::build(&machine.window64, &machine.nodes));
    let fadt = image.table(&fadt(dsdt));
    let madt = image.table(&madt(machine.cpus));
    let mcfg = image.table(&mcfg());
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = image.table(&xsdt);
    let header = bytes(&Rsdp::new(OEM, xsdt));
    for (slot, byte) in image.0.iter_mut().zip(header) {
        *slot = byte;
    }
    (image.0, rsdp)
}

#[derive(Default)]
struct Image(Vec<u8>);

impl Image {
    /// Appends at a 16-byte boundary and returns the guest physical address.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        let address = boot::ACPI + self.0.len() as u64;
        self.0.extend_from_slice(bytes);
        address
    }

    fn table(&mut self, table: &dyn Aml) -> u64 {
        self.put(&bytes(table))
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt(dsdt: u64) -> impl Aml {
    let register = |offset: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(POWER_PORTS + offset));
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = register(power::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = register(power::SLEEP_CONTROL);
    fadt.sleep_status_reg = register(power::SLEEP_STATUS);
    fadt.finalize()
}

fn madt(cpus: u8) -> MADT {
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, LocalInterruptController::Address(layout::LOCAL_APIC));
    for id in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    // KVM's I/O APIC has id 0 after reset; ids are not matched against CPUs since xAPIC buses went away.
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    madt
}

fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    // Bus 0 only: Linux looks for a device in every slot of every bus named here, 8160 exits for nothing on buses 1 to 255.
    mcfg.add_ecam(ECAM.start, 0, 0, LAST_BUS);
    mcfg
}

/// `aml::Path` of a name given without a root.
fn path(name: &str) -> aml::Path {
    aml::Path::new(name)
}

#[cfg(test)]
mod tests;
