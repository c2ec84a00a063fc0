//! PCI device models, generic over the memory they do DMA to.
#![forbid(unsafe_code)]

pub mod bus;
