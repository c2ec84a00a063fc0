//! Reads a trace as a stream: one block in memory, whatever the size of the file.

use crate::block::{self, Next};
use crate::code::{Get, Last};
use crate::error::Error;
use crate::header::{Header, Limits};
use crate::record::Record;
use std::io::Read;

/// How a trace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As its recorder ended it.
    Whole,
    /// Without that, at this offset of the file: the run was killed, or the file was cut. What was read is good.
    Cut(u64),
}

/// The records of a trace, in order.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    header: Header,
    /// Contents of the block.
    block: Vec<u8>,
    /// Where in it the next record begins.
    at: usize,
    last: Last,
    /// Number of the next block.
    number: u32,
    /// Offset of the block in the file.
    offset: u64,
    /// Offset of the next block.
    next: u64,
    inputs: u64,
    end: Option<End>,
}

impl<R: Read> Reader<R> {
    /// Reads the head of a trace.
    ///
    /// # Errors
    /// When this is no trace, or none that can be read.
    pub fn new(input: R) -> Result<Self, Error> {
        Self::with_limits(input, &Limits::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_limits(mut input: R, limits: &Limits) -> Result<Self, Error> {
        let (header, next) = Header::read(&mut input, limits)?;
        let block = Vec::new();
        Ok(Self { input, header, block, at: 0, last: Last::default(), number: 0, offset: 0, next, inputs: 0, end: None })
    }

    /// How the recorded core was set up.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How the trace ends; `None` while there may be more.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Inputs read.
    #[must_use]
    pub fn inputs(&self) -> u64 {
        self.inputs
    }

    pub(crate) fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged { offset: self.offset, what }
    }

    /// The next record; `None` at the end, of which [`end`](Self::end) tells the kind.
    ///
    /// # Errors
    /// When the trace is damaged or cannot be read. There is no going on then.
    #[expect(clippy::should_implement_trait, reason = "a record borrows from the reader: no iterator can give it")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        while self.end.is_none() && self.at >= self.block.len() {
            self.load()?;
        }
        if self.end.is_some() {
            return Ok(None);
        }
        let mut get = Get { rest: self.block.get(self.at..).unwrap_or_default(), last: &mut self.last };
        let record = Record::get(&mut get).map_err(|bad| Error::Damaged { offset: self.offset, what: bad.0 })?;
        self.at = self.block.len() - get.rest.len();
        match &record {
            Record::Input(_) => self.inputs += 1,
            Record::End(inputs) => {
                let more = self.at < self.block.len() || self.input.read(&mut [0])? != 0;
                if more || *inputs != self.inputs {
                    return Err(Error::Damaged { offset: self.offset, what: "the end of the recording is not where it belongs" });
                }
                self.end = Some(End::Whole);
                return Ok(None);
            }
            _ => {}
        }
        Ok(Some(record))
    }

    /// Contents of the first block of a trace nothing was read of; empty when there is none.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn first_block(mut self) -> Vec<u8> {
        let _ = self.load();
        self.block
    }

    fn load(&mut self) -> Result<(), Error> {
        self.at = 0;
        self.offset = self.next;
        match block::read(&mut self.input, self.number, self.offset, &mut self.block)? {
            Next::Block(size) => {
                self.next += size;
                self.number = self.number.wrapping_add(1);
            }
            Next::End | Next::Cut => {
                self.block.clear();
                self.end = Some(End::Cut(self.offset));
            }
        }
        Ok(())
    }
}
