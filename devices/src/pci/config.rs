//! Configuration space of a type 0 function (PCI Local Bus 3.0, chapter 6).

use super::bar::{Bar, BarSpec};
use super::msix::MsixSpec;
use crate::bus::{BarSpace, ConfigChange, DecodedRange};

/// Configuration space of a conventional function; the extended space reads as all-ones.
const SIZE: usize = 256;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const COMMAND_IO: u16 = 1;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_INTERRUPT_DISABLE: u16 = 1 << 10;
/// Bits with no effect here that software expects to stick: parity response (6), SERR# enable (8).
const COMMAND_INERT: u16 = 1 << 6 | 1 << 8;
const STATUS_INTERRUPT: u16 = 1 << 3;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const CACHE_LINE_SIZE: usize = 0x0c;
const CAPABILITY_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const INTA: u8 = 1;
const FIRST_CAPABILITY: usize = 0x40;

/// PCI Bus Power Management 1.2, section 3.2.
const CAP_POWER_MANAGEMENT: u8 = 0x01;
const PM_CONTROL: usize = 4;
const PM_STATE: u16 = 3;
const PM_STATE_D3HOT: u16 = 3;

/// PCI Local Bus 3.0, section 6.8.2.
const CAP_MSIX: u8 = 0x11;
const MSIX_CONTROL: usize = 2;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// Who a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class code: base class, sub-class, programming interface, 24 bits.
    pub class: u32,
    /// Revision id.
    pub revision: u8,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

impl Identity {
    /// An identity of dmavet's own vendor id, revision 1, the subsystem the same as the device.
    #[must_use]
    pub const fn dmavet(device: u16, class: u32) -> Self {
        let vendor = super::VENDOR_DMAVET;
        Self { vendor, device, class, revision: 1, subsystem_vendor: vendor, subsystem: device }
    }
}

/// The two switches of the MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MsixControl {
    /// MSI-X is on.
    pub enabled: bool,
    /// All vectors are masked.
    pub masked: bool,
}

/// Configuration space: bytes, which of their bits software can write, and what follows from a write.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    /// The bytes after power-on.
    initial: [u8; SIZE],
    bars: Vec<Bar>,
    /// Where the next capability goes, and where its address is to be written.
    next_capability: usize,
    capability_link: usize,
    pm: Option<usize>,
    msix: Option<usize>,
}

impl ConfigSpace {
    /// A function with these BARs and no capability yet.
    ///
    /// # Panics
    /// If no function can have these BARs (size, index, two at one index): a mistake in a model, not reachable by a guest.
    #[must_use]
    pub fn new(identity: &Identity, bars: &[BarSpec]) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            initial: [0; SIZE],
            bars: Vec::new(),
            next_capability: FIRST_CAPABILITY,
            capability_link: CAPABILITY_POINTER,
            pm: None,
            msix: None,
        };
        space.define(0x00, &identity.vendor.to_le_bytes(), &[]);
        space.define(0x02, &identity.device.to_le_bytes(), &[]);
        let [prog_if, sub_class, base_class, _] = identity.class.to_le_bytes();
        space.define(0x08, &[identity.revision, prog_if, sub_class, base_class], &[]);
        space.define(CACHE_LINE_SIZE, &[0, 0], &[0xff, 0xff]);
        space.define(0x2c, &identity.subsystem_vendor.to_le_bytes(), &[]);
        space.define(0x2e, &identity.subsystem.to_le_bytes(), &[]);
        space.define(INTERRUPT_LINE, &[0], &[0xff]);

        let mut command = COMMAND_MASTER | COMMAND_INTERRUPT_DISABLE | COMMAND_INERT;
        let mut taken = 0u32;
        for spec in bars {
            assert!(spec.is_valid(), "no function can have {spec:?}");
            let registers = ((1 << spec.registers()) - 1) << spec.index;
            assert!(taken & registers == 0, "{spec:?} overlaps another BAR");
            taken |= registers;
            command |= match spec.space() {
                BarSpace::Memory => COMMAND_MEMORY,
                BarSpace::Io => COMMAND_IO,
            };
            let len = 4 * spec.registers();
            let (value, writable) = (spec.flags().to_le_bytes(), spec.address_bits().to_le_bytes());
            space.define(spec.register_offset(), value.get(..len).unwrap_or_default(), writable.get(..len).unwrap_or_default());
            space.bars.push(Bar::new(*spec));
        }
        space.define(COMMAND, &[0, 0], &command.to_le_bytes());
        space
    }

    /// Adds a capability: `body` is what follows the id and the next pointer, `writable` the bits software can write in it (shorter means
    /// read-only from there). Returns its offset.
    ///
    /// # Panics
    /// If it does not fit into the 192 bytes there are: a mistake in a model, not reachable by a guest.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let offset = self.next_capability;
        let end = offset + 2 + body.len();
        assert!(end <= SIZE, "capability {id:#04x} of {} bytes at {offset:#x} does not fit", body.len() + 2);
        self.define(offset, &[id, 0], &[]);
        self.define(offset + 2, body, writable);
        self.define(self.capability_link, &[u8::try_from(offset).unwrap_or_default()], &[]);
        self.define(STATUS, &STATUS_CAPABILITIES.to_le_bytes(), &[]);
        self.capability_link = offset + 1;
        self.next_capability = end.next_multiple_of(4);
        offset
    }

    /// Gives the function an interrupt pin, INTA# (section 6.2.4).
    pub fn add_interrupt_pin(&mut self) {
        self.define(INTERRUPT_PIN, &[INTA], &[]);
    }

    /// Shows in the Status register whether the function asks for an interrupt by its pin (section 6.2.3).
    pub fn set_interrupt_status(&mut self, asks: bool) {
        let status = self.word(STATUS) & !STATUS_INTERRUPT | if asks { STATUS_INTERRUPT } else { 0 };
        self.put(STATUS, &status.to_le_bytes());
    }

    /// Whether the function may assert its pin: not when the Command register's Interrupt Disable bit is set (section 6.2.2), in D0 only,
    /// and not with MSI-X on (section 6.8.2).
    #[must_use]
    pub fn pin_enabled(&self) -> bool {
        self.in_d0() && self.command() & COMMAND_INTERRUPT_DISABLE == 0 && !self.msix_control().enabled
    }

    /// Adds a power management capability with D0 and D3hot; the way back to D0 resets the function.
    pub fn add_power_management(&mut self) {
        // PMC: version 3, no PME, no D1, no D2. PMCSR: D0, No_Soft_Reset clear.
        let offset = self.add_capability(CAP_POWER_MANAGEMENT, &[0x03, 0, 0, 0, 0, 0], &[0, 0, 0x03]);
        self.pm = Some(offset);
    }

    /// Adds an MSI-X capability.
    ///
    /// # Panics
    /// As [`add_capability`](Self::add_capability).
    pub fn add_msix(&mut self, spec: &MsixSpec) {
        let [control_lo, control_hi] = (spec.vectors - 1).to_le_bytes();
        let [t0, t1, t2, t3] = (spec.table_offset | u32::from(spec.bar)).to_le_bytes();
        let [p0, p1, p2, p3] = (spec.pba_offset | u32::from(spec.bar)).to_le_bytes();
        let body = [control_lo, control_hi, t0, t1, t2, t3, p0, p1, p2, p3];
        let writable = (MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes();
        self.msix = Some(self.add_capability(CAP_MSIX, &body, &writable));
    }

    /// Reads `data.len()` bytes at `offset`; beyond byte 255 there are all-ones.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0xff);
        for (to, from) in data.iter_mut().zip(self.bytes.iter().skip(offset)) {
            *to = *from;
        }
    }

    /// Stores bytes as the function itself does, read-only ones too.
    pub(super) fn put(&mut self, offset: usize, data: &[u8]) {
        for (byte, new) in self.bytes.iter_mut().skip(offset).zip(data) {
            *byte = *new;
        }
    }

    /// Writes `data` at `offset` and says what the bus and the function must act on.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> ConfigChange {
        let (ranges, master) = (self.ranges(), self.bus_master());
        let (command, state) = (self.command(), self.power_state());
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((byte, writable), new) in bytes.zip(data) {
            *byte = (*byte & !writable) | (new & writable);
        }
        let mut change = self.after_power_write(state);
        self.after_bar_write(offset, data.len(), command);
        if self.ranges() != ranges {
            change |= ConfigChange::DECODE;
        }
        if self.bus_master() != master {
            change |= ConfigChange::BUS_MASTER;
        }
        change
    }

    /// The ranges decoded now.
    #[must_use]
    pub fn ranges(&self) -> Vec<DecodedRange> {
        let command = self.command();
        let on = |space| self.in_d0() && decodes(command, space);
        let bars = self.bars.iter().filter(|bar| on(bar.spec.space()));
        bars.filter_map(|bar| Some(DecodedRange { bar: bar.spec.index, space: bar.spec.space(), base: bar.base()?, size: bar.spec.size }))
            .collect()
    }

    /// Whether the function may master the bus: Command register bit 2, in D0.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.in_d0() && self.command() & COMMAND_MASTER != 0
    }

    /// The switches of the MSI-X capability; off when there is none.
    #[must_use]
    pub fn msix_control(&self) -> MsixControl {
        let control = self.msix.map_or(0, |offset| self.word(offset + MSIX_CONTROL));
        MsixControl { enabled: control & MSIX_ENABLE != 0, masked: control & MSIX_FUNCTION_MASK != 0 }
    }

    /// The BAR with that index.
    #[must_use]
    pub fn bar(&self, index: usize) -> Option<&BarSpec> {
        self.bars.iter().map(|bar| &bar.spec).find(|spec| spec.index == index)
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
        for bar in &mut self.bars {
            bar.decode(0);
        }
    }

    fn after_power_write(&mut self, before: u16) -> ConfigChange {
        let state = self.power_state();
        match (before, state) {
            (PM_STATE_D3HOT, 0) => {
                self.reset();
                ConfigChange::RESET
            }
            // D1 and D2 do not exist: the write is discarded (PCI Bus Power Management 1.2, section 3.2.4).
            (_, 1 | 2) => {
                if let Some(byte) = self.pm.and_then(|pm| self.bytes.get_mut(pm + PM_CONTROL)) {
                    *byte = (*byte & !3) | u8::try_from(before).unwrap_or(0);
                }
                ConfigChange::empty()
            }
            _ => ConfigChange::empty(),
        }
    }

    fn after_bar_write(&mut self, offset: usize, len: usize, command_before: u16) {
        let command = self.command();
        let written = offset..offset.saturating_add(len);
        let bytes = &self.bytes;
        for bar in &mut self.bars {
            let at = bar.spec.register_offset();
            let touches = |register: usize| written.start < register + 4 && register < written.end;
            let high = bar.spec.registers() == 2;
            let address = u64::from(dword(bytes, at)) | if high { u64::from(dword(bytes, at + 4)) << 32 } else { 0 };
            let address = address & bar.spec.address_bits();
            let touched = u8::from(touches(at)) | u8::from(high && touches(at + 4)) << 1;
            let decoding = decodes(command, bar.spec.space());
            if decoding && !decodes(command_before, bar.spec.space()) {
                bar.decode(address);
            } else if touched != 0 {
                bar.written(touched, address, decoding);
            }
        }
    }

    fn in_d0(&self) -> bool {
        self.power_state() == 0
    }

    fn power_state(&self) -> u16 {
        self.pm.map_or(0, |pm| self.word(pm + PM_CONTROL) & PM_STATE)
    }

    fn command(&self) -> u16 {
        self.word(COMMAND)
    }

    fn word(&self, offset: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Lays down initial bytes and their writable bits.
    fn define(&mut self, offset: usize, value: &[u8], writable: &[u8]) {
        for ((byte, initial), value) in self.bytes.iter_mut().zip(&mut self.initial).skip(offset).zip(value) {
            (*byte, *initial) = (*value, *value);
        }
        for (byte, writable) in self.writable.iter_mut().skip(offset).zip(writable) {
            *byte = *writable;
        }
    }
}

const fn decodes(command: u16, space: BarSpace) -> bool {
    match space {
        BarSpace::Memory => command & COMMAND_MEMORY != 0,
        BarSpace::Io => command & COMMAND_IO != 0,
    }
}

fn dword(bytes: &[u8], offset: usize) -> u32 {
    bytes.iter().skip(offset).take(4).rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests;
