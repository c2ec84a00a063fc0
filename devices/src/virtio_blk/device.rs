//! The state machine of virtio-blk. Section numbers are those of virtio 1.2.
//!
//! A request is done when it is taken, so flushes have nothing to wait for and requests end in order. What one request can cost is
//! bounded by the limits in the configuration; a longer one is an error of the driver and ends with an error.

use super::spec::{
    FEATURES, HEADER, ID_LEN, MOST_DATA, MOST_DISCARD_SECTORS, MOST_RANGES, Operation, QUEUE_SIZE, RANGE, RANGE_UNMAP, READ_ONLY, SECTOR,
    Status, config,
};
use crate::disk::Disk;
use crate::virtio_pci::{Chain, Kind, Queues, VirtioDevice};
use vm_memory::GuestMemory;

/// requestq.
const QUEUE: usize = 0;
/// Data is moved in pieces of this size.
const PIECE: usize = 64 * 1024;
/// What GET_ID tells.
const ID: &[u8] = b"dmavet";

/// The block device.
#[derive(Debug)]
pub struct VirtioBlk {
    disk: Disk,
    read_only: bool,
    config: [u8; 60],
    buffer: Vec<u8>,
}

/// A request and what it was made with.
struct Request<'a, 'm, M> {
    chain: &'a Chain,
    queues: &'a Queues<'m, M>,
    sector: u64,
    /// Bytes of data from the driver, behind the header.
    from_driver: u64,
    /// Bytes of data to the driver, before the status.
    to_driver: u64,
}

impl VirtioBlk {
    pub(super) fn new(disk: Disk, read_only: bool) -> Self {
        Self { config: config(disk.size()), disk, read_only, buffer: vec![0; PIECE] }
    }

    /// Section 5.2.6: does what `chain` asks for; the number of bytes written.
    fn request<M: GuestMemory>(&mut self, chain: &Chain, queues: &Queues<'_, M>) -> u32 {
        let memory = queues.memory();
        // Without room for the status there is no way to say anything.
        let Some(to_driver) = chain.writable().checked_sub(1) else { return 0 };
        let mut header = [0; HEADER];
        let (status, written) = match chain.read(memory, 0, &mut header) {
            Ok(()) => {
                let [a, b, c, d, _, _, _, _, sector @ ..] = header;
                let from_driver = chain.readable().saturating_sub(HEADER as u64);
                let request = Request { chain, queues, sector: u64::from_le_bytes(sector), from_driver, to_driver };
                self.execute(Operation::of(u32::from_le_bytes([a, b, c, d])), &request)
            }
            Err(_) => (Status::IoError, 0),
        };
        match chain.write(memory, to_driver, &[status as u8]) {
            // The bytes up to the status count as written only if they were (section 2.7.8.2); the status lies behind them.
            Ok(()) if written == to_driver => u32::try_from(written + 1).unwrap_or(u32::MAX),
            _ => u32::try_from(written).unwrap_or(u32::MAX),
        }
    }

    fn execute<M: GuestMemory>(&mut self, operation: Operation, request: &Request<'_, '_, M>) -> (Status, u64) {
        let changes = matches!(operation, Operation::Write | Operation::Discard | Operation::WriteZeroes);
        if changes && self.read_only {
            return (Status::IoError, 0);
        }
        let done = match operation {
            Operation::Read => return self.read(request),
            Operation::Write => self.write(request),
            // All that ended is as durable as it will ever be.
            Operation::Flush => Some(()),
            Operation::GetId => return get_id(request),
            Operation::Discard | Operation::WriteZeroes => return (self.zero(request, operation), 0),
            Operation::Unknown => return (Status::Unsupported, 0),
        };
        (done.map_or(Status::IoError, |()| Status::Ok), 0)
    }

    /// Where `len` bytes at a sector lie, if they are whole sectors of the disk and no more than a request may have.
    fn span(&self, sector: u64, len: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR)?;
        (len.is_multiple_of(SECTOR) && len <= MOST_DATA && self.disk.contains(offset, len)).then_some(offset)
    }

    fn read<M: GuestMemory>(&mut self, request: &Request<'_, '_, M>) -> (Status, u64) {
        let Some(offset) = self.span(request.sector, request.to_driver) else { return (Status::IoError, 0) };
        let mut done = 0;
        while done < request.to_driver {
            let piece = piece(&mut self.buffer, request.to_driver - done);
            let read = self.disk.read(offset + done, piece).is_ok();
            if !read || request.chain.write(request.queues.memory(), done, piece).is_err() {
                return (Status::IoError, done);
            }
            done += piece.len() as u64;
        }
        (Status::Ok, done)
    }

    fn write<M: GuestMemory>(&mut self, request: &Request<'_, '_, M>) -> Option<()> {
        let offset = self.span(request.sector, request.from_driver)?;
        let mut done = 0;
        while done < request.from_driver {
            let piece = piece(&mut self.buffer, request.from_driver - done);
            request.chain.read(request.queues.memory(), HEADER as u64 + done, piece).ok()?;
            self.disk.write(offset + done, piece).ok()?;
            done += piece.len() as u64;
        }
        Some(())
    }

    /// Section 5.2.6.2: the ranges are checked before any is changed.
    fn zero<M: GuestMemory>(&mut self, request: &Request<'_, '_, M>, operation: Operation) -> Status {
        let count = request.from_driver / RANGE as u64;
        if count == 0 || count > u64::from(MOST_RANGES) || !request.from_driver.is_multiple_of(RANGE as u64) {
            return Status::IoError;
        }
        let mut ranges = Vec::new();
        for index in 0..count {
            let mut bytes = [0; RANGE];
            if request.chain.read(request.queues.memory(), HEADER as u64 + index * RANGE as u64, &mut bytes).is_err() {
                return Status::IoError;
            }
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            let flags = u32::from_le_bytes([f0, f1, f2, f3]);
            if flags & !RANGE_UNMAP != 0 || operation == Operation::Discard && flags != 0 {
                return Status::Unsupported;
            }
            let (offset, len) = (sector.checked_mul(SECTOR), u64::from(sectors) * SECTOR);
            match offset.filter(|offset| sectors <= MOST_DISCARD_SECTORS && self.disk.contains(*offset, len)) {
                Some(offset) => ranges.push((offset, len)),
                None => return Status::IoError,
            }
        }
        for (offset, len) in ranges {
            if usize::try_from(len).map_or(true, |len| self.disk.zero(offset, len).is_err()) {
                return Status::IoError;
            }
        }
        Status::Ok
    }
}

fn get_id<M: GuestMemory>(request: &Request<'_, '_, M>) -> (Status, u64) {
    let mut id = [0; ID_LEN];
    id.iter_mut().zip(ID).for_each(|(to, from)| *to = *from);
    if request.to_driver < ID_LEN as u64 || request.chain.write(request.queues.memory(), 0, &id).is_err() {
        return (Status::IoError, 0);
    }
    (Status::Ok, ID_LEN as u64)
}

/// The part of the buffer for the next piece of `left` bytes.
fn piece(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    buffer.get_mut(..len).unwrap_or_default()
}

impl<M: GuestMemory> VirtioDevice<M> for VirtioBlk {
    fn kind(&self) -> Kind {
        // Class: mass storage controller, other.
        Kind { id: 2, class: 0x01_80_00, queues: &[QUEUE_SIZE] }
    }

    fn features(&self) -> u64 {
        if self.read_only { FEATURES | READ_ONLY } else { FEATURES }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, _features: u64) {}

    fn notified(&mut self, _queue: usize, queues: &mut Queues<'_, M>) {
        while let Some(chain) = queues.pop(QUEUE) {
            let written = self.request(&chain, queues);
            queues.push(QUEUE, chain, written);
        }
    }

    fn reset(&mut self) {}
}
