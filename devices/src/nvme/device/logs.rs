//! Log pages (section 5.14.1).

use super::super::spec::{Command, ERROR_ENTRIES, Status, TEMPERATURE, admin, log, nvm, put};
use super::identify::FIRMWARE;
use std::collections::VecDeque;

/// An entry of the error log.
const ENTRY: usize = 64;

/// What the logs are made of; kept over resets.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// The last errors, the newest first.
    errors: VecDeque<[u8; ENTRY]>,
    error_count: u64,
    pub(super) sectors_read: u64,
    pub(super) sectors_written: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
    /// Times the controller's own tables were not as it left them.
    pub(super) integrity_errors: u64,
}

impl Logs {
    /// Remembers a command that failed (figure 194).
    pub(super) fn failed(&mut self, queue: u16, command: &Command, status: Status) {
        let id = Some(command.id);
        self.add(Some(queue), id, status.field() << 1, command.first_sector(), command.nsid);
    }

    /// Remembers an error that is no command's.
    pub(super) fn happened(&mut self) {
        self.add(None, None, 0, 0, 0);
    }

    fn add(&mut self, queue: Option<u16>, id: Option<u16>, status: u16, sector: u64, nsid: u32) {
        self.error_count = self.error_count.wrapping_add(1);
        let mut entry = [0; ENTRY];
        put(&mut entry, 0, &self.error_count.to_le_bytes());
        put(&mut entry, 8, &queue.unwrap_or(u16::MAX).to_le_bytes());
        put(&mut entry, 10, &id.unwrap_or(u16::MAX).to_le_bytes());
        put(&mut entry, 12, &status.to_le_bytes());
        // The parameter in error is not told.
        put(&mut entry, 14, &u16::MAX.to_le_bytes());
        put(&mut entry, 16, &sector.to_le_bytes());
        put(&mut entry, 24, &nsid.to_le_bytes());
        self.errors.truncate(ERROR_ENTRIES - 1);
        self.errors.push_front(entry);
    }

    /// A whole log page.
    pub(super) fn page(&self, id: u8) -> Result<Vec<u8>, Status> {
        match id {
            log::ERRORS => {
                let mut page: Vec<u8> = self.errors.iter().flatten().copied().collect();
                page.resize(ENTRY * ERROR_ENTRIES, 0);
                Ok(page)
            }
            log::HEALTH => Ok(self.health()),
            log::FIRMWARE => {
                let mut page = vec![0; 512];
                // Slot 1 is the active one.
                put(&mut page, 0, &[1]);
                put(&mut page, 8, FIRMWARE);
                Ok(page)
            }
            log::EFFECTS => Ok(effects()),
            _ => Err(Status::InvalidLogPage),
        }
    }

    /// Figure 196.
    fn health(&self) -> Vec<u8> {
        let mut page = vec![0; 512];
        put(&mut page, 1, &TEMPERATURE.to_le_bytes());
        // Available spare, and where it would be too little, in percent.
        put(&mut page, 3, &[100, 10]);
        // Thousands of sectors, rounded up.
        put(&mut page, 32, &self.sectors_read.div_ceil(1000).to_le_bytes());
        put(&mut page, 48, &self.sectors_written.div_ceil(1000).to_le_bytes());
        put(&mut page, 64, &self.reads.to_le_bytes());
        put(&mut page, 80, &self.writes.to_le_bytes());
        // Power cycles.
        put(&mut page, 112, &1_u64.to_le_bytes());
        put(&mut page, 160, &self.integrity_errors.to_le_bytes());
        put(&mut page, 176, &self.error_count.to_le_bytes());
        page
    }
}

/// Commands supported and effects (figure 207): what there is, and what changes the contents of the namespace.
fn effects() -> Vec<u8> {
    const SUPPORTED: u32 = 1;
    const CHANGES: u32 = 1 << 1;
    let mut page = vec![0; 4096];
    let mut set = |base: usize, opcode: u8, effects: u32| put(&mut page, base + 4 * usize::from(opcode), &effects.to_le_bytes());
    admin::ALL.into_iter().for_each(|opcode| set(0, opcode, SUPPORTED));
    nvm::OTHERS.into_iter().for_each(|opcode| set(1024, opcode, SUPPORTED));
    nvm::CHANGING.into_iter().for_each(|opcode| set(1024, opcode, SUPPORTED | CHANGES));
    page
}
