//! Submission and completion queues (section 4.1). Their places come from the driver, which is checked before they get here.

use super::super::spec::{CQ_ENTRY, SQ_ENTRY};

/// A submission queue: the driver moves the tail, the controller the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Submission {
    base: u64,
    size: u16,
    head: u16,
    tail: u16,
    completion: u16,
}

/// A completion queue: the controller moves the tail, the driver the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    base: u64,
    size: u16,
    head: u16,
    tail: u16,
    /// The phase tag of the next entry.
    phase: bool,
    vector: Option<u16>,
}

/// A command to be fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Where its entry lies.
    pub(super) address: u64,
    /// The queue it completes in.
    pub(super) completion: u16,
}

/// Room for a completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Where its entry lies.
    pub(super) address: u64,
    /// Its phase tag.
    pub(super) phase: bool,
    /// The vector to raise when it is written.
    pub(super) vector: Option<u16>,
}

/// All queues by their number; number 0 is the admin pair.
#[derive(Debug)]
pub(super) struct Queues {
    submission: Vec<Option<Submission>>,
    completion: Vec<Option<Completion>>,
}

/// What the driver wants a queue to be. Sizes are at least 2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) base: u64,
    pub(super) size: u16,
}

impl Queues {
    /// Places for `io` pairs beside the admin pair.
    pub(super) fn new(io: u16) -> Self {
        let count = usize::from(io) + 1;
        Self { submission: vec![None; count], completion: vec![None; count] }
    }

    pub(super) fn delete_all(&mut self) {
        self.submission.fill(None);
        self.completion.fill(None);
    }

    /// Whether there is a place for a queue of that number.
    pub(super) fn has_place(&self, queue: u16) -> bool {
        usize::from(queue) < self.submission.len()
    }

    pub(super) fn has_submission(&self, queue: u16) -> bool {
        matches!(self.submission.get(usize::from(queue)), Some(Some(_)))
    }

    pub(super) fn has_completion(&self, queue: u16) -> bool {
        matches!(self.completion.get(usize::from(queue)), Some(Some(_)))
    }

    /// Whether there is any I/O queue.
    pub(super) fn has_io(&self) -> bool {
        self.submission.iter().skip(1).any(Option::is_some) || self.completion.iter().skip(1).any(Option::is_some)
    }

    pub(super) fn create_submission(&mut self, queue: u16, Wanted { base, size }: Wanted, completion: u16) {
        if let Some(place) = self.submission.get_mut(usize::from(queue)) {
            *place = Some(Submission { base, size, head: 0, tail: 0, completion });
        }
    }

    pub(super) fn create_completion(&mut self, queue: u16, Wanted { base, size }: Wanted, vector: Option<u16>) {
        if let Some(place) = self.completion.get_mut(usize::from(queue)) {
            *place = Some(Completion { base, size, head: 0, tail: 0, phase: true, vector });
        }
    }

    /// False if there is none.
    pub(super) fn delete_submission(&mut self, queue: u16) -> bool {
        self.submission.get_mut(usize::from(queue)).and_then(Option::take).is_some()
    }

    /// False if there is none.
    pub(super) fn delete_completion(&mut self, queue: u16) -> bool {
        self.completion.get_mut(usize::from(queue)).and_then(Option::take).is_some()
    }

    /// The submission queues that complete in `queue`.
    pub(super) fn users(&self, queue: u16) -> impl Iterator<Item = u16> {
        let users = (0..).zip(&self.submission).filter(move |(_, user)| user.is_some_and(|user| user.completion == queue));
        users.map(|(number, _)| number)
    }

    /// The tail doorbell; false if the queue cannot have that tail.
    pub(super) fn set_tail(&mut self, queue: u16, tail: u32) -> bool {
        let Some(Some(queue)) = self.submission.get_mut(usize::from(queue)) else { return false };
        u16::try_from(tail).ok().filter(|tail| *tail < queue.size).map(|tail| queue.tail = tail).is_some()
    }

    /// The head doorbell; false if the queue cannot have that head: it must lie on what was posted.
    pub(super) fn set_head(&mut self, queue: u16, head: u32) -> bool {
        let Some(Some(queue)) = self.completion.get_mut(usize::from(queue)) else { return false };
        let Some(head) = u16::try_from(head).ok().filter(|head| *head < queue.size) else { return false };
        let distance = |to: u16| (u32::from(to) + u32::from(queue.size) - u32::from(queue.head)) % u32::from(queue.size);
        let fits = distance(head) <= distance(queue.tail);
        if fits {
            queue.head = head;
        }
        fits
    }

    /// Takes the next command of a submission queue, if there is one and room for its completion.
    pub(super) fn next(&mut self, queue: u16) -> Option<Slot> {
        let submission = self.submission.get_mut(usize::from(queue))?.as_mut().filter(|queue| queue.head != queue.tail)?;
        self.completion.get(usize::from(submission.completion))?.as_ref().filter(|queue| !queue.is_full())?;
        let address = submission.base.wrapping_add(u64::from(submission.head) * SQ_ENTRY as u64);
        submission.head = after(submission.head, submission.size);
        Some(Slot { address, completion: submission.completion })
    }

    /// The head of a submission queue, as completions tell it.
    pub(super) fn head(&self, queue: u16) -> u16 {
        self.submission.get(usize::from(queue)).and_then(Option::as_ref).map_or(0, |queue| queue.head)
    }

    /// Whether another completion fits into a completion queue.
    pub(super) fn has_room(&self, queue: u16) -> bool {
        self.completion.get(usize::from(queue)).and_then(Option::as_ref).is_some_and(|queue| !queue.is_full())
    }

    /// Takes the next place of a completion queue, if there is one.
    pub(super) fn room(&mut self, queue: u16) -> Option<Room> {
        let queue = self.completion.get_mut(usize::from(queue))?.as_mut().filter(|queue| !queue.is_full())?;
        let address = queue.base.wrapping_add(u64::from(queue.tail) * CQ_ENTRY);
        let room = Room { address, phase: queue.phase, vector: queue.vector };
        queue.tail = after(queue.tail, queue.size);
        // Passing the end turns the phase over (section 4.6).
        queue.phase ^= queue.tail == 0;
        Some(room)
    }
}

impl Completion {
    fn is_full(&self) -> bool {
        after(self.tail, self.size) == self.head
    }
}

/// The place after `at` in a ring.
const fn after(at: u16, size: u16) -> u16 {
    if at >= size.saturating_sub(1) { 0 } else { at + 1 }
}
