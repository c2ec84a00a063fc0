//! The coherence core: see DESIGN.md section 4 of the project's design.
#![forbid(unsafe_code)]

pub mod call;
pub mod ids;
pub mod site;
