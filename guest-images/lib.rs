//! Guest images: kernels from the distribution's archive, the agent and drivers compiled for them, initramfs archives.
//!
//! Nothing is ever installed on the host and nothing needs privileges: packages are unpacked into a cache ([`cache::Cache`]), modules are
//! compiled against the unpacked headers, and the result is packed into archives a guest boots from.

#![forbid(unsafe_code)]

pub mod apt;
pub mod bzimage;
pub mod cache;
pub mod compress;
pub mod cpio;
pub mod hash;
pub mod initramfs;
pub mod kernel;
pub mod modinfo;
pub mod modtree;
pub mod module;
pub mod patch;
pub mod progress;
pub mod qemu;
pub mod sources;
