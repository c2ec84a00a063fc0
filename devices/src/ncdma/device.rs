//! The state machine of ncdma, the same on every bus. Section numbers are those of `docs/ncdma.md`.
//!
//! Everything happens inside the register write that asks for it. What one write can cost is bounded: a doorbell works off at most
//! SIZE - 1 descriptors, each moves at most 1 MiB, and the generator makes at most 256 frames of 64 KiB.

mod registers;

use super::NcdmaSpec;
use super::ring::Ring;
use super::spec::{
    CTRL_ENABLE, CTRL_INT_ENABLE, DESCRIPTOR_READ, Descriptor, ErrorCode, FLAG_IRQ, FLAG_OWN, FLAGS_OPCODE, FLAGS_RESERVED, FNV_BASIS,
    FNV_PRIME, INT_ERROR, MAX_BUFFER, MAX_FRAME, OP_CHECKSUM, OP_COPY, OP_FILL, OP_RECEIVE, OP_SEND, REGISTERS, RingId, STATUS_BLOCK_SIZE,
    STATUS_ERROR, STATUS_OK, TX_LOOPBACK, WRITE_BACK,
};
use crate::bus::DeviceMemory;
use std::fmt;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// The reference DMA engine.
pub struct Ncdma<M> {
    memory: DeviceMemory<M>,
    address_bits: u8,
    state: State,
    /// The data of the transfer under way; kept to save an allocation each.
    buffer: Vec<u8>,
    /// INT_STATUS bits whose message goes out at the end of the register write.
    messages: u32,
}

/// What RESET puts back.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    ctrl: u32,
    halted: bool,
    error: u32,
    error_address: u64,
    int_status: u32,
    int_mask: u32,
    status_block: u64,
    gen_seed: u32,
    gen_len: u32,
    gen_done: u32,
    gen_dropped: u32,
    tx_ctrl: u32,
    loop_dropped: u32,
    rings: [Ring; 3],
    /// Status block counters.
    done: [u32; 3],
    errors: u32,
    last_rx_len: u32,
}

/// An error has halted the device: whatever is under way ends here.
#[derive(Debug)]
struct Halt;

/// How a descriptor ended, for its write-back area.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    error: Option<ErrorCode>,
    result: u32,
    written: u32,
}

impl Outcome {
    const fn failed(error: ErrorCode) -> Self {
        Self { error: Some(error), result: 0, written: 0 }
    }
}

/// A descriptor that was fetched and is in order.
#[derive(Clone, Copy, Debug)]
struct Work {
    ring: RingId,
    /// Its bus address.
    address: u64,
    descriptor: Descriptor,
}

impl<M> fmt::Debug for Ncdma<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ncdma").field("address_bits", &self.address_bits).field("state", &self.state).finish_non_exhaustive()
    }
}

impl<M: GuestMemory> Ncdma<M> {
    /// A device after power-on.
    pub(super) fn new(memory: DeviceMemory<M>, spec: &NcdmaSpec) -> Self {
        Self { memory, address_bits: spec.mask(), state: State::default(), buffer: Vec::new(), messages: 0 }
    }

    /// Reads registers; what is none of them is all-ones.
    pub(super) fn read_registers(&self, offset: u64, data: &mut [u8]) {
        REGISTERS.read(offset, data, |reg| u64::from(self.read_register(reg)));
    }

    /// Writes a register and does what follows from it: the INT_STATUS bits whose message is to be sent.
    pub(super) fn write_registers(&mut self, offset: u64, data: &[u8]) -> u32 {
        REGISTERS.write(offset, data, |reg, value, _| self.write_register(reg, low(value)));
        std::mem::take(&mut self.messages)
    }

    /// Back to the state after power-on.
    pub(super) fn power_on(&mut self) {
        self.state = State::default();
        self.messages = 0;
    }

    /// Works off what the command or transmit ring holds.
    fn run(&mut self, id: RingId) {
        while self.running() {
            let Some(address) = self.state.ring(id).next() else { return };
            if self.step(id, address).is_err() {
                return;
            }
        }
    }

    fn step(&mut self, ring: RingId, address: u64) -> Result<(), Halt> {
        let work = self.fetch(ring, address)?;
        let outcome = if work.bad_length() {
            self.fail(ErrorCode::BadLength, work.address)?;
            Outcome::failed(ErrorCode::BadLength)
        } else {
            match self.execute(&work)? {
                Ok(outcome) => outcome,
                Err(fault) => {
                    self.fail(ErrorCode::DataFault, fault.address)?;
                    Outcome::failed(ErrorCode::DataFault)
                }
            }
        };
        self.complete(&work, outcome)
    }

    /// Reads the descriptor at `address` and checks what section 4 fixes.
    fn fetch(&mut self, ring: RingId, address: u64) -> Result<Work, Halt> {
        let address = self.on_bus(address);
        let mut bytes = [0; DESCRIPTOR_READ];
        if self.memory.used.read_slice(&mut bytes, GuestAddress(address)).is_err() {
            self.fail(ErrorCode::DescriptorFault, address)?;
        }
        let descriptor = Descriptor::from_bytes(&bytes);
        let opcode = descriptor.flags & FLAGS_OPCODE;
        let known = match ring {
            RingId::Command => matches!(opcode, OP_COPY | OP_FILL | OP_CHECKSUM),
            RingId::Transmit => opcode == OP_SEND,
            RingId::Receive => opcode == OP_RECEIVE,
        };
        let own = descriptor.flags & FLAG_OWN != 0;
        if !known || !own || descriptor.flags & FLAGS_RESERVED != 0 || descriptor.reserved != 0 {
            self.fail(ErrorCode::BadDescriptor, address)?;
        }
        Ok(Work { ring, address, descriptor })
    }

    /// Does what a descriptor of the command or transmit ring asks for.
    fn execute(&mut self, work: &Work) -> Result<Result<Outcome, Fault>, Halt> {
        let Descriptor { flags, len, src, dst, param, .. } = work.descriptor;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let done = match flags & FLAGS_OPCODE {
            OP_COPY => self.read(src, len, &mut buffer).and_then(|()| self.write(dst, &buffer)).map(Outcome::wrote),
            OP_FILL => {
                buffer.resize(len as usize, 0);
                for chunk in buffer.chunks_mut(4) {
                    chunk.iter_mut().zip(param.to_le_bytes()).for_each(|(to, from)| *to = from);
                }
                self.write(dst, &buffer).map(Outcome::wrote)
            }
            _ => self.read(src, len, &mut buffer).map(|()| Outcome { result: fnv1a(&buffer), ..Outcome::default() }),
        };
        let looped = self.state.tx_ctrl & TX_LOOPBACK != 0 && work.ring == RingId::Transmit && done.is_ok();
        let delivered = if looped { self.deliver(&buffer) } else { Ok(true) };
        self.buffer = buffer;
        if !delivered? {
            self.state.loop_dropped = self.state.loop_dropped.wrapping_add(1);
        }
        Ok(done)
    }

    /// Section 6: puts a frame into the receive ring; false if it was dropped.
    fn deliver(&mut self, frame: &[u8]) -> Result<bool, Halt> {
        if !self.running() {
            return Ok(false);
        }
        let Some(address) = self.state.ring(RingId::Receive).next() else { return Ok(false) };
        let work = self.fetch(RingId::Receive, address)?;
        let outcome = if work.bad_length() || frame.len() > work.descriptor.len as usize {
            self.fail(ErrorCode::BadLength, work.address)?;
            Outcome::failed(ErrorCode::BadLength)
        } else {
            match self.write(work.descriptor.dst, frame) {
                Ok(len) => {
                    self.state.last_rx_len = len;
                    Outcome::wrote(len)
                }
                Err(fault) => {
                    self.fail(ErrorCode::DataFault, fault.address)?;
                    Outcome::failed(ErrorCode::DataFault)
                }
            }
        };
        self.complete(&work, outcome)?;
        Ok(outcome.error.is_none())
    }

    /// Section 6: the stream generator.
    fn generate(&mut self, count: u32) {
        let len = self.state.gen_len;
        if self.state.halted || count == 0 {
            return;
        }
        if len == 0 || len > MAX_FRAME {
            let _halt = self.fail(ErrorCode::BadLength, 0);
            return;
        }
        let mut frame = std::mem::take(&mut self.buffer);
        for _ in 0..count {
            let number = self.state.gen_done.wrapping_add(self.state.gen_dropped);
            let first = self.state.gen_seed.wrapping_add(number);
            frame.clear();
            frame.extend((0..len).map(|i| first.wrapping_add(i).wrapping_add(i >> 8).to_le_bytes()[0]));
            match self.deliver(&frame) {
                Ok(true) => self.state.gen_done = self.state.gen_done.wrapping_add(1),
                Ok(false) => self.state.gen_dropped = self.state.gen_dropped.wrapping_add(1),
                Err(Halt) => break,
            }
        }
        self.buffer = frame;
    }

    /// Section 5, steps 4 and 5: write-back, then OWN, then HEAD, status block and interrupt.
    fn complete(&mut self, work: &Work, outcome: Outcome) -> Result<(), Halt> {
        let status = outcome.error.map_or(STATUS_OK, |error| STATUS_ERROR | error as u32);
        let mut area = [0; 12];
        put_words(&mut area, &[status, outcome.result, outcome.written]);
        let flags = work.descriptor.flags & !FLAG_OWN;
        let memory = &self.memory.used;
        let written = memory.write_slice(&area, GuestAddress(work.address + WRITE_BACK));
        if written.and_then(|()| memory.write_slice(&flags.to_le_bytes(), GuestAddress(work.address))).is_err() {
            self.fail(ErrorCode::DescriptorFault, work.address)?;
        }
        self.state.ring_mut(work.ring).advance();
        let [command, transmit, receive] = &mut self.state.done;
        let done = match work.ring {
            RingId::Command => command,
            RingId::Transmit => transmit,
            RingId::Receive => receive,
        };
        *done = done.wrapping_add(1);
        self.write_status_block();
        if flags & FLAG_IRQ != 0 {
            self.event(1 << work.ring.vector());
        }
        Ok(())
    }

    /// Section 8: records an error; `Err` if it halts the device.
    fn fail(&mut self, code: ErrorCode, address: u64) -> Result<(), Halt> {
        self.state.errors = self.state.errors.wrapping_add(1);
        // First, so that a status block that cannot be written does not hide this error.
        self.write_status_block();
        self.record(code, address);
        if code.halts() {
            self.state.halted = true;
            return Err(Halt);
        }
        Ok(())
    }

    const fn record(&mut self, code: ErrorCode, address: u64) {
        self.state.error = code as u32;
        self.state.error_address = address;
        self.event(INT_ERROR);
    }

    /// Section 7.
    fn write_status_block(&mut self) {
        let address = self.on_bus(self.state.status_block);
        if address == 0 {
            return;
        }
        let [command, transmit, receive] = self.state.done;
        let mut block = [0; STATUS_BLOCK_SIZE];
        put_words(&mut block, &[command, transmit, receive, self.state.errors, self.state.last_rx_len]);
        if self.memory.used.write_slice(&block, GuestAddress(address)).is_err() {
            // Not through `fail`, which would come back here.
            self.state.errors = self.state.errors.wrapping_add(1);
            self.record(ErrorCode::DataFault, address);
        }
    }

    /// Section 9: an interrupt event.
    const fn event(&mut self, bit: u32) {
        self.state.int_status |= bit;
        if self.state.ctrl & CTRL_INT_ENABLE != 0 {
            self.messages |= bit & self.state.int_mask;
        }
    }

    /// The INT_STATUS bits that mask and INT_ENABLE let through.
    pub(super) const fn interrupting(&self) -> u32 {
        if self.state.ctrl & CTRL_INT_ENABLE != 0 { self.state.int_status & self.state.int_mask } else { 0 }
    }

    const fn enabled(&self) -> bool {
        self.state.ctrl & CTRL_ENABLE != 0
    }

    const fn running(&self) -> bool {
        self.enabled() && !self.state.halted
    }

    /// The last address the device can drive.
    const fn last_address(&self) -> u64 {
        u64::MAX >> (64 - self.address_bits)
    }

    /// Section 3.3: the address as it appears on the bus.
    const fn on_bus(&self, address: u64) -> u64 {
        address & self.last_address()
    }

    /// A buffer's address on the bus, if all its bytes have one.
    fn span(&self, address: u64, len: u32) -> Result<GuestAddress, Fault> {
        let address = self.on_bus(address);
        // One address less on a 64-bit device: the end of the span must be a number too.
        let end = address.checked_add(u64::from(len));
        if end.is_some_and(|end| end.saturating_sub(1) <= self.last_address()) { Ok(GuestAddress(address)) } else { Err(Fault { address }) }
    }

    /// Reads a data buffer; `len` is at most 1 MiB.
    fn read(&self, address: u64, len: u32, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        let memory = &self.memory.used;
        let address = self.span(address, len).inspect_err(|fault| {
            // The first beat goes out and aborts, so that the bus sees an error value for what it is.
            let _aborted = memory.read_slice(&mut [0], GuestAddress(fault.address));
        })?;
        buffer.resize(len as usize, 0);
        memory.read_slice(buffer, address).map_err(|_| Fault { address: address.0 })
    }

    /// Writes a data buffer and gives its length back.
    fn write(&self, address: u64, buffer: &[u8]) -> Result<u32, Fault> {
        // Buffers are at most 1 MiB.
        let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        let memory = &self.memory.used;
        let address = self.span(address, len).inspect_err(|fault| {
            let _aborted = memory.write_slice(buffer.get(..1).unwrap_or_default(), GuestAddress(fault.address));
        })?;
        memory.write_slice(buffer, address).map_err(|_| Fault { address: address.0 })?;
        Ok(len)
    }
}

/// A data access the bus refused.
#[derive(Clone, Copy, Debug)]
struct Fault {
    address: u64,
}

impl Work {
    const fn bad_length(&self) -> bool {
        self.descriptor.len == 0 || self.descriptor.len > MAX_BUFFER
    }
}

impl Outcome {
    const fn wrote(written: u32) -> Self {
        Self { error: None, result: 0, written }
    }
}

impl State {
    const fn ring(&self, id: RingId) -> &Ring {
        let [command, transmit, receive] = &self.rings;
        match id {
            RingId::Command => command,
            RingId::Transmit => transmit,
            RingId::Receive => receive,
        }
    }

    const fn ring_mut(&mut self, id: RingId) -> &mut Ring {
        let [command, transmit, receive] = &mut self.rings;
        match id {
            RingId::Command => command,
            RingId::Transmit => transmit,
            RingId::Receive => receive,
        }
    }
}

/// 32-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(FNV_BASIS, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME))
}

fn put_words(bytes: &mut [u8], words: &[u32]) {
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
