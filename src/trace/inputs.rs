//! Inputs of the core as they lie in a record.

use crate::calls::{END_TAG, FIRST_TAG};
use crate::code::{Bad, Get, Put};
use dmavet_coherence::{CpuAccess, Frame, Input, Intent, Outcome};
use std::borrow::Cow;

const ADD_DEVICE: u8 = 0x10;
const BUS_MASTER: u8 = 0x11;
const KICK: u8 = 0x12;
const RESET: u8 = 0x13;
const BLIND_SPOT: u8 = 0x14;
const GATE: u8 = 0x15;
const SIGNALLED: u8 = 0x16;
const CPU_ACCESS: u8 = 0x17;
const ABANDON_PAGE: u8 = 0x18;
const SITE: u8 = 0x19;
const VIEW: u8 = 0x1a;
const CONSUME: u8 = 0x1b;
const STATS: u8 = 0x1c;
const FINISH: u8 = 0x1d;
const BEGIN: u8 = 0x1e;
const END_FLIGHT: u8 = 0x1f;
/// Accesses of devices are the most frequent records: what kind they are is in the tag. Bit 0 read, 1 write, 2 and 3 what for,
/// 4 and 5 how it went.
const ACCESS: u8 = 0x40;

/// The most frames of a stack.
const MAX_FRAMES: usize = 256;

fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Refused => 1,
        Outcome::Broken => 2,
    }
}

fn outcome(code: u8) -> Result<Outcome, Bad> {
    [Outcome::Done, Outcome::Refused, Outcome::Broken].get(usize::from(code)).copied().ok_or(Bad("an outcome that does not exist"))
}

impl Put<'_> {
    pub(crate) fn stack(&mut self, stack: &[Frame]) {
        self.length(stack.len());
        for Frame { address, symbol, reliable, exact } in stack {
            self.near(*address, |last| &mut last.code);
            self.flag(*reliable);
            self.flag(*exact);
            self.text(symbol);
        }
    }

    pub(crate) fn input(&mut self, input: &Input<'_>) {
        match input {
            Input::AddDevice { requester, model } => {
                self.byte(ADD_DEVICE);
                self.requester(*requester);
                self.text(model);
            }
            Input::Call { caller, call, answer } => self.call(caller, call, answer),
            Input::BusMaster { requester, on } => {
                self.byte(BUS_MASTER);
                self.requester(*requester);
                self.flag(*on);
            }
            Input::Kick { requester, site } => {
                self.byte(KICK);
                self.requester(*requester);
                self.site(*site);
            }
            Input::Reset { requester } => {
                self.byte(RESET);
                self.requester(*requester);
            }
            Input::BlindSpot { what } => {
                self.byte(BLIND_SPOT);
                self.text(what);
            }
            Input::Gate => self.byte(GATE),
            Input::Signalled { requester } => {
                self.byte(SIGNALLED);
                self.requester(*requester);
            }
            Input::CpuAccess { accesses, cpu, user, rip, innocent } => {
                self.byte(CPU_ACCESS);
                self.byte(u8::from(*user) | u8::from(*innocent) << 1);
                self.number((*cpu).into());
                self.near(*rip, |last| &mut last.code);
                self.length(accesses.len());
                for CpuAccess { gpa, len, read, write } in accesses.iter() {
                    self.gpa(*gpa);
                    self.number(u64::from(*len) << 2 | u64::from(*read) | u64::from(*write) << 1);
                }
            }
            Input::AbandonPage { page, why } => {
                self.byte(ABANDON_PAGE);
                self.gpa(*page);
                self.text(why);
            }
            Input::Site { stack, site } => {
                self.byte(SITE);
                self.site(*site);
                self.stack(stack);
            }
            Input::View { requester } => {
                self.byte(VIEW);
                self.requester(*requester);
            }
            Input::Access { requester, iova, len, read, write, intent, outcome } => {
                let intent = match intent {
                    Intent::Use => 0,
                    Intent::Poll => 1,
                    Intent::Prefetch => 2,
                };
                self.byte(ACCESS | u8::from(*read) | u8::from(*write) << 1 | intent << 2 | outcome_code(*outcome) << 4);
                self.requester(*requester);
                self.iova(*iova);
                self.number(*len);
            }
            Input::Consume { requester, iova, len, outcome } => {
                self.byte(CONSUME);
                self.byte(outcome_code(*outcome));
                self.requester(*requester);
                self.iova(*iova);
                self.number(*len);
            }
            Input::Begin { requester, iova, len, number } => {
                self.byte(BEGIN);
                self.requester(*requester);
                self.iova(*iova);
                self.number(*len);
                self.number(*number);
            }
            Input::EndFlight { number } => {
                self.byte(END_FLIGHT);
                self.number(*number);
            }
            Input::Stats => self.byte(STATS),
            Input::Finish => self.byte(FINISH),
        }
    }
}

impl<'a> Get<'a, '_> {
    fn borrowed(&mut self) -> Result<Cow<'a, str>, Bad> {
        self.text().map(Cow::Borrowed)
    }

    pub(crate) fn stack(&mut self) -> Result<Vec<Frame>, Bad> {
        let count = self.count(3)?;
        if count > MAX_FRAMES {
            return Err(Bad("a call stack of too many frames"));
        }
        let frame = |_| {
            let address = self.near(|last| &mut last.code)?;
            Ok(Frame { address, reliable: self.flag()?, exact: self.flag()?, symbol: self.text()?.to_owned() })
        };
        (0..count).map(frame).collect()
    }

    /// The input of a tag, which was read already.
    pub(crate) fn input(&mut self, tag: u8) -> Result<Input<'a>, Bad> {
        Ok(match tag {
            ADD_DEVICE => Input::AddDevice { requester: self.requester()?, model: self.borrowed()? },
            FIRST_TAG..END_TAG => {
                let (caller, call, answer) = self.call(tag)?;
                Input::Call { caller, call: Cow::Owned(call), answer: Cow::Owned(answer) }
            }
            BUS_MASTER => Input::BusMaster { requester: self.requester()?, on: self.flag()? },
            KICK => Input::Kick { requester: self.requester()?, site: self.site()? },
            RESET => Input::Reset { requester: self.requester()? },
            BLIND_SPOT => Input::BlindSpot { what: self.borrowed()? },
            GATE => Input::Gate,
            SIGNALLED => Input::Signalled { requester: self.requester()? },
            CPU_ACCESS => {
                let flags = self.byte()?;
                let (cpu, rip) = (self.small()?, self.near(|last| &mut last.code)?);
                let accesses = (0..self.count(2)?).map(|_| self.cpu_access()).collect::<Result<Vec<_>, Bad>>()?;
                Input::CpuAccess { accesses: Cow::Owned(accesses), cpu, user: flags & 1 != 0, rip, innocent: flags & 2 != 0 }
            }
            ABANDON_PAGE => Input::AbandonPage { page: self.gpa()?, why: self.borrowed()? },
            SITE => Input::Site { site: self.site()?, stack: Cow::Owned(self.stack()?) },
            VIEW => Input::View { requester: self.requester()? },
            CONSUME => {
                let outcome = outcome(self.byte()?)?;
                Input::Consume { requester: self.requester()?, iova: self.iova()?, len: self.number()?, outcome }
            }
            BEGIN => Input::Begin { requester: self.requester()?, iova: self.iova()?, len: self.number()?, number: self.number()? },
            END_FLIGHT => Input::EndFlight { number: self.number()? },
            STATS => Input::Stats,
            FINISH => Input::Finish,
            ACCESS..=0x7f => {
                let intents = [Intent::Use, Intent::Poll, Intent::Prefetch];
                let intent = intents.get(usize::from(tag >> 2 & 3)).copied().ok_or(Bad("an intent that does not exist"))?;
                Input::Access {
                    requester: self.requester()?,
                    iova: self.iova()?,
                    len: self.number()?,
                    read: tag & 1 != 0,
                    write: tag & 2 != 0,
                    intent,
                    outcome: outcome(tag >> 4 & 3)?,
                }
            }
            _ => return Err(Bad("a record of a kind that does not exist")),
        })
    }

    fn cpu_access(&mut self) -> Result<CpuAccess, Bad> {
        let gpa = self.gpa()?;
        let raw = self.number()?;
        let len = u32::try_from(raw >> 2).map_err(|_| Bad("an access of more than 4 GiB"))?;
        Ok(CpuAccess { gpa, len, read: raw & 1 != 0, write: raw & 2 != 0 })
    }
}
