//! Why a trace cannot be read or written.

use std::io;

/// What is wrong with a trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system failed to read or write.
    #[error("the trace could not be read or written: {0}")]
    Io(#[from] io::Error),
    /// The file does not begin as a trace does.
    #[error("this is not a trace of dmavet")]
    NotATrace,
    /// A later dmavet wrote it.
    #[error("the trace has version {found}, this dmavet reads version {known}")]
    Version {
        /// Version of the file.
        found: u16,
        /// The one that can be read.
        known: u16,
    },
    /// Contents and checksums do not agree, or the contents make no sense.
    #[error("the trace is damaged at offset {offset}: {what}")]
    Damaged {
        /// Offset in the file of the block (or of the header) concerned.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// It ends before its header does: there is nothing to use.
    #[error("the trace ends at offset {0}, within its header")]
    NoHeader(u64),
    /// Something in it is larger than what is read or written.
    #[error("{what} of the trace is larger than the {limit} that are supported")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The core refused the configuration.
    #[error("the configuration in the trace is not accepted: {0}")]
    Core(#[from] dmavet_coherence::Error),
    /// Memory for the replay's guest RAM could not be had.
    #[error("no memory for the {bytes:#x} bytes of guest RAM of the trace: {what}")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
        /// The system's reason.
        what: String,
    },
    /// Recording was stopped earlier.
    #[error("recording stopped: {0}")]
    Stopped(String),
}
