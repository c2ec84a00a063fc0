//! String instructions.

use crate::selfcheck::form::reg::{RAX, RCX, RDI, RSI};
use crate::selfcheck::form::{DF, Form};
use crate::selfcheck::layout::{A, B, P, port};

const A0: u64 = A.gva();
const P0: u64 = P.gva();

/// The port of `ins` and `outs`.
const PORT: u64 = (port::BASE + port::STRING) as u64;

pub fn forms() -> Vec<Form> {
    let (rdx, end) = (crate::selfcheck::form::reg::RDX, A0 + 0x1000);
    vec![
        Form::new("movsb", |a| a.movsb()),
        Form::new("movsw", |a| a.movsw()),
        Form::new("movsd", |a| a.movsd()),
        Form::new("movsq", |a| a.movsq()),
        Form::new("movsq backwards", |a| a.movsq()).flags(DF),
        Form::new("rep movsb", |a| a.rep().movsb()).with(RCX, 200),
        Form::new("rep movsb of nothing", |a| a.rep().movsb()).with(RCX, 0).quiet(),
        Form::new("rep movsw backwards", |a| a.rep().movsw()).with(RCX, 33).with(RSI, A0 + 0x2f0).with(RDI, A0 + 0x8f0).flags(DF),
        Form::new("rep movsd", |a| a.rep().movsd()).with(RCX, 61),
        Form::new("rep movsq", |a| a.rep().movsq()).with(RCX, 100),
        Form::new("rep movsq from open memory", |a| a.rep().movsq()).with(RSI, P0 + 0x200).with(RCX, 100),
        Form::new("rep movsb to open memory", |a| a.rep().movsb()).with(RDI, P0 + 0x333).with(RCX, 300),
        Form::new("rep movsb across pages", |a| a.rep().movsb()).with(RSI, end - 100).with(RDI, A0 + 0x100).with(RCX, 300),
        Form::new("rep movsb to the next page", |a| a.rep().movsb()).with(RSI, A0 + 0x100).with(RDI, end - 77).with(RCX, 300),
        Form::new("rep movsq with an item across pages", |a| a.rep().movsq()).with(RSI, A0 + 0x100).with(RDI, end - 20).with(RCX, 8),
        Form::new("rep movsb backwards across pages", |a| a.rep().movsb())
            .with(RSI, end + 50)
            .with(RDI, A0 + 0x800)
            .with(RCX, 120)
            .flags(DF),
        Form::new("rep movsb overlapping upwards", |a| a.rep().movsb()).with(RSI, A0 + 0x200).with(RDI, A0 + 0x203).with(RCX, 100),
        Form::new("rep movsq overlapping downwards", |a| a.rep().movsq()).with(RSI, A0 + 0x208).with(RDI, A0 + 0x203).with(RCX, 40),
        Form::new("stosb", |a| a.stosb()),
        Form::new("stosd", |a| a.stosd()),
        Form::new("rep stosb", |a| a.rep().stosb()).with(RCX, 500),
        Form::new("rep stosw", |a| a.rep().stosw()).with(RCX, 77),
        Form::new("rep stosd backwards", |a| a.rep().stosd()).with(RCX, 30).flags(DF),
        Form::new("rep stosq a whole page and more", |a| a.rep().stosq()).with(RDI, A0 + 0x400).with(RCX, 512),
        Form::new("lodsb", |a| a.lodsb()),
        Form::new("lodsd", |a| a.lodsd()),
        Form::new("lodsq backwards", |a| a.lodsq()).flags(DF),
        Form::new("rep lodsw", |a| a.rep().lodsw()).with(RCX, 20),
        Form::new("scasb", |a| a.scasb()),
        Form::new("repne scasb finds", |a| a.repne().scasb()).with(RCX, 300).with(RAX, 0xee).poke(0x8f0, &[0xee]),
        Form::new("repne scasb finds across pages", |a| a.repne().scasb()).with(RDI, end - 30).with(RCX, 300).with(RAX, 0xee).poke_at(
            B,
            0x20,
            &[0xee],
        ),
        Form::new("repe scasd", |a| a.repe().scasd()).with(RCX, 20).with(RAX, 0).poke(0x800, &[0; 40]),
        Form::new("repne scasq runs out, backwards", |a| a.repne().scasq()).with(RCX, 9).flags(DF),
        Form::new("cmpsb", |a| a.cmpsb()),
        Form::new("cmpsq", |a| a.cmpsq()).poke(0x200, &[1; 8]).poke(0x800, &[1; 8]),
        Form::new("repe cmpsb differs", |a| a.repe().cmpsb()).with(RCX, 100).poke(0x200, &[5; 64]).poke(0x800, &[5; 60]),
        Form::new("repe cmpsd runs out", |a| a.repe().cmpsd()).with(RCX, 10).poke(0x200, &[5; 64]).poke(0x800, &[5; 64]),
        Form::new("repne cmpsw backwards", |a| a.repne().cmpsw()).with(RCX, 10).flags(DF),
        Form::new("rep outsb", |a| a.rep().outsb()).with(RCX, 12).with(rdx, PORT),
        Form::new("rep insd", |a| a.rep().insd()).with(RCX, 6).with(rdx, PORT),
    ]
}
