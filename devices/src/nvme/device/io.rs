//! The NVM command set (chapter 6): reads and writes of the namespace.

use super::super::spec::{Command, DEALLOCATE, EVERY_NAMESPACE, MOST_DATA, NAMESPACE, RANGE, SECTOR, Status, dword, nvm, qword, word};
use super::hmb::HostMemory;
use super::logs::Logs;
use super::prp::{PIECE, parts};
use crate::disk::Disk;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// What one Dataset Management command deallocates at most, in bytes; it is allowed to leave the rest as it is.
const MOST_DEALLOCATED: u64 = 256 << 20;

/// The namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    disk: Disk,
    read_only: bool,
    buffer: Vec<u8>,
}

/// What a command needs beside the namespace.
pub(super) struct Surroundings<'a, M> {
    pub(super) memory: &'a M,
    pub(super) hmb: &'a mut HostMemory,
    pub(super) logs: &'a mut Logs,
}

impl Namespace {
    pub(super) fn new(disk: Disk, read_only: bool) -> Self {
        Self { disk, read_only, buffer: vec![0; PIECE] }
    }

    /// NSZE.
    pub(super) const fn sectors(&self) -> u64 {
        self.disk.size() / SECTOR
    }

    pub(super) const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Does what a command of an I/O queue asks for.
    pub(super) fn execute<M: GuestMemory>(&mut self, command: &Command, around: &mut Surroundings<'_, M>) -> Result<(), Status> {
        let known = nvm::CHANGING.contains(&command.opcode) || nvm::OTHERS.contains(&command.opcode);
        if !known {
            return Err(Status::InvalidOpcode);
        }
        let every = command.opcode == nvm::FLUSH && command.nsid == EVERY_NAMESPACE;
        if command.nsid != NAMESPACE && !every {
            return Err(Status::InvalidNamespace);
        }
        if self.read_only && nvm::CHANGING.contains(&command.opcode) {
            return Err(Status::WriteProtected);
        }
        match command.opcode {
            nvm::READ => self.read(command, around),
            nvm::WRITE => self.write(command, around),
            nvm::WRITE_ZEROES => self.write_zeroes(command, around),
            nvm::DATASET_MANAGEMENT => self.manage(command, around.memory),
            // Flush: all that ended is as durable as it will ever be.
            _ => Ok(()),
        }
    }

    /// Where so many sectors lie on the disk.
    fn span(&self, sector: u64, sectors: u64) -> Result<(u64, u64), Status> {
        let span = sector.checked_mul(SECTOR).zip(sectors.checked_mul(SECTOR));
        span.filter(|(offset, len)| self.disk.contains(*offset, *len)).ok_or(Status::OutOfRange)
    }

    /// The same for a command that moves data.
    fn transfer(&self, command: &Command) -> Result<(u64, u64), Status> {
        if command.sectors() * SECTOR > MOST_DATA {
            return Err(Status::InvalidField);
        }
        self.span(command.first_sector(), command.sectors())
    }

    fn read<M: GuestMemory>(&mut self, command: &Command, around: &mut Surroundings<'_, M>) -> Result<(), Status> {
        let (mut offset, len) = self.transfer(command)?;
        around.hmb.check(around.memory, command.first_sector()).inspect_err(|_| around.logs.integrity_errors += 1)?;
        for (address, len) in parts(around.memory, command.prp1, command.prp2, len)? {
            let piece = self.buffer.get_mut(..len).ok_or(Status::Internal)?;
            self.disk.read(offset, piece).map_err(|_| Status::Internal)?;
            around.memory.write_slice(piece, GuestAddress(address)).map_err(|_| Status::DataTransfer)?;
            offset += len as u64;
        }
        around.logs.reads = around.logs.reads.wrapping_add(1);
        around.logs.sectors_read = around.logs.sectors_read.wrapping_add(command.sectors());
        Ok(())
    }

    fn write<M: GuestMemory>(&mut self, command: &Command, around: &mut Surroundings<'_, M>) -> Result<(), Status> {
        let (mut offset, len) = self.transfer(command)?;
        for (address, len) in parts(around.memory, command.prp1, command.prp2, len)? {
            let piece = self.buffer.get_mut(..len).ok_or(Status::Internal)?;
            around.memory.read_slice(piece, GuestAddress(address)).map_err(|_| Status::DataTransfer)?;
            self.disk.write(offset, piece).map_err(|_| Status::Internal)?;
            offset += len as u64;
        }
        around.hmb.record(around.memory, command.first_sector());
        around.logs.writes = around.logs.writes.wrapping_add(1);
        around.logs.sectors_written = around.logs.sectors_written.wrapping_add(command.sectors());
        Ok(())
    }

    /// Section 6.15. It moves no data, so that the limit of a transfer is not its own; 16 bits of sectors are the most.
    fn write_zeroes<M: GuestMemory>(&mut self, command: &Command, around: &mut Surroundings<'_, M>) -> Result<(), Status> {
        let (offset, len) = self.span(command.first_sector(), command.sectors())?;
        self.zero(offset, len)?;
        around.hmb.record(around.memory, command.first_sector());
        Ok(())
    }

    /// Section 6.7. All ranges are checked before any is changed.
    fn manage<M: GuestMemory>(&mut self, command: &Command, memory: &M) -> Result<(), Status> {
        let count = (usize::from(word(command.dw10)) & 0xff) + 1;
        let mut bytes = Vec::with_capacity(count * RANGE);
        for (address, len) in parts(memory, command.prp1, command.prp2, (count * RANGE) as u64)? {
            let start = bytes.len();
            bytes.resize(start + len, 0);
            let piece = bytes.get_mut(start..).unwrap_or_default();
            memory.read_slice(piece, GuestAddress(address)).map_err(|_| Status::DataTransfer)?;
        }
        let spans: Result<Vec<_>, Status> =
            bytes.chunks_exact(RANGE).map(|range| self.span(qword(range, 8), u64::from(dword(range, 4)))).collect();
        // All else than to deallocate is a hint.
        let spans = if command.dw11 & DEALLOCATE == 0 { spans.map(|_| Vec::new()) } else { spans };
        let mut left = MOST_DEALLOCATED;
        for (offset, len) in spans? {
            let here = len.min(left);
            self.zero(offset, here)?;
            left -= here;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        let len = usize::try_from(len).map_err(|_| Status::Internal)?;
        self.disk.zero(offset, len).map_err(|_| Status::Internal)
    }
}
