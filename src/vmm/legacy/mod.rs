//! The few devices of a PC that a stock kernel cannot do without.

pub mod power;
pub mod serial;
