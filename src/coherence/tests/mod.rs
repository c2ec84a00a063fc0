//! Tests of the core as a whole: a machine of RAM, a CPU and two devices, without a guest.

mod bus;
mod fixture;
mod idioms;
mod life;
mod limits;
mod lines;
mod model;
mod ownership;
mod regressions;
mod view;
mod watch;
mod watched;
