//! Records: what a trace is made of.
//!
//! Everything the core took in while it dealt with an input stands before the record of that input.

use crate::code::{Bad, Get, Last, Put};
use crate::shadow::PAGE;
use dmavet_coherence::{Frame, Gpa, Input};
use std::borrow::Cow;

const PATCH: u8 = 1;
const TIME: u8 = 2;
const STORED: u8 = 3;
const REFUSED: u8 = 4;
const STACK: u8 = 5;
const IN_DRIVER: u8 = 6;
const ALLOCATOR: u8 = 7;
const FORGET: u8 = 8;
const NOTE: u8 = 9;
const END: u8 = 10;
const INJECTED: u8 = 11;

/// Bytes of a page of guest RAM that are not what they were when the core last had to do with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch<'a> {
    /// Number of the page: its guest physical address divided by 4096.
    pub page: u64,
    /// How often the core turned to guest RAM in the same input before; 0 when the page had not been touched in the input: then
    /// the bytes count from the beginning of the input.
    pub after: u64,
    /// Offsets in the page and what is there.
    pub runs: Vec<(u16, Cow<'a, [u8]>)>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Guest RAM changed.
    Patch(Patch<'a>),
    /// The core asked for the time: nanoseconds since its start.
    Time(u64),
    /// What a device wrote: offset in its access, bytes.
    Stored(u64, Cow<'a, [u8]>),
    /// The gate refused pages: how often it was called in the same input before, pages.
    Refused(u64, Vec<Gpa>),
    /// The stack a witness told.
    Stack(Vec<Frame>),
    /// Whether a witness saw the driver.
    InDriver(bool),
    /// The allocator's function a witness saw.
    Allocator(Option<Cow<'a, str>>),
    /// The plan for failures made the call fail.
    Injected,
    /// Nothing is known of guest RAM any more: the next patches begin from zeros.
    Forget,
    /// An input.
    Input(Input<'a>),
    /// Something for people or programs beside the core, by name.
    Note(Cow<'a, str>, Cow<'a, [u8]>),
    /// The recording ended in good order after so many inputs.
    End(u64),
}

impl Record<'_> {
    pub(crate) fn put(&self, put: &mut Put<'_>) {
        match self {
            Self::Patch(Patch { page, after, runs }) => {
                put.byte(PATCH);
                put.near(*page, |last| &mut last.page);
                put.number(*after);
                put.length(runs.len());
                for (start, bytes) in runs {
                    put.number((*start).into());
                    put.bytes(bytes);
                }
            }
            Self::Time(now) => {
                put.byte(TIME);
                put.near(*now, |last| &mut last.time);
            }
            Self::Stored(offset, bytes) => {
                put.byte(STORED);
                put.number(*offset);
                put.bytes(bytes);
            }
            Self::Refused(after, pages) => {
                put.byte(REFUSED);
                put.number(*after);
                put.length(pages.len());
                pages.iter().for_each(|page| put.gpa(*page));
            }
            Self::Stack(stack) => {
                put.byte(STACK);
                put.stack(stack);
            }
            Self::InDriver(yes) => {
                put.byte(IN_DRIVER);
                put.flag(*yes);
            }
            Self::Allocator(function) => {
                put.byte(ALLOCATOR);
                put.flag(function.is_some());
                if let Some(function) = function {
                    put.text(function);
                }
            }
            Self::Injected => put.byte(INJECTED),
            Self::Forget => put.byte(FORGET),
            Self::Input(input) => put.input(input),
            Self::Note(name, value) => {
                put.byte(NOTE);
                put.text(name);
                put.bytes(value);
            }
            Self::End(inputs) => {
                put.byte(END);
                put.number(*inputs);
            }
        }
    }

    /// The record as bytes, on its own.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (mut out, mut last) = (Vec::new(), Last::default());
        self.put(&mut Put { out: &mut out, last: &mut last });
        out
    }
}

impl<'a> Record<'a> {
    pub(crate) fn get(get: &mut Get<'a, '_>) -> Result<Self, Bad> {
        Ok(match get.byte()? {
            PATCH => Self::Patch(Patch {
                page: get.near(|last| &mut last.page)?,
                after: get.number()?,
                runs: (0..get.count(2)?).map(|_| run(get)).collect::<Result<_, Bad>>()?,
            }),
            TIME => Self::Time(get.near(|last| &mut last.time)?),
            STORED => Self::Stored(get.number()?, Cow::Borrowed(get.bytes()?)),
            REFUSED => Self::Refused(get.number()?, (0..get.count(1)?).map(|_| get.gpa()).collect::<Result<_, Bad>>()?),
            STACK => Self::Stack(get.stack()?),
            IN_DRIVER => Self::InDriver(get.flag()?),
            ALLOCATOR => Self::Allocator(if get.flag()? { Some(Cow::Borrowed(get.text()?)) } else { None }),
            INJECTED => Self::Injected,
            FORGET => Self::Forget,
            NOTE => Self::Note(Cow::Borrowed(get.text()?), Cow::Borrowed(get.bytes()?)),
            END => Self::End(get.number()?),
            tag => Self::Input(get.input(tag)?),
        })
    }

    /// Reads one record that stands on its own; `None` when it makes no sense or something follows it.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let mut last = Last::default();
        let mut get = Get { rest: bytes, last: &mut last };
        Self::get(&mut get).ok().filter(|_| get.rest.is_empty())
    }
}

fn run<'a>(get: &mut Get<'a, '_>) -> Result<(u16, Cow<'a, [u8]>), Bad> {
    let start = u16::try_from(get.number()?).map_err(|_| Bad("a change outside its page"))?;
    let bytes = get.bytes()?;
    if usize::from(start) + bytes.len() > PAGE { Err(Bad("a change outside its page")) } else { Ok((start, Cow::Borrowed(bytes))) }
}
