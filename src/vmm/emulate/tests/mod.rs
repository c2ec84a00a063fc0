//! Tests of the emulator. The reference is the CPU the tests run on.

#![expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "random bits are cut to size")]

mod differential;
mod forms;
mod machine;
mod native;
mod operands;
mod random;
mod speed;
mod walk;
