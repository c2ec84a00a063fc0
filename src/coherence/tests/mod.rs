//! Tests of the core as a whole: a machine of RAM, a CPU and two devices, without a guest.

mod alias;
mod bus;
mod faults;
mod fixture;
mod flights;
mod idioms;
mod life;
mod limits;
mod lines;
mod maps;
mod model;
mod ownership;
mod regressions;
mod syncs;
mod view;
mod watch;
mod watched;
