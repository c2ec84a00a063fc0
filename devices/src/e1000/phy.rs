//! The PHY, an M88E1011 at address 1, with a partner at the other end of the cable that can do everything but pause
//! (IEEE 802.3 clause 22; SDM section 13.4.8).

use super::spec::phy::{
    ADVERTISE, ADVERTISE_100, CONTROL, CONTROL_AUTONEG, CONTROL_ISOLATE, CONTROL_LOOPBACK, CONTROL_POWER_DOWN, CONTROL_RESET,
    CONTROL_RESTART, CONTROL_SPEED_HIGH, CONTROL_SPEED_LOW, FULL_1000, GIGABIT_CONTROL, GIGABIT_STATUS, PARTNER_GIGABIT, READ_ONLY, RESET,
    SPECIFIC_STATUS, SPECIFIC_STATUS_UP, STATUS, STATUS_UP,
};

/// Speeds as STATUS and the PHY's own status register number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    /// 10 Mb/s.
    Ten = 0,
    /// 100 Mb/s.
    Hundred = 1,
    /// 1000 Mb/s.
    Thousand = 2,
}

/// The registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phy([u16; 32]);

impl Default for Phy {
    fn default() -> Self {
        let mut registers = [0; 32];
        for (register, value) in RESET {
            if let Some(to) = registers.get_mut(register) {
                *to = value;
            }
        }
        Self(registers)
    }
}

impl Phy {
    fn get(&self, register: usize) -> u16 {
        self.0.get(register).copied().unwrap_or_default()
    }

    /// Whether there is a link to the partner.
    pub(super) fn link(&self) -> bool {
        self.get(CONTROL) & (CONTROL_POWER_DOWN | CONTROL_ISOLATE | CONTROL_LOOPBACK) == 0
    }

    /// Whether what is sent comes back without getting to the cable.
    pub(super) fn loops(&self) -> bool {
        let control = self.get(CONTROL);
        control & CONTROL_LOOPBACK != 0 && control & CONTROL_POWER_DOWN == 0
    }

    /// What both ends agreed on, or what software forced.
    pub(super) fn speed(&self) -> Speed {
        let control = self.get(CONTROL);
        let negotiated = control & CONTROL_AUTONEG != 0;
        let thousand = if negotiated { self.get(GIGABIT_CONTROL) & FULL_1000 } else { control & CONTROL_SPEED_HIGH };
        let hundred = if negotiated { self.get(ADVERTISE) & ADVERTISE_100 } else { control & CONTROL_SPEED_LOW };
        match (thousand, hundred) {
            (1.., _) => Speed::Thousand,
            (0, 1..) => Speed::Hundred,
            (0, 0) => Speed::Ten,
        }
    }

    /// Reads a register, 0 to 31.
    pub(super) fn read(&self, register: usize) -> u16 {
        let up = |bits: u16| if self.link() { bits } else { 0 };
        let value = self.get(register);
        match register {
            STATUS => value | up(STATUS_UP),
            GIGABIT_STATUS => value | up(PARTNER_GIGABIT),
            SPECIFIC_STATUS => value | up(SPECIFIC_STATUS_UP) | (self.speed() as u16) << 14,
            _ => value,
        }
    }

    /// Writes a register; true when the link came or went, for a moment at least.
    pub(super) fn write(&mut self, register: usize, value: u16) -> bool {
        let before = self.link();
        if READ_ONLY.contains(&register) {
            return false;
        }
        // A reset keeps what was configured (it makes it take effect), and both are over at once.
        let keep = if register == CONTROL { value & !(CONTROL_RESET | CONTROL_RESTART) } else { value };
        if let Some(to) = self.0.get_mut(register) {
            *to = keep;
        }
        before != self.link() || keep != value
    }
}
