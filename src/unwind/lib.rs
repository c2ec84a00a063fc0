//! A guest kernel's code as the host knows it: names for addresses, and call stacks from registers and memory.
//!
//! [`KernelImage`] reads the kernel the guest boots: the symbol table in its kallsyms tables and the ORC unwind tables, both of
//! which a stock kernel carries even when it is stripped. [`ModuleImage`] reads the same from a module file. [`CodeMap`] puts them
//! where the guest has them, names addresses as the kernel's `%pS` does, and unwinds. The guest takes no part in that.
//!
//! Addresses are guest kernel virtual addresses. The guest is hostile: its memory, the module layouts it announces and the images
//! themselves may hold anything; all work is bounded and nothing panics.
//!
//! Not found: stacks below a kretprobe or a function-graph trampoline (the kernel keeps the real return addresses elsewhere). Code
//! without unwind tables (BPF, ftrace trampolines, modules of unknown origin) is crossed by guessing, and all frames from there on
//! are marked as guesses.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod allocator;
mod bytes;
mod kallsyms;
mod kernel;
mod map;
mod module;
mod orc;
mod stack;

pub use kernel::{ImageError, KernelImage};
pub use map::{CodeMap, Layout};
pub use module::ModuleImage;
pub use stack::{Frame, Registers};
