//! A capability through which configuration accesses reach a BAR: `VIRTIO_PCI_CAP_PCI_CFG` (virtio 1.2 section 4.1.4.9), for software
//! that cannot map BARs. `bar`, `offset` and `length` of the capability say what an access of its data bytes means.

use super::config::ConfigSpace;

// Offsets in the capability.
const BAR: usize = 4;
const OFFSET: usize = 8;
const LENGTH: usize = 12;
const DATA: usize = 16;

/// Where the capability lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window(usize);

/// What an access of the window's data bytes is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowAccess {
    pub(super) bar: usize,
    pub(super) offset: u64,
    /// 1, 2 or 4.
    pub(super) len: usize,
    /// Where the data bytes lie in configuration space.
    pub(super) data: usize,
}

impl Window {
    /// Number of data bytes.
    pub(super) const DATA: usize = 4;

    pub(super) const fn new(capability: usize) -> Self {
        Self(capability)
    }

    /// The access to a BAR that an access of `len` bytes of configuration space at `offset` stands for.
    pub(super) fn access(self, config: &ConfigSpace, offset: usize, len: usize) -> Option<WindowAccess> {
        let data = self.0 + DATA;
        if offset.checked_add(len)? <= data || offset >= data + Self::DATA {
            return None;
        }
        let dword = |at: usize| {
            let mut bytes = [0; 4];
            config.read(self.0 + at, &mut bytes);
            u32::from_le_bytes(bytes)
        };
        let mut bar = [0];
        config.read(self.0 + BAR, &mut bar);
        let (to, length) = (dword(OFFSET), dword(LENGTH));
        // The driver must name 1, 2 or 4 bytes, naturally aligned; for anything else there is no access to make.
        let fine = matches!(length, 1 | 2 | 4) && to.is_multiple_of(length);
        fine.then_some(WindowAccess { bar: usize::from(bar[0]), offset: u64::from(to), len: usize::try_from(length).ok()?, data })
    }
}
