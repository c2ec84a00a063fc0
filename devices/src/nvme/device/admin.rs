//! Admin commands (chapter 5).

use super::super::spec::{
    CC_CQ_ENTRY, CC_SQ_ENTRY, CQ_ENTRY_LOG2, Command, EVERY_NAMESPACE, MOST_ENTRIES, MOST_EVENTS, NAMESPACE, PAGE, SQ_ENTRY_LOG2, Status,
    admin, feature, log, put, word,
};
use super::features::Features;
use super::queues::Wanted;
use super::{Done, Nvme, identify, prp};
use vm_memory::GuestMemory;

/// Create I/O Submission or Completion Queue, dword 11.
const CONTIGUOUS: u32 = 1;
const INTERRUPTS: u32 = 1 << 1;
/// Get Log Page, dword 10: leave the event that told of it masked.
const RETAIN: u32 = 1 << 15;
/// Figure 244.
const IDENTIFY_NAMESPACE: u32 = 0;
const IDENTIFY_CONTROLLER: u32 = 1;
const IDENTIFY_ACTIVE: u32 = 2;
const IDENTIFY_DESCRIPTORS: u32 = 3;

impl<M: GuestMemory> Nvme<M> {
    /// Does what a command of the admin queue asks for.
    pub(super) fn admin(&mut self, command: &Command) -> Result<Done, Status> {
        let done = |()| Done::Now(0);
        match command.opcode {
            admin::DELETE_SQ => self.delete_submission(word(command.dw10)).map(done),
            admin::CREATE_SQ => self.create_submission(command).map(done),
            admin::GET_LOG_PAGE => self.get_log_page(command).map(done),
            admin::DELETE_CQ => self.delete_completion(word(command.dw10)).map(done),
            admin::CREATE_CQ => self.create_completion(command).map(done),
            admin::IDENTIFY => self.identify(command).map(done),
            admin::ABORT => Ok(self.abort(command)),
            admin::SET_FEATURES => self.set_features(command).map(Done::Now),
            admin::GET_FEATURES => self.get_features(command).map(Done::Now),
            admin::ASYNC_EVENT if self.events.requests.len() + self.events.aborted.len() >= MOST_EVENTS => Err(Status::TooManyEvents),
            admin::ASYNC_EVENT => {
                self.events.requests.push_back(command.id);
                Ok(Done::Later)
            }
            _ => Err(Status::InvalidOpcode),
        }
    }

    /// A queue as dword 10 and PRP entry 1 want it.
    fn wanted(command: &Command) -> Result<(u16, Wanted), Status> {
        let (queue, size) = (word(command.dw10), word(command.dw10 >> 16));
        // Counted from 0; one entry is none.
        let size = size.checked_add(1).filter(|size| (2..=MOST_ENTRIES).contains(size)).ok_or(Status::InvalidQueueSize)?;
        if command.dw11 & CONTIGUOUS == 0 {
            return Err(Status::InvalidField);
        }
        if !command.prp1.is_multiple_of(PAGE) {
            return Err(Status::InvalidOffset);
        }
        Ok((queue, Wanted { base: command.prp1, size }))
    }

    /// Section 5.3.
    fn create_completion(&mut self, command: &Command) -> Result<(), Status> {
        let queue = word(command.dw10);
        if queue == 0 || !self.queues.has_place(queue) || self.queues.has_completion(queue) {
            return Err(Status::InvalidQueueId);
        }
        let (queue, wanted) = Self::wanted(command)?;
        if self.registers.entry_size(CC_CQ_ENTRY) != CQ_ENTRY_LOG2 {
            return Err(Status::InvalidQueueSize);
        }
        let vector = word(command.dw11 >> 16);
        if vector >= self.vectors_there() {
            return Err(Status::InvalidVector);
        }
        self.queues.create_completion(queue, wanted, (command.dw11 & INTERRUPTS != 0).then_some(vector));
        Ok(())
    }

    /// Section 5.4.
    fn create_submission(&mut self, command: &Command) -> Result<(), Status> {
        let queue = word(command.dw10);
        if queue == 0 || !self.queues.has_place(queue) || self.queues.has_submission(queue) {
            return Err(Status::InvalidQueueId);
        }
        let completion = word(command.dw11 >> 16);
        if completion == 0 || !self.queues.has_completion(completion) {
            let known = completion != 0 && self.queues.has_place(completion);
            return Err(if known { Status::InvalidCompletionQueue } else { Status::InvalidQueueId });
        }
        let (queue, wanted) = Self::wanted(command)?;
        if self.registers.entry_size(CC_SQ_ENTRY) != SQ_ENTRY_LOG2 {
            return Err(Status::InvalidQueueSize);
        }
        self.queues.create_submission(queue, wanted, completion);
        Ok(())
    }

    /// Section 5.6. Commands that were not fetched are gone with it.
    fn delete_submission(&mut self, queue: u16) -> Result<(), Status> {
        if queue != 0 && self.queues.delete_submission(queue) { Ok(()) } else { Err(Status::InvalidQueueId) }
    }

    /// Section 5.5.
    fn delete_completion(&mut self, queue: u16) -> Result<(), Status> {
        if queue == 0 || !self.queues.has_completion(queue) {
            return Err(Status::InvalidQueueId);
        }
        if self.queues.users(queue).next().is_some() {
            return Err(Status::InvalidQueueDeletion);
        }
        self.queues.delete_completion(queue);
        Ok(())
    }

    /// Section 5.1: all that can be waiting are requests for events; every other command has ended when the next one is fetched.
    fn abort(&mut self, command: &Command) -> Done {
        let (queue, id) = (word(command.dw10), word(command.dw10 >> 16));
        let waiting = self.events.requests.iter().position(|request| queue == 0 && *request == id);
        match waiting.and_then(|index| self.events.requests.remove(index)) {
            Some(request) => {
                self.events.aborted.push_back(request);
                Done::Now(0)
            }
            None => Done::Now(1),
        }
    }

    fn identify(&self, command: &Command) -> Result<(), Status> {
        let data = match command.dw10 & 0xff {
            IDENTIFY_NAMESPACE | IDENTIFY_DESCRIPTORS if command.nsid != NAMESPACE => return Err(Status::InvalidNamespace),
            IDENTIFY_NAMESPACE => identify::namespace(self.namespace.sectors(), self.namespace.is_read_only()),
            IDENTIFY_CONTROLLER => identify::controller(self.number, self.hmb.wanted()),
            IDENTIFY_ACTIVE if command.nsid >= EVERY_NAMESPACE - 1 => return Err(Status::InvalidNamespace),
            IDENTIFY_ACTIVE => identify::list(command.nsid),
            IDENTIFY_DESCRIPTORS => identify::descriptors(self.number),
            _ => return Err(Status::InvalidField),
        };
        prp::write(&self.memory.used, command.prp1, command.prp2, &data)
    }

    /// Section 5.14. What lies behind the end of a page is not written.
    fn get_log_page(&mut self, command: &Command) -> Result<(), Status> {
        let [id, ..] = command.dw10.to_le_bytes();
        let page = self.logs.page(id)?;
        let dwords = u64::from(command.dw10 >> 16) | u64::from(command.dw11 & 0xffff) << 16;
        let offset = u64::from(command.dw12) | u64::from(command.dw13) << 32;
        let start = usize::try_from(offset).ok().filter(|offset| *offset <= page.len() && offset.is_multiple_of(4));
        let rest = start.and_then(|start| page.get(start..)).ok_or(Status::InvalidField)?;
        let len = usize::try_from((dwords + 1) * 4).unwrap_or(usize::MAX).min(rest.len());
        prp::write(&self.memory.used, command.prp1, command.prp2, rest.get(..len).unwrap_or_default())?;
        if id == log::ERRORS && command.dw10 & RETAIN == 0 {
            self.events.masked = false;
        }
        Ok(())
    }

    fn set_features(&mut self, command: &Command) -> Result<u32, Status> {
        match Features::of(command)? {
            feature::NUMBER_OF_QUEUES => {
                if self.queues.has_io() {
                    return Err(Status::CommandSequence);
                }
                if word(command.dw11) == u16::MAX || word(command.dw11 >> 16) == u16::MAX {
                    return Err(Status::InvalidField);
                }
                Ok(self.number_of_queues())
            }
            feature::HOST_MEMORY_BUFFER => self.hmb.set(&self.memory.used, command).map(|()| 0),
            id => {
                let vectors = self.vectors_there();
                self.features.set(id, command, vectors).map(|()| 0)
            }
        }
    }

    fn get_features(&self, command: &Command) -> Result<u32, Status> {
        let [id, ..] = command.dw10.to_le_bytes();
        match id {
            feature::NUMBER_OF_QUEUES => Ok(self.number_of_queues()),
            feature::HOST_MEMORY_BUFFER => {
                let mut data = [0; identify::SIZE];
                for (at, word) in (0..).step_by(4).zip(self.hmb.words()) {
                    put(&mut data, at, &word.to_le_bytes());
                }
                prp::write(&self.memory.used, command.prp1, command.prp2, &data)?;
                Ok(u32::from(self.hmb.is_enabled()))
            }
            id => self.features.get(id, command, self.vectors_there()),
        }
    }

    /// Both counted from 0.
    fn number_of_queues(&self) -> u32 {
        let most = u32::from(self.vectors_there()).saturating_sub(2);
        most | most << 16
    }
}
