//! The state machine of the controller. Section numbers are those of NVM Express 1.4.
//!
//! ```text
//! off --CC.EN--> ready --CC.SHN--> shut down
//!  ^               |--a queue that cannot be reached--> fatal
//!  ^--not CC.EN----|-------------------------------------|
//! ```
//!
//! Everything happens inside the register write that asks for it. A doorbell works off at most what the queue holds, and each command
//! moves at most 4 MiB.

mod admin;
mod features;
mod hmb;
mod identify;
mod io;
mod logs;
mod prp;
mod queues;

use super::NvmeSpec;
use super::spec::{
    self, BARS, CAP, CC_BITS, CC_CHOICES, CC_ENABLE, CC_SHUTDOWN, CSTS_FATAL, CSTS_READY, CSTS_SHUT, Command, DOORBELLS, ErrorEvent,
    IDENTITY, MSIX_TABLE, PAGE, REGISTERS, Reg, SQ_ENTRY, Status, VERSION, log,
};
use crate::bus::DeviceMemory;
use crate::disk::Disk;
use crate::pci::{BarSpec, Identity, Model, MsixSpec, Vectors};
use features::Features;
use hmb::HostMemory;
use io::{Namespace, Surroundings};
use logs::Logs;
use queues::{Queues, Room, Wanted};
use std::collections::VecDeque;
use std::fmt;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// The NVMe controller.
pub struct Nvme<M> {
    memory: DeviceMemory<M>,
    namespace: Namespace,
    /// Which of the machine's devices it is.
    number: u8,
    io_queues: u16,
    registers: Registers,
    queues: Queues,
    features: Features,
    events: Events,
    hmb: HostMemory,
    logs: Logs,
    /// To be raised at the end of the register write.
    vectors: Vectors,
}

/// What is in the registers (section 3.1).
#[derive(Clone, Copy, Debug, Default)]
struct Registers {
    cc: u32,
    ready: bool,
    fatal: bool,
    shut: bool,
    aqa: u32,
    asq: u64,
    acq: u64,
}

impl Registers {
    /// Whether commands are fetched.
    const fn is_running(&self) -> bool {
        self.ready && !self.fatal && !self.shut
    }

    fn status(&self) -> u32 {
        let bit = |set: bool, bits: u32| if set { bits } else { 0 };
        bit(self.ready, CSTS_READY) | bit(self.fatal, CSTS_FATAL) | bit(self.shut, CSTS_SHUT)
    }

    /// CC.IOSQES or CC.IOCQES.
    const fn entry_size(&self, shift: u32) -> u32 {
        self.cc >> shift & 0xf
    }
}

/// Asynchronous events (section 5.2).
#[derive(Debug, Default)]
struct Events {
    /// Ids of the requests waiting.
    requests: VecDeque<u16>,
    /// Requests to be ended without an event.
    aborted: VecDeque<u16>,
    /// An error event to be told. More of them before it was are one.
    pending: Option<ErrorEvent>,
    /// An event was told and its log page not read.
    masked: bool,
}

/// How a command ends that does not fail.
enum Done {
    /// Now, with this in dword 0.
    Now(u32),
    /// When there is an event.
    Later,
}

/// A queue that cannot be reached: the controller is lost until it is reset (section 3.1.6, CFS).
struct Fatal;

impl<M> fmt::Debug for Nvme<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvme").field("registers", &self.registers).field("queues", &self.queues).finish_non_exhaustive()
    }
}

impl<M: GuestMemory> Nvme<M> {
    /// A controller after power-on.
    pub(super) fn new(memory: DeviceMemory<M>, disk: Disk, spec: &NvmeSpec, number: u8) -> Self {
        const PAGES_OF_A_MIB: u32 = 256;
        Self {
            memory,
            namespace: Namespace::new(disk, spec.disk.is_read_only()),
            number,
            io_queues: spec.queues(),
            registers: Registers::default(),
            queues: Queues::new(spec.queues()),
            features: Features::RESET,
            events: Events::default(),
            hmb: HostMemory::new(spec.hmb() * PAGES_OF_A_MIB),
            logs: Logs::default(),
            vectors: Vectors::NONE,
        }
    }

    const fn vectors_there(&self) -> u16 {
        spec::msix(self.io_queues).vectors
    }

    fn get(&self, reg: Reg) -> u64 {
        let registers = &self.registers;
        match reg {
            Reg::Cap => CAP,
            Reg::Vs => u64::from(VERSION),
            // Without meaning with MSI-X (section 3.1.3).
            Reg::Intms | Reg::Intmc | Reg::Nssr => 0,
            Reg::Cc => u64::from(registers.cc),
            Reg::Csts => u64::from(registers.status()),
            Reg::Aqa => u64::from(registers.aqa),
            Reg::Asq => registers.asq,
            Reg::Acq => registers.acq,
        }
    }

    fn set(&mut self, reg: Reg, value: u64, mask: u64) {
        let value = self.get(reg) & !mask | value;
        let low = spec::dword(&value.to_le_bytes(), 0);
        match reg {
            Reg::Cc => self.configure(low & CC_BITS),
            Reg::Aqa => self.registers.aqa = low & 0x0fff_0fff,
            Reg::Asq => self.registers.asq = value & !(PAGE - 1),
            Reg::Acq => self.registers.acq = value & !(PAGE - 1),
            // Subsystem reset (NSSR and CSTS.NSSRO) is not there; the rest is read-only.
            Reg::Cap | Reg::Vs | Reg::Intms | Reg::Intmc | Reg::Csts | Reg::Nssr => {}
        }
    }

    /// Section 3.1.5.
    fn configure(&mut self, value: u32) {
        let before = std::mem::replace(&mut self.registers.cc, value);
        match (before & CC_ENABLE != 0, value & CC_ENABLE != 0) {
            (false, true) => self.enable(),
            (true, false) => self.stop(),
            _ => {}
        }
        if value & CC_SHUTDOWN != 0 && before & CC_SHUTDOWN == 0 {
            // Nothing is under way and nothing is cached: it is done.
            self.registers.shut = true;
        }
    }

    /// Section 7.6.1.
    fn enable(&mut self) {
        let Registers { cc, aqa, asq, acq, .. } = self.registers;
        let (submission, completion) = (spec::word(aqa & 0xfff) + 1, spec::word(aqa >> 16) + 1);
        if cc & CC_CHOICES != 0 || submission < 2 || completion < 2 {
            self.registers.fatal = true;
            return;
        }
        // A shutdown of a controller that was off says nothing about the one that begins now.
        self.registers.shut = false;
        self.queues.create_completion(0, Wanted { base: acq, size: completion }, Some(0));
        self.queues.create_submission(0, Wanted { base: asq, size: submission }, 0);
        self.registers.ready = true;
    }

    /// Section 7.3.2: a controller reset. The admin queue's registers stay.
    fn stop(&mut self) {
        let Registers { cc, aqa, asq, acq, .. } = self.registers;
        self.registers = Registers { cc, aqa, asq, acq, ..Registers::default() };
        self.queues.delete_all();
        self.features = Features::RESET;
        self.events = Events::default();
        self.hmb.disable();
    }

    /// Section 3.1.24 and 3.1.25: only whole doorbells work.
    fn doorbell(&mut self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        if !offset.is_multiple_of(4) || !self.registers.is_running() {
            return;
        }
        // The high half is reserved.
        let value = u32::from_le_bytes(bytes) & 0xffff;
        let (index, is_head) = (offset / 4 / 2, offset / 4 % 2 == 1);
        let queue = u16::try_from(index).unwrap_or(u16::MAX);
        let exists = if is_head { self.queues.has_completion(queue) } else { self.queues.has_submission(queue) };
        let taken = exists && if is_head { self.queues.set_head(queue, value) } else { self.queues.set_tail(queue, value) };
        if taken && is_head {
            // Commands may have been waiting for room.
            for user in self.queues.users(queue).collect::<Vec<_>>() {
                self.run(user);
            }
        } else if taken {
            self.run(queue);
        } else {
            self.logs.happened();
            self.events.pending = Some(if exists { ErrorEvent::BadDoorbellValue } else { ErrorEvent::NoSuchDoorbell });
        }
        if self.tell_events().is_err() {
            self.registers.fatal = true;
        }
    }

    /// Works off a submission queue.
    fn run(&mut self, queue: u16) {
        while self.registers.is_running() {
            let Some(slot) = self.queues.next(queue) else { return };
            let mut bytes = [0; SQ_ENTRY];
            let fetched = self.memory.used.read_slice(&mut bytes, GuestAddress(slot.address));
            let done = fetched.map_err(|_| Fatal).and_then(|()| self.step(queue, slot.completion, &Command::from_bytes(&bytes)));
            if done.is_err() {
                self.registers.fatal = true;
            }
        }
    }

    fn step(&mut self, queue: u16, completion: u16, command: &Command) -> Result<(), Fatal> {
        let done = if command.flags != 0 {
            // No fused operations, no scatter gather lists.
            Err(Status::InvalidField)
        } else if queue == 0 {
            self.admin(command)
        } else {
            let mut around = Surroundings { memory: &self.memory.used, hmb: &mut self.hmb, logs: &mut self.logs };
            self.namespace.execute(command, &mut around).map(|()| Done::Now(0))
        };
        match done {
            Ok(Done::Later) => Ok(()),
            Ok(Done::Now(result)) => self.complete(completion, queue, command.id, result, Status::Success),
            Err(status) => {
                self.logs.failed(queue, command, status);
                self.complete(completion, queue, command.id, 0, status)
            }
        }
    }

    /// Puts a completion into its queue (figure 121), which has room for it.
    fn complete(&mut self, completion: u16, queue: u16, id: u16, result: u32, status: Status) -> Result<(), Fatal> {
        let head = self.queues.head(queue);
        let Some(Room { address, phase, vector }) = self.queues.room(completion) else { return Ok(()) };
        let tag = u64::from(status.field()) << 1 | u64::from(phase);
        let last = u64::from(head) | u64::from(queue) << 16 | u64::from(id) << 32 | tag << 48;
        let memory = &self.memory.used;
        // The half with the phase tag last: a CPU that polls must find the rest there.
        let written = memory.write_slice(&u64::from(result).to_le_bytes(), GuestAddress(address));
        let last_at = GuestAddress(address.wrapping_add(8));
        written.and_then(|()| memory.write_slice(&last.to_le_bytes(), last_at)).map_err(|_| Fatal)?;
        if let Some(vector) = vector {
            self.vectors = self.vectors.with(vector);
        }
        Ok(())
    }

    /// Ends requests for events: the aborted ones, and one for what happened.
    fn tell_events(&mut self) -> Result<(), Fatal> {
        while self.queues.has_room(0)
            && let Some(id) = self.events.aborted.pop_front()
        {
            self.complete(0, 0, id, 0, Status::AbortRequested)?;
        }
        if let Some(event) = self.events.pending.filter(|_| !self.events.masked && self.queues.has_room(0))
            && let Some(id) = self.events.requests.pop_front()
        {
            self.events.pending = None;
            self.events.masked = true;
            // Type 0, an error (figure 146).
            self.complete(0, 0, id, u32::from(event as u8) << 8 | u32::from(log::ERRORS) << 16, Status::Success)?;
        }
        Ok(())
    }
}

impl<M: GuestMemory + Send> Model for Nvme<M> {
    fn identity(&self) -> Identity {
        IDENTITY
    }

    fn bars(&self) -> Vec<BarSpec> {
        BARS.to_vec()
    }

    fn msix(&self) -> Option<MsixSpec> {
        Some(spec::msix(self.io_queues))
    }

    fn power_management(&self) -> bool {
        true
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        if bar == spec::BAR && offset < MSIX_TABLE {
            REGISTERS.read(offset, data, |reg| self.get(reg));
        } else {
            data.fill(0xff);
        }
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Vectors {
        if bar == spec::BAR && offset < DOORBELLS {
            REGISTERS.write(offset, data, |reg, value, mask| self.set(reg, value, mask));
        } else if bar == spec::BAR && offset < MSIX_TABLE {
            self.doorbell(offset - DOORBELLS, data);
        }
        std::mem::take(&mut self.vectors)
    }

    fn reset(&mut self) {
        self.stop();
        self.registers = Registers::default();
        self.hmb.forget();
        self.vectors = Vectors::NONE;
    }
}
