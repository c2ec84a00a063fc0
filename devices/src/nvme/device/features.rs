//! Features that are nothing but a value to be kept (section 5.21.1). The namespace has no timing, power or temperature to govern.

use super::super::spec::{Command, NAMESPACE_NOTICES, Status, WARNING_TEMPERATURE, feature, word};

/// Set Features, dword 10: keep the value over a power cycle.
const SAVE: u32 = 1 << 31;
/// Dword 11 of the temperature threshold: which sensor and whether it is the lower threshold.
const SENSOR: u32 = 0xf << 16;
const EVERY_SENSOR: u32 = 0xf << 16;
const LOWER: u32 = 3 << 20;

/// The values.
#[derive(Debug)]
pub(super) struct Features {
    arbitration: u32,
    power_state: u32,
    /// Upper and lower threshold of the composite temperature.
    thresholds: [u16; 2],
    error_recovery: u32,
    write_cache: u32,
    coalescing: u32,
    /// A bit for each vector whose messages are not to be coalesced.
    uncoalesced: u64,
    atomicity: u32,
    events: u32,
}

impl Features {
    pub(super) const RESET: Self = Self {
        arbitration: 0,
        power_state: 0,
        thresholds: [WARNING_TEMPERATURE, 0],
        error_recovery: 0,
        write_cache: 1,
        coalescing: 0,
        uncoalesced: 0,
        atomicity: 0,
        events: 0,
    };

    /// The feature a command is about, if its dword 10 is in order.
    pub(super) fn of(command: &Command) -> Result<u8, Status> {
        let [id, ..] = command.dw10.to_le_bytes();
        if command.dw10 & SAVE != 0 { Err(Status::NotSaveable) } else { Ok(id) }
    }

    /// Get Features.
    pub(super) fn get(&self, id: u8, command: &Command, vectors: u16) -> Result<u32, Status> {
        Ok(match id {
            feature::ARBITRATION => self.arbitration,
            feature::POWER_MANAGEMENT => self.power_state,
            feature::TEMPERATURE_THRESHOLD => u32::from(self.thresholds.get(threshold(command.dw11)?).copied().unwrap_or_default()),
            feature::ERROR_RECOVERY => self.error_recovery,
            feature::WRITE_CACHE => self.write_cache,
            feature::INTERRUPT_COALESCING => self.coalescing,
            feature::INTERRUPT_VECTOR => {
                let vector = vector(command.dw11, vectors)?;
                u32::from(vector) | if self.uncoalesced >> vector & 1 != 0 { 1 << 16 } else { 0 }
            }
            feature::WRITE_ATOMICITY => self.atomicity,
            feature::ASYNC_EVENTS => self.events,
            _ => return Err(Status::InvalidField),
        })
    }

    /// Set Features.
    pub(super) fn set(&mut self, id: u8, command: &Command, vectors: u16) -> Result<(), Status> {
        let value = command.dw11;
        match id {
            feature::ARBITRATION => self.arbitration = value,
            // There is one power state.
            feature::POWER_MANAGEMENT if value & 0x1f != 0 => return Err(Status::InvalidField),
            feature::POWER_MANAGEMENT => self.power_state = value,
            feature::TEMPERATURE_THRESHOLD => {
                let all = value & SENSOR == EVERY_SENSOR;
                let index = threshold(if all { value & !SENSOR } else { value })?;
                if let Some(threshold) = self.thresholds.get_mut(index) {
                    *threshold = word(value);
                }
            }
            // Deallocated blocks cannot be told from zeros: no error to report for them (DULBE).
            feature::ERROR_RECOVERY if value >> 16 != 0 => return Err(Status::InvalidField),
            feature::ERROR_RECOVERY => self.error_recovery = value,
            feature::WRITE_CACHE => self.write_cache = value & 1,
            feature::INTERRUPT_COALESCING => self.coalescing = value & 0xffff,
            feature::INTERRUPT_VECTOR => {
                let bit = 1 << vector(value, vectors)?;
                self.uncoalesced = if value & 1 << 16 != 0 { self.uncoalesced | bit } else { self.uncoalesced & !bit };
            }
            feature::WRITE_ATOMICITY => self.atomicity = value & 1,
            feature::ASYNC_EVENTS => self.events = value & (0xff | NAMESPACE_NOTICES),
            _ => return Err(Status::InvalidField),
        }
        Ok(())
    }
}

/// The only sensor is the composite temperature, number 0.
const fn threshold(value: u32) -> Result<usize, Status> {
    match (value & SENSOR, value & LOWER) {
        (0, 0) => Ok(0),
        (0, 0x10_0000) => Ok(1),
        _ => Err(Status::InvalidField),
    }
}

fn vector(value: u32, vectors: u16) -> Result<u16, Status> {
    Some(word(value)).filter(|vector| *vector < vectors).ok_or(Status::InvalidField)
}
