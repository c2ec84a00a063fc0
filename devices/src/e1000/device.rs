//! The state machine: registers, interrupts, reset (SDM chapters 13 and 14).
//!
//! Everything happens inside the register write that asks for it; [`BUDGET`](super::spec::BUDGET) bounds what one can cost.

mod receive;
mod transmit;

use self::transmit::Packet;
use super::eeprom::Eeprom;
use super::phy::Phy;
use super::ring::Ring;
use super::spec::{
    ADDRESS_DWORDS, BARS, CAUSE_LINK, CAUSE_MDI, CAUSES, CTRL_FULL_DUPLEX, CTRL_LINK_UP, CTRL_PHY_RESET, CTRL_RESET, CTRL_SPEED_1000,
    Context, IDENTITY, IO_ADDRESS, IO_BAR, IO_DATA, MDIC_ERROR, MDIC_INTERRUPT, MDIC_OPERATION, MDIC_PHY, MDIC_READ, MDIC_READY,
    MDIC_WRITE, PLAIN, RCTL_LOOPBACK, RCTL_LOOPBACK_MAC, Register, RingRegister, STATION, STATUS_FULL_DUPLEX, STATUS_LINK_UP, STATUS_SPEED,
    TABLE, register,
};
use super::statistics::Statistics;
use crate::bus::DeviceMemory;
use crate::pci::{BarSpec, Identity, Model, Vectors};
use crate::peer::Peer;
use std::collections::BTreeMap;
use std::fmt;
use vm_memory::GuestMemory;

/// The network controller, with what is at the other end of its wire.
pub struct E1000<M> {
    memory: DeviceMemory<M>,
    mac: Mac,
    phy: Phy,
    eeprom: Eeprom,
    /// IOADDR.
    io_address: u32,
    peer: Peer,
}

/// What CTRL.RST puts back.
#[derive(Clone, Debug)]
struct Mac {
    ctrl: u32,
    mdic: u32,
    /// Interrupt causes and the mask of those that interrupt.
    causes: u32,
    mask: u32,
    rctl: u32,
    tctl: u32,
    rx: Ring,
    tx: Ring,
    plain: BTreeMap<u64, u32>,
    multicast: [u32; TABLE],
    vlan: [u32; TABLE],
    addresses: [u32; ADDRESS_DWORDS],
    statistics: Statistics,
    /// Offload contexts: for checksums, and for segmentation.
    contexts: [Context; 2],
    packet: Packet,
}

impl Default for Mac {
    fn default() -> Self {
        let mut addresses = [0; ADDRESS_DWORDS];
        addresses.iter_mut().zip(STATION).for_each(|(to, from)| *to = from);
        Self {
            ctrl: CTRL_FULL_DUPLEX | CTRL_SPEED_1000,
            mdic: 0,
            causes: 0,
            mask: 0,
            rctl: 0,
            tctl: 0,
            rx: Ring::default(),
            tx: Ring::default(),
            plain: PLAIN.into_iter().collect(),
            multicast: [0; TABLE],
            vlan: [0; TABLE],
            addresses,
            statistics: Statistics::default(),
            contexts: [Context::default(); 2],
            packet: Packet::default(),
        }
    }
}

impl<M> fmt::Debug for E1000<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("E1000").field("mac", &self.mac).field("phy", &self.phy).finish_non_exhaustive()
    }
}

impl<M: GuestMemory> E1000<M> {
    /// A controller after power-on.
    pub(super) fn new(memory: DeviceMemory<M>) -> Self {
        Self { memory, mac: Mac::default(), phy: Phy::default(), eeprom: Eeprom::default(), io_address: 0, peer: Peer::default() }
    }

    /// Whether frames get to the cable and come from it.
    fn link(&self) -> bool {
        self.phy.link() && self.mac.ctrl & CTRL_LINK_UP != 0
    }

    /// Whether what is sent comes back.
    fn loops(&self) -> bool {
        self.mac.rctl & RCTL_LOOPBACK == RCTL_LOOPBACK_MAC || self.phy.loops()
    }

    fn cause(&mut self, causes: u32) {
        self.mac.causes |= causes & CAUSES;
    }

    fn status(&self) -> u32 {
        let link = if self.link() { STATUS_LINK_UP } else { 0 };
        STATUS_FULL_DUPLEX | link | (self.phy.speed() as u32) << STATUS_SPEED
    }

    fn get(&mut self, register: Register) -> u32 {
        let entry = |array: &[u32], index: usize| array.get(index).copied().unwrap_or_default();
        let mac = &mut self.mac;
        match register {
            Register::Ctrl => mac.ctrl,
            Register::Status => self.status(),
            Register::Eecd => self.eeprom.pins(),
            Register::Eerd => self.eeprom.register(),
            Register::Mdic => mac.mdic,
            // Reading the causes clears them.
            Register::Icr => std::mem::take(&mut mac.causes),
            Register::Ims => mac.mask,
            Register::Ics | Register::Imc => 0,
            Register::Rctl => mac.rctl,
            Register::Tctl => mac.tctl,
            Register::Rx(register) => mac.rx.read(register),
            Register::Tx(register) => mac.tx.read(register),
            Register::Statistic(index) => mac.statistics.read(index),
            Register::Multicast(index) => entry(&mac.multicast, index),
            Register::Address(index) => entry(&mac.addresses, index),
            Register::Vlan(index) => entry(&mac.vlan, index),
            Register::Plain(offset) => mac.plain.get(&offset).copied().unwrap_or_default(),
        }
    }

    fn set(&mut self, register: Register, value: u32) {
        let entry = |array: &mut [u32], index: usize| {
            if let Some(entry) = array.get_mut(index) {
                *entry = value;
            }
        };
        let mac = &mut self.mac;
        match register {
            Register::Ctrl => self.control(value),
            Register::Eecd => self.eeprom.drive(value),
            Register::Eerd => self.eeprom.ask(value),
            Register::Mdic => self.mdi(value),
            // Writing ones clears.
            Register::Icr => mac.causes &= !value,
            Register::Ics => self.cause(value),
            Register::Ims => mac.mask |= value & CAUSES,
            Register::Imc => mac.mask &= !value,
            Register::Rctl => {
                mac.rctl = value;
                self.receive();
            }
            Register::Tctl => {
                mac.tctl = value;
                self.transmit();
            }
            Register::Rx(register) => {
                mac.rx.write(register, value);
                if register == RingRegister::Tail {
                    self.receive();
                }
            }
            Register::Tx(register) => {
                mac.tx.write(register, value);
                if register == RingRegister::Tail {
                    self.transmit();
                }
            }
            Register::Multicast(index) => entry(&mut mac.multicast, index),
            Register::Address(index) => entry(&mut mac.addresses, index),
            Register::Vlan(index) => entry(&mut mac.vlan, index),
            Register::Plain(offset) => {
                mac.plain.insert(offset, value);
            }
            Register::Status | Register::Statistic(_) => {}
        }
    }

    fn control(&mut self, value: u32) {
        if value & CTRL_RESET != 0 {
            self.mac = Mac::default();
            // What was on its way is lost; and a peer that goes on sending to a driver that starts afresh helps nobody.
            self.peer = Peer::default();
            return;
        }
        let linked = self.link();
        if value & CTRL_PHY_RESET != 0 && self.mac.ctrl & CTRL_PHY_RESET == 0 {
            self.phy = Phy::default();
            self.cause(CAUSE_LINK);
        }
        self.mac.ctrl = value;
        self.link_was(linked);
    }

    /// Tells of a link that came or went, and goes on with what waited for it.
    fn link_was(&mut self, linked: bool) {
        if linked != self.link() {
            self.cause(CAUSE_LINK);
            self.transmit();
            self.receive();
        }
    }

    /// SDM section 13.4.8: done at once.
    fn mdi(&mut self, value: u32) {
        let register = usize::try_from(value >> 16 & 31).unwrap_or_default();
        let [low, high, ..] = value.to_le_bytes();
        let linked = self.link();
        let mut result = value & !(MDIC_READY | MDIC_ERROR) | MDIC_READY;
        match value & MDIC_OPERATION {
            _ if value >> 21 & 31 != MDIC_PHY => result |= MDIC_ERROR,
            MDIC_READ => result = result & !0xffff | u32::from(self.phy.read(register)),
            MDIC_WRITE => {
                if self.phy.write(register, u16::from_le_bytes([low, high])) {
                    self.cause(CAUSE_LINK);
                }
            }
            _ => result |= MDIC_ERROR,
        }
        self.mac.mdic = result;
        if value & MDIC_INTERRUPT != 0 {
            self.cause(CAUSE_MDI);
        }
        self.link_was(linked);
    }

    /// The register an access means; the access must be of all of it.
    fn target(&self, bar: usize, offset: u64, len: usize) -> Option<Target> {
        if len != 4 {
            return None;
        }
        match (bar, offset) {
            (IO_BAR, IO_ADDRESS) => Some(Target::IoAddress),
            (IO_BAR, IO_DATA) => register(self.io_address.into()).map(Target::Register),
            (IO_BAR, _) => None,
            _ => register(offset).map(Target::Register),
        }
    }
}

/// What an access of a BAR reaches.
#[derive(Clone, Copy, Debug)]
enum Target {
    IoAddress,
    Register(Register),
}

impl<M: GuestMemory + Send> Model for E1000<M> {
    fn identity(&self) -> Identity {
        IDENTITY
    }

    fn bars(&self) -> Vec<BarSpec> {
        BARS.to_vec()
    }

    fn power_management(&self) -> bool {
        true
    }

    fn interrupt(&self) -> Option<bool> {
        Some(self.mac.causes & self.mac.mask != 0)
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let value = match self.target(bar, offset, data.len()) {
            Some(Target::IoAddress) => self.io_address,
            Some(Target::Register(register)) => self.get(register),
            None => return,
        };
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Vectors {
        let value = data.try_into().map(u32::from_le_bytes).unwrap_or_default();
        match self.target(bar, offset, data.len()) {
            Some(Target::IoAddress) => self.io_address = value,
            Some(Target::Register(register)) => self.set(register, value),
            None => {}
        }
        Vectors::NONE
    }

    fn reset(&mut self) {
        self.mac = Mac::default();
        self.phy = Phy::default();
        self.eeprom = Eeprom::default();
        self.io_address = 0;
        self.peer = Peer::default();
    }
}
