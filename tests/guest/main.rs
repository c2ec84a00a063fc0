//! Whole command lines and real guests: a stock kernel, the reference driver, and everything that can go wrong.

mod expect;
mod machines;
mod mistakes;
mod tool;
mod variants;
