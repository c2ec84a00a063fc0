//! Whole command lines and real guests: a stock kernel, the reference driver, and everything that can go wrong.

#[expect(dead_code, reason = "the tests of reports use the rest")]
mod bench;
mod campaign;
mod conformance;
mod desk;
mod devices;
mod expect;
mod hostile;
mod machines;
mod mistakes;
mod platform;
mod record;
mod rules;
mod stacks;
mod stress;
mod tool;
mod traces;
mod variants;
mod watch;
